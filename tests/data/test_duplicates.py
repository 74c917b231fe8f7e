"""Near-duplicates: altered copies of real pictures are found, other pictures are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from benchmarks._alter import KINDS
from tasks.data.duplicates import NearDuplicates, components, near_duplicates
from tasks.data.lsh import WINDOW, close_pairs
from tasks.data.phash import COARSE, perceptual_hashes
from tasks.data.registration import similarity

LEAST = 0.86


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS))


def search(thumbnails: np.ndarray, flip: bool = False) -> NearDuplicates:
    kept = [one.tobytes() for one in thumbnails]
    return near_duplicates(perceptual_hashes(thumbnails), kept, LEAST, flip)


def pairs(thumbnails: np.ndarray, flip: bool = False) -> set[tuple[int, int]]:
    return {(one, other) for one, other in search(thumbnails, flip).pairs.tolist()}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    """Parts of two photographs, side by side, 105×106, that show more than sky or blur."""
    photos = [Image.fromarray(image) for image in load_sample_images().images]
    corners = [(x, y) for x in range(0, 630, 105) for y in range(0, 424, 106)]
    parts = [p.crop((x, y, x + 105, y + 106)) for p in photos for x, y in corners]
    return [part for part in parts if np.asarray(part.convert("L")).std() > 25]


@pytest.fixture(scope="module")
def originals(scenes: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(scene) for scene in scenes])


@pytest.fixture(scope="module")
def copies(scenes: list[Image.Image]) -> np.ndarray:
    """An altered copy of each scene, the kinds in turn."""
    random = np.random.default_rng(3)
    kinds = list(KINDS.values())
    return np.stack([altered(s, kinds[n % len(kinds)], random) for n, s in enumerate(scenes)])


def altered(scene, kind, random: np.random.Generator) -> np.ndarray:
    image, quality = kind(scene, random)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return thumbnail(Image.open(file))


@pytest.mark.parametrize("kind", KINDS)
def test_an_altered_copy_pairs_with_its_original_alone(
    kind: str, scenes: list[Image.Image], originals: np.ndarray
) -> None:
    random = np.random.default_rng(7)
    made = np.stack([altered(scene, KINDS[kind], random) for scene in scenes])
    count = len(scenes)
    found = pairs(np.concatenate([originals, made]))
    right = {(n, n + count) for n in range(count)}
    assert found <= right
    assert len(found) >= (0.75 if kind == "crop" else 0.95) * count


def test_mirrored_copies_are_found_when_asked(
    scenes: list[Image.Image], originals: np.ndarray
) -> None:
    random = np.random.default_rng(5)
    made = [altered(ImageOps.mirror(scene), KINDS["jpeg"], random) for scene in scenes]
    both = np.concatenate([originals, np.stack(made)])
    count = len(scenes)
    assert not pairs(both)
    found = pairs(both, flip=True)
    assert found <= {(n, n + count) for n in range(count)}
    assert len(found) >= 0.95 * count


def test_neither_order_nor_company_decides(originals: np.ndarray, copies: np.ndarray) -> None:
    """The verdict is that of two images alone, so adding images never removes a pair."""
    both = np.concatenate([originals, copies])
    found = pairs(both)
    assert len(found) >= 0.9 * len(originals)
    for one, other in found:
        assert pairs(both[[one, other]]) == {(0, 1)}
    some = np.sort(np.random.default_rng(0).choice(len(both), len(both) // 2, replace=False))
    kept = {(some[one], some[other]) for one, other in pairs(both[some])}
    assert kept == {pair for pair in found if {*pair} <= {*some.tolist()}}


def test_a_pairs_similarity_does_not_depend_on_the_others(
    originals: np.ndarray, copies: np.ndarray
) -> None:
    together = similarity(originals, copies)
    alone = [similarity(originals[[n]], copies[[n]])[0] for n in range(len(copies))]
    assert together.tolist() == alone


def test_scores_tell_how_alike_the_nearest_is(originals: np.ndarray, copies: np.ndarray) -> None:
    found = search(np.concatenate([originals, copies, np.full((1, 32, 32), 9, np.uint8)]))
    paired = np.unique(found.pairs)
    assert (found.scores[paired] >= LEAST).all()
    others = np.setdiff1d(np.arange(len(found.scores)), paired)
    assert not (found.scores[others] >= LEAST).any()
    assert np.isnan(found.scores[-1])


def test_handwritten_digits_of_one_class_are_different_pictures(digit_images: np.ndarray) -> None:
    digits = np.stack([thumbnail(Image.fromarray(image)) for image in digit_images])
    assert len(pairs(digits)) <= len(digits) // 200


def test_plain_backgrounds_do_not_become_one_group() -> None:
    """Patches of one sky, alike but for their noise, and as many flat ones."""
    sky = Image.fromarray(load_sample_images().images[0]).convert("L").crop((0, 0, 640, 100))
    patches = [
        sky.crop((x, y, x + 32, y + 20)) for x in range(0, 640, 32) for y in range(0, 100, 20)
    ]
    flat = [Image.new("L", (32, 20), grey) for grey in range(100, 200)]
    thumbnails = np.stack([thumbnail(patch) for patch in patches + flat])
    group = components(len(thumbnails), search(thumbnails).pairs)
    assert np.bincount(group).max() <= 3


def test_a_crowd_of_copies_is_one_group(scenes: list[Image.Image], originals: np.ndarray) -> None:
    random = np.random.default_rng(1)
    crowd = np.stack([altered(scenes[0], KINDS["jpeg"], random) for _ in range(4 * WINDOW)])
    group = components(len(crowd) + 10, search(np.concatenate([crowd, originals[1:11]])).pairs)
    assert len(set(group[: len(crowd)])) == 1
    assert len(set(group)) == 11


@pytest.mark.parametrize("cosine", [0.97, 0.98])
def test_the_index_finds_what_comparing_all_with_all_finds(
    digit_images: np.ndarray, cosine: float
) -> None:
    digits = np.stack([thumbnail(Image.fromarray(image)) for image in digit_images])
    hashes = perceptual_hashes(digits)
    coarse = hashes[:, :COARSE] / np.linalg.norm(hashes[:, :COARSE].astype(float), axis=1)[:, None]
    near = np.triu(coarse @ coarse.T >= cosine, 1)
    expected = set(zip(*map(np.ndarray.tolist, np.nonzero(near)), strict=True))
    found = set()
    for query, row, _ in close_pairs(hashes, hashes, cosine, 0.0):
        ends = np.sort(np.column_stack([query, row])[query != row])
        found |= {(one, other) for one, other in ends.tolist()}
    assert expected
    assert found <= expected
    assert len(found) >= 0.95 * len(expected)


def test_no_images_and_one_image_have_no_near_duplicates(originals: np.ndarray) -> None:
    assert search(originals[:0]).pairs.shape == (0, 2)
    alone = search(originals[:1])
    assert alone.pairs.shape == (0, 2)
    assert np.isnan(alone.scores).all()


def test_groups_join_through_others() -> None:
    groups = components(5, np.array([[0, 3], [3, 4]]))
    assert groups[0] == groups[3] == groups[4]
    assert len(set(groups)) == 3
