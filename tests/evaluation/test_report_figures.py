"""Every figure that a reader of the report sees, recomputed from the recorded answers.

From predictions, corrupted and shifted.parquet of the training run, by scikit-learn, SciPy and
counting; and the same figures, not rounded, in the bundle's metrics.json.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from onnxruntime import InferenceSession
from report_page import Page, percent, shown
from ruamel.yaml import YAML
from scipy.stats import binomtest
from sklearn import metrics as sk

from tasks.evaluation.corruptions.names import ALL, PUBLISHED, SEVERITIES

ROOT = Path(__file__).parents[2]
CLASSES = [str(digit) for digit in range(10)]
OVERALL = {  # row of the table, key of metrics.json, by scikit-learn from labels and predictions
    "Accuracy": ("accuracy", sk.accuracy_score),
    "Balanced accuracy": ("balanced_accuracy", sk.balanced_accuracy_score),
    "Mean precision": ("macro_precision", lambda y, p: sk.precision_score(y, p, average="macro")),
    "Mean recall": ("macro_recall", lambda y, p: sk.recall_score(y, p, average="macro")),
    "Mean F1": ("macro_f1", lambda y, p: sk.f1_score(y, p, average="macro")),
    "Precision, weighted by images": (
        "weighted_precision",
        lambda y, p: sk.precision_score(y, p, average="weighted"),
    ),
    "F1, weighted by images": ("weighted_f1", lambda y, p: sk.f1_score(y, p, average="weighted")),
    "Cohen's kappa": ("kappa", sk.cohen_kappa_score),
}


@pytest.fixture(scope="module")
def run(built, tmp_path_factory) -> SimpleNamespace:
    """The report, the metrics and the recorded answers of a run in which the model may abstain."""
    root = tmp_path_factory.mktemp("figures") / "pipeline"
    shutil.copytree(built, root)
    params = YAML().load(root / "conf/params.yaml")
    params["evaluate"]["abstention"]["coverage"] = 0.9
    params["evaluate"]["robustness"]["images"] = 120
    YAML().dump(params, root / "conf/params.yaml")
    home = root.parent / "home"
    command = [sys.executable, "-m", "tasks.evaluation.evaluate"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VISIONLOOP_HOME": str(home)}
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    table = pq.read_table(next(home.rglob("predictions.parquet"))).to_pydict()
    return SimpleNamespace(
        root=root,
        page=Page((root / "data/bundle/report.html").read_text()),
        metrics=json.loads((root / "data/bundle/metrics.json").read_text()),
        paths=table["path"],
        labels=np.array(table["label"], int),
        predicted=np.array(table["predicted"], int),
        probabilities=np.array(table["probabilities"]),
        ood_score=np.array(table["ood_score"]),
        fp32=np.array(table["fp32_predicted"], int),
        fp32_probabilities=np.array(table["fp32_probabilities"]),
        corrupted=pq.read_table(next(home.rglob("corrupted.parquet"))).to_pandas(),
        shifted=pq.read_table(next(home.rglob("shifted.parquet"))).to_pandas(),
    )


def models(run):
    """Role, its column in the tables, classes, probabilities."""
    return (
        ("deployed", 0, run.predicted, run.probabilities),
        ("fp32", 1, run.fp32, run.fp32_probabilities),
    )


def test_the_answers_are_of_the_test_images(run):
    assert run.paths == json.loads((run.root / "data/shards/test_paths.json").read_text())
    np.testing.assert_array_equal(run.labels, np.load(run.root / "data/shards/test_labels.npy"))
    np.testing.assert_array_equal(run.predicted, run.probabilities.argmax(1))
    assert run.metrics["test_images"] == len(run.labels)


def test_overall_scores(run):
    rows = {row[0]: row[1:] for row in run.page.table("(deployed)")}
    for title, (key, score) in OVERALL.items():
        for role, column, predicted, _ in models(run):
            value = score(run.labels, predicted)
            found = run.metrics[role][key]
            assert found["value"] == pytest.approx(value)
            ends = [percent(found[end]) for end in ("value", "low", "high")]
            assert shown(rows[title][column]) == ends
            assert found["low"] < value < found["high"]


def test_intervals_are_those_of_drawing_images(run):
    """Images drawn anew within their class, one by one, scored by scikit-learn."""
    random = np.random.default_rng(1)
    groups = [np.flatnonzero(run.labels == c) for c in range(10)]
    draws = [np.concatenate([random.choice(g, len(g)) for g in groups]) for _ in range(200)]
    for key, score in (OVERALL[title] for title in ("Accuracy", "Mean F1", "Cohen's kappa")):
        spread = np.std([score(run.labels[rows], run.predicted[rows]) for rows in draws])
        found = run.metrics["deployed"][key]
        half = 1.96 * spread
        assert found["low"] == pytest.approx(found["value"] - half, abs=0.4 * half)
        assert found["high"] == pytest.approx(found["value"] + half, abs=0.4 * half)


def test_scores_of_all_probabilities(run):
    rows = {row[0]: row[1:] for row in run.page.table("(deployed)")}
    truth = np.eye(10)[run.labels]
    for role, column, _, probabilities in models(run):
        found = run.metrics[role]
        even = probabilities / probabilities.sum(1, keepdims=True)
        for k in (2, 3, 5):
            value = sk.top_k_accuracy_score(run.labels, probabilities, k=k)
            assert found["top_k_accuracy"][str(k)] == pytest.approx(value)
            assert shown(rows[f"Label among the first {k}"][column]) == [percent(value)]
        for title, key, value in (
            ("Mean AUROC", "macro_roc_auc", sk.roc_auc_score(truth, even)),
            (
                "Mean average precision",
                "macro_average_precision",
                sk.average_precision_score(truth, even),
            ),
        ):
            assert found[key] == pytest.approx(value, abs=1e-5)
            assert shown(rows[title][column]) == [percent(value)]
        brier = ((probabilities - truth) ** 2).sum(1).mean()
        assert found["brier"] == pytest.approx(brier, rel=1e-4)
        assert shown(rows["Brier score"][column]) == [pytest.approx(brier, abs=6e-5)]


def test_calibration(run):
    """Before the scaling, the probabilities are those to the power of the temperature."""
    rows = {row[0]: row[1:] for row in run.page.table("(deployed)")}
    for role, column, predicted, after in models(run):
        found = run.metrics[role]
        before = after ** found["temperature"]
        before /= before.sum(1, keepdims=True)
        likelihood = [sk.log_loss(run.labels, p / p.sum(1, keepdims=True)) for p in (before, after)]
        assert [found["nll_before"], found["nll"]] == pytest.approx(likelihood, rel=1e-4)
        cell = rows["Negative log-likelihood before → after"][column]
        assert shown(cell) == pytest.approx(likelihood, abs=2e-4)
        errors = [gap(p.max(1), predicted == run.labels) for p in (before, after)]
        assert [found["calibration_error_before"], found["calibration_error"]] == pytest.approx(
            errors, abs=1e-3
        )
        cell = rows["Calibration error before → after calibration"][column]
        assert shown(cell) == pytest.approx([100 * error for error in errors], abs=0.15)


def test_strange_images(run):
    found = run.metrics["ood"]
    called = (run.ood_score >= found["strange_from"]).mean()
    assert found["test_images_called_strange"] == pytest.approx(called)
    (told,) = run.page.numbers(r"validation images were to be, (\d+\.\d)\s% of the test")
    assert told == percent(called)
    *rows, means = run.page.table("called strange")
    assert {row[0] for row in rows} == set(found["auroc"])
    scores = ("energy", "max_softmax", "mahalanobis", "relative_mahalanobis")
    for name, *areas, noticed, missed, _ in rows:
        expected = [found["auroc"][name][score] for score in scores]
        assert [float(area) for area in areas] == pytest.approx(expected, abs=0.00051)
        assert shown(noticed) == [percent(found["called_strange"][name])]
        errors = found["false_positive_rate_at_95_recall"][name]
        assert shown(missed) == [percent(errors[found["score"]])]
    for column, name in enumerate(scores):
        each = np.mean([areas[name] for areas in found["auroc"].values()])
        assert found["mean_auroc"][name] == pytest.approx(each)
        assert float(means[1 + column]) == pytest.approx(each, abs=0.00051)


def gap(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in 15 bins of equal mass."""
    bins = np.array_split(np.argsort(confidence, kind="stable"), 15)
    gaps = [abs(confidence[b].mean() - right[b].mean()) * len(b) for b in bins]
    return sum(gaps) / len(right)


