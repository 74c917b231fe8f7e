import random
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.data.assignment import draw
from tasks.data.clean import Cleaned
from tasks.data.split import assign, counts, read_previous
from tasks.data.tables import write_table
from tasks.errors import DataError
from tasks.schema import Split


def config(**changes: float) -> Split:
    return Split.model_validate(
        {"validation": 0.15, "test": 0.2, "seed": 0, "folds": None} | changes
    )


def digest_of(image: int) -> str:
    return blake2b(f"image {image}".encode(), digest_size=16).hexdigest()


def table(images: Iterable[int], classes: int = 2) -> pd.DataFrame:
    """A cleaned manifest of these images."""
    rows = [
        {
            "path": f"{image:06d}.png",
            "source": "mine",
            "label": str(image % classes),
            "box": None,
            "given_group": None,
            "weight": None,
            "given_split": None,
            "pixel_hash": digest_of(image),
            "keep": True,
        }
        for image in images
    ]
    return pd.DataFrame(rows).astype(
        {"given_group": object, "given_split": object, "weight": float}
    )


def pairs(edges: Iterable[tuple[int, int]] = ()) -> pd.DataFrame:
    """Which images are near-duplicates."""
    rows = [(digest_of(left), digest_of(right)) for left, right in edges]
    return pd.DataFrame(rows, columns=["left", "right"], dtype=object)


def by_path(splits: pd.DataFrame) -> dict[str, str]:
    return dict(zip(splits["path"], splits["split"], strict=True))


class Growing:
    """A data set that grows: images alone, duplicates of old ones, and some that join two."""

    def __init__(self, count: int, seed: int) -> None:
        self.images = count
        self.edges: list[tuple[int, int]] = []
        self.random = random.Random(seed)

    def grow(self) -> None:
        old = self.images
        for image in range(old, old + self.random.randint(50, 150)):
            duplicates = self.random.choice([0, 0, 1, 1, 2])
            self.edges += [(image, self.random.randrange(old)) for _ in range(duplicates)]
            self.images = image + 1

    def split(self, previous: pd.DataFrame | None = None, seed: int = 0) -> pd.DataFrame:
        known = table(range(self.images)), pairs(self.edges)
        return assign(*known, config(seed=seed), previous)

    def leaks(self, splits: pd.DataFrame) -> list[tuple[int, int]]:
        names = dict(zip(splits["pixel_hash"], splits["split"], strict=True))
        crossing = []
        for left, right in self.edges:
            one, other = names[digest_of(left)], names[digest_of(right)]
            if isinstance(one, str) and isinstance(other, str) and one != other:
                crossing.append((left, right))
        return crossing


@pytest.mark.parametrize("seed", range(10))
def test_no_duplicate_crosses_and_nothing_old_moves_while_the_data_grow(seed: int) -> None:
    data = Growing(400, seed)
    before = data.split(seed=seed)
    left_out = 0
    for _ in range(3):
        data.grow()
        after = data.split(before, seed=seed)
        assert data.leaks(after) == []
        old = by_path(before.dropna(subset="split"))
        assert {path: by_path(after)[path] for path in old} == old
        left_out += after["split"].isna().sum() - before["split"].isna().sum()
        before = after
    assert left_out, "images that join two old splits are left out"
    assert before.loc[before["split"].isna(), "reason"].notna().all()
    inside = before.dropna(subset="split")
    assert inside.groupby("group")["split"].nunique().max() == 1


@pytest.mark.parametrize("seed", range(10))
def test_without_a_memory_no_duplicate_crosses_either(seed: int) -> None:
    data = Growing(300, seed)
    data.grow()
    data.grow()
    assert data.leaks(data.split(seed=seed)) == []


