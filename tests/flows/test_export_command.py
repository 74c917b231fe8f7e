"""`visionloop export` and `visionloop profile`: which bundle, what is written, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tasks.bundle import Bundle
from tasks.params import Settings
from tasks.releases import publish

Command = Callable[..., Result]


@pytest.fixture
def settings(repository: Path) -> Settings:
    """The repository's own, so that its key signs the bundle."""
    return Settings(home=repository / ".visionloop")


@pytest.fixture
def built(repository: Path, digits_bundle: Bundle) -> Path:
    """The bundle where `dvc repro` leaves it."""
    shutil.copytree(digits_bundle.path, repository / "data/bundle")
    return repository / "data/bundle"


def test_the_bundle_built_last_is_exported(
    built: Path, visionloop: Command, tmp_path: Path
) -> None:
    done = visionloop("export", "--output", str(tmp_path / "device"), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["target"], told["bundle"]) == ("edge", "data/bundle")
    files = {str(p.relative_to(tmp_path / "device")) for p in (tmp_path / "device").rglob("*.*")}
    assert files == set(told["files"])
    model = tmp_path / "device" / "model.onnx"
    assert model.read_bytes() == (built / "model.onnx").read_bytes()


def test_the_release_in_production_comes_first(
    built: Path, digits_bundle: Bundle, settings: Settings, visionloop: Command, tmp_path: Path
) -> None:
    release = publish(digits_bundle, 3, settings)
    done = visionloop("export", "--output", str(tmp_path / "device"), "--json")
    assert json.loads(done.stdout)["bundle"] == str(release.path)


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(
    built: Path, visionloop: Command, tmp_path: Path
) -> None:
    target = str(tmp_path / "device")
    dry = visionloop("export", "--output", target, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    assert not (tmp_path / "device").exists()
    wet = visionloop("export", "--output", target, "--json")
    assert json.loads(dry.stdout)["files"] == json.loads(wet.stdout)["files"]
    shown = visionloop("export", "--output", str(tmp_path / "other"), "--dry-run")
    assert f"would write {tmp_path / 'other'}" in shown.output.replace("\n", "")


def test_what_is_there_is_kept(built: Path, visionloop: Command, tmp_path: Path) -> None:
    target = tmp_path / "device"
    assert visionloop("export", "--output", str(target)).exit_code == 0
    (target / "note").write_text("mine")
    again = visionloop("export", "--output", str(target))
    assert again.exit_code == 2
    assert again.stderr == f"error: {target} holds an earlier export; --force replaces it\n"
    assert (target / "note").exists()
    assert visionloop("export", "--output", str(target), "--force").exit_code == 0
    assert not (target / "note").exists()
    home = visionloop("export", "--output", str(built), "--force")
    assert "is no earlier export" in home.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "toaster"), "no target 'toaster'; there are edge"),
        (("--target", "tensorrt"), "built on the NVIDIA GPU that it is for"),
        (("nowhere",), "no bundle at"),
        (("--images", "photos"), "--images verifies a conversion"),
        (("--target", "openvino"), "no shards at data/shards"),
    ],
)
def test_a_mistake_is_one_line(
    built: Path, visionloop: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = visionloop("export", *words, "--output", str(tmp_path / "device"))
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "device").exists()


def test_profile_on_a_gpu_that_there_is_not_names_what_to_install(
    built: Path, visionloop: Command
) -> None:
    done = visionloop("profile", "--runtime", "cuda")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: this build of ONNX Runtime has no CUDAExecutionProvider")
    assert "onnxruntime-gpu[cuda,cudnn]==" in done.stderr


def test_without_any_bundle_it_says_how_to_get_one(
    repository: Path, visionloop: Command, tmp_path: Path
) -> None:
    done = visionloop("export", "--output", str(tmp_path / "device"))
    assert done.exit_code == 2
    assert "`visionloop run` makes both" in done.stderr


def test_an_altered_model_is_not_exported(built: Path, visionloop: Command, tmp_path: Path) -> None:
    (built / "model.onnx").write_bytes((built / "model.onnx").read_bytes() + b"\x00")
    done = visionloop("export", "--output", str(tmp_path / "device"))
    assert done.exit_code == 2
    assert "model.onnx does not match SHA256SUMS" in done.stderr


def test_profile_shows_a_bundle_and_an_onnx_file(
    built: Path, visionloop: Command, tmp_path: Path
) -> None:
    table = tmp_path / "nodes.csv"
    whole = visionloop("profile", "--runs", "10", "--csv", str(table), "--json")
    assert whole.exit_code == 0, whole.output
    told = json.loads(whole.stdout)
    assert told["macs"] == 8 * 8 * 10
    assert len(table.read_text().splitlines()) == 1 + len(told["nodes"])
    assert told["runtime"] == "onnxruntime"
    options = ("--runs", "10", "--threads", "1", "--runtime", "openvino")
    shown = visionloop("profile", str(built / "model.onnx"), *options)
    assert shown.exit_code == 0, shown.output
    for words in (
        "OpenVINO on this CPU",
        "its operators in ONNX Runtime, whose they are,",
        "Gemm",
        "The floor at these rates is",
        "giga-multiply-accumulates a second",
    ):
        assert words in " ".join(shown.output.split())
