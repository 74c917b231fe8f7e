"""SIGKILLs at random moments of trainings, each taken up again, against unbroken ones.

python -m benchmarks.kills [--kills K] [--seed S]

Trains on scikit-learn's digits by the recipe of conf/params.yaml, and by one with everything on
that has a state of its own (averaged weights, accumulation, plateau schedule), in turn. After every
kill the checkpoint must be whole, and one that was there must not be gone; in the end the
weights must be those of the unbroken run, bit for bit. `checkpoint_share` is the part of the
unbroken runs' time that went into checkpoints, at one every `SECONDS`.
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.shards import ShardSplit
from tasks.params import load_params
from tasks.schema import Train

SIZE, TRAINED, VALIDATED = 16, 1100, 300
SECONDS = 0.2  # far more often than anybody would
RECIPES: dict[str, dict[str, Any]] = {
    "default": {"epochs": 6},
    "everything on": {
        "epochs": 6,
        "optimizer": "adamw",
        "lr": 0.01,
        "schedule": "plateau",
        "batch_size": 32,
        "accumulate": 2,
        "ema": 0.99,
        "on_divergence": "step_back",
    },
}
IMPORTED = ["tasks.training.loop", "tasks.training.augmentation", "sklearn.datasets"]
processes = multiprocessing.get_context("forkserver")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    processes.set_forkserver_preload(IMPORTED)
    counts = dict.fromkeys(("kills", "within_epoch", "trainings", "identical"), 0)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        whole = {name: unbroken(name, folder / name) for name in RECIPES}
        while counts["kills"] < arguments.kills:
            name = list(RECIPES)[counts["trainings"] % len(RECIPES)]
            round_ = folder / f"round {counts['trainings']}"
            broken(name, round_, moments, whole[name]["seconds"] / 4, counts)
            counts["trainings"] += 1
            counts["identical"] += digest(round_) == digest(folder / name)
    share = max(facts["checkpoint_share"] for facts in whole.values())
    print(f"{counts}; checkpoints took {share:.1%} of the time")
    ours = counts["identical"] / counts["trainings"]
    print(json.dumps({"benchmark": "kills", "ours": ours, **counts, "checkpoint_share": share}))
    sys.exit(ours < 1)


def unbroken(recipe: str, folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    process = start(recipe, folder)
    process.join()
    facts = json.loads((folder / "facts.json").read_text())
    return {"seconds": time.perf_counter() - started, **facts}


def broken(
    recipe: str, folder: Path, moments: random.Random, longest: float, counts: dict[str, int]
) -> None:
    """One training, killed again and again until it has come to its end."""
    seen = False
    while True:
        process = start(recipe, folder)
        process.join(moments.uniform(0, longest))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        longest *= 1.1  # a machine that has become slower gets to the end, too
        if process.exitcode == 0:
            break
        counts["kills"] += 1
        there = (folder / "checkpoint.pt").exists()
        assert there or not seen, "the checkpoint is gone"
        seen = there
        counts["within_epoch"] += there and step_of(folder / "checkpoint.pt") > 0
    assert process.exitcode == 0, f"training ended with {process.exitcode}"


def start(recipe: str, folder: Path) -> Any:
    process = processes.Process(target=train, args=(recipe, folder))
    process.start()
    return process


def train(recipe: str, folder: Path) -> None:
    """One process: train with a checkpoint in `folder`, and leave the weights there."""
    import torch

    from tasks.training.checkpoint import Checkpoints
    from tasks.training.loop import fit
    from tasks.training.models import ModelSpec, build, save_model

    config = recipe_of(recipe)
    spec = ModelSpec(
        architecture="resnet_small",
        width=config.width,
        depth=config.depth,
        classes=tuple("0123456789"),
        size=SIZE,
        mean=(0.3, 0.3, 0.3),
        std=(0.4, 0.4, 0.4),
    )
    torch.manual_seed(config.seed)
    model = build(spec)
    seconds, save = 0.0, Checkpoints.save

    def timed(self: Checkpoints, state: dict[str, Any]) -> None:
        nonlocal seconds
        began = time.perf_counter()
        save(self, state)
        seconds += time.perf_counter() - began

    Checkpoints.save = timed
    began = time.perf_counter()
    fit(model, *digits(), spec, config, checkpoint=folder / "checkpoint.pt")
    share = seconds / (time.perf_counter() - began)
    save_model(folder, model, spec)
    (folder / "facts.json").write_text(json.dumps({"checkpoint_share": share}))


def recipe_of(name: str) -> Train:
    return load_params().train.model_copy(update={"checkpoint_seconds": SECONDS, **RECIPES[name]})


def digits() -> tuple[ShardSplit, ShardSplit]:
    """Scikit-learn's scans at twice their size, for training and for validation."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    grey = np.rint(scans.images * 255 / 16).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    images = np.repeat(grey[..., None], 3, axis=3)

    def split(rows: slice) -> ShardSplit:
        count = len(images[rows])
        hashes = np.arange(rows.start, rows.stop).astype("S32")
        labels = scans.target[rows].astype(np.int64)
        return ShardSplit(images[rows], labels, np.zeros((count, 5), np.float32), hashes, [])

    return split(slice(0, TRAINED)), split(slice(TRAINED, TRAINED + VALIDATED))


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def step_of(checkpoint: Path) -> int:
    """The step within its epoch; 0 between epochs."""
    import io

    import torch

    data = checkpoint.read_bytes()
    assert hashlib.sha256(data[32:]).digest() == data[:32], "the checkpoint is damaged"
    return int(torch.load(io.BytesIO(data[32:]))["epoch"]["steps"])


if __name__ == "__main__":
    main()
