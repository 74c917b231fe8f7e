"""A source of the params: where its files are on this machine, and which images they hold.

`local_folder` brings what is not a plain folder to this machine, `find` lists its images.
"""

from pathlib import Path

from tasks.data.sources.archive import is_archive, unpacked
from tasks.data.sources.boxes import find_coco, find_voc
from tasks.data.sources.bucket import is_bucket, mirrored
from tasks.data.sources.builtin import written_out
from tasks.data.sources.folders import find_files, find_split_files
from tasks.data.sources.found import Found
from tasks.data.sources.table import find_listed
from tasks.errors import DataError
from tasks.schema import Ingest, Source


def local_folder(
    source: Source, limits: Ingest, home: Path, root: Path = Path(), refresh: bool = True
) -> Path:
    """The folder on this machine that holds the images of `source`.

    An archive is unpacked, a bucket mirrored and a torchvision data set written out below
    `home`, once; a relative path is one below `root`. Without `refresh` a bucket is not asked
    what is new. Raises DataError.
    """
    if source.layout == "torchvision":
        return written_out(source, root / source.path, home / "sources")
    if is_bucket(source.path):
        folder = mirrored(source.path, home / "sources", refresh)
    elif is_archive(source.path):
        folder = unpacked(root / source.path, limits, home / "sources")
    else:
        folder = root / source.path
    return folder / source.folder if source.folder else folder


def find(source: Source, folder: Path) -> list[Found]:
    """The images of `source`, whose files are below `folder`, sorted by path.

    Raises DataError when there is nothing to find, or what lists the images cannot be read.
    """
    if source.layout == "folders":
        found = find_files(folder)
    elif source.layout == "table":
        found = find_listed(folder, source.annotations)
    elif source.layout == "coco":
        found = find_coco(folder, source.annotations, source.margin)
    elif source.layout == "voc":
        found = find_voc(folder, source.annotations, source.margin)
    else:
        found = find_split_files(folder)  # a torchvision data set is written out as those
    return _mapped(found, source)


def _mapped(found: list[Found], source: Source) -> list[Found]:
    """The images under the labels of the user's map, without those that it drops."""
    if not source.labels and source.split is None:
        return found
    unknown = sorted(set(source.labels) - {one.label for one in found if one.label is not None})
    if unknown:
        there = sorted({one.label for one in found if one.label is not None})
        raise DataError(
            f"ingest.sources: the label map of {source.path} names {unknown[0]!r}, "
            f"which is no label there; there are {', '.join(map(repr, there[:20]))}"
        )
    kept = []
    for one in found:
        label = source.labels.get(one.label, one.label) if one.label is not None else None
        if label is None and one.label is not None:
            continue  # dropped by the map
        kept.append(one._replace(label=label, split=one.split or source.split))
    return kept
