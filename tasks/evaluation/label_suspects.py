"""The images of a cross-validation whose label is probably wrong: a table and a page.

Takes the folds' out-of-fold probabilities, so nothing more is trained, and the images outside
the test split, which alone were judged. Gives suspects.csv, every suspect with the worst first,
and suspects.html, the first of them with thumbnails. No label is changed: `visionloop data
suspects` carries the table into data/review.csv, where a person decides.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.errors import DataError
from tasks.files import atomic_write, write_text
from tasks.metrics.label_errors import find_label_errors
from tasks.pages.render import data_uri, template

if TYPE_CHECKING:
    from tasks.data.shards import ShardSplit

TABLE, PAGE = "suspects.csv", "suspects.html"
SHOWN, PAIRS = 96, 12  # on the page: images, and pairs of labels
_TINY, _SIDE = 48, 128  # pixels of a thumbnail, see data_uri

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suspect:
    """An image, its label and a likelier one; both probabilities are of the same model."""

    pixel_hash: str
    path: str
    fold: int
    label: str
    likelier: str
    p_label: float
    p_likelier: float
    suspicion: float


class Place(NamedTuple):
    """Where an image is: a row of a fold's held-out split."""

    fold: int
    row: int


Found = tuple[Suspect, Place]


def find_suspects(
    probabilities: Sequence[npt.NDArray[np.float32]],
    held_out: Sequence["ShardSplit"],
    classes: Sequence[str],
) -> list[Found]:
    """The suspects of all folds, worst first, with their place among the `held_out` splits.

    `probabilities` are float32 n×C, a fold each, by the model that was not trained on it. Folds
    are judged together: how sure a model is of a class is an average over all its images.
    Raises DataError when there are no probabilities to judge by.
    """
    stacked = np.concatenate(list(probabilities))
    labels = np.concatenate([split.labels for split in held_out])
    places = [Place(fold, row) for fold, split in enumerate(held_out) for row in range(len(split))]
    found = find_label_errors(stacked, labels)
    rows = np.flatnonzero(found.suspect)
    order = rows[np.argsort(-found.suspicion[rows], kind="stable")]
    suspects = []
    for i in order.tolist():
        split, row = held_out[places[i].fold], places[i].row
        suspect = Suspect(
            pixel_hash=split.hashes[row].decode(),
            path=split.paths[row],
            fold=places[i].fold,
            label=classes[labels[i]],
            likelier=classes[found.likelier[i]],
            p_label=float(stacked[i, labels[i]]),
            p_likelier=float(stacked[i, found.likelier[i]]),
            suspicion=float(found.suspicion[i]),
        )
        suspects.append((suspect, places[i]))
    log.info("%d of %d labels are suspects", len(suspects), len(labels))
    return suspects


def write_suspects(
    directory: Path, found: Sequence[Found], held_out: Sequence["ShardSplit"], accuracy: float
) -> None:
    """Write what find_suspects found as suspects.csv and suspects.html into `directory`.

    `accuracy` is the share of all labels that the models agree with, which the page tells.
    """
    write_table(directory / TABLE, [suspect for suspect, _ in found])
    shown = [
        (suspect, data_uri(held_out[place.fold].images[place.row], _TINY, _SIDE))
        for suspect, place in found[:SHOWN]
    ]
    pairs = Counter((suspect.label, suspect.likelier) for suspect, _ in found)
    page = template("suspects.html.j2", Path(__file__).parent).render(
        suspects=len(found),
        images=sum(len(split) for split in held_out),
        folds=len(held_out),
        accuracy=accuracy,
        shown=shown,
        pairs=pairs.most_common(PAIRS),
        n_pairs=len(pairs),
        table=TABLE,
    )
    write_text(directory / PAGE, page)


def write_table(path: Path, suspects: Iterable[Suspect]) -> None:
    """Write suspects as CSV, atomically."""
    with atomic_write(path, "w") as stream:
        names = [field.name for field in fields(Suspect)]
        table = csv.DictWriter(stream, names, lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(suspect) for suspect in suspects)


def read_suspects(path: Path) -> list[Suspect]:
    """The suspects of suspects.csv; raises DataError when it is missing or no such table."""
    way_out = "run `dvc repro --force --single-item cross_validate`"
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return [_suspect(row) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; cross-validation makes it: set cross_validate.enabled to "
            "true and run `dvc repro cross_validate`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error!r}); {way_out}") from None


def _suspect(row: dict[str, str]) -> Suspect:
    """A row of the table; what is missing in it is a KeyError, TypeError or ValueError."""
    return Suspect(
        pixel_hash=row["pixel_hash"],
        path=row["path"],
        fold=int(row["fold"]),
        label=row["label"],
        likelier=row["likelier"],
        p_label=float(row["p_label"]),
        p_likelier=float(row["p_likelier"]),
        suspicion=float(row["suspicion"]),
    )
