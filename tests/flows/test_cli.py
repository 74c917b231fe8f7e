"""The command line as a whole: help, versions, errors, exit codes, overrides."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from flows.cli import app
from flows.overrides import parse_overrides
from tasks.errors import ParamsError

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands
BELOW = [
    f"{name} {below}"
    for name, command in COMMANDS.items()
    for below in getattr(command, "commands", ())
]
HEAVY = ("torch", "mlflow", "prefect", "pandas", "sklearn", "dvc", "onnxruntime", "numpy")


@pytest.mark.parametrize("name", [*COMMANDS, *BELOW])
def test_help_shows_an_example(visionloop, name):
    result = visionloop(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"visionloop {name}" in result.output.split("Example:")[1]


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom flows.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.exit(', '.join(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == ""


def test_version(visionloop):
    assert visionloop("--version").output == f"visionloop {version('visionloop')}\n"


@pytest.mark.parametrize("words", [("doctor",), ("status",), ("run",), ("init", "--data", "x")])
def test_outside_a_repository(visionloop, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = visionloop(*words)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {tmp_path} is not in a Visionloop repository (no dvc.yaml and conf/ here or "
        "above); change to your clone first\n"
    )


def test_works_from_a_folder_below_the_root(repository, visionloop, monkeypatch):
    monkeypatch.chdir(repository / "conf" / "presets")
    assert visionloop("status").exit_code == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=0.1", "did you mean 'train.lr'?"),
        ("train.lr=fast", "train.lr: Input should be a valid number, got 'fast'"),
        ("train.lr=11", "train.lr: Input should be less than or equal to 10, got 11"),
        ("train.lr", "is not KEY=VALUE"),
        ("train.lr=[1", "is not a YAML value"),
    ],
)
def test_a_wrong_override_stops_before_any_work(repository, visionloop, override, message):
    result = visionloop("run", "--set", override)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (repository / ".visionloop").exists()


def test_overrides_are_yaml_values():
    words = ["train.lr=1e-2", "train.augment.flip=true", "validate.labels=[a, 'no']", "x=a=b"]
    assert parse_overrides(words) == {
        "train.lr": 0.01,
        "train.augment.flip": True,
        "validate.labels": ["a", "no"],
        "x": "a=b",
    }
    with pytest.raises(ParamsError):
        parse_overrides(["=1"])


def test_an_environment_variable_at_fault_is_named(repository):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "status"],
        env={**os.environ, "VISIONLOOP_PORT": "many", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: environment variable VISIONLOOP_PORT: ")
