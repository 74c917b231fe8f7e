"""Wrong labels planted in real images: our label suspects beside cleanlab's.

python -m benchmarks.labels [--data CIFAR10.tar.gz | FOLDER] [--images N] [--epochs N] [--folds N]
                            [--seed N] [--repeats R] [--sets NAME ...] [--keep FOLDER]

5 % and 10 % of the labels of scikit-learn's digits and of CIFAR-10's first --images are replaced,
by any other class (symmetric) or by the next one (pair). For each of these eight our own
cross-validation gives out-of-fold probabilities, once; both tools get the same. One thread.

Ranking: average precision of the planted labels among all images. cleanlab's default is its
self-confidence; `peer` is the best of the five scores that it offers, by the mean of all eight.
Suspects: precision and recall of what each flags by default. Timed, one after the other, is the
scoring alone, in each tool's own process and after a first call: flags and scores of all images.
With --keep the probabilities are kept in a folder, and taken from there by the next run.

The JSON: `ours` and `peer` are mean average precisions, `seconds` the sums over the settings of
the medians of --repeats.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score

from benchmarks._cifar import add_data_argument, class_folders, some_images
from benchmarks._cleanlab import DEFAULT, Cleanlab
from benchmarks._planted_labels import Kind, Planted, planted
from benchmarks._shards import proposed, shards_of
from tasks.data.digits import write_digits
from tasks.data.shards import Shards
from tasks.data.sources.folders import find_files
from tasks.files import atomic_write
from tasks.metrics.label_errors import find_label_errors
from tasks.params import load_params
from tasks.schema import Params, Train

SETS = ("digits", "cifar")
RATES = (0.05, 0.10)
TEST = 0.02  # the smallest test split: it has no part in this


@dataclass(frozen=True)
class Measured:
    """One setting: average precision by method, precision and recall of the flags, seconds."""

    ours: float
    peers: dict[str, float]
    our_flags: tuple[float, float]
    peer_flags: tuple[float, float]
    seconds: tuple[float, float]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.sets:
            data: tuple[Shards, Train] | None = None
            for kind in get_args(Kind):
                for rate in RATES:
                    title = f"{name} {kind} {rate:.0%}"
                    file = _file(arguments, name, kind, rate)
                    kept = _kept(file)
                    if kept is None:
                        data = data or _data(name, arguments, Path(scratch))
                        kept = planted(*data, rate, kind, arguments.seed, Path(scratch) / name)
                        _keep(file, kept)
                    found[title] = _measure(kept, arguments.repeats)
                    _say(title, kept, found[title])
    _report(found)


def _data(name: str, arguments: argparse.Namespace, scratch: Path) -> tuple[Shards, Train]:
    """The shards of a set with the right labels, and how to train on them."""
    root = scratch / f"{name}-images"
    if name == "digits":
        write_digits(root)
        params = load_params()
    else:
        some_images(class_folders(arguments.data, scratch / "all"), root, arguments.images)
        params = proposed(root)
        train = params.train.model_copy(update={"epochs": arguments.epochs})
        params = params.model_copy(update={"train": train})
    params = _for_folds(params, arguments.folds)
    return shards_of(find_files(root), root, params, scratch / f"{name}-shards"), params.train


def _for_folds(params: Params, folds: int) -> Params:
    split = params.split.model_copy(update={"folds": folds, "test": TEST})
    train = params.train.model_copy(update={"device": "cpu", "patience": params.train.epochs})
    return params.model_copy(update={"split": split, "train": train})


def _measure(data: Planted, repeats: int) -> Measured:
    ours = find_label_errors(data.probabilities, data.labels)
    with Cleanlab(data) as peer:
        peer.seconds()  # its first call is slower, as ours above
        times = []
        for _ in range(repeats):  # interleaved: a busy moment hits them alike
            started = time.perf_counter()
            find_label_errors(data.probabilities, data.labels)
            times.append((time.perf_counter() - started, peer.seconds()))
        judged = peer.judged
    scores = judged.suspicion.items()
    mine, theirs = zip(*times, strict=True)
    return Measured(
        ours=float(average_precision_score(data.wrong, ours.suspicion)),
        peers={k: float(average_precision_score(data.wrong, score)) for k, score in scores},
        our_flags=_flags(ours.suspect, data.wrong),
        peer_flags=_flags(judged.issues, data.wrong),
        seconds=(median(mine), median(theirs)),
    )


def _flags(flagged: npt.NDArray[np.bool_], wrong: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Precision and recall."""
    hits = float((flagged & wrong).sum())
    return hits / max(1, flagged.sum()), hits / wrong.sum()


def _file(arguments: argparse.Namespace, name: str, kind: str, rate: float) -> Path | None:
    """Where the probabilities are kept: other settings, another file."""
    if arguments.keep is None:
        return None
    parts = [name, kind, f"{rate:g}", f"{arguments.folds}-folds", f"seed-{arguments.seed}"]
    if name == "cifar":
        parts += [f"{arguments.images}-images", f"{arguments.epochs}-epochs"]
    return Path(arguments.keep) / f"{'-'.join(parts)}.npz"


def _kept(file: Path | None) -> Planted | None:
    if file is None or not file.exists():
        return None
    with np.load(file) as kept:
        return Planted(kept["probabilities"], kept["labels"], kept["wrong"])


def _keep(file: Path | None, data: Planted) -> None:
    if file is not None:
        with atomic_write(file) as stream:
            np.savez(stream, **vars(data))


def _say(title: str, data: Planted, found: Measured) -> None:
    right = (data.probabilities.argmax(1) == data.labels)[~data.wrong].mean()
    best = max(found.peers, key=lambda name: found.peers[name])
    (p, r), (peer_p, peer_r) = found.our_flags, found.peer_flags
    print(
        f"{title:22} {len(data.labels):5} images, {right:.1%} accuracy; average precision "
        f"{found.ours:.4f}, cleanlab {found.peers[DEFAULT]:.4f} (best {found.peers[best]:.4f}, "
        f"{best}); precision, recall of flags {p:.2f} {r:.2f}, cleanlab {peer_p:.2f} {peer_r:.2f}; "
        f"{1e3 * found.seconds[0]:.1f} ms, cleanlab {1e3 * found.seconds[1]:.1f}",
        flush=True,
    )


def _report(found: dict[str, Measured]) -> None:
    ours = float(np.mean([one.ours for one in found.values()]))
    names = next(iter(found.values())).peers
    peers = {k: float(np.mean([one.peers[k] for one in found.values()])) for k in names}
    best = max(peers, key=lambda name: peers[name])
    for name, value in {"ours": ours, **peers}.items():
        print(f"{name:30} mean average precision {value:.4f}")
    seconds = [sum(one.seconds[i] for one in found.values()) for i in (0, 1)]
    line = {"benchmark": "labels", "ours": round(ours, 4), "peer": round(peers[best], 4)}
    line |= {"ratio": round(ours / peers[best], 4), "peer_score": best}
    line |= {"seconds": round(seconds[0], 5), "peer_seconds": round(seconds[1], 5)}
    print(json.dumps(line | {"times_as_fast": round(seconds[1] / seconds[0], 1)}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=6_000, help="of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=10, help="on CIFAR-10")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the planted labels")
    parser.add_argument("--repeats", type=int, default=5, help="of the timed scoring")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--keep", type=Path, help="folder of the probabilities, to go on from")
    return parser.parse_args()


if __name__ == "__main__":
    main()
