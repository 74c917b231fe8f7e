from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import (
    adjust_saturation,
    gaussian_blur,
    rgb_to_grayscale,
)

from tasks.schema import PRESETS, Augment, Recipe
from tasks.training.augmentation import augmentation
from tasks.training.colour import RandomBlur, RandomColour
from tasks.training.geometry import RandomAffine
from tasks.training.models import ModelSpec, normalise


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
    return augmentation(spec, Recipe(**values))(batch)


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
    "change",
    [
        {"shift": 0.2},
        {"rotate": 20.0},
        {"scale": 0.3},
        {"shear": 20.0},
        {"resized_crop": 0.3},
        {"brightness": 0.4},
        {"noise": 0.1},
    ],
)
def test_every_image_is_changed_in_its_own_way(
    plain: ModelSpec, batch: torch.Tensor, change: dict[str, float]
):
    same = batch[:1].expand(64, -1, -1, -1)
    changed = augment(plain, same, **change)
    assert len({row.numpy().tobytes() for row in changed.contiguous()}) == 64


def test_upside_down_turns_about_half_of_the_images(plain: ModelSpec, batch: torch.Tensor):
    original = normalise(batch, plain)
    turned = augment(plain, batch, vertical_flip=True)
    upside_down = [
        torch.allclose(a, b.flip(1), atol=1e-4) for a, b in zip(turned, original, strict=True)
    ]
    assert 16 <= sum(upside_down) <= 48


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
    move = RandomAffine(
        flip=True, vertical_flip=True, shift=0.2, rotate=30.0, scale=0.2, shear=20.0, crop=0.5
    )
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


def test_a_shear_slants_what_was_upright_and_keeps_the_middle(plain: ModelSpec):
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[:, :, 15:17] = 255
    spec = plain.model_copy(update={"size": 32})
    slanted = augment(spec, image.expand(100, -1, -1, -1), shear=30.0).mean(1)
    position = (slanted * torch.arange(32.0)).sum(2) / slanted.sum(2)
    assert (position[:, 15:17].mean(1) - 15.5).abs().max() < 0.1
    slope = (position[:, 31] - position[:, 0]) / 31
    tangents = slope.abs().sort().values
    assert tangents[-1] <= np.tan(np.radians(30)) + 0.01
    assert tangents[-1] > 0.5
    assert tangents[0] < 0.05


def test_a_resized_crop_shows_a_part_of_the_image_enlarged(plain: ModelSpec):
    """On a ramp, where every pixel says where it came from."""
    spec = plain.model_copy(update={"size": 64})
    ramp = torch.arange(64, dtype=torch.uint8)
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.expand(64, 64)], 2)
    shown = 255 * augment(spec, image.expand(300, -1, -1, -1), resized_crop=0.25)
    width = (shown[:, 0, 0, -1] - shown[:, 0, 0, 0]) / 63
    height = (shown[:, 1, -1, 0] - shown[:, 1, 0, 0]) / 63
    area, ratio = width * height, width / height
    assert 0.2 < area.min() < 0.3
    assert 0.9 < area.max() <= 1.01
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35
    places = shown[:, 0, 0, 0]
    assert places.min() < 1
    assert places.max() > 20


