"""Abstention and prediction sets as the step decides and reports them: recomputed by counting."""

import numpy as np
import pytest
from ruamel.yaml import YAML
from small_pipeline import read_metrics, write_shards

from tasks.bundle import open_bundle
from tasks.data.shards import open_shards
from tasks.errors import VisionloopError
from tasks.evaluation.evaluate import main
from tasks.params import load_params, load_settings


def ask(root, **values: object) -> None:
    path = root / "conf/params.yaml"
    params = YAML().load(path)
    params["evaluate"]["abstention"].update(values)
    params["evaluate"]["robustness"]["enabled"] = False
    YAML().dump(params, path)


def answered(root):
    """The bundle, and what it says of the validation and of the test images."""
    bundle = open_bundle(root / "data/bundle", load_settings())
    shards = open_shards(root / "data/shards")
    parts = [shards.split(name) for name in ("validation", "test")]
    return bundle, [(bundle.predict(part.images)[0], np.asarray(part.labels)) for part in parts]


def test_sets_come_from_validation_and_are_measured_on_test(pipeline):
    ask(pipeline)
    main()
    bundle, ((known, truth), (probabilities, labels)) = answered(pipeline)
    decision, found = bundle.info.decision, read_metrics(pipeline)["decision"]
    true = known[np.arange(len(truth)), truth]
    assert (true >= decision.set_from).mean() >= 0.95  # and one fewer would not do:
    assert (true > decision.set_from).mean() < 0.95 + 1 / len(truth)
    sets = [decision.prediction_set(row) for row in probabilities]
    held = np.mean([label in chosen for label, chosen in zip(labels, sets, strict=True)])
    reported = found["prediction_sets"]
    assert reported["hold_the_true_class"]["value"] == pytest.approx(held)
    assert reported["hold_the_true_class"]["low"] < held < reported["hold_the_true_class"]["high"]
    assert reported["mean_size"] == pytest.approx(np.mean([len(chosen) for chosen in sets]))
    assert reported["of_one_class"] == pytest.approx(np.mean([len(chosen) == 1 for chosen in sets]))
    assert found["answered"] == 1
    assert found["wrong_among_answered"] == pytest.approx(
        (probabilities.argmax(1) != labels).mean()
    )
    assert "It always answers" in (pipeline / "data/bundle/report.html").read_text()


def test_as_many_are_answered_as_were_asked_for(pipeline):
    ask(pipeline, coverage=0.8)
    main()
    bundle, ((known, _), (probabilities, labels)) = answered(pipeline)
    decision, found = bundle.info.decision, read_metrics(pipeline)["decision"]
    assert 0.8 <= (known.max(1) >= decision.abstain_below).mean() <= 0.8 + 1 / len(known)
    sure = np.array([not decision.abstains(row) for row in probabilities])
    assert found["answered"] == pytest.approx(sure.mean())
    wrong = (probabilities.argmax(1) != labels)[sure].mean()
    assert found["wrong_among_answered"] == pytest.approx(wrong)
    assert wrong < (probabilities.argmax(1) != labels).mean()
    report, card = (pipeline / "data/bundle" / name for name in ("report.html", "MODEL_CARD.md"))
    assert "it abstains" in report.read_text()
    assert f"abstains below a probability of {decision.abstain_below:.4f}" in card.read_text()


def test_a_risk_that_can_be_kept_sets_a_threshold(pipeline):
    ask(pipeline, risk=0.05)
    main()
    found = read_metrics(pipeline)["decision"]
    assert 0 < found["abstain_below"] < 1
    assert 0.3 < found["answered"] < 1
    assert found["wrong_among_answered"] <= 0.05


def test_a_risk_that_cannot_be_kept_is_said(pipeline):
    ask(pipeline, risk=0.001)
    main()
    assert read_metrics(pipeline)["decision"]["abstain_below"] is None
    html = (pipeline / "data/bundle/report.html").read_text()
    assert html.count("No threshold keeps the share of wrong answers below 0.1\u00a0%") == 2


def test_too_few_validation_images_rule_nothing_out(pipeline, digits):
    ask(pipeline)
    images, labels = digits
    parts = {"train": slice(0, 1000), "validation": slice(1000, 1010), "test": slice(1300, 1400)}
    write_shards(pipeline / "data/shards", {n: (images[s], labels[s]) for n, s in parts.items()})
    main()
    found = read_metrics(pipeline)["decision"]["prediction_sets"]
    assert found["from_probability"] == 0
    assert found["hold_the_true_class"]["value"] == 1
    assert found["mean_size"] == 10


def test_only_one_of_the_two_is_asked_for(pipeline):
    ask(pipeline, risk=0.1, coverage=0.9)
    with pytest.raises(VisionloopError, match=r"set coverage or risk, the other one to null"):
        load_params(pipeline / "conf/params.yaml")
