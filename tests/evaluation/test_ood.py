"""Strangeness as the step scores, decides and reports it: recomputed from the bundle."""

import shutil

import numpy as np
import onnx
import pytest
from PIL import Image
from ruamel.yaml import YAML
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from small_pipeline import read_metrics, write_candidates, write_shards

from tasks.bundle import open_bundle
from tasks.data.shards import open_shards
from tasks.errors import DataError
from tasks.evaluation.evaluate import main
from tasks.evaluation.graph import run_graph
from tasks.evaluation.ood_scores import fit_scores
from tasks.evaluation.ood_table import TITLES
from tasks.evaluation.strange_images import folder_images, strange_images
from tasks.params import load_settings


def ask(root, calibration: str = "temperature", **values: object) -> None:
    path = root / "conf/params.yaml"
    params = YAML().load(path)
    params["evaluate"]["robustness"]["enabled"] = False
    params["evaluate"]["calibration"] = calibration
    params["evaluate"]["ood"].update(values)
    YAML().dump(params, path)


@pytest.fixture
def judged(pipeline):
    """Runs the step as asked; gives the bundle, the shards and the metrics."""

    def run(**values: object):
        ask(pipeline, **values)
        main()
        bundle = open_bundle(pipeline / "data/bundle", load_settings())
        return bundle, open_shards(pipeline / "data/shards"), read_metrics(pipeline)

    return run


def test_the_graph_scores_and_the_threshold_keeps_what_was_asked_for(judged):
    bundle, shards, metrics = judged(keep=0.95)
    *_, known = bundle.judge(shards.split("validation").images)
    *_, scores = bundle.judge(shards.split("test").images)
    limit, found = bundle.info.decision.strange_from, metrics["ood"]
    assert (known >= limit).mean() == pytest.approx(0.05)
    assert found["strange_from"] == limit
    assert found["test_images_called_strange"] == pytest.approx((scores >= limit).mean())
    assert bundle.info.ood_score == found["score"]
    best = max(found["validation_mean_auroc"].values())
    assert found["validation_mean_auroc"][found["score"]] == pytest.approx(best, abs=1e-3)
    assert bundle.info.decision.strange(float(limit))
    assert not bundle.info.decision.strange(float(np.nextafter(np.float32(limit), -np.inf)))
    noise = np.random.default_rng(5).integers(0, 256, (200, 16, 16, 3), np.uint8)
    *_, strange = bundle.judge(noise)
    area = roc_auc_score(np.repeat([0, 1], [497, 200]), np.concatenate([scores, strange]))
    assert area == pytest.approx(found["auroc"]["uniform noise"][found["score"]], abs=0.02)
    noticed = found["called_strange"]["uniform noise"]
    assert (strange >= limit).mean() == pytest.approx(noticed, abs=0.08)


@pytest.mark.parametrize("name", ["energy", "max_softmax", "relative_mahalanobis"])
def test_the_score_that_is_asked_for_is_in_the_graph(judged, name):
    bundle, shards, metrics = judged(score=name)
    images = shards.split("test").images
    logits, embedding = run_graph(
        bundle.path.parent / "candidates/int8.onnx", images, ["logits", "embedding"]
    )
    train = shards.split("train")
    (seen,) = run_graph(bundle.path.parent / "candidates/int8.onnx", train.images, ["embedding"])
    wanted = {one.name: one for one in fit_scores(seen, np.asarray(train.labels))}[name]
    *_, scores = bundle.judge(images)
    np.testing.assert_allclose(scores, wanted(logits, embedding), rtol=1e-3, atol=1e-3)
    assert metrics["ood"]["score"] == bundle.info.ood_score == name


def test_mahalanobis_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    embedding = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 4 * np.eye(6)[labels]
    means = np.stack([embedding[labels == c].mean(0) for c in range(3)])
    within = LedoitWolf(assume_centered=True).fit(embedding - means[labels])
    whole = LedoitWolf().fit(embedding)
    distances = [within.mahalanobis(embedding - mean) for mean in means]
    scores = {one.name: one(embedding, embedding) for one in fit_scores(embedding, labels)}
    np.testing.assert_allclose(scores["mahalanobis"], np.min(distances, axis=0), rtol=1e-6)
    relative = np.min(distances, axis=0) - whole.mahalanobis(embedding)
    np.testing.assert_allclose(scores["relative_mahalanobis"], relative, rtol=1e-6, atol=1e-6)


def test_embeddings_of_one_value_and_classes_without_images_have_finite_scores():
    embedding, labels = np.ones((20, 4), np.float32), np.repeat([0, 7], 10)
    for score in fit_scores(embedding, labels):
        found = score(np.zeros((3, 9), np.float32), np.array([[1, 1, 1, 1], [2, 1, 1, 1], [0] * 4]))
        assert np.isfinite(found).all()
    assert found[0] == pytest.approx(0)


def test_off_there_is_no_score_and_the_bundle_says_so(judged, pipeline):
    bundle, _, metrics = judged(enabled=False)
    assert bundle.info.ood_score is None
    assert bundle.info.decision.strange_from is None
    assert metrics["ood"] is None
    assert [o.name for o in onnx.load(bundle.path / "model.onnx").graph.output] == [
        "probabilities", "embedding"
    ]  # fmt: skip
    assert len(bundle.judge(np.zeros((2, 16, 16, 3), np.uint8))) == 2
    assert (
        "When an image is of none of the classes" not in (bundle.path / "report.html").read_text()
    )


