"""Two bundles on the frozen test images: the comparison, and its page."""

from pathlib import Path

import numpy as np

from tasks.bundle import Bundle
from tasks.data.shards import SHARDS, open_shards
from tasks.errors import BundleError, DataError
from tasks.evaluation.comparison_page import Compared, render_comparison
from tasks.evaluation.side_by_side import Side, side_by_side
from tasks.evaluation.two_bundles import probabilities_by, shared_answers
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
        return _on_answers(a, b, titles, params, error)


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


def _on_answers(
    a: Bundle, b: Bundle, titles: tuple[str, str], params: Params, why: DataError
) -> Compared:
    try:
        answers = shared_answers(a, b)
    except DataError as error:
        raise BundleError(f"{why}. Of {titles[0]} and {titles[1]}: {error}") from None
    sides = [
        _side(one, title, said.probabilities)
        for one, title, said in zip((a, b), titles, answers, strict=True)
    ]
    found = side_by_side(sides[0], sides[1], answers[0].names, params.evaluate)
    note = f"{why}. Compared is what the bundles carry of the same test images."
    return Compared(found, None, note)


def _side(bundle: Bundle, title: str, probabilities: Floats) -> Side:
    return Side(title, bundle.digest, bundle.info, bundle.metrics(), probabilities)
