"""What kind of source a path is: what `visionloop init --data PATH` writes into the params."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.data.sources.archive import is_archive, unpacked
from tasks.data.sources.bucket import is_bucket, mirrored
from tasks.data.sources.builtin import DATASETS
from tasks.data.sources.found import SPLIT_NAMES
from tasks.data.sources.table import REQUIRED
from tasks.errors import DataError
from tasks.schema import BoxSource, FolderSource, Ingest, Source, TableSource, TorchvisionSource

TORCHVISION = "torchvision:"
_TORCHVISION_ROOT = "data/raw/torchvision"
_MARGIN = 0.1  # what `init` writes for boxes; a user changes it in the params
_TABLES = (".csv", ".tsv", ".parquet")


def detect(path: str, limits: Ingest, home: Path) -> Source:
    """The source at `path`: a folder, table, COCO file, archive, bucket or torchvision:NAME.

    An archive is unpacked and a bucket mirrored below `home` to look inside. Raises DataError
    when there is nothing that can be recognised.
    """
    if path.startswith(TORCHVISION):
        return _torchvision(path.removeprefix(TORCHVISION))
    if is_bucket(path):
        return _inside(mirrored(path, home / "sources"), path)
    if is_archive(path):
        return _inside(unpacked(Path(path), limits, home / "sources"), path)
    if Path(path).suffix.lower() in _TABLES and Path(path).is_file():
        file = Path(path)
        return TableSource(path=str(file.parent), layout="table", annotations=file.name)
    if Path(path).suffix.lower() == ".json" and Path(path).is_file():
        return _coco(Path(path))
    return _inside(Path(path), path)


def _torchvision(name: str) -> Source:
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(DATASETS))}"
        raise DataError(f"torchvision data set {name!r} is not known here; {hint}")
    values = {"path": _TORCHVISION_ROOT, "layout": "torchvision", "dataset": name}
    return TorchvisionSource.model_validate(values)


def _inside(folder: Path, path: str) -> Source:
    """What is in a folder; class folders unless there is a sign of something else."""
    if not folder.is_dir():
        return FolderSource(path=path, layout="folders")  # the walk says what is wrong
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = [entry.name for entry in entries if entry.is_dir()]
    if len(folders) > 1 and all(name.lower() in SPLIT_NAMES for name in folders):
        return FolderSource(path=path, layout="split_folders")
    if (voc := folder / "Annotations").is_dir() and any(voc.glob("*.xml")):
        return BoxSource(path=path, layout="voc", annotations=voc.name, margin=_MARGIN)
    for file in (entry for entry in entries if entry.is_file()):
        if file.suffix.lower() in _TABLES and _is_listing(file):
            return TableSource(path=path, layout="table", annotations=file.name)
        if file.suffix.lower() == ".json" and _is_coco(_json(file)):
            return BoxSource(path=path, layout="coco", annotations=file.name, margin=_MARGIN)
    images = [name for name in folders if name.lower() in ("images", "imgs")]
    if len(images) == 1 and len(list(_folders(folder / images[0]))) > 1:
        return FolderSource(path=path, layout="folders", folder=images[0])
    return FolderSource(path=path, layout="folders")


def _folders(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if entry.is_dir())


def _is_listing(file: Path) -> bool:
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        try:
            return set(REQUIRED) <= set(pq.read_schema(file).names)
        except (OSError, ValueError):
            return False
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        header = stream.readline().replace(";", ",").replace("\t", ",").replace('"', "")
    return set(REQUIRED) <= {name.strip() for name in header.split(",")}


def _coco(file: Path) -> Source:
    """A COCO file, and the folder beside or above it that has its images."""
    document = _json(file)
    if not _is_coco(document):
        raise DataError(f"{file} is no COCO file: it lacks images, annotations or categories")
    names = [str(image.get("file_name")) for image in document["images"][:1]]
    above = file.parent.parent
    for folder in [file.parent, file.parent / "images", above, *sorted(_folders(above))]:
        if names and (folder / names[0]).is_file():
            base = file.parent if folder.is_relative_to(file.parent) else above
            place = folder.relative_to(base).as_posix()
            annotations = Path(*[".."] * len(Path(place).parts)) / file.relative_to(base)
            return BoxSource(
                path=str(base),
                layout="coco",
                folder=None if place == "." else place,
                annotations=annotations.as_posix(),
                margin=_MARGIN,
            )
    raise DataError(f"the images of {file} (such as {names}) are neither beside nor above it")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_coco(document: Any) -> bool:
    keys = {"images", "annotations", "categories"}
    return isinstance(document, dict) and keys <= set(document)
