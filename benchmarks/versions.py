"""What a data set costs DVC: our tables and packed shards against `dvc add` of the image folder.

python -m benchmarks.versions [--data CIFAR10.tar.gz | FOLDER] [--images N] [--repeats R]

Ours is a clone of this repository after `visionloop init --data` and `dvc repro prepare`; the
peer a repository of its own in which the same folder was added. For both: the objects in the
cache, and the seconds of a `dvc push` to an empty local remote, of a `dvc checkout` of all that
was pushed, and of a `dvc status` with nothing changed, interleaved.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks._cifar import add_data_argument, class_folders

BIN = Path(sys.executable).parent
MEASURED = ("push", "checkout", "status")


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        images = _some(class_folders(arguments.data, Path(scratch) / "all"), arguments.images)
        folders = {
            "ours": _ours(Path(scratch) / "ours", images),
            "dvc add": _theirs(Path(scratch) / "theirs", images),
        }
        seconds: dict[str, dict[str, list[float]]] = {name: {} for name in folders}
        for _ in range(arguments.repeats):
            for name, folder in folders.items():
                for what, value in _measure(folder).items():
                    seconds[name].setdefault(what, []).append(value)
        objects = {name: _objects(folder) for name, folder in folders.items()}
    _report(arguments.images, objects, seconds)


def _ours(folder: Path, images: Path) -> Path:
    """A clone with the user's images, up to the shards."""
    _run(Path.cwd(), "git", "clone", "--quiet", ".", str(folder))
    (folder / ".venv").symlink_to(BIN.parent)
    shutil.copy(folder / "conf/presets/quickstart.yaml", folder / "conf/params.yaml")
    _run(folder, "visionloop", "init", "--data", str(images), "--yes", "--force")
    _run(folder, "dvc", "repro", "prepare")
    return folder


def _theirs(folder: Path, images: Path) -> Path:
    """A repository that has the images themselves."""
    shutil.copytree(images, folder / "images")
    _run(folder, "git", "init", "--quiet")
    _run(folder, "dvc", "init", "--quiet")
    shutil.copy(".dvc/config", folder / ".dvc/config")
    _run(folder, "dvc", "add", "images")
    return folder


def _measure(folder: Path) -> dict[str, float]:
    shutil.rmtree(folder / ".visionloop/remote", ignore_errors=True)
    push = _run(folder, "dvc", "push")
    for output in _outputs(folder):
        shutil.rmtree(output) if output.is_dir() else output.unlink()
    checkout = _run(folder, "dvc", "checkout", "--allow-missing")
    return {"push": push, "checkout": checkout, "status": _run(folder, "dvc", "status")}


def _outputs(folder: Path) -> list[Path]:
    made = ("images", "data/shards", "data/validation", "data/metrics", "data/*.parquet")
    return [path for pattern in made for path in folder.glob(pattern)]


def _objects(folder: Path) -> int:
    return sum(1 for file in (folder / ".dvc/cache/files").rglob("*") if file.is_file())


def _some(root: Path, count: int) -> Path:
    """`count` of the files, evenly from all classes; the folder itself when it has no more."""
    files = sorted(root.glob("*/*"))
    if count >= len(files):
        return root
    target = root.with_name("some")
    for file in files[:: max(1, len(files) // count)][:count]:
        (target / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / file.parent.name)
    return target


def _run(folder: Path, *command: str) -> float:
    """Seconds of a whole process; what fails ends the benchmark."""
    program = str(BIN / command[0]) if (BIN / command[0]).exists() else command[0]
    environment = {**os.environ, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "true"}
    started = time.perf_counter()
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(command)} failed\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - started


def _report(
    images: int, objects: dict[str, int], seconds: dict[str, dict[str, list[float]]]
) -> None:
    print(f"{images:,} CIFAR-10 JPEGs".ljust(28) + "".join(f"{name:>12}" for name in objects))
    print("objects in DVC's cache".ljust(28) + "".join(f"{n:12,}" for n in objects.values()))
    medians = {what: [median(seconds[name][what]) for name in objects] for what in MEASURED}
    for what, values in medians.items():
        print(f"dvc {what}, seconds".ljust(28) + "".join(f"{value:12.1f}" for value in values))
    ours, peer = objects.values()
    line = {"benchmark": "versions", "images": images, "ours": ours, "peer": peer}
    line |= {"ratio": round(peer / ours, 2)}
    for what, (mine, theirs) in medians.items():
        line |= {f"{what}_s": round(mine, 2), f"{what}_peer_s": round(theirs, 2)}
    print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
