"""Latency at batch 1: the deployed model (our export, static int8) against eager PyTorch fp32.

python -m benchmarks.inference [--data ARCHIVE.tar.gz | FOLDER] [--runs N]

resnet18 and mobilenet_v2 at 224×224, ten classes. The weights are randomly initialised (batch
norms fitted to the images): enough for latency, not for accuracy. Quantization is calibrated on
real images, --data's, resized. Both sides start from one uint8 image; the peer is the faster of
PyTorch's two memory formats, and has the same threads. ORT fp32 is shown beside them. `ratio`,
peer over ours, is the smaller of the two networks'.
"""

import argparse
import copy
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks._cifar import add_data_argument
from tasks.compression.export import export
from tasks.compression.measure import Latency, Run, eager_run, measure_latency, onnx_run
from tasks.compression.quantize import quantize
from tasks.pixels import Pixels, fit, read
from tasks.schema import Architecture
from tasks.training.models import Classifier, ModelSpec, build, normalise

SIZE, IMAGES, SUFFIXES = 224, 64, (".jpg", ".jpeg", ".png")
NETWORKS: tuple[Architecture, ...] = ("resnet18", "mobilenet_v2")


def main() -> None:
    arguments = _arguments()
    images = np.stack([fit(read(data, 10**8), SIZE, "stretch") for data in _files(arguments.data)])
    threads = torch.get_num_threads()
    results = {}
    for architecture in NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            runs = _runs(architecture, images, Path(scratch), threads)
            results[architecture] = measure_latency(runs, arguments.runs)
    _report(results, threads)


def _runs(architecture: Architecture, images: Pixels, folder: Path, threads: int) -> dict[str, Run]:
    spec = ModelSpec(
        architecture=architecture,
        width=16,
        depth=1,
        classes=tuple("0123456789"),
        size=SIZE,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    model = _network(spec, images)
    fp32, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    export(model, spec, fp32)
    quantize(fp32, int8, images, len(images), seed=0)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    image = images[:1]
    return {
        "ours int8": onnx_run(int8, image, threads),
        "ORT fp32": onnx_run(fp32, image, threads),
        "eager fp32": eager_run(plain, spec, image),
        "eager fp32 channels_last": eager_run(model, spec, image),
    }


def _network(spec: ModelSpec, images: Pixels) -> Classifier:
    """A network of random weights whose batch norms have seen the images."""
    torch.manual_seed(0)
    model = build(spec).train()
    with torch.no_grad():
        for batch in torch.from_numpy(images).split(16):
            model(normalise(batch, spec))
    return model.eval()


def _files(data: Path) -> list[bytes]:
    """The first IMAGES image files, in a fixed order that mixes the classes."""
    found = sorted(_members(data), key=lambda item: Path(item[0]).stem)
    if not found:
        sys.exit(f"error: no images at {data}; give an archive or a folder of images with --data")
    return [content for _, content in found[:IMAGES]]


def _members(data: Path) -> Iterator[tuple[str, bytes]]:
    if data.is_dir():
        paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES)
        for path in paths[:: max(1, len(paths) // IMAGES)]:
            yield str(path), path.read_bytes()
    elif data.is_file():
        with tarfile.open(data) as archive:
            images = [m for m in archive.getmembers() if m.name.lower().endswith(SUFFIXES)]
            for member in images[:: max(1, len(images) // IMAGES)]:
                stream = archive.extractfile(member) or io.BytesIO()
                yield member.name, stream.read()


def _report(results: dict[str, dict[str, Latency]], threads: int) -> None:
    print(f"{'network':14s} {'runtime':26s} {'median ms':>10s} {'p95 ms':>8s}   {threads} threads")
    ours, peers = {}, {}
    for network, latency in results.items():
        for runtime, value in latency.items():
            print(f"{network:14s} {runtime:26s} {value.median_ms:10.2f} {value.p95_ms:8.2f}")
        ours[network] = latency["ours int8"].median_ms
        peers[network] = min(v.median_ms for k, v in latency.items() if k.startswith("eager"))
    ratios = {network: peers[network] / ours[network] for network in results}
    worst = min(ratios, key=lambda network: ratios[network])
    line = {
        "benchmark": "inference",
        "ours": round(ours[worst], 3),
        "peer": round(peers[worst], 3),
        "ratio": round(ratios[worst], 2),
        "unit": "ms",
        "network": worst,
        "ratios": {network: round(ratio, 2) for network, ratio in ratios.items()},
        "threads": threads,
        "size": SIZE,
    }
    print(json.dumps(line))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--runs", type=int, default=100, help="timed runs of each runtime")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.data):
        sys.exit(
            f"error: {arguments.data} does not exist; give images with --data or VISIONLOOP_CIFAR10"
        )
    return arguments


if __name__ == "__main__":
    main()
