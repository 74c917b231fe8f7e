"""Attacks on a real small network: bounded, stronger with the level, and the graph's answers."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from small_pipeline import read_metrics

from tasks.data.shards import open_shards
from tasks.evaluation.adversarial import attacked, measure_adversarial
from tasks.evaluation.attacked import adversarial_figures
from tasks.evaluation.evaluate import main
from tasks.evaluation.explanation.attribution import drawn_from
from tasks.evaluation.pixel_networks import (
    GraphClassifier,
    PixelClassifier,
    as_pixels,
    fp32_network,
)
from tasks.schema import Adversarial, Explanation

LEVELS = [2, 8, 24]


@pytest.fixture(scope="module")
def network(planted) -> PixelClassifier:
    return fp32_network(open_shards(planted.root / "data/shards"), planted.root / "data/model")


@pytest.fixture(scope="module")
def found(planted, network):
    graph = GraphClassifier(planted.root / "data/candidates/fp32.onnx", "onnxruntime")
    test = open_shards(planted.root / "data/shards").split("test")
    params = Adversarial(enabled=True, images=30, levels=LEVELS)
    return measure_adversarial(test, network, graph, params, 0)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("level", [1, 3, 40])
def test_an_image_stays_within_the_level_and_is_one(attack, level, network, planted):
    images, labels = as_pixels(planted.images[:20]), torch.from_numpy(planted.labels[:20])
    images[:5] = images[:5].clamp(0, 2)
    images[5:10] = images[5:10].clamp(253, 255)
    with drawn_from(0):
        changed = attacked(network, attack, images, labels, level)
    assert changed.shape == images.shape
    assert torch.equal(changed, changed.round())
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed - images).abs().amax() <= level
    moved = (changed - images).abs().mean(dim=(1, 2, 3))
    assert (moved[10:] > 0.2 * level).all()  # hardly a pixel is left where it was


def test_more_levels_and_more_steps_leave_less(found):
    for name in ("fgsm", "pgd"):
        accuracy = (found.fp32[name] == found.labels).mean(1)
        clean = (found.fp32_clean == found.labels).mean()
        assert clean >= accuracy[0] >= accuracy[1] >= accuracy[2]
    fgsm, pgd = ((found.fp32[name] == found.labels).mean(1) for name in ("fgsm", "pgd"))
    assert (pgd <= fgsm + 0.05).all()
    assert pgd[-1] < 0.3


def test_a_network_that_is_very_sure_is_attacked_none_the_less(network, planted):
    """Its cross-entropy has a gradient of zero in float32; that is no strength."""
    with torch.no_grad():
        sure = PixelClassifier(*_scaled(network, 1e4))
    images, labels = as_pixels(planted.images[:40]), torch.from_numpy(planted.labels[:40])
    assert (sure(images).softmax(1).amax(1) == 1).all()
    right = []
    for attacker in (sure, network):
        with drawn_from(0):
            changed = attacked(attacker, "pgd", images, labels, 24)
        right.append(float((attacker(changed).argmax(1) == labels).float().mean()))
    assert right[0] == pytest.approx(right[1], abs=0.1)


def test_the_smallest_change_fits_what_each_level_leaves(found):
    right = found.labels[found.fp32_clean == found.labels]
    assert len(found.smallest) == len(right)
    lost = (found.smallest <= LEVELS[1]).mean()
    accuracy = (found.fp32["pgd"][1] == found.labels).mean()
    assert 1 - lost == pytest.approx(accuracy, abs=0.1)
    quartiles = adversarial_figures(found, 0.95).quartiles
    known = [end for end in quartiles if end is not None]
    assert known == sorted(known)
    assert quartiles[1] == np.quantile(found.smallest, 0.5, method="higher")


def test_a_change_that_is_not_found_is_said_so(planted, network):
    """One level changes nothing here: the median is not known, and is not a number."""
    graph = GraphClassifier(planted.root / "data/candidates/fp32.onnx", "onnxruntime")
    test = open_shards(planted.root / "data/shards").split("test")
    params = Adversarial(enabled=True, images=10, levels=[1])
    figures = adversarial_figures(measure_adversarial(test, network, graph, params, 0), 0.95)
    assert figures.quartiles == [None, None, None]
    assert "withstand 1 level." in figures.sentence()


def test_every_figure_of_the_step_follows_from_the_answers(workplace, tmp_path, set_evaluate):
    set_evaluate(workplace, "explanation", enabled=False)
    set_evaluate(workplace, "adversarial", images=40, levels=[4, 16])
    main()
    (kept,) = (tmp_path / "home").rglob("attacked.parquet")
    table = pq.read_table(kept).to_pandas()
    assert len(table) == 2 * 2 * 40
    found = read_metrics(workplace)["adversarial"]
    assert found["images"] == table["path"].nunique() == 40
    for (attack, level), rows in table.groupby(["attack", "levels"]):
        cell = found["accuracy"][str(level)]
        ours, theirs = cell["deployed"][attack], cell["fp32"][attack]
        assert ours["value"] == pytest.approx((rows["predicted"] == rows["label"]).mean())
        assert theirs["value"] == pytest.approx((rows["fp32_predicted"] == rows["label"]).mean())
        assert ours["low"] <= ours["value"] <= ours["high"]
        # the deployed graph is the fp32 export here
        assert ours["value"] == pytest.approx(theirs["value"], abs=0.05)
    html = (workplace / "data/bundle/report.html").read_text()
    assert "When somebody changes the images on purpose" in html
    assert "Half of the right answers" in (workplace / "data/bundle/MODEL_CARD.md").read_text()


@pytest.mark.parametrize("levels", [[4, 2], [2, 2], []])
def test_levels_that_do_not_rise_are_refused(levels):
    with pytest.raises(ValidationError, match=r"must rise|at least 1"):
        Adversarial(enabled=True, images=10, levels=levels)


def test_a_method_named_twice_is_refused():
    with pytest.raises(ValidationError, match="name each method once"):
        Explanation(enabled=True, images=10, methods=["lime", "lime"])


def _scaled(network: PixelClassifier, factor: float):
    import copy

    model = copy.deepcopy(network.model)
    model.head.weight.mul_(factor)
    model.head.bias.mul_(factor)
    return model, network.spec
