"""Two bundles on the frozen test images: the comparison, and its page."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.bundle import Bundle
from tasks.data.shards import SHARDS, open_shards
from tasks.errors import BundleError, DataError
from tasks.evaluation.comparison_page import Compared, render_comparison
from tasks.evaluation.side_by_side import Side, side_by_side
from tasks.evaluation.two_bundles import probabilities_by
from tasks.files import write_text
from tasks.metrics.classification import Floats
from tasks.pixels import Pixels
from tasks.registry.frozen import frozen_images
from tasks.schema import Params


def compare_bundles(
    a: Bundle, b: Bundle, titles: tuple[str, str], params: Params, root: Path = Path()
) -> Compared:
    """Let both bundles answer the frozen test images below `root`.

    Where these are not at hand, what the two bundles say of theirs (reference.npz) is compared,
    if they are the same. Raises BundleError for one bundle given twice, for different images,
    and for no class in common.
    """
    if a.digest == b.digest:
        raise BundleError(
            f"{titles[0]} and {titles[1]} are the same bundle, {a.digest[:12]}; there is nothing "
            "to compare"
        )
    try:
        return _on_images(a, b, titles, params, root)
    except DataError as error:
        sides, names = _on_reference(a, b, titles, error)
        note = f"{error}. Compared is what the bundles carry of the same test images."
        return Compared(side_by_side(*sides, names, params.evaluate), None, note)


def write_comparison(path: Path, compared: Compared, params: Params) -> None:
    """Write the page of its own of a comparison."""
    write_text(path, render_comparison(compared, params.evaluate))


def _on_images(
    a: Bundle, b: Bundle, titles: tuple[str, str], params: Params, root: Path
) -> Compared:
    test = frozen_images(params, root)
    split = open_shards(root / SHARDS).split("test")
    sides = [
        _side(one, title, probabilities_by(one, test.images(one)))
        for one, title in zip((a, b), titles, strict=True)
    ]
    names = np.array(test.classes, object)[test.labels]

    def picture(row: int) -> tuple[Pixels, str]:
        return split.images[row : row + 1][0], split.paths[row]

    return Compared(side_by_side(sides[0], sides[1], names, params.evaluate), picture)


def _on_reference(
    a: Bundle, b: Bundle, titles: tuple[str, str], why: DataError
) -> tuple[tuple[Side, Side], npt.NDArray[np.object_]]:
    """What the bundles carry of their test images, and the classes of these by name."""
    first, second = a.reference(), b.reference()
    names = [
        np.array(one.info.classes, object)[r["labels"]] for one, r in ((a, first), (b, second))
    ]
    count = next((n for n in map(_test_images, (a, b)) if n is not None), None)
    if count is None:
        raise BundleError(
            f"{why}. Nor do {titles[0]} and {titles[1]} say how many test images they carry"
        ) from None
    # Bundles from before they named their images have nothing better than the images' statistics.
    key = "hashes" if "hashes" in first and "hashes" in second else "statistics"
    same = np.array_equal(names[0][:count], names[1][:count]) and np.array_equal(
        first[key][:count], second[key][:count]
    )
    if not same:
        raise BundleError(
            f"{why}. {titles[0]} and {titles[1]} carry answers to different images"
        ) from None
    sides = (
        _side(a, titles[0], first["probabilities"][:count].astype(np.float64)),
        _side(b, titles[1], second["probabilities"][:count].astype(np.float64)),
    )
    return sides, names[0][:count]


def _test_images(bundle: Bundle) -> int | None:
    found = (bundle.metrics() or {}).get("test_images")
    return found if isinstance(found, int) else None


def _side(bundle: Bundle, title: str, probabilities: Floats) -> Side:
    return Side(title, bundle.digest, bundle.info, bundle.metrics(), probabilities)
