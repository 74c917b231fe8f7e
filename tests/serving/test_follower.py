"""Following the release link: what is loaded, what is refused, what stays in service."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from tasks import releases
from tasks.bundle import CARD, METRICS, MODEL, REFERENCE, REPORT, Bundle, open_bundle, write_bundle
from tasks.params import Settings
from tasks.schema import Serve
from tasks.serving.follower import Follower

PARAMS = Serve(max_batch=4, max_wait_ms=1.0, max_images=4, max_upload_mb=1.0, max_queue=8)


@pytest.fixture
def follower(settings: Settings) -> Iterator[Follower]:
    with ThreadPoolExecutor(1) as executor:
        yield Follower(settings, PARAMS, executor)


def poll(follower: Follower) -> Follower:
    asyncio.run(follower.poll())
    return follower


def test_nothing_to_serve_is_explained(follower, settings) -> None:
    assert poll(follower).model is None
    assert str(settings.releases) in follower.reason


def test_an_unchanged_release_is_not_loaded_again(follower, settings, digits_bundle) -> None:
    releases.publish(digits_bundle, 1, settings)
    model = poll(follower).model
    assert model is not None
    assert poll(follower).model is model
    releases.publish(digits_bundle, 2, settings)
    assert poll(follower).model is not model
    assert follower.model.version == 2


def test_releases_of_different_runtimes_follow_each_other(
    follower, settings, make_bundle, digit_images
) -> None:
    first = make_bundle(name="first")
    served = []
    for version, bundle in (
        (1, first),
        (2, make_bundle(name="second", runtime="openvino")),
        (3, first),
    ):
        releases.publish(bundle, version, settings)
        served.append(poll(follower).model)
    assert [model.bundle.runtime for model in served] == ["onnxruntime", "openvino", "onnxruntime"]
    one, other, again = (
        asyncio.run(model.batcher.submit(list(digit_images[:7]))) for model in served
    )  # of all: a request in flight finishes on the model that it began with
    for a, b, c in zip(one, other, again, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)
        np.testing.assert_array_equal(a.probabilities, c.probabilities)


def test_a_link_to_something_else_is_refused(follower, settings, digits_bundle) -> None:
    releases.publish(digits_bundle, 1, settings)
    poll(follower)
    link = settings.releases / "current"
    link.unlink()
    link.symlink_to("elsewhere")
    assert poll(follower).refused.version is None
    assert "elsewhere" in follower.refused.reason
    assert follower.model.version == 1


def altered(
    bundle: Bundle, settings: Settings, change: Callable[[onnx.ModelProto], None]
) -> Bundle:
    """A bundle with another graph, properly signed."""
    model = onnx.load(bundle.path / MODEL)
    change(model)

    def fill(directory) -> None:
        onnx.save(model, directory / MODEL)
        for name in (REFERENCE, REPORT, CARD, METRICS):
            (directory / name).write_bytes((bundle.path / name).read_bytes())

    path = bundle.path.with_name("altered")
    write_bundle(path, bundle.info, settings, fill)
    return open_bundle(path, settings)


def unnormalised(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "LogSoftmax"


def unknown_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "Softmix"


def not_a_number(model: onnx.ModelProto) -> None:
    bias = next(value for value in model.graph.initializer if value.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.nan, np.float32), "bias"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unnormalised, "do not sum to 1"),
        (unknown_operator, "cannot be run"),
        (not_a_number, "do not sum to 1"),
    ],
)
def test_a_signed_model_that_does_not_work_is_refused(
    follower, settings, digits_bundle, change, said
) -> None:
    """The signature says who made it, not that it works: it must predict before it serves."""
    releases.publish(digits_bundle, 1, settings)
    poll(follower)
    releases.publish(altered(digits_bundle, settings, change), 2, settings)
    assert poll(follower).refused.version == 2
    assert said in follower.refused.reason
    assert follower.model.version == 1