def test_every_class(run):
    expected = sk.precision_recall_fscore_support(run.labels, run.predicted)
    fp32 = sk.recall_score(run.labels, run.fp32, average=None)
    rows = run.page.table("Precision|Recall")
    assert [row[0] for row in rows] == CLASSES
    for i, (_, images, precision, recall, _, f1, area, average, other) in enumerate(rows):
        assert int(images) == expected[3][i]
        for cell, value in ((precision, expected[0][i]), (f1, expected[2][i]), (other, fp32[i])):
            share, low, high = shown(cell)
            assert share == percent(value)
            assert low <= share <= high
        right = int(((run.labels == i) & (run.predicted == i)).sum())
        ends = binomtest(right, int(images)).proportion_ci(0.95, "wilson")
        assert shown(recall) == [percent(v) for v in (expected[1][i], ends.low, ends.high)]
        mine = run.labels == i
        assert shown(area) == [percent(sk.roc_auc_score(mine, run.probabilities[:, i]))]
        score = sk.average_precision_score(mine, run.probabilities[:, i])
        assert shown(average) == [percent(score)]


def test_what_is_taken_for_what(run):
    expected = sk.confusion_matrix(run.labels, run.predicted)
    rows = run.page.table("actual ↓ predicted →")
    assert [[int(cell) for cell in row[1:]] for row in rows] == expected.tolist()
    np.fill_diagonal(expected, 0)
    actual, said, images, _ = re.search(
        r"Most frequent: (\d) taken for (\d) \((\d+), ([\d.]+)", run.page.text
    ).groups()
    assert int(images) == expected.max() == expected[int(actual), int(said)]
    wrong = np.flatnonzero(run.predicted != run.labels)
    count, of = run.page.numbers(r"(\d+) of (\d+), the most confident first")
    assert (count, of) == (min(24, len(wrong)), len(wrong))
    confidence = run.probabilities.max(1)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][0]
    assert run.page.numbers(r"is (\d) said (\d), ([\d.]+)") == [
        run.labels[worst], run.predicted[worst], percent(confidence[worst])
    ]  # fmt: skip
    assert run.paths[worst] in run.page.text


