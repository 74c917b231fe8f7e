"""SIGKILLs at random moments of trainings and sweeps, each taken up again, against unbroken ones.

python -m benchmarks.kills [--kills K] [--seed S]

On scikit-learn's digits, in turn: a training by the recipe of conf/params.yaml, one with everything
on that has a state of its own (averaged weights, accumulation, plateau schedule), and a sweep of
`TRIALS` trials. After every kill all checkpoints must be whole, and a training's that was there
must not be gone; in the end the weights (of a sweep those of every trial, with the values drawn
for it) must be those of the unbroken run, bit for bit. `checkpoint_share` is the part of the
unbroken trainings' time that went into checkpoints, at one every `SECONDS`.
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

from benchmarks._shards import digits_shards
from tasks.data.shards import ShardSplit
from tasks.params import load_params
from tasks.schema import Train

SIZE, TRAINED, VALIDATED = 16, 1100, 300
SECONDS = 0.2  # far more often than anybody would
SWEEP, TRIALS, SHARDS = "sweep", 4, "shards"
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
IMPORTED = ["tasks.training.tune", "tasks.training.augmentation", "sklearn.datasets"]
processes = multiprocessing.get_context("forkserver")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    processes.set_forkserver_preload(IMPORTED)
    counts = dict.fromkeys(("kills", "within_epoch", "runs", "sweeps", "identical"), 0)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        digits_shards(folder / SHARDS)
        names = [*RECIPES, SWEEP]
        whole = {name: unbroken(name, folder / name) for name in names}
        while counts["kills"] < arguments.kills:
            name = names[counts["runs"] % len(names)]
            round_ = folder / f"round {counts['runs']}"
            broken(name, round_, moments, whole[name]["seconds"] / 4, counts)
            counts["runs"] += 1
            counts["sweeps"] += name == SWEEP
            counts["identical"] += digest(round_) == digest(folder / name)
            print(f"{name}: {counts}", flush=True)
    share = max(facts.get("checkpoint_share", 0.0) for facts in whole.values())
    print(f"{counts}; checkpoints took {share:.1%} of the time")
    ours = counts["identical"] / counts["runs"]
    print(json.dumps({"benchmark": "kills", "ours": ours, **counts, "checkpoint_share": share}))
    sys.exit(ours < 1)


def unbroken(recipe: str, folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    process = start(recipe, folder)
    process.join()
    assert process.exitcode == 0, f"{recipe} ended with {process.exitcode}"
    return {"seconds": time.perf_counter() - started, **json.loads(facts_of(folder))}


def facts_of(folder: Path) -> str:
    file = folder / "facts.json"
    return file.read_text() if file.exists() else "{}"


def broken(
    recipe: str, folder: Path, moments: random.Random, longest: float, counts: dict[str, int]
) -> None:
    """One training or sweep, killed again and again until it has come to its end."""
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
        saved = sorted(folder.rglob("*.pt"))
        assert saved or not seen, "the checkpoint is gone"
        seen = bool(saved) and recipe != SWEEP  # a trial that has ended needs none
        steps = [step_of(file) for file in saved]
        counts["within_epoch"] += any(steps)
    assert process.exitcode == 0, f"{recipe} ended with {process.exitcode}"


def start(recipe: str, folder: Path) -> Any:
    work, arguments = (search, (folder,)) if recipe == SWEEP else (train, (recipe, folder))
    process = processes.Process(target=work, args=arguments)
    process.start()
    return process


def search(folder: Path) -> None:
    """One process: run the sweep, or what is left of it, and leave what it drew and found."""
    from tasks.data.shards import open_shards
    from tasks.params import Settings
    from tasks.training.tune import run_trials, sweep_of

    shards = open_shards(folder.parent / SHARDS)
    settings = {"trials": TRIALS, "minutes": None, "epochs": 2, "keep": TRIALS, "pruner": "none"}
    overrides = {f"tune.{key}": value for key, value in settings.items()}
    params = load_params(overrides=overrides | {"train.checkpoint_seconds": SECONDS})
    sweep = sweep_of(params, shards, Settings(home=folder))
    drawn = [[trial.number, trial.params, trial.values] for trial in run_trials(sweep)]
    (folder / "trials.json").write_text(json.dumps(drawn, sort_keys=True))


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
    """Of all weights that were kept, and of the trials."""
    files = [*sorted(folder.rglob("model.safetensors")), *folder.glob("trials.json")]
    assert files, f"{folder} has no weights"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def step_of(checkpoint: Path) -> int:
    """The step within its epoch; 0 between epochs."""
    import io

    import torch

    data = checkpoint.read_bytes()
    assert hashlib.sha256(data[32:]).digest() == data[:32], "the checkpoint is damaged"
    return int(torch.load(io.BytesIO(data[32:]))["epoch"]["steps"])


if __name__ == "__main__":
    main()
