"""Two bundles beside each other: on the frozen images, on their own answers, and in MLflow."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from frozen_shards import write_frozen
from mlflow import MlflowClient

from tasks.bundle import INFO, METRICS, REFERENCE, Bundle, open_bundle, write_bundle
from tasks.errors import BundleError
from tasks.params import Settings, load_params
from tasks.registry.comparison import FOLDER, against_champion, compare_bundles, write_page
from tasks.registry.decision import by_hand
from tasks.registry.promote import promote
from tasks.registry.register import register
from tasks.tracking import open_run

PARAMS = load_params(Path(__file__).parents[2] / "conf/params.yaml")
HELD_OUT = slice(1200, None)


@pytest.fixture
def root(
    tmp_path: Path, digit_images: np.ndarray, digit_labels: np.ndarray, digits_bundle: Bundle
) -> Path:
    """A folder whose frozen test images are those that the bundles were not trained on."""
    write_frozen(tmp_path / "root", digits_bundle, digit_images[HELD_OUT], digit_labels[HELD_OUT])
    return tmp_path / "root"


def changed(bundle: Bundle, name: str, settings: Settings, *, info=None, files=None) -> Bundle:
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


def test_the_figures_are_those_of_the_answers_to_the_same_images(
    make_bundle, root, digit_images, digit_labels
):
    a, b = make_bundle(1e-4, "a"), make_bundle(0.1, "b")
    found = compare_bundles(a, b, ("old", "new"), PARAMS, root).found
    labels = digit_labels[HELD_OUT]
    old, new = (one.predict(digit_images[HELD_OUT])[0].argmax(1) == labels for one in (a, b))
    assert found.difference[0] == pytest.approx(new.mean() - old.mean())
    assert found.difference[1] < found.difference[0] < found.difference[2]
    assert {one.row for one in found.fixed} == set(np.flatnonzero(new & ~old))
    assert {one.row for one in found.broken} == set(np.flatnonzero(old & ~new))
    sevens = next(one for one in found.classes if one.name == "7")
    assert sevens.images == (labels == 7).sum()
    assert sevens.b - sevens.a == pytest.approx(sevens.change[0])
    assert sevens.a == pytest.approx(old[labels == 7].mean())
    assert "new is better" in found.verdict


def test_the_page_shows_the_changed_images_and_loads_nothing(make_bundle, root, tmp_path):
    a, b = make_bundle(1e-4, "a"), make_bundle(0.1, "b")
    compared = compare_bundles(a, b, ("old <1>", "new"), PARAMS, root)
    write_page(tmp_path / "page.html", compared, PARAMS)
    html = (tmp_path / "page.html").read_text()
    assert "old &lt;1&gt;" in html
    assert re.search(r"digits/\d/\d{4}.png", html)
    shown = sum(
        min(len(kind), PARAMS.evaluate.worst_mistakes)
        for kind in (compared.found.fixed, compared.found.broken)
    )
    assert html.count('src="data:image/png') == shown > 24
    assert not re.search(r'(src|href)="(?!data:image|#)', html)


def test_the_same_bundle_twice_is_said(digits_bundle, root):
    with pytest.raises(BundleError, match="x and y are the same bundle"):
        compare_bundles(digits_bundle, digits_bundle, ("x", "y"), PARAMS, root)


def test_other_classes_leave_their_images_out(make_bundle, root, settings, digit_labels):
    a = make_bundle(0.1, "a")
    names = [*a.info.classes[:9], "nine"]
    b = changed(make_bundle(0.05, "b"), "renamed", settings, info={"classes": names})
    found = compare_bundles(a, b, ("a", "b"), PARAMS, root).found
    assert found.only == (["9"], ["nine"])
    assert found.left_out == (digit_labels[HELD_OUT] == 9).sum()
    assert "9" not in {one.name for one in found.classes}
    c = changed(a, "other", settings, info={"classes": [f"{name}!" for name in a.info.classes]})
    with pytest.raises(BundleError, match="no class in common"):
        compare_bundles(a, c, ("a", "c"), PARAMS, root)


def test_another_input_size_without_files_is_compared_by_the_answers(make_bundle, root, settings):
    """The images would have to be decoded anew; those packed are not of that size."""
    a = make_bundle(0.1, "a")
    contract = a.info.input.model_copy(update={"size": 16})
    b = changed(make_bundle(0.05, "b"), "larger", settings, info={"input": contract})
    compared = compare_bundles(a, b, ("a", "b"), PARAMS, root)
    assert "splits.parquet" in str(compared.note)
    assert compared.picture is None


def others(directory: Path) -> None:
    """Make the answers of a bundle those to other images."""
    with np.load(directory / REFERENCE) as arrays:
        kept = dict(arrays)
    np.savez(directory / REFERENCE, **(kept | {"hashes": kept["hashes"][::-1]}))


def from_before(directory: Path) -> None:
    """Make a bundle one from before images were named and test images counted."""
    with np.load(directory / REFERENCE) as arrays:
        kept = dict(arrays)
    np.savez(directory / REFERENCE, **{name: kept[name] for name in kept if name != "hashes"})
    (directory / METRICS).write_text("{}")


def test_without_images_the_bundles_own_answers_are_compared(make_bundle, settings, tmp_path):
    a, b = make_bundle(0.001, "a"), make_bundle(0.1, "b")
    compared = compare_bundles(a, b, ("a", "b"), PARAMS, tmp_path)
    assert compared.found.images == (b.metrics() or {})["test_images"]
    assert compared.picture is None
    assert "no shards" in str(compared.note)
    write_page(tmp_path / "page.html", compared, PARAMS)
    older = changed(a, "older", settings, files=from_before)
    assert compare_bundles(older, b, ("a", "b"), PARAMS, tmp_path).found == replace(
        compared.found, a=ANY, b=ANY
    )
    oldest = changed(b, "oldest", settings, files=from_before)
    with pytest.raises(BundleError, match="Nor do a and b say how many"):
        compare_bundles(older, oldest, ("a", "b"), PARAMS, tmp_path)
    elsewhere = changed(b, "elsewhere", settings, files=others)
    with pytest.raises(BundleError, match="answers to different images"):
        compare_bundles(a, elsewhere, ("a", "b"), PARAMS, tmp_path)


def test_the_gate_leaves_its_page_with_the_run_in_mlflow(
    make_bundle, root, tmp_path, mlflow_server, client: MlflowClient
):
    settings = Settings(home=tmp_path / "home", MLFLOW_TRACKING_URI=mlflow_server)
    old, new = make_bundle(0.1, "old"), make_bundle(0.01, "new")
    run = open_run(new.info.lineage.run_key, "train", settings=settings)
    run.finish()
    first = register(old, settings)
    assert against_champion(old, first, PARAMS, root, settings) is None
    promote(first.version, by_hand(old, None, "tester", "the first"), settings)
    second = register(new, settings)
    page = against_champion(new, second, PARAMS, root, settings)
    assert page is not None
    assert "From version 1 (champion) to version 2" in page.read_text()
    assert [file.path for file in client.list_artifacts(second.run_id, FOLDER)] == [
        f"{FOLDER}/champion-v1.html"
    ]


def test_what_hinders_the_page_does_not_hinder_the_promotion(
    make_bundle, tmp_path, mlflow_server, caplog
):
    settings = Settings(home=tmp_path / "home", MLFLOW_TRACKING_URI=mlflow_server)
    first_one = make_bundle(0.1, "first")
    new = changed(make_bundle(0.01, "new"), "elsewhere", settings, files=others)
    first, second = register(first_one, settings), register(new, settings)
    promote(first.version, by_hand(first_one, None, "tester", "the first"), settings)
    assert against_champion(new, second, PARAMS, tmp_path, settings) is None
    assert "no comparison with the champion" in caplog.text
