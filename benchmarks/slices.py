"""How well the slices on which a model does worse are found, and how often for no reason.

python -m benchmarks.slices [--data CIFAR10.tar.gz | FOLDER] [--images N] [--sets N]

Test sets are drawn from real images, with their class, brightness, contrast, sharpness and
saturation; a tenth of the answers is wrong, anywhere, and more of them on planted images: the
darkest fifth, or those that are among the darker and among the smoother two fifths. Both tools get
the same. The peer is what tools for error analysis do: a decision tree (scikit-learn's, as deep as
our slices, leaves as large) is fitted to the mistakes, and its leaf of most mistakes is the slice.

Overlap is that of the first slice with the planted images, intersection over union, 0 when none is
named. JSON: `ours` and `peer` are its mean over all planted sets, `false_alarms` and
`peer_false_alarms` how often a slice is named where nothing is planted, `seconds` and
`peer_seconds` the medians of one search.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.tree import DecisionTreeClassifier

from benchmarks._cifar import add_data_argument, class_folders
from tasks.evaluation.factors import factors_of
from tasks.evaluation.slices import search
from tasks.metrics.classification import Bools
from tasks.pixels import STATISTICS, statistics

if TYPE_CHECKING:
    import pandas as pd

SMALLEST, CONFIDENCE, BASE = 30, 0.95, 0.1
POINTS = {
    "nothing": 0.0, "dark, 5 points": 0.05, "dark, 10 points": 0.1, "dark, 20 points": 0.2,
    "dark and smooth, 20 points": 0.2,
}  # fmt: skip


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        pool = _described(class_folders(arguments.data, Path(scratch)), arguments.pool)
    found = {kind: _trials(kind, pool, arguments) for kind in POINTS}
    print(f"{'planted':28}{'named':>8}{'overlap':>9}{'':6}{'tree: named':>12}{'overlap':>9}")
    for kind, (ours, peer) in found.items():
        cells = [f"{mean(one[0] for one in tool):7.0%}" for tool in (ours, peer)]
        laps = [f"{mean(one[1] for one in tool):8.2f}" for tool in (ours, peer)]
        print(f"{kind:28}{cells[0]:>8}{laps[0]:>9}{'':6}{cells[1]:>12}{laps[1]:>9}")
    planted = [found[kind] for kind in POINTS if POINTS[kind]]
    line = {
        "benchmark": "slices",
        "ours": mean(one[1] for ours, _ in planted for one in ours),
        "peer": mean(one[1] for _, peer in planted for one in peer),
        "false_alarms": mean(one[0] for one in found["nothing"][0]),
        "peer_false_alarms": mean(one[0] for one in found["nothing"][1]),
        "seconds": median(one[2] for ours, _ in found.values() for one in ours),
        "peer_seconds": median(one[2] for _, peer in found.values() for one in peer),
        "images": arguments.images,
        "sets": arguments.sets,
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}))


Found = tuple[bool, float, float]
"""Whether a slice was named, its overlap with what was planted, and the seconds it took."""


def _trials(
    kind: str, pool: "pd.DataFrame", arguments: argparse.Namespace
) -> tuple[list[Found], list[Found]]:
    ours, peer = [], []
    for seed in range(arguments.sets):
        random = np.random.default_rng(seed)
        table = pool.iloc[random.choice(len(pool), arguments.images, replace=False)]
        table = table.reset_index(drop=True)
        planted = _planted(kind, table)
        wrong = random.random(len(table)) < BASE + POINTS[kind] * planted
        for tool, results in ((_ours, ours), (_tree, peer)):
            started = time.perf_counter()
            slice_ = tool(table, wrong)
            seconds = time.perf_counter() - started
            results.append((slice_ is not None, _overlap(slice_, planted), seconds))
    return ours, peer


def _ours(table: "pd.DataFrame", wrong: Bools) -> Bools | None:
    searched = search(wrong, factors_of(table, SMALLEST), SMALLEST, 2, CONFIDENCE, 0)
    found = searched.found(CONFIDENCE)
    return searched.members(found[0]) if found else None


def _tree(table: "pd.DataFrame", wrong: Bools) -> Bools | None:
    """The leaf of the largest share of mistakes; None when there is but one."""
    import pandas as pd

    columns = pd.get_dummies(table, columns=["class"]).to_numpy(np.float64)
    tree = DecisionTreeClassifier(max_depth=2, min_samples_leaf=SMALLEST, random_state=0)
    leaves: npt.NDArray[np.int64] = tree.fit(columns, wrong).apply(columns)
    worst = max(np.unique(leaves), key=lambda leaf: wrong[leaves == leaf].mean())
    inside = leaves == worst
    return None if inside.all() else inside


def _planted(kind: str, table: "pd.DataFrame") -> Bools:
    share = 0.4 if "smooth" in kind else 0.2
    planted = table["brightness"] <= table["brightness"].quantile(share)
    if "smooth" in kind:
        planted &= table["sharpness"] <= table["sharpness"].quantile(share)
    return np.asarray(planted, bool)


def _overlap(found: Bools | None, planted: Bools) -> float:
    return 0.0 if found is None else float((found & planted).sum() / (found | planted).sum())


def _described(folder: Path, images: int) -> "pd.DataFrame":
    """Class and statistics of the first images of each class."""
    import pandas as pd

    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    rows = [
        [one.name, *statistics(np.asarray(Image.open(file).convert("RGB"))).tolist()]
        for one in classes
        for file in sorted(one.iterdir())[: images // len(classes)]
    ]
    return pd.DataFrame(rows, columns=["class", *STATISTICS]).drop(columns="aspect_ratio")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=2000, help="of a test set")
    parser.add_argument("--sets", type=int, default=200, help="of each kind")
    parser.add_argument("--pool", type=int, default=20_000, help="images that sets are drawn from")
    return parser.parse_args()


if __name__ == "__main__":
    main()
