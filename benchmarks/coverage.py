"""How often our intervals cover the truth, and how often the prediction sets hold the true class.

python -m benchmarks.coverage [--data CIFAR10.tar.gz | FOLDER] [--draws N] [--sizes N ...]
                              [--images N] [--epochs N] [--keep FOLDER]

Real answers of real models on images that they never saw are the population, whose scores are known
exactly: a perceptron on scikit-learn's digits (out of five folds), the same with classes of uneven
size, and a small network of ours on CIFAR-10. From it --draws test sets of each size are drawn,
stratified by class as the pipeline's split is, with replacement: so they are independent images of
the population (without, a finite one would make every interval look too wide). Counted is how often
a 95 % interval holds the population's score. The peer is what a person would take: the percentile
bootstrap over images, and for plain shares scipy.stats.bootstrap's, both at the same resamples.

Of each class's precision, recall and F1 the table has the mean over the classes. Prediction sets:
the threshold comes from a validation set as large as the test set, drawn too; counted is how much
of the population the sets hold, and how often the interval on the test set holds that share.

JSON: `ours` and `peer` are the shares of the table's intervals that cover in 93 to 97 % of the
draws, `lowest` and `highest` the extremes of ours, `sets` the least share that the sets held.
"""

import argparse
import json
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from scipy.stats import bootstrap

from benchmarks._cifar import add_data_argument
from benchmarks._populations import Ints, Population, Reals, cifar, digits, keep, kept
from tasks.metrics.abstention import prediction_sets, set_threshold
from tasks.metrics.bootstrap import (
    mean_interval,
    paired_difference,
    score_intervals,
    share_interval,
)
from tasks.metrics.classification import OVERALL, PER_CLASS, confusion_matrix, scores, scores_of

LEVEL, RESAMPLES, CORRUPTED = 0.95, 500, 2000
GOAL = (0.93, 0.97)
NAMES = [name for name in (*OVERALL, *PER_CLASS) if name != "macro_recall"]  # balanced accuracy
UNEVEN = 0.75  # images of a class against those of the one before it
Hits = dict[str, list[float]]  # by interval, whether (or of how many classes) it covered


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # SciPy's, where a draw has no errors
    ours: dict[str, float] = {}
    peers: dict[str, float] = {}
    sets: list[float] = []
    for title, answers in _populations(arguments).items():
        right = (answers.predicted == answers.labels).mean()
        print(f"\n{title}: {len(answers.labels):,} images, {right:.1%} right; ours (peer)")
        for size in arguments.sizes:
            mine, theirs, held = _simulate(answers, size, arguments.draws)
            _say(size, mine, theirs, held)
            ours |= {f"{title} {size} {name}": value for name, value in mine.items()}
            peers |= {f"{title} {size} {name}": value for name, value in theirs.items()}
            sets.append(held)
    line = {
        "benchmark": "coverage",
        "ours": _kept_goal(ours),
        "peer": _kept_goal(peers),
        "lowest": min(ours.values()),
        "highest": max(ours.values()),
        "peer_lowest": min(peers.values()),
        "peer_highest": max(peers.values()),
        "sets": min(sets),
        "draws": arguments.draws,
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}))


