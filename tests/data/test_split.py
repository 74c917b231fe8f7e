import random
from hashlib import blake2b

import numpy as np
import pandas as pd
import pytest

from tasks.data.split import assign, counts, draw
from tasks.errors import DataError
from tasks.schema import Split

STRICTNESS = {"train": 0, "validation": 1, "test": 2}


def config(**changes: float) -> Split:
    return Split.model_validate({"validation": 0.15, "test": 0.2, "seed": 0} | changes)


def table(groups: list[list[int]], classes: int = 2) -> pd.DataFrame:
    """A cleaned manifest of images 0, 1, …, given as groups of near-duplicates."""
    rows = []
    for group in groups:
        hashes = {
            image: blake2b(f"image {image}".encode(), digest_size=16).hexdigest() for image in group
        }
        rows += [
            {
                "path": f"{image:06d}.png",
                "label": str(image % classes),
                "pixel_hash": digest,
                "group": min(hashes.values()),
                "keep": True,
            }
            for image, digest in hashes.items()
        ]
    return pd.DataFrame(rows)


def by_path(splits: pd.DataFrame) -> dict[str, str]:
    return dict(zip(splits["path"], splits["split"], strict=True))


def grow(
    groups: list[list[int]], next_image: int, rng: random.Random
) -> tuple[list[list[int]], int]:
    """Add images: some alone, some to an old group, some that join two old groups."""
    groups = [list(group) for group in groups]
    for image in range(next_image, next_image + rng.randint(1, 150)):
        kind = rng.random()
        if kind < 0.5:
            groups.append([image])
        elif kind < 0.8:
            rng.choice(groups).append(image)
        elif len(groups) > 50:
            joined = groups.pop(rng.randrange(len(groups))) + groups.pop(rng.randrange(len(groups)))
            groups.append([*joined, image])
        next_image = image + 1
    return groups, next_image


@pytest.mark.parametrize("seed", range(25))
def test_growth_never_moves_an_image_towards_training(seed: int) -> None:
    rng = random.Random(seed)
    groups: list[list[int]] = [[image] for image in range(200)]
    images = 200
    before = by_path(assign(table(groups), config(seed=seed)))
    moved = 0
    for _ in range(6):
        groups, images = grow(groups, images, rng)
        after = by_path(assign(table(groups), config(seed=seed)))
        for path, split in before.items():
            assert STRICTNESS[after[path]] >= STRICTNESS[split]
            moved += after[path] != split
        before = after
    assert moved  # groups that merge do move, to the stricter side


@pytest.mark.parametrize("seed", range(10))
def test_groups_never_cross_splits(seed: int) -> None:
    rng = random.Random(seed)
    groups, _ = grow([[i, i + 1000, i + 2000] for i in range(300)], 5000, rng)
    splits = assign(table(groups), config(seed=seed))
    assert splits.groupby("group")["split"].nunique().max() == 1


def test_split_depends_on_pixels_alone() -> None:
    original = table([[image] for image in range(500)])
    renamed = original.sample(frac=1, random_state=1).assign(
        path=[f"new/{number}.png" for number in range(500)]
    )
    first = assign(original, config()).set_index("pixel_hash")["split"]
    second = assign(renamed, config()).set_index("pixel_hash")["split"]
    assert first.to_dict() == second.to_dict()


def test_a_dropped_duplicate_still_counts_for_its_group() -> None:
    images = range(400)
    rank = {image: draw(table([[image]])["pixel_hash"][0], 0) for image in images}
    in_test = next(image for image in images if rank[image] < 0.2)
    in_train = next(image for image in images if rank[image] > 0.9)
    rest = [[image] for image in images if image not in (in_test, in_train)]
    cleaned = table([*rest, [in_test, in_train]])
    cleaned.loc[cleaned["path"] == f"{in_test:06d}.png", "keep"] = False
    splits = by_path(assign(cleaned, config()))
    assert splits[f"{in_train:06d}.png"] == "test"
    assert f"{in_test:06d}.png" not in splits


def test_shares_are_what_was_asked_for() -> None:
    splits = assign(table([[image] for image in range(20_000)], classes=4), config())
    shares = counts(splits).div(counts(splits).sum(axis=1), axis=0)
    for name, share in {"train": 0.65, "validation": 0.15, "test": 0.2}.items():
        np.testing.assert_allclose(shares[name], share, atol=0.025)


def test_seeds_draw_different_splits() -> None:
    cleaned = table([[image] for image in range(500)])
    assert by_path(assign(cleaned, config(seed=0))) != by_path(assign(cleaned, config(seed=1)))


def test_a_class_missing_from_a_split_is_named_with_a_seed_that_works() -> None:
    cleaned = table([[image] for image in range(400)])
    rare = cleaned["path"].isin([f"{image:06d}.png" for image in range(8)])
    cleaned.loc[rare, "label"] = "rare"
    bad = next(
        seed
        for seed in range(50)
        if {draw(value, seed) < 0.2 for value in cleaned.loc[rare, "pixel_hash"]} == {False}
    )
    with pytest.raises(DataError, match="class 'rare' has no image in test") as caught:
        assign(cleaned, config(seed=bad))
    message = str(caught.value)
    assert "train " in message
    assert "split.seed" in message
    good = int(message.rsplit("split.seed: ", 1)[1].split()[0])
    assert (counts(assign(cleaned, config(seed=good))) > 0).all(axis=None)


def test_a_class_of_two_images_is_refused() -> None:
    cleaned = table([[image] for image in range(400)])
    cleaned.loc[:1, "label"] = "tiny"
    with pytest.raises(DataError, match="class 'tiny' has no image in"):
        assign(cleaned, config())


def test_digits_split_is_frozen(digits_cleaned: pd.DataFrame) -> None:
    splits = assign(digits_cleaned, config())
    assert splits["split"].value_counts().to_dict() == {
        "train": 1164,
        "validation": 284,
        "test": 349,
    }
    test_paths = "\n".join(splits.loc[splits["split"] == "test", "path"])
    assert blake2b(test_paths.encode(), digest_size=8).hexdigest() == "cc85081ab3691433"
