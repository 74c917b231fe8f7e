"""The quickstart data: scikit-learn's 1,797 handwritten digits as a folder of images.

Real 8×8 scans (UCI "Optical Recognition of Handwritten Digits", Alpaydin & Kaynak 1998),
written as greyscale PNG files in class folders, so that they take the same path through
the pipeline as a user's own images.
"""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.files import remove_leftovers, write_directory
from tasks.step import run_step

TARGET = Path("data/raw/digits")
_WHITE = 16  # the scans' highest value

log = logging.getLogger(__name__)


def write_digits(target: Path) -> int:
    """Write <target>/<digit>/<NNNN>.png, 8×8 greyscale; returns how many.

    The same installed Pillow gives the same bytes on every run.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    pixels = np.rint(scans.images * (255 / _WHITE)).astype(np.uint8)

    def fill(folder: Path) -> None:
        for digit in range(10):
            (folder / str(digit)).mkdir()
        for number, (image, digit) in enumerate(zip(pixels, scans.target, strict=True)):
            Image.fromarray(image).save(folder / str(digit) / f"{number:04d}.png")

    write_directory(target, fill)
    return len(pixels)


def main() -> None:
    """The step `digits`."""
    remove_leftovers(TARGET)
    log.info("wrote %d images to %s", write_digits(TARGET), TARGET)


if __name__ == "__main__":
    run_step(main)
