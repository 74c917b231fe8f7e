"""Two bundles compared by the answers they carry: as their models answer, or not at all."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.bundle import METRICS, REFERENCE, Bundle, open_bundle
from tasks.errors import DataError
from tasks.evaluation.compare import compare
from tasks.evaluation.two_bundles import compare_stored, identity, shared_answers, stored_answers
from tasks.params import Settings, load_params
from tasks.signing import sign_directory

GATE = load_params().gate


def rewritten(bundle: Bundle, settings: Settings, **arrays: np.ndarray) -> Bundle:
    """The bundle signed anew with other arrays in its reference."""
    values = bundle.reference() | arrays
    np.savez(bundle.path / REFERENCE, **values)
    sign_directory(bundle.path, settings)
    return open_bundle(bundle.path, settings)


def test_the_answers_kept_compare_as_the_models_themselves(
    make_bundle: Callable[..., Bundle], digit_images: np.ndarray, digit_labels: np.ndarray
) -> None:
    champion, challenger = make_bundle(0.1, "old"), make_bundle(0.001, "new")
    old, new = (
        bundle.predict(digit_images[1200:])[0].argmax(1) for bundle in (champion, challenger)
    )
    expected = compare(old, new, digit_labels[1200:], champion.info.classes, GATE)
    found = compare_stored(champion, challenger, GATE)
    assert found == expected
    assert found.difference < 0


def test_the_order_of_the_images_is_no_matter(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    champion, challenger = make_bundle(0.1, "old"), make_bundle(0.001, "new")
    expected = compare_stored(champion, challenger, GATE)
    order = np.random.default_rng(0).permutation(597)
    names = ("probabilities", "labels", "hashes")
    shuffled = rewritten(
        challenger, settings, **{name: challenger.reference()[name][order] for name in names}
    )
    assert stored_answers(shuffled).digest == stored_answers(champion).digest
    assert compare_stored(champion, shuffled, GATE) == expected


def test_other_images_or_labels_are_refused_and_counted(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    champion, challenger = make_bundle(0.1, "old"), make_bundle(0.001, "new")
    reference = champion.reference()
    hashes = reference["hashes"].copy()
    hashes[0] = b"f" * 32
    other = rewritten(challenger, settings, hashes=hashes)
    with pytest.raises(DataError, match="597 and 597 images, 596 in both"):
        compare_stored(champion, other, GATE)
    labels = reference["labels"].copy()
    labels[0] = (labels[0] + 1) % 10
    relabelled = rewritten(other, settings, hashes=reference["hashes"], labels=labels)
    with pytest.raises(DataError, match="other test images or labels"):
        compare_stored(champion, relabelled, GATE)


def older(bundle: Bundle, settings: Settings, counted: bool = True) -> Bundle:
    """The bundle as from before images were named, and where `counted` is false, counted."""
    old = {name: array for name, array in bundle.reference().items() if name != "hashes"}
    np.savez(bundle.path / REFERENCE, **old)
    if not counted:
        (bundle.path / METRICS).write_text("{}")
    sign_directory(bundle.path, settings)
    return open_bundle(bundle.path, settings)


def test_images_of_older_bundles_are_told_apart_by_their_statistics(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    champion, challenger = make_bundle(0.1, "old"), make_bundle(0.001, "new")
    expected = compare_stored(champion, challenger, GATE)
    champion = older(champion, settings, counted=False)
    assert compare_stored(champion, challenger, GATE) == expected
    order = np.random.default_rng(0).permutation(597)
    names = ("probabilities", "labels", "hashes", "statistics")
    shuffled = rewritten(
        challenger, settings, **{name: challenger.reference()[name][order] for name in names}
    )
    assert compare_stored(champion, shuffled, GATE) == expected
    statistics = challenger.reference()["statistics"].copy()
    statistics[3] += 1
    other = rewritten(challenger, settings, statistics=statistics)
    with pytest.raises(DataError, match="597 and 597 images, 596 in both"):
        compare_stored(champion, other, GATE)


def test_the_second_answers_are_put_as_the_first_has_the_images(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    champion, challenger = make_bundle(0.1, "old"), make_bundle(0.001, "new")
    _, plain = shared_answers(champion, challenger)
    order = np.random.default_rng(0).permutation(597)
    names = ("probabilities", "labels", "hashes", "statistics")
    shuffled = rewritten(
        challenger, settings, **{name: challenger.reference()[name][order] for name in names}
    )
    first, second = shared_answers(champion, shuffled)
    np.testing.assert_array_equal(first.hashes, champion.reference()["hashes"])
    np.testing.assert_array_equal(second.probabilities, plain.probabilities)
    np.testing.assert_array_equal(second.names, first.names)


def test_bundles_that_do_not_count_their_test_images_say_so(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    first, second = (older(make_bundle(name=name), settings, counted=False) for name in "ab")
    said = "is from before bundles counted their test images; `dvc repro evaluate`"
    with pytest.raises(DataError, match=said):
        stored_answers(first)
    with pytest.raises(DataError, match=said):
        compare_stored(first, second, GATE)


def test_an_identity_is_of_images_and_labels_not_of_their_order() -> None:
    hashes = np.array([b"a", b"b", b"b"], "S32")
    names = np.array(["cat", "dog", "cat"], object)
    same = identity(hashes[::-1], names[::-1])
    assert identity(hashes, names) == same
    assert identity(hashes, names[::-1]) == same  # a is a cat, b is both
    assert identity(hashes[:2], names[:2]) != same
    assert identity(hashes[:2], names[1::-1]) != identity(hashes[:2], names[:2])