def test_ones_own_strange_images_count(judged, pipeline, tmp_path):
    folder = tmp_path / "strange/deeper"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(20):
        stripes = np.tile(rng.integers(0, 256, (1, 40, 3), np.uint8), (30, 1, 1))
        Image.fromarray(stripes).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden").write_text("no image either")
    bundle, _, metrics = judged(images=str(tmp_path / "strange"))
    found = metrics["ood"]
    assert len(found["auroc"]) == 6
    assert 0 < found["auroc"]["your own images"][found["score"]] <= 1
    html = (bundle.path / "report.html").read_text()
    assert "your own images" in html
    half = sorted(folder.glob("*.png"))[1::2]  # the others chose the score
    *_, scores = bundle.judge(np.stack([bundle.pixels(path) for path in half]))
    noticed = (scores >= found["strange_from"]).mean()
    assert found["called_strange"]["your own images"] == pytest.approx(noticed)


@pytest.mark.parametrize("files", [None, 0, 1])
def test_a_folder_that_is_none_or_has_no_images_is_refused(pipeline, tmp_path, files):
    folder = tmp_path / "strange"
    if files is not None:
        folder.mkdir()
        (folder / "notes.txt").write_text("no image")
    for index in range(files or 0):
        Image.new("RGB", (20, 20)).save(folder / f"{index}.png")
    ask(pipeline, images=str(folder))
    told = "is no folder" if files is None else f"{files} of {files + 1} files .* two are needed"
    with pytest.raises(DataError, match=f"evaluate.ood.images: .*{told}"):
        main()
    assert not (pipeline / "data/bundle").exists()


def test_isotonic_and_scores_fit_into_one_bundle_with_the_figures_of_the_graph(judged):
    bundle, shards, metrics = judged(calibration="isotonic")
    test = shards.split("test")
    probabilities, _ = bundle.predict(test.images)
    accuracy = (probabilities.argmax(1) == test.labels).mean()
    assert bundle.info.calibration == metrics["deployed"]["calibration"]["method"] == "isotonic"
    assert metrics["fp32"]["calibration"]["method"] == "isotonic"
    assert bundle.info.measurements.accuracy == pytest.approx(accuracy)
    html = (bundle.path / "report.html").read_text()
    assert "mended by isotonic regression, which may change the class" in html
    assert set(metrics["deployed"]["calibration"]["cross_validated"]) == {
        "temperature", "vector", "isotonic"
    }  # fmt: skip


def test_training_images_with_a_margin_give_their_middle(pipeline, digits, network):
    images, labels = digits
    wide = np.pad(images[:1000], ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    ask(pipeline, score="mahalanobis")
    main()
    plain = open_bundle(pipeline / "data/bundle", load_settings())
    before = plain.info.decision.strange_from
    shutil.rmtree(pipeline / "data/shards")
    parts = {
        "train": (wide, labels[:1000]),
        "validation": (images[1000:1300], labels[1000:1300]),
        "test": (images[1300:], labels[1300:]),
    }
    write_shards(pipeline / "data/shards", parts, size=16, resize="crop", margin=4)
    write_candidates(pipeline / "data/candidates", {"fp32": network, "int8": network.coarse(0.04)})
    main()
    after = open_bundle(pipeline / "data/bundle", load_settings()).info.decision.strange_from
    assert after == pytest.approx(before, rel=1e-6)


def test_strange_images_are_of_their_kind(digits):
    usual = digits[0][:50]
    made = dict(strange_images(usual, 0, grey=True))
    assert all(found.shape == usual.shape and found.dtype == np.uint8 for found in made.values())
    for name in ("uniform noise", "Gaussian noise", "one colour"):
        assert (made[name][..., 0] == made[name][..., 2]).all()
    colour = dict(strange_images(usual, 0, grey=False))["uniform noise"]
    assert (colour[..., 0] != colour[..., 2]).any()
    assert (made["one colour"].std((1, 2)) == 0).all()
    shuffled = made["patches shuffled"]
    assert (np.sort(shuffled, axis=None) == np.sort(usual, axis=None)).all()
    assert not (shuffled == usual).all((1, 2, 3)).any()
    np.testing.assert_array_equal(255 - made["colours inverted"], usual)
    odd = dict(strange_images(usual[:, :15, :15], 0, grey=False))["patches shuffled"]
    np.testing.assert_array_equal(odd[:, 12:], usual[:, 12:15, :15])
    again = dict(strange_images(usual, 0, grey=True))
    assert all((again[name] == found).all() for name, found in made.items())


def test_the_first_of_many_files_are_looked_at(built, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.evaluation.strange_images.MOST", 3)
    for index in range(9):
        Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / f"{index}.png")
    contract = open_shards(built / "data/shards").contract
    assert folder_images(tmp_path, contract)[:, 0, 0, 0].tolist() == list(range(6))


def test_the_card_says_it(judged):
    bundle, _, metrics = judged()
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert "`ood_score`, float32 N" in card
    assert f"By its {TITLES[metrics['ood']['score']]} score it calls" in card
