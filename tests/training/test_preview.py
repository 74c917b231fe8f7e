"""The picture of what the network is shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.data.shards import Shards
from tasks.schema import Augment, Train
from tasks.training.models import ModelSpec
from tasks.training.preview import write_preview

TILE, STEP, TOP = 128, 134, 164  # pixels: of an image, and from one to the next
NULLS: dict[str, Any] = dict.fromkeys(Augment.model_fields)


def tiles(path: Path, count: int = 40) -> list[np.ndarray]:
    """The images of the grid, as small as they were."""
    page = np.asarray(Image.open(path))
    corners = [(6 + TOP * (n // 8), 6 + STEP * (n % 8)) for n in range(count)]
    return [page[top : top + TILE : 16, left : left + TILE : 16] for top, left in corners]


@pytest.fixture
def draw(
    shards: Shards, spec: ModelSpec, config: Callable[..., Train], tmp_path: Path
) -> Callable[..., Path]:
    """Writes the preview of the digits with an augmentation; gives its path."""

    def write(name: str, seed: int = 0, **augment: Any) -> Path:
        settings = config(seed=seed, augment={**NULLS, "preset": "none", **augment})
        path = tmp_path / name
        write_preview(path, shards.split("train"), spec, settings)
        return path

    return write


def test_without_augmentation_the_tiles_are_the_images_themselves(
    draw: Callable[..., Path], shards: Shards
) -> None:
    stored = {image.tobytes() for image in shards.split("train").images[:]}
    shown = {tile.tobytes() for tile in tiles(draw("plain.png"))}
    assert shown <= stored
    assert len(shown) > 35


def test_augmented_and_mixed_images_are_shown_as_such(
    draw: Callable[..., Path], shards: Shards
) -> None:
    stored = {image.tobytes() for image in shards.split("train").images[:]}
    for augment in ({"preset": "standard"}, {"mixup": 1.0}):
        shown = {tile.tobytes() for tile in tiles(draw("changed.png", **augment))}
        assert len(shown - stored) > 30


def test_labels_of_mixed_images_take_two_lines(draw: Callable[..., Path]) -> None:
    def ink_of_second_lines(path: Path) -> int:
        page = np.asarray(Image.open(path).convert("L"))
        return sum((page[TOP * n + 6 + TILE + 18 : TOP * (n + 1)] < 128).sum() for n in range(5))

    assert ink_of_second_lines(draw("plain.png")) == 0
    assert ink_of_second_lines(draw("mixed.png", cutmix=1.0)) > 500


def test_the_seed_decides_and_the_callers_random_state_stays(draw: Callable[..., Path]) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = draw("one.png", preset="strong").read_bytes()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert draw("two.png", preset="strong").read_bytes() == first
    assert draw("three.png", seed=1, preset="strong").read_bytes() != first


def test_few_images_make_a_small_page(
    shards: Shards, spec: ModelSpec, config: Callable[..., Train], tmp_path: Path
) -> None:
    from dataclasses import replace

    train = shards.split("train")
    few = replace(train, images=train.images[:3], labels=train.labels[:3])
    write_preview(tmp_path / "few.png", few, spec, config())
    assert Image.open(tmp_path / "few.png").height == 6 + TOP
