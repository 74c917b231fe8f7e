"""A repository of one's own, and folders of real images, for the command line's tests."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed copy of what the command line reads, with addresses of its own, as cwd."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("dvc.yaml", "pyproject.toml", "requirements.lock", ".gitignore", "prefect.yaml"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "conf", folder / "conf")
    (folder / ".dvc").mkdir()
    shutil.copy2(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "start")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VISIONLOOP_HOME", str(folder / ".visionloop"))
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("VISIONLOOP_PORT", str(free_port()))
    return folder


@pytest.fixture
def commit(repository: Path) -> Callable[[], None]:
    """Commits everything in the repository."""

    def do() -> None:
        _git(repository, "add", "-A")
        _git(repository, "commit", "-q", "-m", "change")

    return do


@pytest.fixture
def visionloop() -> Callable[..., Result]:
    """Runs the command line in this process: visionloop("init", "--data", "x")."""
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.fixture
def digit_folder(tmp_path: Path, digit_images: np.ndarray, digit_labels: np.ndarray) -> Path:
    """300 real 8×8 scans in ten class folders."""
    folder = tmp_path / "scans"
    for index in range(300):
        path = folder / str(digit_labels[index]) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit_images[index]).convert("L").save(path)
    return folder


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """80 crops of two real photographs, of many shapes, in two class folders."""
    folder = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for label, source in (("temple", "china.jpg"), ("flower", "flower.jpg")):
        (folder / label).mkdir(parents=True)
        photograph = load_sample_image(source)
        for index in range(40):
            height, width = generator.integers(80, 400, 2)
            top = generator.integers(0, photograph.shape[0] - height)
            left = generator.integers(0, photograph.shape[1] - width)
            crop = photograph[top : top + height, left : left + width]
            Image.fromarray(crop).save(folder / label / f"{index}.jpg")
    return folder


def _git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)
