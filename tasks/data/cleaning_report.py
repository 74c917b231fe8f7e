"""The step `cleaning_report`: data/cleaned.parquet and the images → data/cleaning.html.

One page that asks the network for nothing: what was found, what became of it, and the worst
of each kind to look at. It counts the whole data set and shows a fixed number of its images.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data.cleaning_facts import (
    count_classes,
    count_decisions,
    count_flags,
    distributions,
    next_steps,
    score_charts,
    shown_classes,
)
from tasks.data.cleaning_samples import GROUPS, MEMBERS, WORST, samples
from tasks.data.images import Folders, source_folders
from tasks.data.tables import CLEANED, read_table
from tasks.files import remove_leftovers, write_text
from tasks.pages.render import template
from tasks.params import load_params, load_settings
from tasks.schema import Clean, Ingest
from tasks.step import run_step

if TYPE_CHECKING:
    import pandas as pd

PAGE = Path("data/cleaning.html")


def render_cleaning(
    cleaned: "pd.DataFrame",
    clean: Clean,
    ingest: Ingest,
    folders: Folders,
    workers: int | None = None,
) -> str:
    """The page on a cleaned manifest; the same table and images give the same bytes.

    Images are read from the `folders` of the sources; one that is gone or broken is shown as a
    placeholder.
    """
    table = cleaned.sort_values("path", ignore_index=True)
    flags, classes = count_flags(table, clean), count_classes(table)
    return str(
        template("cleaning_report.html.j2", Path(__file__).parent).render(
            images=len(table),
            decided=count_decisions(table),
            flagged=int(table[[f"flag_{flag.name}" for flag in flags]].any(axis=1).sum()),
            source=ingest.origin,
            steps=next_steps(table, flags, classes),
            flags=sorted(flags, key=lambda flag: -flag.images),
            classes=shown_classes(classes),
            n_classes=len(classes),
            largest_class=max((row.images for row in classes), default=0),
            distributions=distributions(table),
            scores=score_charts(table, clean),
            samples=samples(table, folders, ingest.max_pixels, workers),
            limits={"worst": WORST, "groups": GROUPS, "members": MEMBERS},
        )
    )


def main() -> None:
    """The step."""
    params = load_params()
    folders = source_folders(params.ingest, load_settings().home)
    page = render_cleaning(read_table(CLEANED, "clean"), params.clean, params.ingest, folders)
    remove_leftovers(PAGE)
    write_text(PAGE, page)


if __name__ == "__main__":
    run_step(main)
