"""The shipped expectations on the splits: sound ones pass, and what is planted is found."""

from pathlib import Path

import pandas as pd
import pytest
from validating import params_of

from tasks.data.split import assign
from tasks.data.validate import validate
from tasks.data.validate_splits import joined
from tasks.data.validation.expectations import FOLDER
from tasks.data.validation.outcomes import Outcome
from tasks.errors import ValidationFailed

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("nothing_released")


@pytest.fixture(scope="session")
def digits_splits(digits_cleaned: pd.DataFrame) -> pd.DataFrame:
    no_pairs = pd.DataFrame({"left": [], "right": []})
    return joined(assign(digits_cleaned, no_pairs, params_of(Path()).split), digits_cleaned)


def check(splits: pd.DataFrame, target: Path, images: Path = Path("images")) -> list[Outcome]:
    return validate({"splits": splits}, params_of(images), target, ROOT / FOLDER)["splits"]


def test_sound_splits_pass(digits_splits: pd.DataFrame, tmp_path: Path) -> None:
    outcomes = check(digits_splits, tmp_path / "v")
    assert [one.success for one in outcomes] == [True, True, True]
    assert outcomes[0].observed == "22 to 128 images"


def test_a_class_too_small_in_one_split(
    digits_splits: pd.DataFrame, digits_folder: Path, tmp_path: Path
) -> None:
    few = (digits_splits["label"] == "4") & (digits_splits["split"] == "validation")
    splits = digits_splits.drop(index=digits_splits.index[few][4:])
    with pytest.raises(ValidationFailed) as caught:
        check(splits, tmp_path / "v", digits_folder)
    assert "label '4', 4 images in validation" in str(caught.value)
    assert str(caught.value).count(".png'") == 1
    splits = digits_splits.drop(index=digits_splits.index[few])
    with pytest.raises(ValidationFailed, match="label '4', 0 images in validation"):
        check(splits, tmp_path / "v", digits_folder)


@pytest.mark.parametrize(("column", "word"), [("pixel_hash", "content hash"), ("group", "group")])
def test_a_planted_leak_between_splits_is_found(
    digits_splits: pd.DataFrame, digits_folder: Path, tmp_path: Path, column: str, word: str
) -> None:
    splits = digits_splits.copy()
    train = splits.index[splits["split"] == "train"][0]
    test = splits.index[splits["split"] == "test"][0]
    splits.loc[train, column] = splits.loc[test, column]
    with pytest.raises(ValidationFailed) as caught:
        check(splits, tmp_path / "v", digits_folder)
    message = str(caught.value)
    assert f"No {word} is in two splits" in message or f"No duplicate {word}" in message
    assert "1 in two splits, of 2 images" in message
    for row, split in ((train, "train"), (test, "test")):
        assert f"{splits.loc[row, 'path']!r}: label" in message
        assert f"in {split}, {column} {splits.loc[test, column]}" in message
    pages = (tmp_path / "v/site").glob("validations/splits/**/*.html")
    assert "".join(page.read_text() for page in pages).count("data:image/") == 2
