"""`visionloop gate`: asks the rules again, anywhere, and says what is wrong with a bundle."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.bundle import Bundle
from tasks.data.shards import write_index
from tasks.files import write_json
from tasks.params import Settings, load_params
from tasks.registry.decision import Looks
from tasks.registry.gate import decide
from tasks.releases import publish
from tasks.signing import GATE, signed_document


@pytest.fixture
def settings(repository: Path) -> Settings:
    """The settings the command line has in the repository."""
    return Settings(home=repository / ".visionloop")


@pytest.fixture
def equal(make_bundle: Callable[..., Bundle]) -> tuple[Bundle, Bundle]:
    """A challenger and a champion that are as good."""
    return make_bundle(0.12, "new"), make_bundle(0.1, "old")


def test_a_better_or_equal_bundle_passes_by_the_answers_in_the_bundles(
    visionloop, equal, settings
) -> None:
    publish(equal[1], 1, settings)
    result = visionloop("gate", str(equal[0].path))
    assert result.exit_code == 0, result.output
    assert "the answers in the bundles" in result.output
    assert "promote: both models know the same 10 classes" in result.output
    for rule in ("accuracy", "recall_floor", "slice", "robustness", "calibration", "memory"):
        assert f"│ {rule} " in result.output, rule
    assert "warn" in result.output  # robustness was never measured


def test_a_worse_bundle_is_blocked_with_exit_code_1_and_json_says_why(
    visionloop, make_bundle
) -> None:
    worse, good = make_bundle(0.00001, "bad"), make_bundle(0.1, "good")
    result = visionloop("gate", str(worse.path), "--champion", str(good.path), "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    rules = {rule["name"]: rule for rule in found["rules"]}
    assert (found["outcome"], rules["accuracy"]["effect"]) == ("block", "block")
    assert rules["accuracy"]["observed"] < rules["accuracy"]["limit"]
    assert (found["champion"], found["recorded"]) == (good.digest, None)


def test_a_bundle_is_named_by_its_folder_its_version_or_as_champion(
    visionloop, make_bundle, settings, repository, monkeypatch
) -> None:
    good, worse = make_bundle(0.1, "good"), make_bundle(0.00001, "bad")
    kept = [publish(one, number, settings).path for number, one in ((2, worse), (1, good))]
    (repository / "deep").mkdir()
    monkeypatch.chdir(repository / "deep")
    monkeypatch.setenv("HOME", str(worse.path.parent))
    for name in (f"../../{worse.path.name}", f"~/{worse.path.name}", "2", "v2"):
        for champion in ("1", "v1", "champion"):  # what was published last is in production
            result = visionloop("gate", name, "--champion", champion, "--json")
            assert result.exit_code == 1, result.output
            found = json.loads(result.stdout)
            assert (found["challenger"], found["champion"]) == (worse.digest, good.digest)
            assert found["champion_bundle"] == str(kept[1])
            monkeypatch.chdir(repository / "deep")


def test_a_wrong_name_is_told_as_report_and_compare_tell_it(visionloop, equal) -> None:
    folder = str(equal[0].path)
    for name in ("nowhere", "33", "vfoo", "previous"):
        told = {
            visionloop(*words).stderr
            for words in (
                ("report", name),
                ("compare", folder, name),
                ("gate", name),
                ("gate", folder, "--champion", name),
            )
        }
        assert len(told) == 1
        assert told.pop().startswith("error: ")


def test_nothing_is_written_or_counted(visionloop, equal, settings, repository) -> None:
    publish(equal[1], 1, settings)
    before = sorted(str(path) for path in repository.rglob("*"))
    for _ in range(2):
        assert visionloop("gate", str(equal[0].path)).exit_code == 0
    assert sorted(str(path) for path in repository.rglob("*")) == before


def test_without_a_champion_only_the_bundle_itself_is_judged(visionloop, equal) -> None:
    result = visionloop("gate", str(equal[0].path))
    assert result.exit_code == 0
    assert "champion none" in result.output
    assert "there is no champion yet" in result.output


def test_images_in_the_workspace_are_used_where_they_are(
    visionloop, equal, repository, digit_images, digit_labels
) -> None:
    folder = repository / "data/shards"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        np.save(folder / f"{split}_images.npy", digit_images[1300:])
        np.save(folder / f"{split}_labels.npy", digit_labels[1300:])
        np.save(folder / f"{split}_statistics.npy", np.zeros((497, 5), np.float32))
        np.save(folder / f"{split}_hashes.npy", np.array([f"{n:032d}" for n in range(497)], "S32"))
        (folder / f"{split}_paths.json").write_text(json.dumps(["x"] * 497))
    write_index(folder, [str(digit) for digit in range(10)], equal[0].info.input)
    words = ("gate", str(equal[0].path), "--champion", str(equal[1].path))
    result = visionloop(*words)
    assert "on 497 images" in result.output
    assert "0 decisions so far on these 497 test images" in result.output
    (folder / "test_labels.npy").write_bytes(b"cut off")
    result = visionloop(*words)
    assert result.exit_code == 2
    assert "test_labels.npy is truncated" in result.stderr


def test_bundles_of_other_test_images_cannot_be_compared_and_block(
    visionloop, make_bundle, settings
) -> None:
    new, old = make_bundle(0.12, "new", more={"test_images": 500}), make_bundle(0.1, "old")
    result = visionloop("gate", str(new.path), "--champion", str(old.path))
    assert result.exit_code == 1
    assert "500 in both" in result.output


def test_the_bundle_in_production_is_asked_about_against_the_one_it_replaced(
    visionloop, equal, settings
) -> None:
    """Its decision is recorded in the release, not in the folder that it was built in."""
    new, old = equal
    publish(old, 1, settings)
    params = load_params()
    looks = Looks("t", 597, 7, counted=True)
    decision = decide(new, old, None, params.gate, params.budget, looks)
    content = {"bundle": new.digest, "time": "2026-01-01", "who": "ada", **decision.as_dict()}
    release = publish(new, 2, settings)
    write_json(release.path / GATE, signed_document(content, settings))

    result = visionloop("gate", str(new.path))
    assert result.exit_code == 0, result.output
    assert f"v1-{old.digest[:12]}" in result.output
    assert "recorded in the bundle: promote, 2026-01-01 by ada, decision 7" in result.output

    shutil.rmtree(settings.releases / f"v1-{old.digest[:12]}")
    result = visionloop("gate", str(new.path))
    assert result.exit_code == 2
    assert "name one with --champion" in result.stderr


@pytest.mark.parametrize("case", ["missing", "empty", "corrupt", "decision", "stranger", "file"])
def test_a_bundle_that_is_none_is_named_in_a_line(
    visionloop, equal, settings, tmp_path, case
) -> None:
    path, said = equal[0].path, "model.onnx does not match SHA256SUMS"
    if case == "missing":
        path, said = tmp_path / "nowhere", "nowhere' is no folder with a bundle, no version (as 3)"
    elif case == "empty":
        path, said = tmp_path / "empty", "SHA256SUMS cannot be read"
        path.mkdir()
    elif case == "file":
        path, said = path / "model.onnx", "model.onnx' is no folder with a bundle, no version"
    elif case == "corrupt":
        (path / "model.onnx").write_bytes(b"other")
    elif case == "decision":
        document = signed_document({"bundle": equal[0].digest, "outcome": "block"}, settings)
        document["content"]["outcome"] = "promote"
        write_json(path / GATE, document)
        said = "gate.json was altered"
    else:
        for name in ("signing.pem", "signing.pub.pem"):
            (settings.home / "keys" / name).unlink()
        said = "VISIONLOOP_TRUSTED_KEY"
    for words in (("gate", str(path)), ("gate", str(equal[1].path), "--champion", str(path))):
        result = visionloop(*words)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_before_anything_is_built_it_says_how(visionloop, repository) -> None:
    result = visionloop("gate")
    assert result.exit_code == 2
    assert "no bundle at data/bundle; `dvc repro` builds one" in result.stderr
