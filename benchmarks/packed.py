"""Images per second read at random from packed files: Arrow IPC against what else there is.

python -m benchmarks.packed [--data CIFAR10.tar.gz | FOLDER] [--images N] [--repeats R]

The same images, encoded as prepare encodes them, are written in each format and read in batches
of random indices to their encoded bytes: decoding takes as long whatever they were packed in.
Each format runs in a process of its own, interleaved. webdataset (with wids, which reads its tar
files at random) and litdata are installed into .visionloop/benchmarks/packed, never among the
project's dependencies. A second table has the lossless encodings that Pillow reads, and JPEG, on
these images and on windows of scikit-learn's photographs.
"""

import argparse
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks._cifar import add_data_argument, class_folders
from benchmarks._environments import interpreter
from tasks.data.encoded import encode
from tasks.pixels import Pixels

BATCH = 128
ENCODINGS: dict[str, dict[str, Any]] = {
    "WebP lossless, least effort": {
        "format": "WEBP", "lossless": True, "quality": 0, "method": 0,
    },
    "WebP lossless, Pillow's default": {"format": "WEBP", "lossless": True},
    "PNG": {"format": "PNG"},
    "JPEG 95": {"format": "JPEG", "quality": 95, "subsampling": 0},
}  # fmt: skip
START = """
import os, pickle, sys, time
from pathlib import Path
import numpy as np

def the_same(image):
    return image

def report(images, write, read):
    # read(batch of indices) gives the encoded images, as bytes or what bytes() takes
    started = time.perf_counter()
    write()
    written = time.perf_counter()
    order = np.random.default_rng(0).permutation(len(images))
    batches = np.array_split(order, max(1, len(order) // BATCH))
    read(batches[0])  # opened, and warm
    began = time.perf_counter()
    found = [bytes(image) for batch in batches for image in read(batch)]
    ended = time.perf_counter()
    assert found == [images[i] for i in order], "not what was written"
    print(len(images) / (written - started), len(images) / (ended - began))

if __name__ == "__main__":
    BATCH = int(sys.argv[3])
    folder = Path(sys.argv[2])
    images = pickle.loads(Path(sys.argv[1]).read_bytes())
"""
ARROW = """
    from tasks.data.encoded import EncodedImages, write_encoded
    def write():
        write_encoded(folder, "train", [images[at : at + 256] for at in range(0, len(images), 256)])
    packed = []
    def read(batch):
        if not packed:
            packed.append(EncodedImages(sorted(folder.glob("*.arrow")), len(images), 32))
        return [packed[0].encoded(int(i)) for i in batch]
    report(images, write, read)
"""
PARQUET = """
    import pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq
    def write():
        table = pa.table({"image": pa.array(images, pa.binary())})
        options = {"compression": "none", "use_dictionary": False}  # WebP does not shrink further
        pq.write_table(table, folder / "train.parquet", row_group_size=256, **options)
    def read(batch):
        data = ds.dataset(folder / "train.parquet")
        return data.take(pa.array(batch)).column("image").to_pylist()
    report(images, write, read)
"""
WEBDATASET = """
    import webdataset, wids
    tar = str(folder / "train.tar")
    def write():
        with webdataset.TarWriter(tar) as writer:
            for number, image in enumerate(images):
                writer.write({"__key__": f"{number:08d}", "webp": image})
    packed = []
    def read(batch):
        if not packed:
            shard = {"url": tar, "nsamples": len(images)}
            packed.append(
                wids.ShardListDataset([shard], transformations=[], cache_dir=str(folder / "cache"))
            )
        return [packed[0][int(i)][".webp"].getvalue() for i in batch]
    report(images, write, read)
"""
LITDATA = """
    import litdata
    def write():
        litdata.optimize(
            fn=the_same, inputs=images, output_dir=str(folder), chunk_bytes="64MB", num_workers=1
        )
    packed = []
    def read(batch):
        if not packed:
            packed.append(litdata.StreamingDataset(str(folder)))
        return [packed[0][int(i)] for i in batch]
    report(images, write, read)
"""
FORMATS = {
    "Arrow IPC": ARROW,
    "Parquet": PARQUET,
    "WebDataset tar": WEBDATASET,
    "litdata": LITDATA,
}


