"""The step `ensemble`, after a real sweep, and the compression that learns from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.compression import compress, ensemble
from tasks.compression.runtime import run_logits
from tasks.data.shards import open_shards
from tasks.errors import ParamsError, TrainingError
from tasks.params import load_params
from tasks.runtime import open_session
from tasks.training import tune
from tasks.training.inference import predict
from tasks.training.models import load_model


def set_params(**sections: dict[str, object]) -> None:
    path = Path("conf/params.yaml")
    values = YAML().load(path.read_text())
    for name, section in sections.items():
        values[name] |= section
    with open(path, "w") as stream:
        YAML().dump(values, stream)


@pytest.fixture
def swept(project: Path) -> Path:
    """A sweep of three short trials has been made."""
    space = {"lr": {"type": "float", "low": 0.03, "high": 0.2, "log": True}}
    set_params(tune={"trials": 3, "epochs": 3, "pruner": "none", "space": space})
    tune.main()
    return project


def test_the_vote_of_the_best_trials_is_one_file_and_teaches(swept: Path):
    compress.main()
    alone = Path("data/candidates/distilled.onnx").read_bytes()
    set_params(ensemble={"kind": "vote", "size": 2})
    ensemble.main()
    assert sorted(path.name for path in Path("data/ensemble").iterdir()) == [
        "ensemble.json", "ensemble.onnx", "member-0", "member-1",
    ]  # fmt: skip
    split = open_shards().split("validation")
    each = []
    for number in range(2):
        model, spec = load_model(Path(f"data/ensemble/member-{number}"))
        logits = predict(model, split.images, spec)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        each.append(powers / powers.sum(1, keepdims=True))
    given = run_logits(open_session(Path("data/ensemble/ensemble.onnx"), 1), split.images, (7,))
    np.testing.assert_allclose(np.exp(given), np.mean(each, 0), atol=1e-4)
    metrics = json.loads(Path("data/metrics/ensemble.json").read_text())
    mean = np.mean(each, 0)
    loss = -np.log(mean[np.arange(len(mean)), split.labels]).mean()
    assert metrics["loss"] == pytest.approx(loss, rel=1e-3)
    assert metrics["members"] == 2
    index = json.loads(Path("data/ensemble/ensemble.json").read_text())
    rows = [line.split(",") for line in Path("data/tune/trials.csv").read_text().splitlines()[1:]]
    ranked = sorted(rows, key=lambda row: float(row[2]))
    assert index["made_of"] == [f"trial-{row[0]}" for row in ranked[:2]]

    compress.main()
    names = [
        c["name"]
        for c in json.loads(Path("data/candidates/candidates.json").read_text())["candidates"]
    ]
    assert "soup" not in names
    assert Path("data/candidates/distilled.onnx").read_bytes() != alone


def test_a_soup_is_a_candidate(swept: Path):
    set_params(ensemble={"kind": "soup", "size": 3})
    ensemble.main()
    metrics = json.loads(Path("data/metrics/ensemble.json").read_text())
    assert metrics["loss"] <= metrics["best_member_loss"] + 1e-6
    compress.main()
    results = json.loads(Path("data/candidates/candidates.json").read_text())
    row = next(row for row in results["candidates"] if row["name"] == "soup")
    assert row["accuracy"] == pytest.approx(metrics["accuracy"])
    assert results["failed"] == []


def test_it_is_off_unless_asked_for(project: Path):
    ensemble.main()
    assert json.loads(Path("data/ensemble/ensemble.json").read_text()) == {"kind": "none"}


def test_without_the_trials_weights_it_says_how_to_have_them(project: Path):
    Path("data/tune/trials.csv").write_text("trial,state,value\n0,COMPLETE,0.1\n")
    set_params(ensemble={"kind": "vote"})
    with pytest.raises(TrainingError, match=r"weights of 0 are here; `dvc repro --force tune`"):
        ensemble.main()
    assert not Path("data/ensemble").exists()


def test_another_ensemble_than_asked_for_is_not_learnt_from(project: Path):
    ensemble.main()
    set_params(ensemble={"kind": "vote"})
    with pytest.raises(TrainingError, match="no ensemble in data/ensemble"):
        compress.main()


def test_a_soup_of_folds_is_refused(project: Path):
    set_params(ensemble={"kind": "soup", "of": "folds"})
    with pytest.raises(ParamsError, match="kind soup needs of: trials"):
        load_params()
