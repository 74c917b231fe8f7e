"""The report that the gate fills: here, in MLflow, and what is left when it cannot be made."""

from pathlib import Path

import pytest
from changed_bundles import changed, others
from mlflow import MlflowClient

from tasks.bundle import REPORT, Bundle
from tasks.evaluation.champion_part import BEGIN, END
from tasks.params import Settings, load_params
from tasks.registry.champion_report import FOLDER, against_champion, folder_of, pages_of
from tasks.registry.decision import by_hand
from tasks.registry.promote import promote
from tasks.registry.register import Registered, register
from tasks.tracking import open_run

PARAMS = load_params(Path(__file__).parents[2] / "conf/params.yaml")
HEAD, TAIL = f"<main><h1>All</h1>{BEGIN}", f"{END}<h2>Rest</h2></main>"


def with_marks(directory: Path) -> None:
    """Give a bundle a report that has a place to fill."""
    (directory / REPORT).write_text(f"{HEAD}\n<p>nobody knows</p>\n{TAIL}")


@pytest.fixture
def settings(tmp_path: Path, mlflow_server: str) -> Settings:
    return Settings(home=tmp_path / "home", MLFLOW_TRACKING_URI=mlflow_server)


@pytest.fixture
def old(make_bundle) -> Bundle:
    return make_bundle(0.1, "old")


@pytest.fixture
def new(make_bundle, settings) -> Bundle:
    """Its report has a place to fill, and its training run is recorded."""
    made = changed(make_bundle(0.01, "unmarked"), "new", settings, files=with_marks)
    open_run(made.info.lineage.run_key, "train", settings=settings).finish()
    return made


def promoted(bundle: Bundle, settings: Settings, after: Bundle | None = None) -> Registered:
    """Register a bundle and make it the champion, in another's place."""
    version = register(bundle, settings)
    promote(version.version, by_hand(bundle, after, "tester", "it is time"), settings)
    return version


def test_the_gate_fills_the_report_here_and_in_mlflow(
    old, new, root, settings, tmp_path, client: MlflowClient
):
    first = register(old, settings)
    against_champion(old, first, PARAMS, root, settings)
    assert pages_of(old, settings).filled is None  # there was no champion
    promoted(old, settings)
    against_champion(old, first, PARAMS, root, settings)
    assert pages_of(old, settings).report == (old.path / REPORT).resolve()  # it is the champion
    second = register(new, settings)
    against_champion(new, second, PARAMS, root, settings)

    pages = pages_of(new, settings)
    assert pages.report == pages.filled
    assert pages.report.name == "report-champion-v1.html"
    assert pages.comparisons == ()
    page = pages.report.read_text()
    assert page.startswith(HEAD)
    assert page.endswith(TAIL)
    assert "nobody knows" not in page
    assert "A is version 1 (champion). B is version 2, the model of this report." in page
    assert "images go wrong" in page
    assert 'src="data:image/png' in page
    assert "nobody knows" in pages.signed.read_text()
    assert [file.path for file in client.list_artifacts(second.run_id, FOLDER)] == [
        f"{FOLDER}/{pages.report.name}"
    ]
    kept = client.download_artifacts(second.run_id, f"{FOLDER}/{pages.report.name}", str(tmp_path))
    assert Path(kept).read_text() == page


def test_the_last_comparison_replaces_an_earlier_one_even_when_it_fails(
    old, new, make_bundle, root, settings, tmp_path, caplog
):
    promoted(old, settings)
    registered = register(new, settings)
    against_champion(new, registered, PARAMS, root, settings)
    assert pages_of(new, settings).report.name == "report-champion-v1.html"
    elsewhere = changed(make_bundle(0.2, "x"), "elsewhere", settings, files=others)
    other = promoted(elsewhere, settings, after=old)
    against_champion(new, registered, PARAMS, root, settings)
    (page,) = folder_of(new, settings).iterdir()
    assert page.name == f"report-champion-v{other.version}.html"
    against_champion(new, registered, PARAMS, tmp_path / "no images here", settings)
    assert "no comparison with the champion: BundleError" in caplog.text
    assert pages_of(new, settings).report == pages_of(new, settings).signed


def test_beside_a_report_from_before_the_marks_lies_a_page_of_its_own(
    old, make_bundle, root, settings, client: MlflowClient
):
    promoted(old, settings)
    older = make_bundle(0.01, "older")
    open_run(older.info.lineage.run_key, "train", settings=settings).finish()
    registered = register(older, settings)
    against_champion(older, registered, PARAMS, root, settings)
    pages = pages_of(older, settings)
    assert pages.report == pages.signed
    (page,) = pages.comparisons
    assert page.name == "champion-v1.html"
    assert "<h1>From version 1 (champion) to version 2</h1>" in page.read_text()
    assert [file.path for file in client.list_artifacts(registered.run_id, FOLDER)] == [
        f"{FOLDER}/champion-v1.html"
    ]
