"""The step `prepare`: data/splits.parquet and the images → data/shards (see tasks.data.shards).

The images are decoded (and encoded, when they are many) on every core and written in order; the
directory appears whole.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.bundle import InputContract
from tasks.data.describe import pixel_hash
from tasks.data.encoded import encode, write_encoded
from tasks.data.images import Folders, ImageFile, image_files, read_image, source_folders
from tasks.data.parallel import chunks, cluster_address, in_order, workers_for
from tasks.data.shards import SHARDS, side_of, write_index
from tasks.data.shards import SPLITS as NAMES
from tasks.data.tables import SPLITS, read_table
from tasks.errors import DataError
from tasks.files import atomic_write, remove_leftovers, write_directory, write_json
from tasks.params import load_params, load_settings
from tasks.pixels import STATISTICS, Pixels, UnreadableImage, statistics
from tasks.progress import Progress
from tasks.schema import Params, Prepare
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

_CHUNK_BYTES = 4 << 20  # of decoded pixels, for one job

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """An image and the pixel hash it had when it was ingested."""

    image: ImageFile
    pixel_hash: str


class Packing(NamedTuple):
    """How the images are packed: raw, or encoded, those of training as JPEG of a quality."""

    raw: bool
    train_jpeg_quality: int | None = None


RAW = Packing(raw=True)


class Form(NamedTuple):
    """What is made of the images of one split: pixels of `side`, raw or encoded."""

    contract: InputContract
    side: int
    raw: bool
    jpeg_quality: int | None


class Packed(NamedTuple):
    """A chunk: images uint8 n×S×S×3 or n encoded files, statistics float32 n×5."""

    images: Pixels | list[bytes]
    statistics: npt.NDArray[np.float32]


def prepare(
    splits: "pd.DataFrame",
    folders: Folders,
    contract: InputContract,
    target: Path = SHARDS,
    workers: int | None = None,
    packing: Packing = RAW,
    cluster: str | None = None,
) -> None:
    """Write the shards of `splits` (rows of data/splits.parquet) to `target`.

    `folders` holds those of the sources, `cluster` is the address of a Dask scheduler whose
    workers decode the images. Raises DataError when a file is not what was ingested. On any
    error, a full disk too, `target` stays as it was.
    """
    classes = sorted(splits["label"].unique())
    if workers is None:
        workers = workers_for(str(image.file) for image in image_files(splits, folders))

    def packed(rows: "pd.DataFrame", form: Form) -> Iterator[Packed]:
        jobs = chunks(_sources(rows, folders), _images_of_a_job(form))
        for part in in_order(partial(pack, form=form), jobs, workers, cluster):
            progress.add(len(part.images))
            yield part

    def fill(folder: Path) -> None:
        for name in NAMES:
            rows = splits[splits["split"] == name]
            _write_small(folder, name, rows, classes)
            quality = packing.train_jpeg_quality if name == "train" else None
            form = Form(contract, side_of(name, contract), packing.raw, quality)
            _write_images(folder, name, form, len(rows), packed(rows, form))
        write_index(folder, classes, contract)

    with Progress("prepared", len(splits)) as progress:
        write_directory(target, fill)


def contract_of(params: Params) -> InputContract:
    """How images are prepared, and so how they will be served, by these parameters."""
    values = params.prepare.model_dump(include=set(InputContract.model_fields))
    return InputContract(max_pixels=params.ingest.max_pixels, **values)


def choose_packing(splits: "pd.DataFrame", contract: InputContract, config: Prepare) -> Packing:
    """Raw while the pixels of all splits are within `config.max_raw_gb`; else encoded."""
    sides = splits["split"].map({name: side_of(name, contract) for name in NAMES})
    gigabytes = float((3 * sides.dropna() ** 2).sum()) / 1e9
    raw = gigabytes <= config.max_raw_gb
    log.info(
        "%.2f GB of pixels are packed %s (prepare.max_raw_gb is %g)",
        gigabytes,
        "raw" if raw else "encoded",
        config.max_raw_gb,
    )
    return Packing(raw, config.train_jpeg_quality)


def pack(sources: Sequence[Source], form: Form) -> Packed:
    """Decode, verify, measure and fit a chunk of images: the unit of work of a process."""
    contract = form.contract
    fit = contract.fit if form.side == contract.size else contract.fit_with_margin
    images = np.empty((len(sources), form.side, form.side, 3), np.uint8)
    measured = np.empty((len(sources), len(STATISTICS)), np.float32)
    for index, source in enumerate(sources):
        image = _read_unchanged(source, contract.max_pixels)
        images[index] = fit(image)
        measured[index] = statistics(image)
    if form.raw:
        return Packed(images, measured)
    return Packed([encode(image, form.jpeg_quality) for image in images], measured)


def _read_unchanged(source: Source, max_pixels: int) -> Pixels:
    way_out = "run `dvc repro`, which ingests it again"
    try:
        image = read_image(source.image, max_pixels)
    except UnreadableImage as error:
        raise DataError(
            f"{source.image} could be read when it was ingested, now it cannot ({error}); {way_out}"
        ) from None
    if pixel_hash(image) != source.pixel_hash:
        raise DataError(f"{source.image} has changed since it was ingested; {way_out}")
    return image


def _sources(rows: "pd.DataFrame", folders: Folders) -> list[Source]:
    here = {name: folder.absolute() for name, folder in folders.items()}  # for a cluster's workers
    images = image_files(rows, here)
    return [Source(*pair) for pair in zip(images, rows["pixel_hash"], strict=True)]


def _images_of_a_job(form: Form) -> int:
    return min(max(1, _CHUNK_BYTES // (form.side**2 * 3)), 256)


def _write_images(folder: Path, name: str, form: Form, count: int, parts: Iterator[Packed]) -> None:
    """Stream the chunks into the files of their images, and their statistics beside them."""
    measured = [np.empty((0, len(STATISTICS)), np.float32)]

    def images() -> Iterator[Any]:
        for part in parts:
            measured.append(part.statistics)
            yield part.images

    if form.raw:
        _write_raw(folder / f"{name}_images.npy", (count, form.side, form.side, 3), images())
    else:
        write_encoded(folder, name, images())
    _save(folder / f"{name}_statistics.npy", np.concatenate(measured))


def _write_raw(path: Path, shape: tuple[int, ...], parts: Iterator[Pixels]) -> None:
    """One .npy of `shape`, not through a memory map: on a full disk that ends in SIGBUS."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_write(path) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(part.data)


