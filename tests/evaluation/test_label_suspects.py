"""Label suspects of a cross-validation on real digits: the table, the page, a damaged table."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.data.shards import ShardSplit
from tasks.errors import DataError
from tasks.evaluation import label_suspects
from tasks.evaluation.label_suspects import find_suspects, read_suspects, write_suspects

CLASSES = [f"digit <{n}>" for n in range(10)]
FOLDS, COUNT, WRONG = 3, 900, 45


@dataclass(frozen=True)
class Folds:
    """Probabilities and held-out splits of each fold, and the right label by pixel hash."""

    probabilities: list[np.ndarray]
    held_out: list[ShardSplit]
    right: dict[str, int]


@pytest.fixture(scope="module")
def judged(digit_images: np.ndarray, digit_labels: np.ndarray) -> Folds:
    """The nearest mean of each digit in the other folds decides; 5 % of labels are planted."""
    images, right = digit_images[:COUNT], digit_labels[:COUNT]
    generator = np.random.default_rng(0)
    wrong = generator.permutation(COUNT)[:WRONG]
    labels = right.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, WRONG)) % 10
    flat = images[..., 0].reshape(COUNT, -1) / 255
    hashes = [blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    probabilities, held_out = [], []
    for fold in range(FOLDS):
        mine = np.flatnonzero(np.arange(COUNT) % FOLDS == fold)
        rest = np.flatnonzero(np.arange(COUNT) % FOLDS != fold)
        means = np.stack([flat[rest][labels[rest] == digit].mean(0) for digit in range(10)])
        powers = np.exp(-((flat[mine][:, None] - means) ** 2).sum(2))
        probabilities.append((powers / powers.sum(1, keepdims=True)).astype(np.float32))
        held_out.append(
            ShardSplit(
                images=images[mine],
                labels=labels[mine].astype(np.int64),
                statistics=np.zeros((len(mine), 5), np.float32),
                hashes=np.array([hashes[row] for row in mine], "S32"),
                paths=[f"digits/{row:04d}.png" for row in mine],
            )
        )
    return Folds(probabilities, held_out, dict(zip(hashes, right.tolist(), strict=True)))


@pytest.fixture
def written(judged: Folds, tmp_path: Path) -> Path:
    found = find_suspects(judged.probabilities, judged.held_out, CLASSES)
    write_suspects(tmp_path, found, judged.held_out, 0.913)
    return tmp_path


def test_planted_labels_are_in_the_table_the_worst_first(judged: Folds, written: Path) -> None:
    suspects = read_suspects(written / label_suspects.TABLE)
    hit = [CLASSES[judged.right[one.pixel_hash]] != one.label for one in suspects]
    assert sum(hit) / WRONG > 0.7, "recall"
    assert all(hit[:20]), "the worst are real"
    assert [one.suspicion for one in suspects] == sorted(
        (one.suspicion for one in suspects), reverse=True
    )
    right = [one.likelier == CLASSES[judged.right[one.pixel_hash]] for one in suspects]
    assert np.mean(np.array(right)[hit]) > 0.9


def test_a_row_has_the_probabilities_of_its_own_image(judged: Folds, written: Path) -> None:
    for one in read_suspects(written / label_suspects.TABLE):
        split = judged.held_out[one.fold]
        row = split.hashes.tolist().index(one.pixel_hash.encode())
        assert split.paths[row] == one.path
        assert CLASSES[split.labels[row]] == one.label
        probabilities = judged.probabilities[one.fold][row]
        assert probabilities[CLASSES.index(one.label)] == np.float32(one.p_label)
        assert probabilities[CLASSES.index(one.likelier)] == np.float32(one.p_likelier)


def test_the_page_shows_the_images_and_asks_for_nothing(
    judged: Folds, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspects = read_suspects(written / label_suspects.TABLE)
    page = (written / label_suspects.PAGE).read_text()
    assert f"{len(suspects)} of {COUNT} labels are suspects" in page
    assert "test split was not looked at" in page
    assert "agree with 91.3\u00a0% of all labels" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "digit &lt;" in page, "names are escaped"
    assert "digit <" not in page
    shown = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(shown) == len(suspects)
    for source, one in zip(shown, suspects, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))
        hashed = blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).hexdigest()
        assert hashed == one.pixel_hash, "another image than the row's"
    monkeypatch.setattr(label_suspects, "SHOWN", 3)
    found = find_suspects(judged.probabilities, judged.held_out, CLASSES)
    write_suspects(written, found, judged.held_out, 0.913)
    page = (written / label_suspects.PAGE).read_text()
    assert page.count("data:image/png;base64") == 3
    assert "The first 3; all are in suspects.csv" in page


def test_right_labels_leave_an_empty_table_and_say_so(judged: Folds, tmp_path: Path) -> None:
    sure = [np.eye(10, dtype=np.float32)[split.labels] for split in judged.held_out]
    found = find_suspects(sure, judged.held_out, CLASSES)
    write_suspects(tmp_path, found, judged.held_out, 1.0)
    assert read_suspects(tmp_path / label_suspects.TABLE) == []
    assert "Nothing needs your attention" in (tmp_path / label_suspects.PAGE).read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "set cross_validate.enabled to true"),
        (lambda path: path.write_text("pixel_hash,path\nab,c.png\n"), "cannot be read"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda path: path.write_text(path.read_text()[:-20]), "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_named(
    written: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = written / label_suspects.TABLE
    spoil(path)
    with pytest.raises(DataError, match=message) as caught:
        read_suspects(path)
    assert str(path) in str(caught.value)