def main() -> None:
    arguments = _arguments()
    peers = interpreter("packed", "webdataset", "wids", "litdata")
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in FORMATS}
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = class_folders(arguments.data, Path(scratch) / "all")
        pickled = Path(scratch) / "images.pickle"
        images = _encoded(root, arguments.images)
        pickled.write_bytes(pickle.dumps(images))
        for _ in range(arguments.repeats):  # interleaved: a busy moment hits them alike
            for name, script in FORMATS.items():
                python = sys.executable if name in ("Arrow IPC", "Parquet") else str(peers)
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    rates[name].append(_run(python, START + script, pickled, Path(folder)))
                    sizes[name] = _bytes(Path(folder)) / 1e6
        small = [np.asarray(Image.open(io.BytesIO(image))) for image in images[:2000]]
    _report_encodings(
        {"CIFAR-10, 32x32": small, "photographs, 224x224": _windows()}, arguments.repeats
    )
    _report(rates, sizes, sum(map(len, images)) / 1e6)


def _encoded(root: Path, count: int) -> list[bytes]:
    files = sorted(root.glob("*/*"))
    chosen = files[:: max(1, len(files) // count)][:count]
    return [encode(np.asarray(Image.open(file).convert("RGB")), None) for file in chosen]


def _windows() -> list[Pixels]:
    """224×224 windows of scikit-learn's two photographs, 427×640 pixels."""
    corners = [(top, left) for top in range(0, 204, 40) for left in range(0, 417, 60)]
    photos = load_sample_images().images
    return [photo[top : top + 224, left : left + 224] for photo in photos for top, left in corners]


def _report_encodings(sets: dict[str, list[Pixels]], repeats: int) -> None:
    print(f"{'encoding':54} {'of raw':>7} {'encoded/s':>10} {'decoded/s':>10}")
    for name, images in sets.items():
        found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in ENCODINGS}
        for _ in range(repeats):
            for kind, options in ENCODINGS.items():
                found[kind].append(_encoding(images, options))
        for kind, values in found.items():
            share, encoded, decoded = (median(column) for column in zip(*values, strict=True))
            print(f"{f'{name}: {kind}':54} {share:7.0%} {encoded:10,.0f} {decoded:10,.0f}")


def _encoding(images: list[Pixels], options: dict[str, Any]) -> tuple[float, float, float]:
    """Bytes as a share of the pixels', and images per second encoded and decoded, one thread."""
    started = time.perf_counter()
    files = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, **options)
        files.append(stream.getvalue())
    written = time.perf_counter()
    for file in files:
        np.asarray(Image.open(io.BytesIO(file), formats=(options["format"],)))
    read = time.perf_counter()
    share = sum(map(len, files)) / sum(image.nbytes for image in images)
    return share, len(images) / (written - started), len(images) / (read - written)


def _run(python: str, script: str, images: Path, folder: Path) -> tuple[float, float]:
    """Images per second written and read."""
    file = folder.with_suffix(".py")
    file.write_text(script)
    command = [python, str(file), str(images), str(folder), str(BATCH)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: {python} failed\n{done.stderr[-2000:]}")
    written, read = done.stdout.splitlines()[-1].split()
    return float(written), float(read)


def _bytes(folder: Path) -> int:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if "cache" not in file.parts)


def _report(
    rates: dict[str, list[tuple[float, float]]], sizes: dict[str, float], encoded: float
) -> None:
    print(f"{'encoded CIFAR-10 images':24} {'written/s':>10} {'read/s':>10} {'MB':>6}")
    read = {}
    for name, pairs in rates.items():
        written, read[name] = (median(values) for values in zip(*pairs, strict=True))
        print(f"{name:24} {written:10,.0f} {read[name]:10,.0f} {sizes[name]:6.1f}")
    print(f"{'the encoded images alone':24} {'':10} {'':10} {encoded:6.1f}")
    ours = read.pop("Arrow IPC")
    peer = max(read.values())
    line = {"benchmark": "packed", "ours": ours, "peer": peer, "ratio": ours / peer}
    line |= {name.lower().replace(" ", "_"): rate for name, rate in read.items()}
    print(json.dumps({key: v if isinstance(v, str) else round(v, 2) for key, v in line.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