def _write_small(folder: Path, name: str, rows: "pd.DataFrame", classes: list[str]) -> None:
    index = {label: number for number, label in enumerate(classes)}
    _save(folder / f"{name}_labels.npy", rows["label"].map(index).to_numpy(np.int64))
    _save(folder / f"{name}_hashes.npy", rows["pixel_hash"].to_numpy().astype("S32"))
    if "fold" in rows and rows["fold"].notna().any():
        _save(folder / f"{name}_folds.npy", rows["fold"].to_numpy(np.int64))
    write_json(folder / f"{name}_paths.json", rows["path"].tolist())
    if rows["weight"].notna().any():
        _save(folder / f"{name}_weights.npy", rows["weight"].fillna(1.0).to_numpy(np.float64))


def _save(path: Path, array: npt.NDArray[np.generic]) -> None:
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)


def main() -> None:
    """The step."""
    params = load_params()
    settings = load_settings()
    contract, splits = contract_of(params), read_table(SPLITS, "split")
    remove_leftovers(SHARDS)
    folders = source_folders(params.ingest, settings.home)
    packing = choose_packing(splits, contract, params.prepare)
    cluster = cluster_address(params.ingest, settings)
    prepare(splits, folders, contract, packing=packing, cluster=cluster)


if __name__ == "__main__":
    run_step(main)
