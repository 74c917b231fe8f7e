"""Expectations against the last released dataset, on real bundles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.bundle import Bundle
from tasks.data.validate import validate
from tasks.data.validation.expectations import FOLDER
from tasks.data.validation.outcomes import Outcome
from tasks.errors import ValidationFailed
from tasks.params import Settings, check_params, read_yaml
from tasks.releases import publish

ROOT = Path(__file__).parents[2]
LABELS = "expect_labels_to_equal_released_labels"
STATISTICS = "expect_statistics_to_stay_near_released_statistics"


@pytest.fixture
def released(
    make_bundle: Callable[..., Bundle], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Bundle:
    """A bundle of the digits, published as version 3 where the step looks for it."""
    bundle = make_bundle()
    publish(bundle, 3, settings)
    monkeypatch.setenv("VISIONLOOP_HOME", str(settings.home))
    return bundle


def check(table: pd.DataFrame, target: Path, images: Path, **changes: Any) -> dict[str, Outcome]:
    """The outcomes by expectation, as shipped."""
    values = read_yaml(ROOT / "conf/params.yaml")
    values["ingest"]["sources"] = {"digits": {"path": str(images), "layout": "folders"}}
    values["validate"] |= {"labels": None} | changes
    found = validate({"cleaned": table}, check_params(values), target, ROOT / FOLDER)["cleaned"]
    return {outcome.expectation: outcome for outcome in found}


def test_the_same_dataset_is_near_and_the_release_is_named(
    released: Bundle, digits_cleaned: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    found = check(digits_cleaned, tmp_path / "v", digits_folder)
    name = f"release v3 ({released.digest[:12]})"
    assert found[LABELS].success
    assert found[LABELS].observed == f"new: none, gone: none since {name}"
    assert found[STATISTICS].success
    assert found[STATISTICS].observed.startswith(f"KS distance from {name}: ")


def test_new_and_lost_labels_are_reported_and_do_not_stop(
    released: Bundle, digits_cleaned: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    cleaned = digits_cleaned.assign(label=digits_cleaned["label"].replace("9", "nine"))
    outcome = check(cleaned, tmp_path / "v", digits_folder)[LABELS]
    assert (outcome.success, outcome.severity) == (False, "warning")
    assert outcome.observed.startswith("new: 'nine', gone: '9' since release v3")
    assert [row["label"] for row in outcome.rows] == ["nine"]


def test_drifted_statistics_are_named_with_the_images_furthest_away(
    released: Bundle, digits_cleaned: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    cleaned = digits_cleaned.assign(brightness=digits_cleaned["brightness"] + 0.3)
    outcome = check(cleaned, tmp_path / "v", digits_folder)[STATISTICS]
    assert (outcome.success, outcome.severity) == (False, "warning")
    assert ": brightness 0.9" in outcome.observed or ": brightness 1.0" in outcome.observed
    brightest = cleaned.loc[cleaned["brightness"].idxmax(), "path"]
    assert outcome.rows[0]["path"] == brightest
    assert outcome.rows[0]["value"].startswith("brightness ")


def test_a_few_images_far_away_by_chance_are_no_drift(
    released: Bundle, digits_cleaned: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    """Of two images a distance over the limit says nothing; of all, it does."""
    few = digits_cleaned.assign(keep=False)
    few.loc[digits_cleaned["brightness"].nlargest(2).index, "keep"] = True
    with pytest.raises(ValidationFailed) as caught:  # too few of each class, and only that
        check(few, tmp_path / "v", digits_folder)
    assert STATISTICS not in str(caught.value)


def test_a_damaged_release_is_said_and_does_not_stop(
    released: Bundle,
    settings: Settings,
    digits_cleaned: pd.DataFrame,
    digits_folder: Path,
    tmp_path: Path,
) -> None:
    for path in (settings.releases / "current").resolve().glob("reference.npz"):
        path.write_bytes(b"damaged")
    outcome = check(digits_cleaned, tmp_path / "v", digits_folder)[STATISTICS]
    assert not outcome.success
    assert "reference.npz" in outcome.observed
