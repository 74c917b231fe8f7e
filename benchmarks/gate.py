"""How often the gate errs: models that are worse and promoted, or as good and blocked.

python -m benchmarks.gate [--trials N] [--disagreement D] [--plot FILE.svg]

Pairs of models of known accuracy: the champion is right on 90 % of images, the challenger on as
many, one point more, or one or two fewer, and exactly one of them is right on the share D of the
images. Every trial draws a test set of ten classes anew and asks the product's own rules, accuracy
and recall, with the gate of conf/params.yaml. The peer is the usual practice: promote what is not
less accurate on the test set.

JSON, at 2,000 test images: `ours` and `peer` are how often a model two points worse is promoted,
`blocked_equal` and `peer_blocked_equal` how often an equal one is blocked.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tasks.evaluation.compare import compare
from tasks.metrics.classification import Ints
from tasks.params import load_params
from tasks.schema import Gate

CLASSES = tuple(str(number) for number in range(10))
CHAMPION = 0.9
CHANGES = (0.01, 0.0, -0.01, -0.02)
SIZES = (250, 500, 1000, 2000, 4000, 8000)
STATED = 2000  # images, of the JSON
Rates = dict[tuple[float, int], tuple[float, float]]  # change, images: promoted by us, by the peer


def main() -> None:
    arguments = _arguments()
    gate = load_params(Path("conf/params.yaml")).gate
    found: Rates = {}
    for change in CHANGES:
        for images in SIZES:
            found[change, images] = _promoted(change, images, arguments, gate)
    _print(found, gate, arguments.disagreement)
    if arguments.plot:
        _plot(found, arguments.plot)
    worse, equal = found[CHANGES[-1], STATED], found[0.0, STATED]
    line = {
        "benchmark": "gate",
        "ours": worse[0],
        "peer": worse[1],
        "blocked_equal": 1 - equal[0],
        "peer_blocked_equal": 1 - equal[1],
        "disagreement": arguments.disagreement,
        "images": STATED,
        "trials": arguments.trials,
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}))


def _promoted(
    change: float, images: int, arguments: argparse.Namespace, gate: Gate
) -> tuple[float, float]:
    """How often such a challenger is promoted, by the gate and by the usual practice."""
    random = np.random.default_rng([images, round(1e4 * (change + 1))])
    ours, theirs = 0, 0
    for _ in range(arguments.trials):
        labels, old, new = _pair(random, change, images, arguments.disagreement)
        result = compare(old, new, labels, CLASSES, gate)
        ours += result.not_worse and not result.dropped_classes
        theirs += result.difference >= 0
    return ours / arguments.trials, theirs / arguments.trials


def _pair(
    random: np.random.Generator, change: float, images: int, disagreement: float
) -> tuple[Ints, Ints, Ints]:
    """Labels and the predictions of both models; a mistake is one of the other classes."""
    only_new, only_old = (disagreement + change) / 2, (disagreement - change) / 2
    both = CHAMPION - only_old
    kinds = random.choice(4, images, p=[both, only_old, only_new, 1 - both - only_old - only_new])
    labels = random.integers(0, len(CLASSES), images)
    wrong = (labels + random.integers(1, len(CLASSES), images)) % len(CLASSES)
    old = np.where(np.isin(kinds, (0, 1)), labels, wrong)
    return labels, old, np.where(np.isin(kinds, (0, 2)), labels, wrong)


def _print(found: Rates, gate: Gate, disagreement: float) -> None:
    print(
        f"promoted, of pairs that disagree on {disagreement:.0%} of the images "
        f"(margin {gate.margin:g}, confidence {gate.confidence:g}); in brackets the usual practice"
    )
    print(f"{'challenger':14}" + "".join(f"{images:>18,}" for images in SIZES))
    for change in CHANGES:
        cells = (f"{found[change, n][0]:.1%} ({found[change, n][1]:.1%})" for n in SIZES)
        print(f"{100 * change:+.0f} points".ljust(14) + "".join(f"{cell:>18}" for cell in cells))


def _plot(found: Mapping[tuple[float, int], tuple[float, float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")  # files, no window
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for change, colour in zip(CHANGES, ("green", "blue", "orange", "red"), strict=True):
        shown = [100 * found[change, images][0] for images in SIZES]
        axes.plot(SIZES, shown, f"tab:{colour}", marker="o", label=f"{100 * change:+.0f} points")
        usual = [100 * found[change, images][1] for images in SIZES]
        axes.plot(SIZES, usual, f"tab:{colour}", linestyle=":", linewidth=1.2)
    axes.set(xscale="log", xlabel="test images", ylabel="promoted, %", ylim=(-2, 102))
    axes.set_xticks(SIZES, [f"{images:,}" for images in SIZES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.plot([], [], "grey", linestyle=":", label="usual practice")
    figure.legend(title="challenger", loc="outside right center", fontsize=9)
    figure.savefig(file)
    print(f"the plot is in {file}; dotted: promote what is not less accurate")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="of each pair and size")
    parser.add_argument("--disagreement", type=float, default=0.06, help="one right, one wrong")
    parser.add_argument("--plot", type=Path, help="write the curves to this SVG, PNG or PDF file")
    arguments = parser.parse_args()
    if not 0.02 <= arguments.disagreement <= 0.18:
        parser.error("--disagreement is 0.02 to 0.18: two points cannot be lost on fewer images")
    return arguments


if __name__ == "__main__":
    main()
