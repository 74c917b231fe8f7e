"""RandAugment and TrivialAugment, operation by operation, against torchvision's."""

from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from tasks.training.policies import OPERATIONS, RandomPolicy


@pytest.fixture
def images(digit_images: np.ndarray) -> torch.Tensor:
    """Digits in a black frame (so that zeros and a repeated border are the same), in colour."""
    grey = torch.from_numpy(digit_images[:12].copy()).permute(0, 3, 1, 2)
    framed = F.pad(F.resize(grey, [16, 16]), [8])
    tint = torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    return (framed * tint).round()


def applied(images: torch.Tensor, name: str, levels: torch.Tensor) -> torch.Tensor:
    """The operation by our transform, with a level for each image."""
    number = list(OPERATIONS).index(name)
    rounds = [(torch.full((len(images),), number), levels[:, None, None, None])]
    result: torch.Tensor = RandomPolicy("randaugment", 1, 9).transform(images, {"rounds": rounds})
    return result


@pytest.mark.parametrize(
    ("ours", "theirs", "levels"),
    [
        ("translate_x", "TranslateX", [-9.0, 0.0, 5.0, 11.0]),
        ("translate_y", "TranslateY", [-9.0, 0.0, 5.0, 11.0]),
        ("rotate", "Rotate", [-120.0, -10.0, 0.0, 45.0]),
        ("brightness", "Brightness", [-0.9, -0.2, 0.0, 0.9]),
        ("colour", "Color", [-0.9, -0.2, 0.0, 0.9]),
        ("contrast", "Contrast", [-0.9, -0.2, 0.0, 0.9]),
        ("sharpness", "Sharpness", [-0.9, -0.2, 0.0, 0.9]),
        ("posterize", "Posterize", [0.0, 1.0, 4.0, 6.0]),
        ("solarize", "Solarize", [0.1, 0.5, 0.9, 1.0]),
        ("autocontrast", "AutoContrast", [0.0, 0.0, 0.0, 0.0]),
        ("equalize", "Equalize", [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_an_operation_is_torchvisions_with_a_level_for_each_image(
    images: torch.Tensor, ours: str, theirs: str, levels: list[float]
) -> None:
    level = torch.tensor(levels * 3)
    share = level / 32 if ours.startswith("translate") else level
    changed = applied(images, ours, share)
    peer = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR)
    for image, after, value in zip(images, changed, level.tolist(), strict=True):
        magnitude = {"posterize": 8 - value, "solarize": 1 - value}.get(ours, value)
        # theirs move the other way round for the same sign, and take 0..1 or whole bytes
        if ours in ("translate_x", "translate_y"):
            magnitude = -magnitude
        source = (
            image.to(torch.uint8) if ours in ("posterize", "solarize", "equalize") else image / 255
        )
        args = peer.interpolation, peer._fill
        expected = peer._apply_image_or_video_transform(source, theirs, magnitude, *args)
        scaled = expected.float() if expected.dtype == torch.uint8 else expected * 255
        assert torch.allclose(after, scaled, atol=0.6), (ours, value)


@pytest.mark.parametrize(("name", "shear"), [("shear_x", [25.0, 0.0]), ("shear_y", [0.0, 25.0])])
def test_a_shear_is_torchvisions_about_the_middle(
    images: torch.Tensor, name: str, shear: list[float]
) -> None:
    tangent = torch.full((12,), float(np.tan(np.radians(25))))
    expected = F.affine(images, 0.0, [0, 0], 1.0, shear, v2.InterpolationMode.BILINEAR)
    inside = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    changed = [applied(images, name, sign * tangent)[inside] for sign in (1, -1)]
    assert min((one - expected[inside]).abs().max() for one in changed) < 0.6


def test_every_image_draws_its_own_operation(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    many = images[:1].expand(2000, -1, -1, -1)
    ((drawn, levels),) = RandomPolicy("trivialaugment", 1, 0).make_params([many])["rounds"]
    counts = Counter(drawn.tolist())
    assert set(counts) == set(range(len(OPERATIONS)))
    assert min(counts.values()) > 90
    rotations = levels[drawn == list(OPERATIONS).index("rotate")].flatten()
    assert rotations.min() < -120
    assert rotations.max() > 120
    assert rotations.abs().max() <= 135


def test_randaugment_is_as_strong_as_its_magnitude(images: torch.Tensor) -> None:
    weak, strong = (RandomPolicy("randaugment", 3, magnitude) for magnitude in (3, 30))
    rounds = [
        policy.make_params([images.repeat(50, 1, 1, 1)])["rounds"] for policy in (weak, strong)
    ]
    assert [len(drawn) for drawn in rounds] == [3, 3]
    turn = list(OPERATIONS).index("rotate")
    for drawn, largest in zip(rounds, (3.0, 30.0), strict=True):
        for operations, levels in drawn:
            assert levels[operations == turn].abs().flatten().tolist() == pytest.approx(
                [largest] * int((operations == turn).sum())
            )


def test_images_that_draw_identity_stay_and_the_input_is_not_touched(images: torch.Tensor) -> None:
    before = images.clone()
    policy = RandomPolicy("randaugment", 1, 20)
    torch.manual_seed(1)
    params = policy.make_params([images.repeat(10, 1, 1, 1)])
    many = images.repeat(10, 1, 1, 1)
    after = policy.transform(many, params)
    same = params["rounds"][0][0] == 0
    assert same.any()
    assert torch.allclose(after[same], many[same], atol=1e-3)
    assert torch.equal(images, before)
