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

ARCHITECTURES = [
    "resnet_small",
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
]


def make_spec(architecture: str = "resnet_small", size: int = 16) -> ModelSpec:
    return ModelSpec(
        architecture=architecture,
        width=8,
        depth=1,
        classes=("a", "b", "c"),
        size=size,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
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


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_small_images_keep_their_resolution_longer(architecture: str):
    """Under 64 pixels the last feature map must still have more than one cell."""
    spec = make_spec(architecture, 32)
    shapes = []
    model = build(spec)
    pool = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    pool.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[2:]))
    model(normalise(torch.from_numpy(images(2, 32)), spec))
    assert min(shapes[-1]) >= 2


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


def test_pretrained_weights_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(TrainingError) as raised:
        build(make_spec("resnet18", 32), pretrained=True)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in str(raised.value)
    assert "train.pretrained" in str(raised.value)


def test_the_compact_network_has_no_pretrained_weights():
    with pytest.raises(TrainingError, match="resnet_small has no pretrained weights"):
        build(make_spec(), pretrained=True)


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
