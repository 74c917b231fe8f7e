"""The step `prepare`: data/splits.parquet and the images → data/shards (see tasks.data.shards).

The images are decoded on every core and written in order; the directory appears whole.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.bundle import InputContract
from tasks.data.describe import pixel_hash
from tasks.data.parallel import chunks, cluster_address, in_order, workers_for
from tasks.data.progress import Progress
from tasks.data.shards import SHARDS, write_index
from tasks.data.shards import SPLITS as NAMES
from tasks.data.tables import SPLITS, read_table
from tasks.errors import DataError
from tasks.files import atomic_write, remove_leftovers, write_directory, write_json
from tasks.params import load_params, load_settings
from tasks.pixels import STATISTICS, Pixels, UnreadableImage, fit, read, statistics
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

_CHUNK_BYTES = 4 << 20  # of decoded pixels, for one job

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """An image file and the pixel hash it had when it was ingested."""

    file: Path
    pixel_hash: str


class Packed(NamedTuple):
    """A chunk: images uint8 n×S×S×3, statistics float32 n×5."""

    images: Pixels
    statistics: npt.NDArray[np.float32]


def prepare(
    splits: "pd.DataFrame",
    root: Path,
    contract: InputContract,
    target: Path = SHARDS,
    workers: int | None = None,
    cluster: str | None = None,
) -> None:
    """Write the shards of `splits` (rows of data/splits.parquet) to `target`.

    `cluster` is the address of a Dask scheduler whose workers decode the images. Raises
    DataError when a file below `root` is not what was ingested. On any error, a full disk too,
    `target` stays as it was.
    """
    classes = sorted(splits["label"].unique())
    root = root.absolute()  # workers of a cluster are in another directory
    if workers is None:
        workers = workers_for(str(root / path) for path in splits["path"])
    work = partial(pack, contract=contract)

    def packed(rows: "pd.DataFrame") -> Iterator[Packed]:
        jobs = chunks(_sources(rows, root), _images_of_a_job(contract))
        for part in in_order(work, jobs, workers, cluster):
            progress.add(len(part.images))
            yield part

    def fill(folder: Path) -> None:
        for name in NAMES:
            rows = splits[splits["split"] == name]
            _write_small(folder, name, rows, classes)
            shape = (len(rows), contract.size, contract.size, 3)
            _write_images(folder, name, shape, packed(rows))
        write_index(folder, classes, contract)

    with Progress("prepared", len(splits)) as progress:
        write_directory(target, fill)


def pack(sources: Sequence[Source], contract: InputContract) -> Packed:
    """Decode, verify, measure and resize a chunk of images: the unit of work of a process."""
    images = np.empty((len(sources), contract.size, contract.size, 3), np.uint8)
    measured = np.empty((len(sources), len(STATISTICS)), np.float32)
    for index, source in enumerate(sources):
        image = _read_unchanged(source, contract.max_pixels)
        images[index] = fit(image, contract.size, contract.resize)
        measured[index] = statistics(image)
    return Packed(images, measured)


def _read_unchanged(source: Source, max_pixels: int) -> Pixels:
    way_out = "run `dvc repro`, which ingests it again"
    try:
        image = read(source.file, max_pixels)
    except UnreadableImage as error:
        raise DataError(
            f"{source.file} could be read when it was ingested, now it cannot ({error}); {way_out}"
        ) from None
    if pixel_hash(image) != source.pixel_hash:
        raise DataError(f"{source.file} has changed since it was ingested; {way_out}")
    return image


def _sources(rows: "pd.DataFrame", root: Path) -> list[Source]:
    return [
        Source(root / path, digest)
        for path, digest in zip(rows["path"], rows["pixel_hash"], strict=True)
    ]


def _images_of_a_job(contract: InputContract) -> int:
    return min(max(1, _CHUNK_BYTES // (contract.size**2 * 3)), 256)


def _write_images(folder: Path, name: str, shape: tuple[int, ...], parts: Iterator[Packed]) -> None:
    """Stream the chunks into one .npy of `shape`, and their statistics beside it.

    Not through a memory map: on a full disk that ends in SIGBUS instead of an error.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    measured = [np.empty((0, len(STATISTICS)), np.float32)]
    with atomic_write(folder / f"{name}_images.npy") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(part.images.data)
            measured.append(part.statistics)
    _save(folder / f"{name}_statistics.npy", np.concatenate(measured))


def _write_small(folder: Path, name: str, rows: "pd.DataFrame", classes: list[str]) -> None:
    index = {label: number for number, label in enumerate(classes)}
    _save(folder / f"{name}_labels.npy", rows["label"].map(index).to_numpy(np.int64))
    _save(folder / f"{name}_hashes.npy", rows["pixel_hash"].to_numpy().astype("S32"))
    write_json(folder / f"{name}_paths.json", rows["path"].tolist())


def _save(path: Path, array: npt.NDArray[np.generic]) -> None:
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)


def main() -> None:
    """The step."""
    params = load_params()
    contract = InputContract(
        size=params.prepare.size,
        resize=params.prepare.resize,
        max_pixels=params.ingest.max_pixels,
    )
    cluster = cluster_address(params.ingest, load_settings())
    remove_leftovers(SHARDS)
    splits = read_table(SPLITS, "split")
    prepare(splits, Path(params.ingest.path), contract, cluster=cluster)


if __name__ == "__main__":
    run_step(main)
