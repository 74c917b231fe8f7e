"""conf/params.yaml: a mistake stops before any work, is named, and the nearest key is offered."""

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
)

ROOT = Path(__file__).parents[1]
FILE = ROOT / PARAMS_FILE
PRESETS = sorted((ROOT / "conf/presets").glob("*.yaml"))


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
