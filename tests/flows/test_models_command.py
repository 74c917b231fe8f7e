"""`visionloop models`: real networks, measured."""

import json

import pytest

from tasks.training.models import ModelSpec, build
from tasks.training.threads import macs


def test_the_costs_of_named_architectures(repository, visionloop):
    result = visionloop("models", "resnet_small", "mobilenet_v3_small", "--size", "32", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["size"], found["classes"]) == (32, 10)
    small, mobile = found["models"]
    assert (small["name"], mobile["name"]) == ("resnet_small", "mobilenet_v3_small")
    for cost in (small, mobile):
        assert 0 < cost["latency_ms"] <= cost["latency_p95_ms"]
        assert cost["size_bytes"] > 4 * 0.9 * cost["parameters"]
    assert mobile["parameters"] > 10 * small["parameters"]


def test_the_table_takes_size_from_the_parameters_and_says_what_cannot_be(repository, visionloop):
    result = visionloop("models", "resnet_small", "vit_b_32", "--classes", "3", "--size", "97")
    assert result.exit_code == 0, result.stderr
    assert "97×97 pixels, 3 classes" in result.stdout
    assert "vit_b_32: prepare.size 97 cannot be divided" in result.stdout


def test_an_unknown_name_is_refused_with_the_known(repository, visionloop):
    result = visionloop("models", "resnet19")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 'resnet19' is no architecture; there are resnet_small,")


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2", "vit_b_32"])
def test_macs_are_those_that_torchvision_publishes(architecture):
    """Its "GFLOPS" count a multiply-accumulate once; ten classes are a little less than 1000."""
    import torchvision

    published = torchvision.models.get_model_weights(architecture).DEFAULT.meta["_ops"] * 1e9
    spec = ModelSpec(
        architecture=architecture, width=8, depth=1, classes=tuple("0123456789"), size=224,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    assert macs(build(spec).eval(), 224) == pytest.approx(published, rel=0.02)
