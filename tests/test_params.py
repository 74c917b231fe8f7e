"""conf/params.yaml: a mistake stops before any work, is named, and the nearest key is offered."""

import copy
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.errors import ParamsError
from tasks.params import (
    PARAMS_FILE,
    apply_overrides,
    check_params,
    known_keys,
    load_params,
    read_yaml,
)

ROOT = Path(__file__).parents[1]
FILE = ROOT / PARAMS_FILE
PRESETS = sorted((ROOT / "conf/presets").glob("*.yaml"))


@pytest.fixture
def values() -> dict:
    return copy.deepcopy(read_yaml(FILE))


def refusal(values: dict) -> str:
    with pytest.raises(ParamsError) as caught:
        check_params(values)
    return str(caught.value)


def test_the_file_is_valid_and_names_every_key(values):
    params = load_params(FILE)
    assert params.train.lr == values["train"]["lr"]
    written = {f"{section}.{key}" for section, keys in values.items() for key in keys} | set(values)
    top = {key for key in known_keys() if key.count(".") < 2}
    assert written == top


def test_there_are_presets():
    assert "quickstart" in {path.stem for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_a_whole_valid_file(path):
    params = load_params(path)
    assert (
        params.model_dump(by_alias=True).keys()
        == load_params(FILE).model_dump(by_alias=True).keys()
    )


def test_the_quickstart_preset_is_what_the_repository_starts_with():
    assert load_params(ROOT / "conf/presets/quickstart.yaml") == load_params(FILE)


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


def test_overrides_change_a_copy_and_are_checked(values):
    changed = apply_overrides(values, {"train.lr": 0.01, "train.augment.flip": True})
    assert check_params(changed).train.lr == 0.01
    assert changed["train"]["augment"]["flip"] is True
    assert values["train"]["lr"] != 0.01
    assert values["train"]["augment"]["flip"] is False
    assert load_params(FILE, {"train.lr": 0.01}).train.lr == 0.01
    with pytest.raises(ParamsError, match=r"train\.lr: .*got -1"):
        load_params(FILE, {"train.lr": -1})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("train.lrr", "did you mean 'train.lr'"),
        ("trane.lr", "did you mean 'train.lr'"),
        ("train.lr.x", "is not a parameter"),
        ("lr", "is not a parameter"),
        ("", "is not a parameter"),
    ],
)
def test_an_override_of_no_parameter_is_refused(values, key, said):
    with pytest.raises(ParamsError, match=said):
        apply_overrides(values, {key: 1})


def test_params_cannot_be_changed_in_passing():
    params = load_params(FILE)
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist; run this in the repository"),
        ("train: [", "not valid YAML"),
        ("train: 1\ntrain: 2\n", "not valid YAML"),
        ("- a\n", "must hold `key: value` pairs, got list"),
        ("", "must hold `key: value` pairs, got NoneType"),
        ("train: 1\n", "ingest is missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParamsError, match=said) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")


# keys of the user's own, or of one of several forms
_OPEN = ("tune.space.", "ingest.sources.", "prepare.normalise.")


def test_every_key_of_the_file_has_a_home_in_the_schema(values):
    """`known_keys` is what suggestions and `init` go by."""

    def keys(node: object, prefix: str = "") -> set[str]:
        if not isinstance(node, dict) or prefix in _OPEN:
            return set()
        found = {f"{prefix}{name}" for name in node}
        return found.union(*(keys(value, f"{prefix}{name}.") for name, value in node.items()))

    assert keys(values) == set(known_keys())


def test_comments_of_the_file_survive_a_round_trip():
    """`init` writes the file through ruamel: every comment is still there."""
    from io import StringIO

    stream, yaml = StringIO(), YAML()
    yaml.dump(yaml.load(FILE.read_text()), stream)
    assert stream.getvalue().count("#") == FILE.read_text().count("#")


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