def test_a_newcomer_goes_where_its_duplicate_is() -> None:
    data = Growing(300, 0)
    before = data.split()
    drawn = by_path(before)
    home = next(image for image in range(300) if drawn[f"{image:06d}.png"] == "train")
    new = next(image for image in range(300, 400) if draw(digest_of(image), 0) < 0.2)
    data.images, data.edges = new + 1, [(new, home)]
    assert by_path(data.split(before))[f"{new:06d}.png"] == "train"
    assert by_path(data.split())[f"{new:06d}.png"] == "test", "without the memory both are test"


def test_old_images_found_to_be_duplicates_lose_the_one_in_the_looser_split() -> None:
    """As when the threshold is changed."""
    before = assign(table(range(300)), pairs(), config())
    drawn = by_path(before)
    test = next(image for image in range(300) if drawn[f"{image:06d}.png"] == "test")
    train = next(image for image in range(300) if drawn[f"{image:06d}.png"] == "train")
    after = assign(table(range(300)), pairs([(test, train)]), config(), before)
    assert by_path(after)[f"{test:06d}.png"] == "test"
    assert pd.isna(by_path(after)[f"{train:06d}.png"])


def test_a_given_group_stays_together_and_draws_as_one() -> None:
    cleaned = table(range(3000))
    cleaned["given_group"] = [f"patient {image % 100}" for image in range(3000)]
    splits = assign(cleaned, pairs(), config())
    assert splits.groupby("given_group")["split"].nunique().max() == 1
    shares = splits["split"].value_counts(normalize=True)
    assert 0.1 < shares["test"] < 0.35, "a group of 30 images is no likelier to be test"


def test_given_splits_are_respected_and_the_missing_one_is_drawn_from_train() -> None:
    cleaned = table(range(1000))
    cleaned["given_split"] = ["test" if image % 5 == 0 else "train" for image in range(1000)]
    splits = assign(cleaned, pairs(), config())
    crossing = pd.crosstab(splits["split"], cleaned["given_split"])
    assert crossing.loc["test"].to_dict() == {"test": 200, "train": 0}
    assert crossing.loc["validation", "test"] == 0
    assert 80 < crossing.loc["validation", "train"] < 160
    cleaned.loc[cleaned.index % 5 == 1, "given_split"] = "validation"
    every = assign(cleaned, pairs(), config())
    assert (every["split"] == cleaned["given_split"]).all()


def test_a_leak_between_given_splits_costs_the_looser_one() -> None:
    cleaned = table(range(100))
    cleaned["given_split"] = (["train"] * 6 + ["validation"] * 2 + ["test"] * 2) * 10
    splits = assign(cleaned, pairs([(0, 8), (1, 6)]), config())
    out = splits[splits["split"].isna()]
    assert list(out["path"]) == ["000000.png", "000001.png"]


def test_the_same_pixels_given_to_two_splits_stay_in_the_stricter() -> None:
    cleaned = table(range(100))
    cleaned["given_split"] = (["train"] * 6 + ["validation"] * 2 + ["test"] * 2) * 10
    cleaned.loc[0, "pixel_hash"] = cleaned.loc[8, "pixel_hash"]
    splits = by_path(assign(cleaned, pairs(), config()))
    assert pd.isna(splits["000000.png"])
    assert splits["000008.png"] == "test"


def test_a_group_given_to_two_splits_is_named() -> None:
    cleaned = table(range(100))
    cleaned["given_split"] = (["train"] * 6 + ["validation"] * 2 + ["test"] * 2) * 10
    cleaned.loc[[0, 8], "given_group"] = "patient 7"
    with pytest.raises(DataError, match=r"group 'patient 7' .*'000000.png' in train"):
        assign(cleaned, pairs(), config())


def test_folds_keep_duplicates_together_and_leave_the_test_split_out() -> None:
    edges = [(image, image + 500) for image in range(0, 500, 3)]
    splits = assign(table(range(1000)), pairs(edges), config(folds=4))
    assert splits.loc[splits["split"] == "test", "fold"].isna().all()
    training = splits[splits["split"] != "test"]
    assert set(training["fold"]) == {0, 1, 2, 3}
    assert training.groupby("group")["fold"].nunique().max() == 1
    assert training["fold"].value_counts().min() > 150


