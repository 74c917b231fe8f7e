import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from tasks.data.validate import validate
from tasks.errors import ValidationFailed
from tasks.params import load_params
from tasks.schema import Validate

PARAMS = load_params(Path(__file__).parents[2] / "conf/params.yaml").validate_


def config(**changes: Any) -> Validate:
    return Validate.model_validate(PARAMS.model_dump() | changes)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def page(target: Path) -> str:
    return "".join(file.read_text() for file in (target / "site").rglob("cleaned-images.html"))


def test_digits_pass_and_data_docs_are_built(digits_cleaned: pd.DataFrame, tmp_path: Path) -> None:
    outcomes = validate(digits_cleaned, config(), tmp_path / "validation")
    assert all(outcome.success for outcome in outcomes)
    assert (tmp_path / "validation/site/index.html").is_file()
    assert "Every class has enough kept images" in page(tmp_path / "validation")
    result = json.loads((tmp_path / "validation/result.json").read_text())
    assert len(result) == len(outcomes) >= 12


def test_result_is_the_same_every_time(digits_cleaned: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("one", "two"):
        validate(digits_cleaned, config(), tmp_path / name)
    one, two = ((tmp_path / name / "result.json").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"min_classes": 11},
            ["column_unique_value_count", "observed: 10", "at least 11", "validate.min_classes"],
        ),
        ({"min_per_class": 178}, ["images_of_class", "'2/0002.png'", "177", "at least 178", "'8/"]),
        ({"min_side": 9}, ["shorter_side", "1797 of 1797 rows", "at least 9", "'0/0000.png'"]),
        ({"max_side": 7}, ["longer_side", "at most 7", "validate.max_side"]),
        ({"labels": ["1", "2"]}, ["label '0'", "one of '1', '2'", "validate.labels"]),
        ({"labels": [*"0123456789", "ten"]}, ["no image of 'ten'", "validate.labels"]),
    ],
)
def test_failure_names_expectation_value_limit_and_rows(
    digits_cleaned: pd.DataFrame, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    target = tmp_path / "validation"
    with pytest.raises(ValidationFailed) as caught:
        validate(digits_cleaned, config(**changes), target)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert message.count(".png'") <= 10
    assert caught.value.exit_code == 3
    assert "Failed" in page(target)
    assert [
        item for item in json.loads((target / "result.json").read_text()) if not item["success"]
    ]


def test_share_of_flagged_images(
    tmp_path: Path, photo: Image.Image, cleaned_of: Callable[..., pd.DataFrame]
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(4):
            photo.rotate(90 * number + 45 * (label == "dog")).save(
                tmp_path / label / f"{number}.png"
            )
    (tmp_path / "cat/broken\nname.png").write_bytes(b"x")
    (tmp_path / "cat/black.png").write_bytes((tmp_path / "cat/0.png").read_bytes())
    cleaned = cleaned_of(tmp_path).reset_index()
    passing = config(labels=None, min_per_class=3, max_flagged_share=0.2)
    validate(cleaned, passing, tmp_path / "validation")
    failing = config(labels=None, min_per_class=3, max_flagged_share=0.19)
    with pytest.raises(ValidationFailed) as caught:
        validate(cleaned, failing, tmp_path / "validation")
    assert "2 of 10 rows" in str(caught.value)
    assert "'cat/broken\\nname.png': flags 'unreadable'" in str(caught.value)
    assert "flags 'exact_duplicate'" in str(caught.value)


def test_a_null_in_a_kept_row_is_found(digits_cleaned: pd.DataFrame, tmp_path: Path) -> None:
    cleaned = digits_cleaned.copy()
    cleaned.loc[5, "brightness"] = None
    with pytest.raises(ValidationFailed, match="Every kept row has a brightness") as caught:
        validate(cleaned, config(), tmp_path / "validation")
    assert f"{cleaned.loc[5, 'path']!r}" in str(caught.value)


def test_a_class_dropped_as_a_whole_and_nothing_kept(
    digits_cleaned: pd.DataFrame, tmp_path: Path
) -> None:
    cleaned = digits_cleaned.copy()
    cleaned["keep"] = cleaned["label"] != "7"
    with pytest.raises(ValidationFailed, match=r"images_of_class '0\.0', label '7'"):
        validate(cleaned, config(labels=None), tmp_path / "validation")
    cleaned["keep"] = False
    with pytest.raises(ValidationFailed, match="There are enough classes"):
        validate(cleaned, config(), tmp_path / "validation")
