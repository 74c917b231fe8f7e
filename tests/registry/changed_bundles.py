"""Signed copies of bundles with something in them changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tasks.bundle import INFO, METRICS, REFERENCE, Bundle, open_bundle, write_bundle
from tasks.params import Settings


def changed(
    bundle: Bundle,
    name: str,
    settings: Settings,
    *,
    info: dict | None = None,
    files: Callable[[Path], None] | None = None,
) -> Bundle:
    """A signed copy with another bundle.json, or with files written by `files(directory)`."""

    def fill(directory: Path) -> None:
        for path in bundle.path.iterdir():
            if path.name != INFO and not path.name.startswith("SHA256SUMS"):
                shutil.copy(path, directory)
        if files:
            files(directory)

    path = bundle.path.with_name(name)
    write_bundle(path, bundle.info.model_copy(update=info or {}), settings, fill)
    return open_bundle(path, settings)


def others(directory: Path) -> None:
    """Make the answers of a bundle those to other images."""
    reference = directory / REFERENCE
    with np.load(reference) as arrays:
        kept = dict(arrays)
    np.savez(reference, **(kept | {"hashes": np.array([b"f" * 32] * len(kept["hashes"]))}))


def from_before(directory: Path) -> None:
    """Make a bundle one from before images were named and test images counted."""
    reference = directory / REFERENCE
    with np.load(reference) as arrays:
        kept = dict(arrays)
    np.savez(reference, **{name: kept[name] for name in kept if name != "hashes"})
    (directory / METRICS).write_text("{}")
