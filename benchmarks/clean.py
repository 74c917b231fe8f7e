"""Images per second through ingest and clean: ours against cleanvision on the same files.

python -m benchmarks.clean [--data CIFAR10.tar.gz | FOLDER] [--images N] [--repeats R]

Both look for what both can find: unreadable files, exact and near duplicates, dark, bright,
blurry and oddly sized images, with two processes. Each runs in a process of its own, is timed
after its imports, and ours also computes hashes and statistics for the manifest. cleanvision is
installed into .visionloop/benchmarks/cleanvision, never among the project's dependencies.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks._cifar import add_data_argument, class_folders
from benchmarks._environments import interpreter

WORKERS = 2
OURS = """
import sys, time
from pathlib import Path
if __name__ == "__main__":  # not above: the workers would import it all too
    import joblib, pandas as pd, scipy.sparse.csgraph
    from tasks.data.clean import clean
    from tasks.data.ingest import ingest
    from tasks.data.sources.folders import find_files
    from tasks.params import load_params
    params = load_params()
    started = time.perf_counter()
    found = find_files(Path(sys.argv[1]))
    rows = ingest("cifar", found, params.ingest.max_pixels, int(sys.argv[2]))
    table = clean(rows.to_pandas(), params.clean).table
    print(len(table) / (time.perf_counter() - started))
"""
THEIRS = """
import sys, time
from cleanvision import Imagelab
if __name__ == "__main__":
    names = ["exact_duplicates", "near_duplicates", "dark", "light", "blurry", "odd_size"]
    started = time.perf_counter()
    lab = Imagelab(data_path=sys.argv[1], verbose=False)
    lab.find_issues({name: {} for name in names}, n_jobs=int(sys.argv[2]), verbose=False)
    print(len(lab.issues) / (time.perf_counter() - started))
"""


def main() -> None:
    arguments = _arguments()
    peer = interpreter("cleanvision", "cleanvision")
    with tempfile.TemporaryDirectory() as scratch:
        root = class_folders(arguments.data, Path(scratch) / "all")
        images = _some(root, Path(scratch) / "some", arguments.images)
        rates: dict[str, list[float]] = {"ours": [], "cleanvision": []}
        for _ in range(arguments.repeats):  # interleaved: a busy moment hits them alike
            rates["ours"].append(_rate(sys.executable, OURS, images))
            rates["cleanvision"].append(_rate(str(peer), THEIRS, images))
    _report({name: median(values) for name, values in rates.items()})


def _some(root: Path, target: Path, count: int) -> Path:
    """Copies of `count` files, evenly from all classes, in class folders."""
    files = sorted(root.glob("*/*"))
    for file in files[:: max(1, len(files) // count)][:count]:
        (target / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / file.parent.name)
    return target


def _rate(python: str, script: str, images: Path) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=images.parent) as file:
        file.write(script)
        file.flush()
        command = [python, file.name, str(images), str(WORKERS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {python} failed\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def _report(rates: dict[str, float]) -> None:
    print(f"{'CIFAR-10 JPEG, two processes':32} images/s")
    for name, rate in rates.items():
        print(f"{name:32} {rate:8,.0f}")
    ours, peer = rates["ours"], rates["cleanvision"]
    line = {"benchmark": "clean", "ours": ours, "peer": peer, "ratio": ours / peer}
    print(json.dumps({key: v if isinstance(v, str) else round(v, 2) for key, v in line.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
