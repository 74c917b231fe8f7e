"""Shards whose test split is what bundles are compared on, from arrays of real images."""

import json
from pathlib import Path

import numpy as np

from tasks.bundle import Bundle
from tasks.data.shards import SPLITS, write_index


def write_frozen(root: Path, bundle: Bundle, images: np.ndarray, labels: np.ndarray) -> None:
    """Write data/shards below `root`: uint8 N×S×S×3 of the bundle's input, labels by digit."""
    shards, count = root / "data/shards", len(labels)
    shards.mkdir(parents=True)
    paths = [f"digits/{label}/{i:04d}.png" for i, label in enumerate(labels)]
    for name in SPLITS:
        np.save(shards / f"{name}_images.npy", images)
        np.save(shards / f"{name}_labels.npy", labels.astype(np.int64))
        np.save(shards / f"{name}_statistics.npy", np.zeros((count, 5), np.float32))
        hashes = [f"{i:032d}" for i in range(count)]
        np.save(shards / f"{name}_hashes.npy", np.array(hashes, "S32"))
        (shards / f"{name}_paths.json").write_text(json.dumps(paths))
    write_index(shards, bundle.info.classes, bundle.info.input)