def test_against_fp32(run):
    agreement = sk.accuracy_score(run.fp32, run.predicted)
    assert run.metrics["agreement_with_fp32"] == pytest.approx(agreement)
    assert run.page.numbers(r"same answer on ([\d.]+)") == [percent(agreement)]
    change = (run.predicted == run.labels).astype(float) - (run.fp32 == run.labels)
    found = run.metrics["difference_from_fp32"]
    assert found["value"] == pytest.approx(change.mean())
    half = 1.96 * change.std() / np.sqrt(len(change))
    assert found["low"] == pytest.approx(change.mean() - half, abs=0.3 * half)
    assert found["high"] == pytest.approx(change.mean() + half, abs=0.3 * half)
    told = run.page.numbers(r"on the same images: ([-+\d.]+) points \(([-+\d.]+) to ([-+\d.]+)\)")
    assert told == [percent(found[end]) for end in ("value", "low", "high")]


def test_when_it_should_not_answer(run):
    found = run.metrics["decision"]
    confidence, right = run.probabilities.max(1), run.predicted == run.labels
    answered = confidence >= found["abstain_below"]
    assert answered.mean() < 1
    assert found["answered"] == pytest.approx(answered.mean())
    assert found["wrong_among_answered"] == pytest.approx(1 - right[answered].mean())
    told = run.page.numbers(
        r"has less than ([\d.]+) % it abstains\. ([\d.]+) % of the test images are answered, and "
        r"([\d.]+) % of those answers are wrong, against ([\d.]+) % of all"
    )
    assert told == [
        percent(share) for share in (found["abstain_below"], answered.mean(),
                                     1 - right[answered].mean(), 1 - right.mean())
    ]  # fmt: skip
    sets = run.probabilities >= found["prediction_sets"]["from_probability"]
    sets[np.arange(len(sets)), run.predicted] = True
    held = sets[np.arange(len(sets)), run.labels]
    ends = run.metrics["decision"]["prediction_sets"]["hold_the_true_class"]
    assert ends["value"] == pytest.approx(held.mean())
    told = run.page.numbers(
        r"do on ([\d.]+) % of the test images \(([\d.]+)–([\d.]+), 95 %\): ([\d.]+) classes on "
        r"average, ([\d.]+) % of them a single one"
    )
    assert told[:3] == [percent(ends[end]) for end in ("value", "low", "high")]
    assert told[3] == pytest.approx(sets.sum(1).mean(), abs=0.0051)
    assert told[4] == percent((sets.sum(1) == 1).mean())


