import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.errors import TrainingError
from tasks.training.models import (
    ModelSpec,
    build,
    channel_moments,
    load_model,
    normalise,
    save_model,
)

# One of each family, the smallest; what they share is tested once.
FAMILIES = [
    "resnet_small", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small",
    "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "vit_b_32",
]  # fmt: skip


def make_spec(architecture: str = "resnet_small", size: int = 16, **values: object) -> ModelSpec:
    return ModelSpec(
        architecture=architecture,
        width=8,
        depth=1,
        classes=("a", "b", "c"),
        size=size,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        **values,
    )


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_architecture_embeds_classifies_and_learns(architecture: str, size: int):
    spec = make_spec(architecture, size)
    model = build(spec)
    x = normalise(torch.from_numpy(images(3, size)), spec)
    embedding = model.embed(x)
    logits = model.head(embedding)
    assert embedding.ndim == 2
    assert logits.shape == (3, 3)
    logits.square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []
    model.eval()
    torch.testing.assert_close(model(x), model.head(model.embed(x)))


@pytest.mark.parametrize("architecture", FAMILIES[1:-1])
def test_small_images_keep_an_eighth_of_their_resolution(architecture: str):
    shapes = []
    model = build(make_spec(architecture, 32)).eval()
    last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1][-1]
    if architecture == "convnext_tiny":  # whose last layers are linear
        last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    last.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[2:]))
    model(torch.zeros(1, 3, 32, 32))
    assert shapes == [(4, 4)]


@pytest.mark.parametrize(
    ("architecture", "size", "tokens"),
    [("vit_b_16", 32, 64), ("vit_b_32", 28, 49), ("vit_b_16", 96, 64), ("vit_b_16", 224, 196)],
)
def test_a_transformers_patches_divide_the_image(architecture: str, size: int, tokens: int):
    with torch.device("meta"):
        model = build(make_spec(architecture, size))
    assert model.backbone.encoder.pos_embedding.shape[1] == tokens + 1


def test_a_size_without_patches_is_named_with_its_neighbours():
    with pytest.raises(TrainingError, match=r"prepare\.size 97 .* 96 or 104"):
        build(make_spec("vit_b_32", 97))


@pytest.mark.parametrize("architecture", [*FAMILIES[:2], *FAMILIES[3:]])
def test_the_activation_is_replaced_everywhere_but_in_gates(architecture: str):
    torch.manual_seed(0)
    model = build(make_spec(architecture, 32, activation="tanh"))
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Tanh" in kinds
    assert kinds.isdisjoint({"ReLU", "ReLU6", "SiLU", "GELU", "Hardswish"})
    plain = {type(module).__name__ for module in build(make_spec(architecture, 32)).modules()}
    assert kinds & {"Sigmoid", "Hardsigmoid"} == plain & {"Sigmoid", "Hardsigmoid"}


@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "silu", "gelu", "hardswish", "tanh", "sigmoid"]
)
def test_the_initialisation_keeps_signals_alive_through_any_activation(activation: str):
    """Without its batch norms, which would hide it, a deep stack neither dies nor explodes."""
    from tasks.training.activations import use_activation

    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(10):
        layers += [torch.nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(64))
    use_activation(network, activation)
    x = torch.randn(4, 64, 12, 12)
    out = network[:-1](x).detach()
    assert type(network[1]).__name__.lower() == activation.replace("_", "")
    assert 0.02 < float(out.std()) < 5 or activation == "sigmoid"
    if activation == "relu":  # He et al.: the same scale in every layer
        assert 0.5 < float(out.square().mean() / x.square().mean()) < 2
    weight = network[0].weight
    gain = {"tanh": 5 / 3, "sigmoid": 1.0}.get(activation, 2**0.5)
    assert float(weight.detach().std()) == pytest.approx(gain / (64 * 9) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("architecture", "own"), [("resnet18", 0.0), ("mobilenet_v3_small", 0.2), ("vit_b_32", 0.0)]
)
def test_dropout_is_the_architectures_own_or_the_given(architecture: str, own: float):
    with torch.device("meta"):
        assert build(make_spec(architecture, 32)).dropout.p == own
        assert build(make_spec(architecture, 32, dropout=0.5)).dropout.p == 0.5


@pytest.mark.parametrize("architecture", FAMILIES)
def test_stochastic_depth_skips_branches_of_single_images_in_training_only(architecture: str):
    spec = make_spec(architecture, 16, stochastic_depth=0.9, dropout=0.0)
    torch.manual_seed(0)
    model = build(spec).train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model(torch.randn(16, 3, 16, 16))
    for norm in norms:
        norm.eval()  # else the images of a batch would differ by each other's company
    if architecture == "convnext_tiny":  # its branches start at a millionth
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                torch.nn.init.ones_(parameter)
    x = torch.randn(1, 3, 16, 16).expand(12, -1, -1, -1)
    assert len({row.numpy().tobytes() for row in model(x).detach()}) > 1
    still = copy.deepcopy(model).eval()  # of its own mode, whatever the original does
    first, *others = still(x).detach()
    assert all(torch.allclose(first, other, atol=1e-5) for other in others)
    assert still.state_dict().keys() == build(make_spec(architecture, 16)).state_dict().keys()


def test_saved_model_gives_the_same_logits(tmp_path: Path):
    spec = make_spec()
    model = build(spec)
    x = normalise(torch.from_numpy(images(4, 16)), spec)
    model(x)  # moves the batch-norm statistics, which must be kept too
    save_model(tmp_path, model, spec)
    loaded, same = load_model(tmp_path)
    assert same == spec
    assert torch.equal(loaded(x), model.eval()(x))


def test_a_damaged_model_is_named(tmp_path: Path):
    save_model(tmp_path, build(make_spec()), make_spec())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=str(tmp_path)):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(TrainingError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_normalise_is_zero_mean_and_unit_deviation_in_channels_last():
    pixels = images(50, 16) // np.array([1, 2, 4], np.uint8)
    mean, std = channel_moments(pixels)
    spec = make_spec().model_copy(update={"mean": mean, "std": std})
    x = normalise(torch.from_numpy(pixels), spec)
    assert x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(x.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 2, 3), correction=0), 1, atol=1e-5)


def test_images_of_one_colour_do_not_divide_by_zero():
    _, std = channel_moments(np.full((2, 8, 8, 3), 7, np.uint8))
    assert std == (1 / 255, 1 / 255, 1 / 255)