def test_other_shares_or_seeds_forget_what_was(tmp_path: Path) -> None:
    write_table(tmp_path / "splits.parquet", assign(table(range(300)), pairs(), config()))
    assert read_previous(tmp_path / "splits.parquet", config()) is not None
    assert read_previous(tmp_path / "splits.parquet", config(seed=1)) is None
    assert read_previous(tmp_path / "splits.parquet", config(test=0.3)) is None
    assert read_previous(tmp_path / "nowhere.parquet", config()) is None
    (tmp_path / "splits.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match="cannot be read"):
        read_previous(tmp_path / "splits.parquet", config())


def test_split_depends_on_pixels_alone() -> None:
    original = table(range(500))
    renamed = original.sample(frac=1, random_state=1).assign(
        path=[f"new/{number}.png" for number in range(500)]
    )
    first = assign(original, pairs(), config()).set_index("pixel_hash")["split"]
    second = assign(renamed, pairs(), config()).set_index("pixel_hash")["split"]
    assert first.to_dict() == second.to_dict()


def test_a_dropped_duplicate_still_counts_for_its_group() -> None:
    images = range(400)
    rank = {image: draw(digest_of(image), 0) for image in images}
    in_test = next(image for image in images if rank[image] < 0.2)
    in_train = next(image for image in images if rank[image] > 0.9)
    cleaned = table(images)
    cleaned.loc[cleaned["path"] == f"{in_test:06d}.png", "keep"] = False
    splits = by_path(assign(cleaned, pairs([(in_test, in_train)]), config()))
    assert splits[f"{in_train:06d}.png"] == "test"
    assert f"{in_test:06d}.png" not in splits


def test_shares_are_what_was_asked_for() -> None:
    splits = assign(table(range(20_000), classes=4), pairs(), config())
    shares = counts(splits).div(counts(splits).sum(axis=1), axis=0)
    for name, share in {"train": 0.65, "validation": 0.15, "test": 0.2}.items():
        np.testing.assert_allclose(shares[name], share, atol=0.025)


def test_seeds_draw_different_splits() -> None:
    cleaned = table(range(500))
    assert by_path(assign(cleaned, pairs(), config(seed=0))) != by_path(
        assign(cleaned, pairs(), config(seed=1))
    )


def test_a_rare_class_is_in_every_split_and_its_clusters_stay_together() -> None:
    cleaned = table(range(400))
    rare = cleaned["path"].isin([f"{image:06d}.png" for image in range(12)])
    cleaned.loc[rare, "label"] = "rare"
    edges = [(image, image + 3) for image in range(9)]  # three clusters of four
    for seed in range(20):
        splits = assign(cleaned, pairs(edges), config(seed=seed))
        assert (counts(splits).loc["rare"] == 4).all()
        assert splits.groupby("group")["split"].nunique().max() == 1


def test_a_large_cluster_is_no_likelier_to_be_test() -> None:
    edges = [(image, image + 1) for image in range(3000) if image % 10 != 9]
    shares = assign(table(range(3000)), pairs(edges), config())["split"].value_counts(True)
    assert 0.12 < shares["test"] < 0.28


def test_a_class_of_two_images_is_refused() -> None:
    cleaned = table(range(400))
    cleaned.loc[:1, "label"] = "tiny"
    with pytest.raises(DataError, match=r"class 'tiny' has no image in .* three images or more"):
        assign(cleaned, pairs(), config())


def test_digits_split_is_frozen(digits_clean: Cleaned) -> None:
    splits = assign(*digits_clean, config())
    assert splits["split"].value_counts().to_dict() == {
        "train": 1168,
        "validation": 286,
        "test": 343,
    }
    test_paths = "\n".join(splits.loc[splits["split"] == "test", "path"])
    test_paths = test_paths.replace("digits/", "")
    assert blake2b(test_paths.encode(), digest_size=8).hexdigest() == "4a78e54c08f34113"
