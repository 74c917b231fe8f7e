"""The report of a bundle with what changes against the champion, made when the gate compares.

The signed report knows no champion: a bundle is a function of its data and code, and which version
is champion is neither. So the gate fills a copy, below the state and in MLflow.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from tasks.bundle import REPORT, Bundle
from tasks.evaluation.comparison_page import Compared, report_with
from tasks.files import write_text
from tasks.params import Settings
from tasks.registry.comparison import compare_bundles, write_comparison
from tasks.registry.connection import connect, mlflow_errors
from tasks.registry.register import Registered
from tasks.registry.versions import champion, fetch
from tasks.schema import Params

FOLDER = "evaluation"  # of the training run's files in MLflow, where the signed report is
_FILLED = "report-champion-v"  # what the names of filled reports begin with
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pages:
    """What there is to read on a bundle."""

    signed: Path
    """The bundle's own report."""
    filled: Path | None
    """The same with what changes against the champion that the gate last compared it with."""
    comparisons: tuple[Path, ...]
    """Pages of their own, on this bundle beside others."""

    @property
    def report(self) -> Path:
        """The report to read: the filled one where there is one."""
        return self.filled or self.signed


def pages_of(bundle: Bundle, settings: Settings) -> Pages:
    """The report of a bundle and the pages on it that were made on this machine."""
    made = sorted(path.resolve() for path in folder_of(bundle, settings).glob("*.html"))
    filled = [path for path in made if path.name.startswith(_FILLED)]
    return Pages(
        signed=(bundle.path / REPORT).resolve(),
        filled=filled[-1] if filled else None,
        comparisons=tuple(path for path in made if path not in filled),
    )


def folder_of(bundle: Bundle, settings: Settings) -> Path:
    """The folder of the pages that compare a bundle with others."""
    return settings.home / "comparisons" / bundle.digest[:12]


def against_champion(
    bundle: Bundle, registered: Registered, params: Params, root: Path, settings: Settings
) -> None:
    """Fill the report of a registered bundle with what changes against the champion.

    It goes below the state, in the place of an earlier one, and to the training run in MLflow.
    There is none without a champion, or when the bundle is the champion. The page decides
    nothing: whatever hinders it is logged, and the promotion goes on.
    """
    try:
        in_charge = champion(settings)
        if in_charge is None or in_charge.digest == bundle.digest:
            return
        if (earlier := pages_of(bundle, settings).filled) is not None:
            earlier.unlink()  # of another champion, perhaps: if this fails, none is shown
        old, title = fetch(in_charge.version, settings), f"version {in_charge.version}"
        titles = (f"{title} (champion)", f"version {registered.version}")
        compared = compare_bundles(old, bundle, titles, params, root)
        page = _write(compared, in_charge.version, bundle, params, settings)
        if registered.run_id is not None:
            with mlflow_errors(settings):
                connect(settings).log_artifact(registered.run_id, str(page), FOLDER)
    except Exception as error:  # as the gate does, which blocks what cannot be compared
        log.warning("no comparison with the champion: %s: %s", type(error).__name__, error)


def _write(
    compared: Compared, version: int, bundle: Bundle, params: Params, settings: Settings
) -> Path:
    """The filled report; of one from before there was a part to fill, a page of its own."""
    folder = folder_of(bundle, settings)
    report = (bundle.path / REPORT).read_text(encoding="utf-8")
    page = report_with(compared, report, params.evaluate)
    if page is None:
        path = folder / f"champion-v{version}.html"
        write_comparison(path, compared, params)
    else:
        path = folder / f"{_FILLED}{version}.html"
        write_text(path, page)
    return path
