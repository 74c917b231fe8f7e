"""The gate lets through what is not worse, and blocks what is worse or was not measured."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper
from PIL import Image

from tasks.bundle import INFO, MODEL, Bundle, BundleInfo, open_bundle, write_bundle
from tasks.data.shards import write_index
from tasks.errors import DataError
from tasks.params import Settings, load_params
from tasks.registry.decision import Decision, Rule, by_hand
from tasks.registry.frozen import frozen_images
from tasks.registry.gate import FrozenImages, decide

PARAMS = load_params()
GATE = PARAMS.gate.model_copy(update={"margin": 0.01, "max_corruption_error_rise": None})
NO_LIMIT = PARAMS.budget


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def test_images(digit_images: np.ndarray, digit_labels: np.ndarray) -> FrozenImages:
    classes = tuple(str(digit) for digit in range(10))
    hashes = np.arange(597).astype("S32")
    return FrozenImages(classes, digit_labels[1200:], hashes, lambda bundle: digit_images[1200:])


@pytest.fixture
def variant(settings: Settings, tmp_path: Path) -> Callable[..., Bundle]:
    """A signed copy of a bundle with other info, or with the score of some classes shifted."""

    def make(
        bundle: Bundle, name: str, update: dict | None = None, shift: dict | None = None
    ) -> Bundle:
        def fill(directory: Path) -> None:
            for path in bundle.path.iterdir():
                if path.name != INFO and not path.name.startswith("SHA256SUMS"):
                    shutil.copy(path, directory)
            model = onnx.load(directory / MODEL)
            for tensor in model.graph.initializer:
                if tensor.name == "bias":
                    bias = numpy_helper.to_array(tensor).copy()
                    for position, value in (shift or {}).items():
                        bias[position] += value
                    tensor.CopyFrom(numpy_helper.from_array(bias, "bias"))
            onnx.save(model, directory / MODEL)

        info = BundleInfo.model_validate(bundle.info.model_dump() | (update or {}))
        write_bundle(tmp_path / name, info, settings, fill)
        return open_bundle(tmp_path / name, settings)

    return make


def _rule(decision: Decision, name: str) -> Rule:
    return next(rule for rule in decision.rules if rule.name == name)


def test_the_first_bundle_is_promoted(digits_bundle: Bundle, test_images: FrozenImages) -> None:
    decision = decide(digits_bundle, None, test_images, GATE, NO_LIMIT)
    assert decision.promote
    assert "no champion yet" in decision.reason


def test_an_equal_model_is_promoted_with_its_numbers(
    make_bundle: Callable[..., Bundle], test_images: FrozenImages
) -> None:
    champion, challenger = make_bundle(0.1, "a"), make_bundle(0.12, "b")
    decision = decide(challenger, champion, test_images, GATE, NO_LIMIT)
    assert decision.promote
    accuracy = _rule(decision, "accuracy")
    assert accuracy.limit == -0.01
    before, after = (float(x) for x in re.findall(r"0\.\d{4}", accuracy.reason)[:2])
    assert -0.01 <= accuracy.observed < after - before
    assert "on 597 images" in accuracy.reason


def test_a_worse_model_is_blocked_and_told_why(
    make_bundle: Callable[..., Bundle], test_images: FrozenImages
) -> None:
    champion, challenger = make_bundle(0.1, "good"), make_bundle(0.00001, "bad")
    decision = decide(challenger, champion, test_images, GATE, NO_LIMIT)
    assert not decision.promote
    assert _rule(decision, "accuracy").verdict == "fail"
    assert "allowed -0.0100" in decision.reason


def test_one_class_forgotten_blocks_even_within_the_margin(
    digits_bundle: Bundle, variant: Callable[..., Bundle], test_images: FrozenImages
) -> None:
    challenger = variant(digits_bundle, "no-threes", shift={3: -50.0})
    lenient = GATE.model_copy(update={"margin": 0.5})
    decision = decide(challenger, digits_bundle, test_images, lenient, NO_LIMIT)
    assert not decision.promote
    assert _rule(decision, "accuracy").verdict == "pass"
    assert _rule(decision, "recall").verdict == "fail"
    assert "'3'" in decision.reason


def test_the_same_bundle_leaves_nothing_to_do(
    digits_bundle: Bundle, test_images: FrozenImages
) -> None:
    decision = decide(digits_bundle, digits_bundle, test_images, GATE, NO_LIMIT)
    assert (decision.outcome, decision.promote, decision.rules) == ("unchanged", False, ())


@pytest.mark.parametrize(
    ("budget", "rule"),
    [
        ({"max_latency_ms": 0.05}, "latency"),
        ({"max_size_mb": 0.002}, "size"),
        ({"max_memory_mb": 59.0}, "memory"),
    ],
)
def test_over_budget_is_blocked_even_as_the_first(
    digits_bundle: Bundle, test_images: FrozenImages, budget: dict, rule: str
) -> None:
    limits = NO_LIMIT.model_copy(update=budget)
    decision = decide(digits_bundle, None, test_images, GATE, limits)
    assert [r.name for r in decision.rules if r.verdict == "fail"] == [rule]
    assert not decision.promote
    within = NO_LIMIT.model_copy(update=dict.fromkeys(budget, 1000.0))
    assert decide(digits_bundle, None, test_images, GATE, within).promote


def test_a_lost_class_blocks_and_is_named(
    digits_bundle: Bundle, variant: Callable[..., Bundle], test_images: FrozenImages
) -> None:
    names = [*(str(digit) for digit in range(9)), "nine"]
    challenger = variant(digits_bundle, "renamed", {"classes": names})
    decision = decide(challenger, digits_bundle, test_images, GATE, NO_LIMIT)
    assert not decision.promote
    assert _rule(decision, "classes").verdict == "fail"
    assert "no longer knows '9'" in decision.reason


def test_a_new_class_is_compared_on_the_images_of_the_known_ones(
    digits_bundle: Bundle, variant: Callable[..., Bundle], test_images: FrozenImages
) -> None:
    challenger = variant(digits_bundle, "same", {"technique": "int8"})
    known = test_images.labels < 9
    older = _without_nine(digits_bundle)
    decision = decide(challenger, older, test_images, GATE, NO_LIMIT)
    assert "new classes '9'" in _rule(decision, "classes").reason
    assert f"on {known.sum()} images" in _rule(decision, "accuracy").reason
    assert _rule(decision, "recall").verdict == "pass"


def _without_nine(bundle: Bundle) -> Bundle:
    """The bundle as a model of nine classes: the last probability is dropped."""

    class NineClasses(Bundle):
        def predict(self, images):
            probabilities, embedding = super().predict(images)
            return probabilities[:, :9], embedding

    info = bundle.info.model_copy(update={"classes": bundle.info.classes[:9]})
    return NineClasses(bundle.path, info, "0" * 64)


def test_a_class_without_test_images_cannot_be_judged_and_blocks(
    make_bundle: Callable[..., Bundle], test_images: FrozenImages, digit_images: np.ndarray
) -> None:
    without = test_images.labels != 4
    partial = FrozenImages(
        test_images.classes,
        test_images.labels[without],
        test_images.hashes[without],
        lambda b: digit_images[1200:][without],
    )
    decision = decide(make_bundle(0.12, "b"), make_bundle(0.1, "a"), partial, GATE, NO_LIMIT)
    assert not decision.promote
    assert _rule(decision, "recall").verdict == "unknown"
    assert "'4'" in decision.reason


def test_images_that_are_gone_block(
    make_bundle: Callable[..., Bundle], test_images: FrozenImages
) -> None:
    def gone(bundle: Bundle) -> np.ndarray:
        raise DataError("test image 3/17.png cannot be prepared")

    missing = FrozenImages(test_images.classes, test_images.labels, test_images.hashes, gone)
    decision = decide(make_bundle(0.12, "b"), make_bundle(0.1, "a"), missing, GATE, NO_LIMIT)
    assert not decision.promote
    assert "3/17.png" in decision.reason


def test_a_decision_by_hand_names_who_and_why(digits_bundle: Bundle) -> None:
    decision = by_hand(digits_bundle, None, "ada", "the old one is on fire")
    assert decision.promote
    assert decision.manual
    assert "ada decided: the old one is on fire" in decision.reason


def test_another_input_size_gets_the_same_images_decoded_anew(
    digits_bundle: Bundle, digit_images: np.ndarray, digit_labels: np.ndarray, tmp_path: Path
) -> None:
    images, labels = digit_images[1200:1220], digit_labels[1200:1220]
    source = tmp_path / "source"
    names = [f"{label}/{n}.png" for n, label in enumerate(labels)]
    paths = [f"digits/{name}" for name in names]
    for path, image in zip(names, images, strict=True):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(source / path)
    larger = np.stack([np.asarray(Image.fromarray(i).resize((16, 16))) for i in images])
    _write_shards(tmp_path / "data/shards", larger, labels, paths, size=16, bundle=digits_bundle)
    params = load_params(overrides={"ingest.sources.digits.path": str(source)})
    splits = pd.DataFrame({"path": paths, "source": "digits", "box": None})
    splits.to_parquet(tmp_path / "data/splits.parquet")

    test = frozen_images(params, tmp_path)

    assert np.array_equal(test.images(digits_bundle)[:], images)
    contract = digits_bundle.info.input.model_copy(update={"size": 16})
    info = digits_bundle.info.model_copy(update={"input": contract})
    assert np.array_equal(test.images(Bundle(digits_bundle.path, info, "")), larger)
    grey = contract.model_copy(update={"colour": "grey"})  # the same size, other pixels
    info = digits_bundle.info.model_copy(update={"input": grey})
    decoded = test.images(Bundle(digits_bundle.path, info, ""))
    assert decoded.shape == (20, 16, 16, 3)
    assert np.array_equal(decoded[3:9], [grey.fit(image) for image in images[3:9]])
    (source / names[3]).unlink()
    with pytest.raises(DataError, match=names[3]):
        test.images(digits_bundle)[:]


def _write_shards(
    path: Path, images: np.ndarray, labels: np.ndarray, paths: list[str], size: int, bundle: Bundle
) -> None:
    import json

    path.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        np.save(path / f"{split}_images.npy", images)
        np.save(path / f"{split}_labels.npy", labels.astype(np.int64))
        np.save(path / f"{split}_statistics.npy", np.zeros((len(labels), 5), np.float32))
        np.save(path / f"{split}_hashes.npy", np.full(len(labels), b"0" * 32))
        (path / f"{split}_paths.json").write_text(json.dumps(paths))
    contract = bundle.info.input.model_copy(update={"size": size})
    write_index(path, [str(digit) for digit in range(10)], contract)
