"""A pipeline directory up to `evaluate`: real digits, a real network, real files."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from small_pipeline import SIZE, Network, write_candidates, write_shards

from tasks.data.shards import SPLITS
from tasks.files import write_json
from tasks.pixels import fit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's scans as uint8 N×16×16×3, and their labels."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    grey = np.uint8(scans.reshape(-1, 8, 8) * (255 / 16))
    order = np.random.default_rng(0).permutation(len(labels))
    images = np.stack([fit(np.dstack([g] * 3), SIZE, "stretch") for g in grey[order]])
    return images, labels[order]


@pytest.fixture(scope="session")
def network(digits) -> Network:
    """Trained for real on the first 1,000 scans; about 95 % right on the others."""
    from sklearn.neural_network import MLPClassifier

    images, labels = digits
    model = MLPClassifier((32,), alpha=1.0, max_iter=60, tol=1e-2, random_state=0)
    model.fit(images[:1000].reshape(1000, -1) / 255, labels[:1000])
    (hidden, out), (hidden_bias, out_bias) = model.coefs_, model.intercepts_
    return Network(hidden, hidden_bias, out, out_bias)


@pytest.fixture(scope="session")
def built(digits, network, tmp_path_factory) -> Path:
    """The finished directory; copy it before changing it."""
    root = tmp_path_factory.mktemp("pipeline")
    images, labels = digits
    parts = dict(zip(SPLITS, (slice(0, 1000), slice(1000, 1300), slice(1300, 1797)), strict=True))
    write_shards(root / "data/shards", {n: (images[s], labels[s]) for n, s in parts.items()})
    write_candidates(root / "data/candidates", {"fp32": network, "int8": network.coarse(0.04)})
    write_json(root / "data/model/model.json", {"architecture": "resnet_small"})
    write_json(root / "data/model/run.json", {"run_key": "train-0123456789ab"})
    cleaning = {"images": 1800, "kept": 1797, "dropped": 3, "flagged": 9, "flags": {"dark": 9}}
    write_json(root / "data/metrics/clean.json", cleaning)
    (root / "data/cleaning.html").write_text("<p>what cleaning found</p>")
    (root / "data/plots").mkdir()
    with (root / "data/plots/curves.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["epoch", "train_loss", "validation_loss", "validation_accuracy", "lr"])
        rows.writerows([e, 2 / (e + 1), 2.2 / (e + 1), 1 - 0.6 / (e + 1), 0.05] for e in range(20))
    (root / "conf").mkdir()
    params = YAML().load(ROOT / "conf/params.yaml")
    for needs_pytorch in ("explanation", "adversarial"):  # these networks are ONNX alone
        params["evaluate"][needs_pytorch]["enabled"] = False
    YAML().dump(params, root / "conf/params.yaml")
    return root


@pytest.fixture
def pipeline(built, tmp_path, monkeypatch) -> Path:
    """A copy of the directory, as the working directory and with a state directory of its own."""
    root = tmp_path / "pipeline"
    shutil.copytree(built, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))
    return root
