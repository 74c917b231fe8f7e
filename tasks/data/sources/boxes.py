"""Images with labelled boxes, in COCO's or Pascal VOC's format: each box is an image of its own.

A box is widened by a margin on every side. It is in pixels of the upright image, as
annotation tools show it.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.data.sources.found import Box, Found, as_metadata, below
from tasks.errors import DataError

log = logging.getLogger(__name__)


def find_coco(folder: Path, annotations: str, margin: float) -> list[Found]:
    """The boxes of a COCO "instances" file (cocodataset.org/#format-data), sorted by path.

    `file_name` is relative to `folder`, or to a folder "images" in it; crowds
    (`iscrowd`) are left out. `margin` is a share of the box's side. Raises DataError.
    """
    file = folder / annotations
    document = _read_json(file)
    try:
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        labels = {item["id"]: str(item["name"]) for item in document["categories"]}
        found = list(_coco_boxes(folder, document["annotations"], names, labels, margin))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is no COCO file of boxes: {type(error).__name__}: {error}; it needs images "
            "(id, file_name), categories (id, name) and annotations (image_id, category_id, bbox)"
        ) from None
    return _checked(found, file)


def find_voc(folder: Path, annotations: str, margin: float) -> list[Found]:
    """The boxes of the Pascal VOC files <annotations>/*.xml (Everingham et al. 2010).

    `filename` is looked for in `folder`, in its folders "JPEGImages" and "images", and beside
    the annotation. Raises DataError; a file that is no VOC annotation is a row that says so.
    """
    directory = folder / annotations
    if not directory.is_dir():
        raise DataError(f"the folder of annotations {directory} does not exist")
    found: list[Found] = []
    for file in sorted(directory.glob("*.xml")):
        found += _voc_boxes(folder, file, margin)
    return _checked(found, directory)


def widened(left: float, top: float, right: float, bottom: float, margin: float) -> Box:
    """The box with `margin` (share of a side) added on each side, in whole pixels."""
    across, down = (right - left) * margin, (bottom - top) * margin
    edges = (left - across, top - down, right + across, bottom + down)
    return (round(edges[0]), round(edges[1]), round(edges[2]), round(edges[3]))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"the annotations {file} do not exist; mend `annotations`") from None
    except (OSError, ValueError) as error:
        raise DataError(f"the annotations {file} cannot be read: {error}") from None


def _coco_boxes(
    folder: Path,
    annotations: Iterable[dict[str, Any]],
    names: dict[Any, str],
    labels: dict[Any, str],
    margin: float,
) -> Iterator[Found]:
    for item in annotations:
        if item.get("iscrowd"):
            continue
        name = names[item["image_id"]]
        left, top, width, height = map(float, item["bbox"])
        free: dict[str, object] = {key: item[key] for key in ("id", "area") if key in item}
        yield _boxed(
            folder,
            (folder, folder / "images"),
            name,
            labels[item["category_id"]],
            widened(left, top, left + width, top + height, margin),
            as_metadata(free),
        )


def _voc_boxes(folder: Path, file: Path, margin: float) -> Iterator[Found]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import parse

    path = file.relative_to(folder).as_posix()
    try:
        root = parse(file).getroot()
        name = str(root.findtext("filename"))
        places = (folder, folder / "JPEGImages", folder / "images", file.parent)
        for thing in root.iter("object"):
            left, top, right, bottom = (
                float(thing.findtext(f"bndbox/{edge}") or "nan")
                for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            free = {key: thing.findtext(key) for key in ("pose", "truncated", "difficult")}
            # VOC counts pixels from 1, and the last one belongs to the box
            box = widened(left - 1, top - 1, right, bottom, margin)
            yield _boxed(folder, places, name, thing.findtext("name"), box, as_metadata(free))
    except (ParseError, DefusedXmlException, ValueError, OSError) as error:
        yield Found(path, None, str(file), f"no Pascal VOC annotation: {error}")


def _boxed(
    folder: Path,
    places: Iterable[Path],
    name: str,
    label: str | None,
    box: Box,
    metadata: str | None,
) -> Found:
    files = [found for place in places if (found := below(str(place), name)) is not None]
    there = [file for file in files if Path(file).is_file()]
    if not files:
        return Found(name, label, str(folder / "nowhere"), "the path leads out of the source")
    file = there[0] if there else files[0]
    path = Path(file).relative_to(folder).as_posix()
    problem = None if label else "the box has no label"
    return Found(path, label, file, problem, box, metadata=metadata)


def _checked(found: list[Found], annotations: Path) -> list[Found]:
    """Sorted, and each box under a path of its own: the file's, "#" and its number."""
    if not any(one.box for one in found):
        raise DataError(f"{annotations} holds no box")
    found = sorted(found, key=lambda one: (one.path, one.box or (), one.label or ""))
    counts: dict[str, int] = {}
    numbered = []
    for one in found:
        counts[one.path] = number = counts.get(one.path, 0) + 1
        alone = one.box is None and number == 1
        numbered.append(one if alone else one._replace(path=f"{one.path}#{number}"))
    log.info("%s holds %d boxes in %d images", annotations, len(found), len(counts))
    return numbered