def test_robustness(run):
    answers, found = run.corrupted, run.metrics["robustness"]
    assert len(answers) == 120 * len(ALL) * len(SEVERITIES)
    right = (answers["predicted"] == answers["label"]).groupby(
        [answers["corruption"], answers["severity"]]
    )
    fp32 = (answers["fp32_predicted"] == answers["label"]).groupby(answers["corruption"]).mean()
    shares = right.mean().unstack()
    rows = {row[0].replace(" ", "_"): row[1:] for row in run.page.table("accuracy at severity")}
    for name in ALL:
        assert found["accuracy"][name] == pytest.approx(shares.loc[name].tolist())
        *cells, mean, other, _ = rows[name]
        assert [int(c) for c in cells] == pytest.approx(100 * shares.loc[name], abs=0.5001)
        assert shown(mean) == [percent(shares.loc[name].mean())]
        assert shown(other) == [percent(fp32[name])]
    error, fp32_error = (
        1 - shares.loc[list(PUBLISHED)].to_numpy().mean(),
        1 - fp32[list(PUBLISHED)].mean(),
    )
    assert found["mean_corruption_error"]["value"] == pytest.approx(error)
    assert found["fp32_mean_corruption_error"] == pytest.approx(fp32_error)
    told = run.page.numbers(
        r"Mean corruption error ([\d.]+) % \(([\d.]+)–([\d.]+), 95 %\), of fp32 ([\d.]+)"
    )
    ends = [found["mean_corruption_error"][end] for end in ("value", "low", "high")]
    assert told == [*(percent(end) for end in ends), percent(fp32_error)]
    assert found["difference_from_fp32"]["value"] == pytest.approx(fp32_error - error)
    told = run.page.numbers(r"Against fp32 that is ([-+\d.]+) points \(([-+\d.]+) to ([-+\d.]+)\)")
    assert told == [percent(found["difference_from_fp32"][e]) for e in ("value", "low", "high")]


def test_shifted_by_a_pixel(run):
    """The images as ONNX Runtime answers them, moved by NumPy, and the share with one answer."""
    table, found = run.shifted, run.metrics["robustness"]
    places = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    assert len(table) == 120 * len(places)
    row_of = {path: row for row, path in enumerate(run.paths)}
    images = np.load(run.root / "data/shards/test_images.npy")
    for column, name in (("predicted", "int8"), ("fp32_predicted", "fp32")):
        session = InferenceSession(run.root / f"data/candidates/{name}.onnx")
        for (down, right), part in table.groupby(["down", "right"]):
            rows = [row_of[path] for path in part["path"]]
            moved = images[rows]
            for axis, pixels in ((1, down), (2, right)):
                at = np.clip(np.arange(moved.shape[axis]) - pixels, 0, moved.shape[axis] - 1)
                moved = moved.take(at, axis)
            (logits,) = session.run(["logits"], {"images": moved})
            assert part[column].astype(int).tolist() == logits.argmax(1).tolist()
            assert part["label"].astype(int).tolist() == run.labels[rows].tolist()
    as_they_are = table[(table["down"] == 0) & (table["right"] == 0)]
    clean = sk.accuracy_score(as_they_are["label"], as_they_are["predicted"])
    assert found["accuracy_uncorrupted"] == pytest.approx(clean)
    stable = (table.groupby("path")["predicted"].nunique() == 1).mean()
    assert 0 < stable < 1
    assert found["same_answer_after_a_shift_by_one_pixel"] == pytest.approx(stable)
    told = run.page.numbers(r"([\d.]+) % of the images have the same answer when they are shifted")
    assert told == [percent(stable)]


def test_data_and_candidates(run):
    rows = run.page.table("Training")
    names = ("train", "validation", "test")
    splits = [np.load(run.root / f"data/shards/{name}_labels.npy") for name in names]
    for label, row in enumerate(rows[:-1]):
        assert [int(cell.replace(",", "")) for cell in row[1:]] == [
            int((split == label).sum()) for split in splits
        ]
    results = json.loads((run.root / "data/candidates/candidates.json").read_text())
    for row, one in zip(run.page.table("Technique"), results["candidates"], strict=True):
        assert row[0] == one["name"]
        assert shown(row[3]) == [percent(one["accuracy"])]
        assert shown(row[5]) == [pytest.approx(one["latency_ms"], rel=5e-3)]
