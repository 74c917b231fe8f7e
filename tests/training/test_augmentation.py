from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tasks.schema import Augment
from tasks.training.augmentation import RandomAffine, augmentation
from tasks.training.models import ModelSpec, normalise

OFF: dict[str, Any] = {
    "flip": False,
    "shift": 0.0,
    "rotate": 0.0,
    "scale": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
}


@pytest.fixture
def plain() -> ModelSpec:
    """Normalisation that leaves the 0..1 values alone."""
    return ModelSpec(
        architecture="resnet_small",
        width=8,
        depth=1,
        classes=("a", "b"),
        size=8,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


@pytest.fixture
def batch(digit_images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(digit_images[:64].copy())


def augment(spec: ModelSpec, batch: torch.Tensor, seed: int = 0, **values: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    return augmentation(spec, Augment(**{**OFF, **values}))(batch)


def test_turned_off_it_is_normalisation(spec: ModelSpec, batch: torch.Tensor):
    assert torch.equal(augment(spec, batch), normalise(batch, spec))


def test_flip_mirrors_about_half_of_the_images_and_no_more(plain: ModelSpec, batch: torch.Tensor):
    original = normalise(batch, plain)
    flipped = augment(plain, batch, flip=True)
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(flipped, original, strict=True)]
    mirrored = [
        torch.allclose(a, b.flip(2), atol=1e-4) for a, b in zip(flipped, original, strict=True)
    ]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 16 <= sum(mirrored) <= 48


@pytest.mark.parametrize(
    "change", [{"shift": 0.2}, {"rotate": 20.0}, {"scale": 0.3}, {"brightness": 0.4}]
)
def test_every_image_is_changed_in_its_own_way(
    plain: ModelSpec, batch: torch.Tensor, change: dict[str, float]
):
    same = batch[:1].expand(64, -1, -1, -1)
    changed = augment(plain, same, **change)
    assert len({row.numpy().tobytes() for row in changed.contiguous()}) == 64


def test_shift_moves_by_no_more_than_its_share(plain: ModelSpec):
    image = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    image[:, 8, 8] = 255
    spec = plain.model_copy(update={"size": 16})
    changed = augment(spec, image.expand(200, -1, -1, -1), shift=0.125)  # 2 of 16 pixels
    position = torch.arange(16.0)
    for axis in (2, 3):
        mass = changed.mean(1).sum(dim=4 - axis)
        centre = (mass * position).sum(1) / mass.sum(1)
        assert (centre - 8).abs().max() <= 2.01
        assert (centre - 8).abs().max() > 1.5


def test_resampling_is_that_of_torchs_affine_grid(batch: torch.Tensor):
    images = batch.permute(0, 3, 1, 2).float()
    move = RandomAffine(flip=True, shift=0.2, rotate=30.0, scale=0.2)
    params = move.make_params([images])
    grid = F.affine_grid(params["theta"], list(images.shape), align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(move.transform(images, params), expected, atol=1e-3)


def test_light_stays_in_range_and_keeps_the_shapes(plain: ModelSpec, batch: torch.Tensor):
    changed = augment(plain, batch, brightness=0.5, contrast=0.5)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert changed.shape == (64, 3, 8, 8)
    assert changed.is_contiguous(memory_format=torch.channels_last)


def test_a_seed_repeats_and_another_does_not(plain: ModelSpec, batch: torch.Tensor):
    before = batch.clone()
    all_on = {"flip": True, "shift": 0.1, "rotate": 10.0, "scale": 0.1, "contrast": 0.2}
    first = augment(plain, batch, seed=1, **all_on)
    assert torch.equal(first, augment(plain, batch, seed=1, **all_on))
    assert not torch.equal(first, augment(plain, batch, seed=2, **all_on))
    assert torch.equal(batch, before)
