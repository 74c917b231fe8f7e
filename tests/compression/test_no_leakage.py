"""Students see training and validation only; what cannot be built is a row of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from tasks.compression import compress
from tasks.data.shards import open_shards, write_index


def set_compress(**sections: dict[str, Any]) -> None:
    path = Path("conf/params.yaml")
    values = YAML().load(path.read_text())
    for name, section in sections.items():
        values["compress"][name] |= section
    with open(path, "w") as stream:
        YAML().dump(values, stream)


def poison_the_test_split() -> None:
    """Other pixels, labels and hashes, under a valid index."""
    shards = open_shards()
    generator = np.random.default_rng(0)
    for name in ("images", "labels", "hashes", "statistics"):
        path = shards.path / f"test_{name}.npy"
        content = np.load(path)
        noise = generator.integers(0, 256, content.nbytes, np.uint8)
        garbage = noise.view(content.dtype).reshape(content.shape)
        if name == "labels":
            garbage = np.roll(content, 1)
        if name == "statistics":
            garbage = -np.ones_like(content)
        assert (garbage != content).any()
        np.save(path, garbage)
    write_index(shards.path, list(shards.classes), shards.contract)
    assert open_shards().digest != shards.digest


def test_a_poisoned_test_split_changes_no_candidate(project: Path) -> None:
    prune = {"importance": "taylor", "scope": "global", "target": "macs", "steps": 2, "epochs": 2}
    set_compress(distil={"method": "features", "epochs": 1}, prune=prune)
    compress.main()
    folder = Path("data/candidates")
    clean = {path.name: path.read_bytes() for path in folder.glob("*.onnx")}
    assert len(clean) == 6
    poison_the_test_split()
    compress.main()
    assert {path.name: path.read_bytes() for path in folder.glob("*.onnx")} == clean


def test_a_target_out_of_reach_is_a_row_with_its_reason(project: Path) -> None:
    set_compress(distil={"epochs": 1}, prune={"target": "latency", "ratios": [0.99]})
    compress.main()
    results = json.loads(Path("data/candidates/candidates.json").read_text())
    reasons = {row["name"]: row["reason"] for row in results["failed"]}
    assert set(reasons) == {"pruned", "pruned-int8"}
    assert "compress.prune.ratios 0.99 of the latency cannot leave" in reasons["pruned"]
