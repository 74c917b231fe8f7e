"""How much of its accuracy a model keeps on images that something has happened to.

The deployed graph and fp32 see the same corrupted test images (tasks.evaluation.corruptions) at
every severity, and images shifted by a pixel. Nothing of it is used to choose anything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.data.shards import ShardSplit
from tasks.evaluation.corruptions.names import ALL, PUBLISHED, SEVERITIES
from tasks.evaluation.graph import open_graph
from tasks.metrics.classification import Bools, Floats, Ints
from tasks.pixels import Pixels
from tasks.progress import Progress
from tasks.runtime import RuntimeName, usable_cores
from tasks.schema import Robustness

Models = Mapping[str, tuple[Path, RuntimeName]]
Answers = Callable[[Pixels], Ints]
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))
"""Pixels down and to the right."""


@dataclass(frozen=True)
class Corrupted:
    """What models answer on N corrupted test images: C corruptions at V severities."""

    rows: Ints
    """The images of the test split that were looked at, int64 [N]."""
    labels: Ints
    clean: dict[str, Ints]
    """By model, the class it gives to each image as it is, [N]."""
    predicted: dict[str, Ints]
    """By model, the class it gives to each when corrupted, C×V×N, as names.ALL has them."""
    shifted: dict[str, Ints]
    """By model, the class it gives to each when shifted by a pixel, S×N, as SHIFTS has them."""
    samples: dict[str, Pixels]
    """One image under each corruption at the middle severity, uint8 S×S×3."""

    def accuracy(self, model: str) -> Floats:
        """Accuracy on each corruption at each severity, float64 C×V."""
        return np.asarray((self.predicted[model] == self.labels).mean(2), np.float64)

    def published(self, model: str) -> Bools:
        """Whether answers are right under the published corruptions, V and C in one: K×N."""
        chosen = [ALL.index(name) for name in PUBLISHED]
        right = self.predicted[model][chosen] == self.labels
        return np.asarray(right.reshape(-1, len(self.rows)))

    def stable(self, model: str) -> float:
        """Share of the images with one answer wherever a shift by one pixel puts them."""
        return float((self.shifted[model] == self.clean[model]).all(0).mean())

    def error(self, model: str) -> float:
        """Mean corruption error: of the published corruptions, all severities alike, in 0..1."""
        return float(1 - self.published(model).mean())


def measure_robustness(
    test: ShardSplit, models: Models, params: Robustness, seed: int
) -> Corrupted:
    """Run `models`, by name an ONNX file and its runtime, over corrupted test images.

    Raises CompressionError when a graph cannot be run, or gives what is not finite.
    """
    from tasks.evaluation.corruptions.suite import corrupt  # which brings PyTorch

    rows = chosen_rows(test.labels, params.images, seed)
    images = np.asarray(test.images[rows])
    answers = {name: _answers(*model) for name, model in models.items()}
    cells = list(product(ALL, SEVERITIES))

    def one(cell: tuple[str, int]) -> dict[str, Ints]:
        changed = corrupt(images, *cell, seed)
        return {model: answer(changed) for model, answer in answers.items()}

    found = _all_cells(one, cells, len(rows))
    shape = (len(ALL), len(SEVERITIES), len(rows))
    return Corrupted(
        rows=rows,
        labels=np.asarray(test.labels)[rows],
        clean={model: answer(images) for model, answer in answers.items()},
        predicted={m: np.stack([cell[m] for cell in found]).reshape(shape) for m in models},
        shifted={model: _shifted(answer, images) for model, answer in answers.items()},
        samples={name: corrupt(images[:1], name, SEVERITIES[2], seed)[0] for name in ALL},
    )


def chosen_rows(labels: npt.NDArray[np.int64], most: int, seed: int) -> Ints:
    """Up to `most` rows of a split in rising order, every class by its share or at least once."""
    order = np.random.default_rng(seed).permutation(len(labels))
    if len(labels) <= most:
        return np.sort(order)
    first = np.unique(np.asarray(labels)[order], return_index=True)[1]
    ahead = np.concatenate([order[first], np.delete(order, first)])
    return np.sort(ahead[:most])


def _answers(path: Path, runtime: RuntimeName) -> Answers:
    run = open_graph(path, ["logits"], runtime)

    def answers(images: Pixels) -> Ints:
        return np.asarray(run(images)[0].argmax(1))

    return answers


def _shifted(answers: Answers, images: Pixels) -> Ints:
    """The answers S×N to images that are shifted; their edges are repeated."""
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    side = images.shape[1]
    moved = (
        wide[:, 1 - down : 1 - down + side, 1 - right : 1 - right + side] for down, right in SHIFTS
    )
    return np.stack([answers(np.ascontiguousarray(one)) for one in moved])


def _all_cells(
    one: Callable[[tuple[str, int]], dict[str, Ints]],
    cells: Sequence[tuple[str, int]],
    images: int,
) -> list[dict[str, Ints]]:
    """Each corruption at each severity, on all cores; the order of the results is that of cells."""
    progress = Progress("corrupted images answered", len(cells) * images)
    with progress, _one_thread_each(), ThreadPoolExecutor(usable_cores()) as pool:
        found = []
        for answer in pool.map(one, cells):
            found.append(answer)
            progress.add(images)
    return found


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """One thread for PyTorch: the cores are busy with one corruption each."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