def _simulate(
    answers: Population, size: int, draws: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Coverage of each interval, ours and the peer's, and the mean share that the sets hold."""
    random = np.random.default_rng(size)
    mine: Hits = defaultdict(list)
    theirs: Hits = defaultdict(list)
    held = []
    for seed in range(draws):
        rows = _draw(answers.labels, size, random)
        _scores(answers, rows, seed, mine, theirs)
        _difference(answers, rows, seed, mine, theirs)
        if len(answers.corrupted):
            _corruption(answers.corrupted, size, seed, mine, theirs)
        held.append(_sets(answers, rows, _draw(answers.labels, size, random), seed, mine, theirs))
    means = [
        {name: float(np.nanmean(hit)) for name, hit in hits.items()} for hits in (mine, theirs)
    ]
    return means[0], means[1], float(np.mean(held))


def _draw(labels: Ints, size: int, random: np.random.Generator) -> Ints:
    """Rows of a test set: of each class its share of the population, or one, drawn anew."""
    counts = np.bincount(labels)
    sizes = np.maximum(np.rint(counts * size / len(labels)), 1).astype(int)
    drawn = [
        random.choice(np.flatnonzero(labels == label), count) for label, count in enumerate(sizes)
    ]
    return np.concatenate(drawn)


def _scores(answers: Population, rows: Ints, seed: int, mine: Hits, theirs: Hits) -> None:
    classes = answers.probabilities.shape[1]
    truth = scores_of(confusion_matrix(answers.labels, answers.predicted, classes))
    confusion = confusion_matrix(answers.labels[rows], answers.predicted[rows], classes)
    found = score_intervals(confusion, RESAMPLES, LEVEL, seed)
    drawn = np.random.default_rng(seed).multinomial(
        len(rows), confusion.ravel() / len(rows), RESAMPLES
    )
    matrices = drawn.reshape(-1, classes, classes)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    percentiles = scores(hits, matrices.sum(2), matrices.sum(1))
    for name in NAMES:
        low, high = np.nanquantile(getattr(percentiles, name), [0.025, 0.975], axis=0)
        value = getattr(truth, name)
        mine[name].append(_covers(getattr(found.low, name), value, getattr(found.high, name)))
        theirs[name].append(_covers(low, value, high))


def _difference(answers: Population, rows: Ints, seed: int, mine: Hits, theirs: Hits) -> None:
    right = answers.predicted == answers.labels
    other = answers.other == answers.labels
    truth = right.mean() - other.mean()
    _, low, high = paired_difference(other[rows], right[rows], RESAMPLES, LEVEL, seed)
    mine["difference of two models"].append(_covers(low, truth, high))
    change = right[rows].astype(float) - other[rows]
    theirs["difference of two models"].append(_covers_by_scipy(change, truth, seed))


def _corruption(corrupted: Reals, size: int, seed: int, mine: Hits, theirs: Hits) -> None:
    values = np.random.default_rng([seed, size]).choice(corrupted, size)
    _, low, high = mean_interval(values, RESAMPLES, LEVEL, seed)
    mine["mean corruption error"].append(_covers(low, corrupted.mean(), high))
    theirs["mean corruption error"].append(_covers_by_scipy(values, corrupted.mean(), seed))


def _sets(
    answers: Population, rows: Ints, validation: Ints, seed: int, mine: Hits, theirs: Hits
) -> float:
    chosen = set_threshold(answers.probabilities[validation], answers.labels[validation], LEVEL)
    sets = prediction_sets(answers.probabilities, chosen)
    holds = sets[np.arange(len(sets)), answers.labels]
    _, low, high = share_interval(holds[rows], LEVEL)
    mine["share held by sets"].append(_covers(low, holds.mean(), high))
    theirs["share held by sets"].append(_covers_by_scipy(holds[rows], holds.mean(), seed))
    return float(holds.mean())


def _covers(low: Reals | float, value: Reals | float, high: Reals | float) -> float:
    """Whether it does, or of how many classes; NaN where there is no interval at all."""
    inside = (np.asarray(low) <= np.asarray(value) + 1e-12) & (value <= np.asarray(high) + 1e-12)
    return float(np.nanmean(np.where(np.isnan(low), np.nan, inside)))


def _covers_by_scipy(values: Reals, truth: float, seed: int) -> float:
    if (values == values[0]).all():  # SciPy gives NaN
        return float(abs(values[0] - truth) < 1e-12)
    ends = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=seed
    ).confidence_interval
    return _covers(ends.low, truth, ends.high)


def _populations(arguments: argparse.Namespace) -> dict[str, Population]:
    even = digits()
    rows = np.concatenate(
        [
            np.flatnonzero(even.labels == label)[: round(180 * UNEVEN**label)]
            for label in range(even.probabilities.shape[1])
        ]
    )
    uneven = Population(even.labels[rows], even.probabilities[rows], even.other[rows], np.zeros(0))
    return {"digits": even, "digits, uneven": uneven, "CIFAR-10": _cifar(arguments)}


def _cifar(arguments: argparse.Namespace) -> Population:
    file = arguments.keep and arguments.keep / f"{arguments.images}-{arguments.epochs}.npz"
    if file and file.exists():
        return kept(file)
    with tempfile.TemporaryDirectory() as scratch:
        found = cifar(arguments.data, arguments.images, arguments.epochs, CORRUPTED, Path(scratch))
    if file:
        keep(file, found)
    return found


def _kept_goal(found: dict[str, float]) -> float:
    return float(np.mean([GOAL[0] <= value <= GOAL[1] for value in found.values()]))


def _say(size: int, mine: dict[str, float], theirs: dict[str, float], held: float) -> None:
    print(f"{size:,} images; prediction sets hold {held:.2%}")
    for name, value in mine.items():
        mark = "" if GOAL[0] <= value <= GOAL[1] else "  <- not in 93 to 97 %"
        print(f"  {name.replace('_', ' '):28}{value:7.1%} ({theirs[name]:.1%}){mark}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--draws", type=int, default=1000, help="test sets of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--images", type=int, default=20_000, help="of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=5, help="on CIFAR-10")
    parser.add_argument("--keep", type=Path, help="folder of CIFAR-10's answers, to go on from")
    return parser.parse_args()


if __name__ == "__main__":
    main()
