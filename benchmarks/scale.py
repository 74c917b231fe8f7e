"""How cost grows with the data set: time an image, memory, and an ingest of 1 % new images.

python -m benchmarks.scale [--data CIFAR10.tar.gz | FOLDER] [--hashes N]

Ingest and clean of 5,000 and of 60,000 CIFAR-10 JPEGs, each in a process of its own, and the
search for duplicates among as many hashes and among a million (the real ones, each shifted by
noise). The peer is ourselves at the smallest size: `ratio` is the larger of the two growths of
time an image. `peak_mb` is the highest memory of a process with those it started, `incremental`
the time of a second ingest that finds 1 % new files, as a share of the first.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._cifar import add_data_argument, class_folders

SMALL, LARGE = 5_000, 60_000
CLEAN = """
import json, sys, time
from pathlib import Path
if __name__ == "__main__":  # not above: the workers would import it all too
    import joblib, pandas as pd, scipy.sparse.csgraph
    from benchmarks._memory import peak_of
    from tasks.data.clean import clean
    from tasks.data.ingest import ingest
    from tasks.data.sources.folders import find_files
    from tasks.params import load_params
    params = load_params()
    known = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with peak_of() as memory:
        started = time.perf_counter()
        found = find_files(Path(sys.argv[1]))
        rows = ingest("images", found, params.ingest.max_pixels, known=known)
        read = time.perf_counter() - started
        clean(rows.to_pandas(), params.clean)
        seconds = time.perf_counter() - started
    line = {"images": len(rows), "ingest": read, "seconds": seconds, "mb": memory.peak_mb}
    print(json.dumps(line))
"""
SEARCH = """
import json, sys, time
import numpy as np
from benchmarks._memory import peak_of
from tasks.data.duplicates import components, near_duplicates
from tasks.params import load_params
if __name__ == "__main__":
    config = load_params().clean
    stored = np.load(sys.argv[1])
    hashes, thumbnails, count = stored["hashes"], stored["thumbnails"], int(sys.argv[2])
    rng = np.random.default_rng(0)
    chosen = np.arange(count) % len(hashes)
    noise = rng.normal(0, 12, (count, hashes.shape[1])).astype(np.float32)
    noise[: len(hashes)] = 0  # the real ones stay as they are
    many = np.clip(np.rint(hashes[chosen] + noise), -127, 127).astype(np.int8)
    del noise
    pictures = [bytes(row) for row in thumbnails]
    of = [pictures[index] for index in chosen]
    with peak_of() as memory:
        started = time.perf_counter()
        found = near_duplicates(
            many, of, config.near_duplicate_similarity, config.near_duplicate_flip
        )
        components(count, found.pairs)
        seconds = time.perf_counter() - started
    print(json.dumps({"images": count, "seconds": seconds, "mb": memory.peak_mb}))
"""
HASHES = """
import sys
from pathlib import Path
import numpy as np
if __name__ == "__main__":
    from tasks.data.ingest import ingest
    from tasks.data.phash import LENGTH
    from tasks.data.sources.folders import find_files
    rows = ingest("images", find_files(Path(sys.argv[1])), 50_000_000).to_pandas()
    rows = rows.dropna(subset="phash")
    hashes = np.frombuffer(bytes.fromhex("".join(rows["phash"])), np.int8).reshape(-1, LENGTH)
    thumbnails = np.frombuffer(b"".join(rows["thumbnail"]), np.uint8).reshape(len(rows), -1)
    np.savez(sys.argv[2], hashes=hashes, thumbnails=thumbnails)
"""

Figures = dict[str, float]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        root = class_folders(arguments.data, scratch / "all").parent
        small = _some(root, scratch / "small", SMALL)
        large = _some(root, scratch / "large", LARGE)
        few, many = _run(CLEAN, scratch, small), _run(CLEAN, scratch, large)
        incremental = _incremental(scratch, large)
        _run(HASHES, scratch, large, scratch / "hashes.npz")
        least = _run(SEARCH, scratch, scratch / "hashes.npz", LARGE)
        most = _run(SEARCH, scratch, scratch / "hashes.npz", arguments.hashes)
    _report([few, many], [least, most], incremental)


def _some(root: Path, target: Path, count: int) -> Path:
    """Copies of `count` files, evenly from all classes, in class folders."""
    files = sorted(root.glob("*/*/*.jpg"))
    for file in files[:: max(1, len(files) // count)][:count]:
        folder = target / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / f"{file.parent.parent.name}-{file.name}")
    return target


def _incremental(scratch: Path, images: Path) -> float:
    """Seconds of an ingest that finds 1 % new files, as a share of the ingest of all."""
    files = sorted(images.glob("*/*"))[::100]
    aside = scratch / "aside"
    aside.mkdir()
    for file in files:
        shutil.move(file, aside / f"{file.parent.name}-{file.name}")
    known = scratch / "known.arrow"
    first = _run(CLEAN, scratch, images, known)["ingest"] * (1 + len(files) / LARGE)
    for file in files:
        shutil.move(aside / f"{file.parent.name}-{file.name}", file)
    return _run(CLEAN, scratch, images, known)["ingest"] / first


def _run(script: str, scratch: Path, *arguments: object) -> Figures:
    file = scratch / "run.py"
    file.write_text(script)
    command = [sys.executable, str(file), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: {done.stderr[-2000:]}")
    lines = done.stdout.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def _report(cleaned: list[Figures], searched: list[Figures], incremental: float) -> None:
    print(f"{'':34} {'images':>10} {'seconds':>8} {'µs/image':>9} {'peak MB':>8}")
    for name, rows in (("ingest and clean", cleaned), ("search of hashes", searched)):
        for row in rows:
            each = 1e6 * row["seconds"] / row["images"]
            print(
                f"{name:34} {row['images']:10,} {row['seconds']:8.1f} {each:9.1f} {row['mb']:8.0f}"
            )
    print(f"an ingest that finds 1 % new: {incremental:.1%} of a full one")
    growth = [_each(rows[1]) / _each(rows[0]) for rows in (cleaned, searched)]
    line = {
        "benchmark": "scale",
        "ours": 1e6 * _each(cleaned[1]),
        "peer": 1e6 * _each(cleaned[0]),
        "ratio": max(growth),
        "peak_mb": max(row["mb"] for row in (*cleaned, *searched)),
        "incremental": incremental,
    }
    print(json.dumps({key: v if isinstance(v, str) else round(v, 3) for key, v in line.items()}))


def _each(row: Figures) -> float:
    return row["seconds"] / row["images"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
