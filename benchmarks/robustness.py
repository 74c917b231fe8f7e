"""The fifteen common corruptions beside the package imagecorruptions: speed, and the same pixels.

python -m benchmarks.robustness [--data CIFAR10.tar.gz | FOLDER] [--images N] [--size S]
                                [--repeats R]

Both corrupt the same N test images of CIFAR-10, enlarged to S pixels, at all five severities with
the parameters of ImageNet-C, in one thread each and in turn; the package has an environment of its
own (its last release needs an older NumPy). A rate is images a second over all severities; `ratio`
compares the time that all fifteen take, and every corruption is in the table.

Pixels, in levels of 255: where nothing is drawn at random, the mean absolute difference of the two.
Elsewhere the two must only be alike: the table has how far each is from the clean image, its
contrast, and its roughness (mean difference of neighbours). The published frost shows photographs
that we do not have.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks._cifar import add_data_argument, class_folders
from benchmarks._environments import Peer, interpreter
from tasks.evaluation.corruptions.levels import LARGE
from tasks.evaluation.corruptions.names import PUBLISHED, SEVERITIES
from tasks.evaluation.corruptions.suite import corrupt
from tasks.pixels import Pixels

PACKAGES = (
    "imagecorruptions==1.1.2",
    "numpy==1.26.4",
    "scikit-image==0.20.0",
    "scipy==1.11.4",
    "opencv-python==4.10.0.84",
    "setuptools==79.0.1",
)
DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow"}
DRAWN |= {"frost", "fog", "elastic_transform"}
# Reads the name of a corruption a line, writes its images and answers with the seconds they took.
# scikit-image has renamed one argument since the package was last released.
_SCRIPT = """
import sys, time, warnings
warnings.simplefilter("ignore")
import cv2, numpy as np
import imagecorruptions.corruptions as theirs
from imagecorruptions import corrupt
cv2.setNumThreads(1)
gaussian = theirs.gaussian
def renamed(*given, multichannel=False, **named):
    return gaussian(*given, channel_axis=-1 if multichannel else None, **named)
theirs.gaussian = renamed
folder = sys.argv[1]
images = np.load(folder + "/images.npy")
for line in sys.stdin:
    name = line.strip()
    start = time.perf_counter()
    found = np.stack([
        [corrupt(image, severity=s, corruption_name=name) for image in images]
        for s in range(1, 6)
    ])
    seconds = time.perf_counter() - start
    np.save(folder + "/found.npy", found)
    print(seconds, flush=True)
"""


@dataclass(frozen=True)
class Compared:
    """Images a second, and the pixels of one pass, V×N×S×S×3."""

    ours: float
    theirs: float
    difference: float
    looks: tuple[Mapping[str, float], Mapping[str, float]]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = _images(class_folders(arguments.data, folder / "cifar").parent, arguments)
        np.save(folder / "images.npy", images)
        with Peer(interpreter("imagecorruptions", *PACKAGES), _SCRIPT, str(folder)) as peer:
            repeats = arguments.repeats
            _report({name: _compare(name, images, peer, folder, repeats) for name in PUBLISHED})


def _compare(name: str, images: Pixels, peer: Peer, folder: Path, repeats: int) -> Compared:
    ours, theirs = [], []
    corrupt(images[:1], name, 1, 0, LARGE)  # a first call sets things up
    for _ in range(repeats):
        start = time.perf_counter()
        found = np.stack([corrupt(images, name, severity, 0, LARGE) for severity in SEVERITIES])
        ours.append(time.perf_counter() - start)
        theirs.append(float(peer.ask(name)))
    other = np.load(folder / "found.npy")
    count = len(SEVERITIES) * len(images)
    result = Compared(
        ours=count / median(ours),
        theirs=count / median(theirs),
        difference=float(np.abs(found.astype(np.int16) - other).mean()),
        looks=(_look(found, images), _look(other, images)),
    )
    print(f"{name}: {result.ours:,.0f} images/s, imagecorruptions {result.theirs:,.0f}", flush=True)
    return result


def _look(found: Pixels, images: Pixels) -> dict[str, float]:
    """Levels of 255: distance from the clean image, contrast and roughness, their means."""
    values = found.astype(np.float32)
    return {
        "distance": float(np.abs(values - images).mean()),
        "contrast": float(values.std((2, 3, 4)).mean()),
        "roughness": float(np.abs(np.diff(values, axis=3)).mean()),
    }


def _images(root: Path, arguments: argparse.Namespace) -> Pixels:
    files = sorted((root / "test").glob("*/*.jpg"))
    chosen = files[:: max(1, len(files) // arguments.images)][: arguments.images]
    size = (arguments.size, arguments.size)
    opened = [Image.open(file).convert("RGB").resize(size) for file in chosen]
    return np.stack([np.asarray(image) for image in opened])


def _report(found: Mapping[str, Compared]) -> None:
    print(f"\n{'':20}{'images/s':>10}{'theirs':>9}{'ratio':>8}{'pixels':>10}", end="")
    print(f"{'distance':>16}{'contrast':>16}{'roughness':>16}")
    for name, one in found.items():
        pixels = "drawn" if name in DRAWN else f"{one.difference:.4f}"
        print(f"{name:20}{one.ours:10,.0f}{one.theirs:9,.0f}{one.ours / one.theirs:8.1f}", end="")
        pairs = [(one.looks[0][key], one.looks[1][key]) for key in one.looks[0]]
        print(f"{pixels:>10}" + "".join(f"{f'{a:.2f} | {b:.2f}':>16}" for a, b in pairs))
    seconds = [sum(1 / getattr(one, who) for one in found.values()) for who in ("ours", "theirs")]
    line: dict[str, Any] = {
        "benchmark": "robustness",
        "ours": len(found) / seconds[0],
        "peer": len(found) / seconds[1],
        "unit": "images/s",
        "ratio": seconds[1] / seconds[0],
        "lowest_ratio": min(one.ours / one.theirs for one in found.values()),
        "median_ratio": median(one.ours / one.theirs for one in found.values()),
        "largest_difference": max(o.difference for n, o in found.items() if n not in DRAWN),
    }
    print(json.dumps({k: v if isinstance(v, str) else round(v, 4) for k, v in line.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels, 32 or more")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
