"""The schema of the parameters: what it refuses, and how the mistake is named."""

import re

import pytest

from tasks.errors import ParamsError
from tasks.params import check_params


def refusal(values: dict) -> str:
    with pytest.raises(ParamsError) as caught:
        check_params(values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "wrong", "nearest"),
    [
        ("train", "batchsize", "train.batch_size"),
        ("train", "learning_rate", None),
        ("split", "tset", "split.test"),
        ("clean", "policy.unredable", "clean.policy.unreadable"),
        ("drift", "min_prediction", "drift.min_predictions"),
    ],
)
def test_a_misspelt_key_is_named_and_the_nearest_offered(values, section, wrong, nearest):
    node = values[section]
    for part in wrong.split(".")[:-1]:
        node = node[part]
    node[wrong.split(".")[-1]] = 1
    message = refusal(values)
    assert f"{section}.{wrong} is not a parameter" in message
    assert (f"did you mean {nearest!r}?" in message) if nearest else ("conf/params.yaml" in message)


def test_a_misspelt_section_is_named(values):
    values["trian"] = values.pop("train")
    message = refusal(values)
    assert "trian is not a parameter; did you mean 'train'?" in message
    assert "train is missing" in message


def test_a_missing_key_is_named(values):
    del values["split"]["seed"]
    assert "split.seed is missing" in refusal(values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.lr", 0), ("train.lr", 11.0), ("train.lr", -0.1), ("train.lr", float("nan")),
        ("split.test", 1.0), ("clean.dark", 1.5), ("prepare.size", 4), ("train.batch_size", 1),
        ("evaluate.resamples", 99), ("evaluate.confidence", 1.0), ("evaluate.calibration_bins", 1),
        ("drift.alpha", 0.5), ("validate.min_classes", 1), ("serve.max_batch", 0),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named_with_the_value(values, key, value):
    section, name = key.split(".")
    values[section][name] = value
    message = refusal(values)
    assert f"{key}: " in message
    assert f"got {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.lr", "fast"), ("train.epochs", 2.5), ("train.epochs", "20"),
        ("train.weights", 1), ("train.dropout", "half"), ("ingest.sources", 7),
        ("split.seed", True),
        ("validate.labels", "a,b"), ("train.architecture", "resnet19"),
        ("prepare.resize", "squash"), ("prepare.train_jpeg_quality", 40),
        ("evaluate.license", "Apache 2.0"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_named_with_the_value(values, key, value):
    section, name = key.split(".")
    values[section][name] = value
    message = refusal(values)
    assert f"{key}: " in message
    assert f"got {value!r}" in message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"path": 7, "layout": "folders"}, "ingest.sources.mine.path: .*got 7"),
        ({"path": "x"}, "ingest.sources.mine: .*layout"),
        ({"path": "x", "layout": "folder"}, "ingest.sources.mine: .*'folder'.*'split_folders'"),
        ({"path": "x", "layout": "coco"}, "ingest.sources.mine.annotations is missing"),
        ({"path": "x", "layout": "folders", "margin": 0.1}, "mine.margin is not a parameter"),
        ({"path": "x", "layout": "torchvision", "dataset": "cifar"}, "mine.dataset: .*'cifar'"),
        ({"path": "x", "layout": "folders", "labels": {"a": 1}}, "mine.labels.a: "),
    ],
)
def test_a_wrong_source_is_named(values, source, said):
    values["ingest"]["sources"] = {"mine": source}
    assert re.search(said, refusal(values))


def test_a_sources_name_can_be_a_path(values):
    values["ingest"]["sources"] = {"my photos": {"path": "x", "layout": "folders"}}
    assert "my photos" in refusal(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalise": {"method": "gamma"}}, "prepare.normalise: .*'gamma'.*'none', 'percentile'"),
        (
            {"normalise": {"method": "clahe", "clip": 2.0}},
            "prepare.normalise.tiles is missing",
        ),
        ({"normalise": {"method": "none", "clip": 2.0}}, "normalise.clip is not a parameter"),
        ({"normalise": {"method": "clahe", "clip": 2.0, "tiles": 5}}, "take at most 4"),
        ({"margin": 4}, "prepare: .*margin 4 needs resize crop"),
    ],
)
def test_values_of_prepare_must_fit_each_other(values, changes, message):
    values["prepare"] |= changes
    with pytest.raises(ParamsError, match=message):
        check_params(values)


def test_every_mistake_is_told_at_once(values):
    values["train"]["lr"] = -1.0
    values["split"]["test"] = 2.0
    message = refusal(values)
    assert "train.lr" in message
    assert "split.test" in message


def test_shares_must_leave_something_to_train_on(values):
    values["split"] |= {"validation": 0.5, "test": 0.5}
    assert "must leave a share for training" in refusal(values)


def test_whole_numbers_stand_for_real_ones(values):
    values["train"]["lr"] = 1
    assert check_params(values).train.lr == 1.0


def test_unreadable_images_cannot_be_kept(values):
    values["clean"]["policy"]["unreadable"] = "keep"
    assert "clean.policy.unreadable" in refusal(values)


def test_the_search_space_knows_the_keys_of_train(values):
    values["tune"]["space"]["learning_rte"] = {"type": "float", "low": 0.1, "high": 0.2}
    assert "tune.space.learning_rte is not a key of train" in refusal(values)


def test_a_search_range_upside_down_is_refused(values):
    values["tune"]["space"]["lr"] = {"type": "float", "low": 0.2, "high": 0.1, "log": False}
    assert "low must not exceed high" in refusal(values)
    values["tune"]["space"]["lr"] = {"type": "float", "low": 0.0, "high": 0.1, "log": True}
    assert "must be positive when log" in refusal(values)


@pytest.mark.parametrize(
    ("imbalance", "words"),
    [
        (
            {"sampling": "oversample", "class_weights": "inverse"},
            "sampling oversample and class_weights inverse would correct the class sizes twice",
        ),
        (
            {"class_weights": "effective_number", "logit_adjustment": 1.0},
            "class_weights effective_number and logit_adjustment 1 would correct",
        ),
        ({"focal_gamma": 2.0, "logit_adjustment": 0.5}, "focal_gamma 2 is not defined on adjusted"),
    ],
)
def test_remedies_that_exclude_each_other_are_refused(values, imbalance, words):
    values["train"]["imbalance"] |= imbalance
    message = refusal(values)
    assert "train.imbalance" in message
    assert words in message


def test_remedies_that_go_together_are_taken(values):
    values["train"]["imbalance"] |= {"focal_gamma": 2.0, "class_weights": "effective_number"}
    assert check_params(values).train.imbalance.remedy == (
        "effective-number weights (beta 0.999), focal loss (gamma 2)"
    )
