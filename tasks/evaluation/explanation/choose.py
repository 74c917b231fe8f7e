"""Which test images are explained: where the model is wrong, sure, and in doubt."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.metrics.classification import Floats, Ints

Why = Literal["mistake", "confident", "borderline"]


@dataclass(frozen=True)
class Choice:
    """A row of the test split, and what it is an example of."""

    row: int
    why: Why


def choose(probabilities: Floats, labels: Ints, most: int) -> list[Choice]:
    """Up to `most` images, by what the deployed model says of N images, N×C, and their labels.

    The most confident mistakes are a third of them; then, the classes with most mistakes first,
    each class's most confident right answer and the image whose two best classes are nearest.
    Where the classes leave room there are more mistakes, and where mistakes do more classes.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    examples = list(_of_classes(probabilities, labels, right, set(wrong[: most // 3].tolist())))
    mistakes = wrong[: max(most // 3, most - len(examples))].tolist()
    chosen = [Choice(row, "mistake") for row in mistakes]
    return chosen + [one for one in examples if one.row not in mistakes][: most - len(chosen)]


def _of_classes(
    probabilities: Floats, labels: Ints, right: np.ndarray, taken: set[int]
) -> Iterator[Choice]:
    classes = probabilities.shape[1]
    top = np.partition(probabilities, classes - 2, axis=1)
    margin = top[:, -1] - top[:, -2]
    mistakes = np.bincount(labels[~right], minlength=classes)
    for one in np.argsort(-mistakes, kind="stable"):
        free = [row for row in np.flatnonzero(labels == one).tolist() if row not in taken]
        sure = [row for row in free if right[row]]
        if sure:
            best = max(sure, key=lambda row: top[row, -1])
            yield Choice(best, "confident")
            free.remove(best)
        if free:
            yield Choice(min(free, key=lambda row: margin[row]), "borderline")
