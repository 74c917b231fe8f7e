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

    hashes: npt.NDArray[np.bytes_]
    """Of the pixels, S32 [N]."""
    names: Names
    predicted: Ints
    """Positions in the bundle's classes, int64 [N]."""

    @property
    def digest(self) -> str:
        """Stands for the images and their labels, in whatever order."""
        return identity(self.hashes, self.names)

    def ordered(self) -> "Answers":
        """The same by hash and label, so that two bundles' rows are of the same images."""
        order = np.lexsort((self.names.astype(str), self.hashes))
        return Answers(self.hashes[order], self.names[order], self.predicted[order])


def identity(hashes: npt.NDArray[np.bytes_], names: Names) -> str:
    """SHA-256 that stands for a set of labelled images, [N] each; their order is no part of it."""
    pairs = zip(hashes.tolist(), names.tolist(), strict=True)
    return sha256_json(sorted([image.decode("ascii"), str(name)] for image, name in pairs))


def stored_answers(bundle: Bundle) -> Answers:
    """The bundle's own answers; raises DataError for a bundle from before they were kept."""
    reference, count = bundle.reference(), (bundle.metrics() or {}).get("test_images")
    if "hashes" not in reference or not isinstance(count, int):
        raise DataError(
            f"{bundle.path} is from before bundles named their test images; `dvc repro evaluate` "
            "builds one that does"
        )
    classes = np.array(bundle.info.classes, object)
    return Answers(
        hashes=reference["hashes"][:count],
        names=classes[reference["labels"][:count]],
        predicted=reference["probabilities"][:count].argmax(axis=1),
    )


def recall_of_each(bundle: Bundle) -> dict[str, float | None]:
    """Recall by class on the bundle's test images, None where there are none; DataError."""
    answers = stored_answers(bundle)
    classes = np.array(bundle.info.classes, object)
    right = classes[answers.predicted] == answers.names
    shares = {name: right[answers.names == name] for name in bundle.info.classes}
    return {name: float(own.mean()) if len(own) else None for name, own in shares.items()}


def compare_stored(champion: Bundle, challenger: Bundle, params: Gate) -> Comparison:
    """Compare two bundles by the answers they carry.

    Raises DataError when one carries none, or the two are not of the same images and labels.
    """
    old, new = stored_answers(champion).ordered(), stored_answers(challenger).ordered()
    if old.digest != new.digest:
        shared = len(np.intersect1d(old.hashes, new.hashes))
        raise DataError(
            f"the bundles were measured on other test images or labels ({len(old.hashes)} and "
            f"{len(new.hashes)} images, {shared} in both)"
        )
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
