"""Training reads raw and encoded shards, with or without a margin, and learns the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.bundle import InputContract
from tasks.data.encoded import EncodedImages, encode, write_encoded
from tasks.data.shards import SPLITS, Shards, open_shards, write_index
from tasks.schema import Recipe, Train
from tasks.training.augmentation import augmentation
from tasks.training.geometry import random_crop
from tasks.training.loop import fit
from tasks.training.models import ModelSpec, build, channel_moments, normalise
from tasks.training.reading import read_ahead


@pytest.fixture(scope="module")
def encoded(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The shards with their images encoded, in chunks of 50."""
    folder = Path(shutil.copytree(shards.path, tmp_path_factory.mktemp("encoded") / "shards"))
    for name in SPLITS:
        images = [encode(image, None) for image in shards.split(name).images[:]]
        write_encoded(folder, name, [images[at : at + 50] for at in range(0, len(images), 50)])
        (folder / f"{name}_images.npy").unlink()
    (folder / "shards.json").unlink()
    write_index(folder, shards.classes, shards.contract)
    return open_shards(folder)


def test_the_form_of_the_shards_does_not_change_what_is_learnt(
    shards: Shards, encoded: Shards, spec: ModelSpec, config: Callable[..., Train]
) -> None:
    assert isinstance(encoded.split("train").images, EncodedImages)
    moments = [channel_moments(s.split("train").images) for s in (shards, encoded)]
    assert moments[0] == moments[1]
    weights = []
    for source in (shards, encoded):
        torch.manual_seed(0)
        model = build(spec)
        fit(model, source.split("train"), source.split("validation"), spec, config(epochs=2))
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_batches_come_in_order_and_one_ahead(shards: Shards) -> None:
    images = shards.split("train").images
    read: list[int] = []

    class Watched:
        shape = images.shape

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, key: slice) -> np.ndarray:
            read.append(key.start)
            return images[key]

    keys = [slice(start, start + 40) for start in range(0, 300, 40)]
    for number, batch in enumerate(read_ahead(Watched(), keys)):
        np.testing.assert_array_equal(batch.numpy(), images[keys[number]])
        assert len(read) <= number + 2
    assert read == [key.start for key in keys]
    assert list(read_ahead(images, [])) == []


def test_an_error_of_reading_reaches_the_training(shards: Shards) -> None:
    batches = read_ahead(shards.split("train").images, [np.array([0]), np.array([10**6])])
    assert len(next(batches)) == 1
    with pytest.raises(IndexError):
        next(batches)


def test_a_random_part_is_a_window_of_the_image() -> None:
    rows, columns = np.indices((12, 12))
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    parts = random_crop(torch.from_numpy(np.stack([image] * 500)), 8).numpy()
    assert parts.shape == (500, 8, 8, 3)
    tops, lefts = parts[:, 0, 0, 0], parts[:, 0, 0, 1]
    for part, top, left in zip(parts, tops, lefts, strict=True):
        np.testing.assert_array_equal(part, image[top : top + 8, left : left + 8])
    assert set(zip(tops.tolist(), lefts.tolist(), strict=True)) == {
        (top, left) for top in range(5) for left in range(5)
    }


def test_the_margin_is_cut_off_before_everything_else(spec: ModelSpec) -> None:
    images = torch.randint(0, 256, (6, spec.size + 4, spec.size + 4, 3), dtype=torch.uint8)
    torch.manual_seed(3)
    changed = augmentation(spec, Recipe())(images)
    torch.manual_seed(3)
    assert torch.allclose(changed, normalise(random_crop(images, spec.size), spec), atol=1e-6)


def test_training_with_a_margin_learns(
    shards: Shards, spec: ModelSpec, config: Callable[..., Train], tmp_path: Path
) -> None:
    """Digits within a border of one pixel: training sees them move."""
    folder = Path(shutil.copytree(shards.path, tmp_path / "shards"))
    images = shards.split("train").images[:]
    np.save(folder / "train_images.npy", np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))))
    contract = InputContract(size=spec.size, resize="crop", max_pixels=10_000, margin=2)
    (folder / "shards.json").unlink()
    write_index(folder, shards.classes, contract)
    framed = open_shards(folder)
    assert framed.split("train").images.shape[1:] == (10, 10, 3)
    torch.manual_seed(0)
    result = fit(
        build(spec),
        framed.split("train"),
        framed.split("validation"),
        spec,
        config(epochs=12, patience=12),
    )
    assert result.best.validation_accuracy > 0.8
