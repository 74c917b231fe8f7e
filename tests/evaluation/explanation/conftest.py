"""A pipeline directory whose classes are told by one thing alone, where it is known."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from small_pipeline import SIZE, Network, write_candidates, write_shards

from tasks.compression.export import export
from tasks.files import write_json
from tasks.training.models import ModelSpec, build, channel_moments, normalise, save_model

ROOT = Path(__file__).parents[3]
CLASSES = ("blue", "red")
SIDE = 5


@dataclass(frozen=True)
class Planted:
    """The directory, its test images, and where their patches are, bool N×S×S."""

    root: Path
    images: np.ndarray
    labels: np.ndarray
    patches: np.ndarray


def planted_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with a small patch somewhere, whose colour is the class."""
    random = np.random.default_rng(seed)
    images = random.integers(60, 196, (count, SIZE, SIZE, 3)).astype(np.uint8)
    labels = random.integers(0, 2, count)
    patches = np.zeros((count, SIZE, SIZE), bool)
    for row, (down, right) in enumerate(random.integers(0, SIZE - SIDE + 1, (count, 2))):
        patches[row, down : down + SIDE, right : right + SIDE] = True
        images[row][patches[row]] = (220, 30, 30) if labels[row] else (30, 30, 220)
    return images, labels, patches


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Planted:
    root = tmp_path_factory.mktemp("planted")
    parts = {n: planted_images(*c) for n, c in
             {"train": (800, 0), "validation": (120, 1), "test": (120, 2)}.items()}  # fmt: skip
    write_shards(root / "data/shards", {n: p[:2] for n, p in parts.items()}, CLASSES)
    images, labels, _ = parts["train"]
    mean, std = channel_moments(images)
    spec = ModelSpec(
        architecture="resnet_small", width=8, depth=1, classes=CLASSES, size=SIZE,
        mean=mean, std=std,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build(spec)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    model.train()
    for step in range(75):
        rows = slice(step % 25 * 32, step % 25 * 32 + 32)
        logits = model(normalise(torch.from_numpy(images[rows]), spec))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(root / "data/model", model.eval(), spec)
    write_json(root / "data/model/run.json", {"run_key": "train-0123456789ab"})
    nothing = Network(np.zeros((SIZE * SIZE * 3, 2)), np.zeros(2), np.zeros((2, 2)), np.zeros(2))
    write_candidates(root / "data/candidates", {"fp32": nothing}, chosen="fp32")
    export(model, spec, root / "data/candidates/fp32.onnx")
    (root / "conf").mkdir()
    shutil.copy(ROOT / "conf/params.yaml", root / "conf/params.yaml")
    _set_evaluate(root, "robustness", enabled=False)
    _set_evaluate(root, "explanation", images=8)
    return Planted(root, *parts["test"])


def _set_evaluate(root: Path, section: str, **values: object) -> None:
    path = root / "conf/params.yaml"
    params = YAML().load(path)
    params["evaluate"][section].update(values)
    YAML().dump(params, path)


@pytest.fixture
def set_evaluate() -> Callable[..., None]:
    """Changes a part of evaluate in conf/params.yaml."""
    return _set_evaluate


@pytest.fixture
def workplace(planted, tmp_path, monkeypatch) -> Path:
    """A copy of the directory, as the working directory."""
    root = tmp_path / "workplace"
    shutil.copytree(planted.root, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))
    return root