def test_a_padding_crop_shifts_by_whole_pixels_and_mirrors_what_is_missing(plain: ModelSpec):
    spec = plain.model_copy(update={"size": 16})
    image = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8)
    cropped = augment(spec, image.expand(400, -1, -1, -1), padding_crop=0.125)
    framed = np.pad(image.numpy(), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {
        framed[top : top + 16, left : left + 16].tobytes() for top in range(5) for left in range(5)
    }
    shown = (255 * cropped).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    assert {part.numpy().tobytes() for part in shown} == windows


def test_saturation_and_hue_leave_grey_and_luminance_alone(plain: ModelSpec):
    grey = torch.randint(0, 256, (32, 8, 8, 1), dtype=torch.uint8).expand(-1, -1, -1, 3)
    changed = augment(plain, grey, saturation=0.9, hue=0.5)
    assert torch.allclose(changed, normalise(grey, plain), atol=2e-3)
    soft = torch.randint(100, 156, (32, 8, 8, 3), dtype=torch.uint8)
    before, after = normalise(soft, plain), augment(plain, soft, saturation=0.5, hue=0.5)
    assert (after - before).abs().max() > 0.02
    luminance = [rgb_to_grayscale(images) for images in (before, after)]
    assert torch.allclose(*luminance, atol=2e-3)


def test_saturation_is_torchvisions_and_a_third_of_the_hue_turns_red_green(plain: ModelSpec):
    images = torch.randint(80, 176, (4, 3, 8, 8)).float()
    change = RandomColour(0.5, 0.0)
    params = change.make_params([images])
    # what the matrix does to a pure chrominance is the factor
    factors = (params["matrix"] @ torch.tensor([1.0, 0.0, 0.0]))[:, 0] - 0.299
    for image, after, factor in zip(images, change.transform(images, params), factors, strict=True):
        expected = adjust_saturation(image / 255, float(factor / 0.701)) * 255
        assert torch.allclose(after, expected, atol=0.5)
    red = torch.tensor([150.0, 80.0, 80.0]).view(1, 3, 1, 1)
    torch.manual_seed(0)
    turned = [RandomColour(0.0, 1 / 3)(red).flatten() for _ in range(300)]
    assert {int(pixel.argmax()) for pixel in turned} == {0, 1, 2}


def test_blur_is_a_gaussian_of_its_own_width_for_each_image(batch: torch.Tensor):
    images = batch.permute(0, 3, 1, 2).float()
    blur = RandomBlur(1.0)
    params = blur.make_params([images])
    assert torch.allclose(params["weights"].sum(1), torch.ones(64))
    assert len(params["weights"].unique(dim=0)) > 50
    blurred = blur.transform(images, params)
    taps = params["weights"].shape[1]
    for image, weights, after in zip(images, params["weights"], blurred, strict=True):
        # deviation from the first two weights: their ratio is exp(1 / 2s²)
        middle = weights[taps // 2] / weights[taps // 2 + 1]
        if middle > 1e6:
            assert torch.allclose(after, image, atol=1e-2)
            continue
        sigma = float(1 / (2 * middle.log()).sqrt())
        assert torch.allclose(after, gaussian_blur(image, [taps, taps], [sigma, sigma]), atol=0.1)


def test_noise_is_as_strong_as_asked_and_keeps_grey_grey(plain: ModelSpec):
    spec = plain.model_copy(update={"size": 64})
    flat = torch.full((200, 64, 64, 3), 128, dtype=torch.uint8)
    noisy = augment(spec, flat, noise=0.1)
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    deviations = noisy[:, 0].flatten(1).std(1).sort().values
    assert deviations[0] < 0.01
    assert 0.09 < deviations[-1] < 0.105
    assert (noisy.mean() - 128 / 255).abs() < 0.002


def test_erasing_hides_a_rectangle_of_a_share_of_the_images(plain: ModelSpec):
    spec = plain.model_copy(update={"size": 32})
    white = torch.full((1000, 32, 32, 3), 255, dtype=torch.uint8)
    erased = (augment(spec, white, erase=0.3) == 0)[:, 0]
    area = erased.float().mean((1, 2))
    assert 0.25 < (area > 0).float().mean() < 0.35
    assert area[area > 0].min() > 0.01
    assert 0.3 < area.max() < 0.43
    rows, columns = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(rows * columns, erased.sum((1, 2)))  # one full rectangle each


def test_cutout_takes_a_square_from_every_image_also_at_the_border(plain: ModelSpec):
    spec = plain.model_copy(update={"size": 32})
    white = torch.full((500, 32, 32, 3), 255, dtype=torch.uint8)
    area = (augment(spec, white, cutout=0.25) == 0)[:, 0].sum((1, 2))
    assert area.max() <= 81
    assert area.median() == 64
    assert 0 < area.min() < 40


def test_what_is_erased_is_the_mean_colour(spec: ModelSpec, batch: torch.Tensor):
    hidden = (augment(spec, batch, cutout=1.0) == 0).all(1).float().mean((1, 2))
    assert hidden.min() >= 0.25  # a square as wide as the image, its centre somewhere in it
    assert hidden.max() > 0.8


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_finite_batches_of_the_same_form(
    preset: str, spec: ModelSpec, batch: torch.Tensor
):
    torch.manual_seed(0)
    changed = augmentation(spec, PRESETS[preset])(batch)
    assert changed.isfinite().all()
    assert changed.shape == (64, 3, 8, 8)
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(changed, normalise(batch, spec)) == (preset == "none")


def test_a_key_that_is_given_replaces_the_presets() -> None:
    keys = dict.fromkeys(Augment.model_fields)
    standard = Augment(**{**keys, "preset": "standard"}).recipe
    assert standard == PRESETS["standard"]
    changed = Augment(**{**keys, "preset": "standard", "flip": False, "rotate": 0.0}).recipe
    assert changed == replace(standard, flip=False, rotate=0.0)
