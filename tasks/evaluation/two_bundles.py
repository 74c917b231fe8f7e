"""Two bundles on the same test images, by the answers that each carries signed: no images needed.

reference.npz of a bundle holds probabilities, labels and pixel hashes of its test, then its
validation images; metrics.json says how many of them are test images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.bundle import Bundle
from tasks.errors import BundleError, DataError
from tasks.evaluation.compare import Comparison, compare
from tasks.files import sha256_json
from tasks.metrics.classification import Floats, Ints
from tasks.pixels import Images
from tasks.schema import Gate

_BATCH = 256
Names = npt.NDArray[Any]  # object [N]: the class of each image by name


@dataclass(frozen=True)
class Answers:
    """What a bundle said of its N test images; row i of every field is the same image."""

    hashes: npt.NDArray[np.bytes_] | None
    """Of the pixels, S32 [N]; None of bundles from before they named their images."""
    statistics: npt.NDArray[np.bytes_]
    """Of the pixels, as the bytes of their numbers, [N]: what names an image without a hash."""
    names: Names
    probabilities: Floats
    """float64 N×C."""

    @property
    def predicted(self) -> Ints:
        """Positions in the bundle's classes, int64 [N]."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def digest(self) -> str | None:
        """Stands for the images and their labels, in whatever order; None without hashes."""
        return None if self.hashes is None else identity(self.hashes, self.names)

    def rows(self, order: npt.NDArray[np.intp]) -> "Answers":
        """The same in another order."""
        hashes = None if self.hashes is None else self.hashes[order]
        return Answers(hashes, self.statistics[order], self.names[order], self.probabilities[order])


def identity(hashes: npt.NDArray[np.bytes_], names: Names) -> str:
    """SHA-256 that stands for a set of labelled images, [N] each; their order is no part of it."""
    pairs = zip(hashes.tolist(), names.tolist(), strict=True)
    return sha256_json(sorted([image.decode("ascii"), str(name)] for image, name in pairs))


def stored_answers(bundle: Bundle, beside: Bundle | None = None) -> Answers:
    """The bundle's own answers to its test images.

    A bundle from before it counted them has as many as the one `beside` it. Raises DataError where
    neither says how many.
    """
    counts = (_test_images(one) for one in (bundle, beside) if one is not None)
    count = next((number for number in counts if number is not None), None)
    if count is None:
        raise DataError(
            f"{bundle.path} is from before bundles counted their test images; `dvc repro "
            "evaluate` builds one that does"
        )
    reference = {name: array[:count] for name, array in bundle.reference().items()}
    statistics = np.ascontiguousarray(reference["statistics"], np.float32)
    return Answers(
        hashes=reference.get("hashes"),
        statistics=statistics.view(f"S{statistics.shape[1] * statistics.itemsize}").ravel(),
        names=np.array(bundle.info.classes, object)[reference["labels"]],
        probabilities=reference["probabilities"].astype(np.float64),
    )


def shared_answers(a: Bundle, b: Bundle) -> tuple[Answers, Answers]:
    """What two bundles said of the same test images: row i of both is one image, as A has them.

    Images are told apart by their hashes, or where a bundle is from before it had any by their
    statistics. Raises DataError when a bundle says not how many test images it carries, or the
    two are not of the same images and labels.
    """
    old, new = stored_answers(a, beside=b), stored_answers(b, beside=a)
    if old.hashes is None or new.hashes is None:
        images = old.statistics, new.statistics
    else:
        images = old.hashes, new.hashes
    first, second = _order(images[0], old.names), _order(images[1], new.names)
    same_images = np.array_equal(images[0][first], images[1][second])
    if not same_images or not np.array_equal(old.names[first], new.names[second]):
        shared = len(np.intersect1d(*images))
        raise DataError(
            f"the bundles were measured on other test images or labels ({len(images[0])} and "
            f"{len(images[1])} images, {shared} in both)"
        )
    return old, new.rows(second[np.argsort(first)])


def recall_of_each(bundle: Bundle) -> dict[str, float | None]:
    """Recall by class on the bundle's test images, None where there are none; DataError."""
    answers = stored_answers(bundle)
    classes = np.array(bundle.info.classes, object)
    right = classes[answers.predicted] == answers.names
    shares = {name: right[answers.names == name] for name in bundle.info.classes}
    return {name: float(own.mean()) if len(own) else None for name, own in shares.items()}


def compare_stored(champion: Bundle, challenger: Bundle, params: Gate) -> Comparison:
    """Compare two bundles by the answers they carry; raises DataError as `shared_answers` does."""
    old, new = shared_answers(champion, challenger)
    return compare_answers(champion, challenger, old.names, old.predicted, new.predicted, params)


def compare_answers(
    champion: Bundle, challenger: Bundle, names: Names, old: Ints, new: Ints, params: Gate
) -> Comparison:
    """Compare answers [N], positions in each bundle's own classes, with the true names [N].

    Only images of a class that the champion knows count; a class that is new may be predicted.
    """
    known = champion.info.classes
    classes = [*known, *sorted(set(challenger.info.classes) - set(known))]
    index = {name: position for position, name in enumerate(classes)}
    shared = np.isin(names, known)
    labels = np.array([index[name] for name in names[shared]], np.int64)
    answers = (_positions(champion, index)[old], _positions(challenger, index)[new])
    return compare(answers[0][shared], answers[1][shared], labels, classes, params)


def _positions(bundle: Bundle, index: Mapping[str, int]) -> Ints:
    """Where each of the bundle's classes, [C], is in `index`."""
    return np.array([index[name] for name in bundle.info.classes], np.int64)


def predicted_by(bundle: Bundle, images: Images) -> Ints:
    """The bundle's answers to its inputs, uint8 N×S×S×3: positions in its classes, int64 [N]."""
    return np.asarray(probabilities_by(bundle, images).argmax(axis=1))


def probabilities_by(bundle: Bundle, images: Images) -> Floats:
    """Probabilities float64 N×C for inputs uint8 N×S×S×3, a batch at a time.

    Raises BundleError when they are not finite.
    """
    starts = range(0, len(images), _BATCH)
    parts = [bundle.predict(images[start : start + _BATCH])[0] for start in starts]
    probabilities = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(probabilities).all():
        raise BundleError(f"{bundle.path} answers with numbers that are not finite")
    return probabilities


def _order(images: npt.NDArray[np.bytes_], names: Names) -> npt.NDArray[np.intp]:
    """By image, then by label."""
    return np.lexsort((names.astype(str), images))


def _test_images(bundle: Bundle) -> int | None:
    found = (bundle.metrics() or {}).get("test_images")
    return found if isinstance(found, int) else None
