"""Writes what the steps before `evaluate` leave: shards, ONNX candidates, a small real network."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.bundle import InputContract
from tasks.data.shards import write_index
from tasks.data.tables import write_table
from tasks.files import write_json
from tasks.pixels import STATISTICS, statistics

SIZE = 16


@dataclass(frozen=True)
class Network:
    """A one-hidden-layer perceptron: the arrays of its two layers."""

    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray

    def coarse(self, step: float) -> "Network":
        """With weights rounded to multiples of `step`, as a quantizer would."""
        return Network(
            np.rint(self.hidden / step) * step, self.hidden_bias,
            np.rint(self.out / step) * step, self.out_bias,
        )  # fmt: skip


def write_network(path: Path, network: Network, size: int = SIZE) -> None:
    """The candidate's contract: uint8 N×S×S×3 in, "logits" and "embedding" out."""
    arrays = {
        "scale": np.float32(255),
        "flat": np.array([-1, size * size * 3], np.int64),
        "w1": np.float32(network.hidden), "b1": np.float32(network.hidden_bias),
        "w2": np.float32(network.out), "b2": np.float32(network.out_bias),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "scale"], ["scaled_images"]),
        helper.make_node("Reshape", ["scaled_images", "flat"], ["row"]),
        helper.make_node("Gemm", ["row", "w1", "b1"], ["before"]),
        helper.make_node("Relu", ["before"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "w2", "b2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(arrays["b2"])]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", len(arrays["b1"])]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_shards(
    path: Path,
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
    classes: tuple[str, ...] = (),
    **contract_values: object,
) -> None:
    """Shards in the form of the `prepare` step; `contract_values` are of their input contract."""
    path.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in splits.items():
        np.save(path / f"{name}_images.npy", images)
        np.save(path / f"{name}_labels.npy", np.asarray(labels, np.int64))
        described = [statistics(image) for image in images]
        np.save(path / f"{name}_statistics.npy", np.array(described, np.float32).reshape(-1, 5))
        hashes = [f"{name}{i:028d}"[-32:].encode() for i in range(len(images))]
        np.save(path / f"{name}_hashes.npy", np.array(hashes, "S32"))
        paths = [f"{label}/{name}-{i:04d}.png" for i, label in enumerate(labels)]
        (path / f"{name}_paths.json").write_text(json.dumps(paths))
    write_cleaned(path.parent / "cleaned.parquet", splits, classes)
    (path / "shards.json").unlink(missing_ok=True)
    values = {"size": images.shape[1], "resize": "stretch", "max_pixels": 50_000_000}
    contract = InputContract.model_validate(values | contract_values)
    write_index(path, classes or tuple("0123456789"), contract)


def write_cleaned(
    file: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...] = ()
) -> None:
    """The rows of the cleaned manifest that shards come from, in the form of the `clean` step."""
    import pandas as pd

    rows = [
        {
            "path": f"{label}/{name}-{i:04d}.png", "source": "digits",
            "label": classes[label] if classes else str(label), "given_group": None,
            "mode": "RGB", "width": image.shape[1], "height": image.shape[0], "metadata": None,
            **dict(zip(STATISTICS, statistics(image).tolist(), strict=True)),
        }
        for name, (images, labels) in splits.items()
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]  # fmt: skip
    write_table(file, pd.DataFrame(rows))


def write_candidates(path: Path, networks: dict[str, Network], chosen: str = "int8") -> None:
    """Candidates in the form of the `compress` step."""
    path.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (name, network) in enumerate(networks.items()):
        write_network(path / f"{name}.onnx", network)
        rows.append(
            {
                "name": name, "technique": f"{name} of the trained network", "file": f"{name}.onnx",
                "parameters": 25_000, "accuracy": 0.97 - 0.002 * i, "agreement": 1 - 0.01 * i,
                "accuracy_low": 0.95, "accuracy_high": 0.98, "accuracy_change": -0.002 * i,
                "accuracy_change_low": -0.01, "accuracy_change_high": 0.01, "threads": 2,
                "worst_recall_change": -0.01, "worst_recall_class": "0", "calibration_error": 0.01,
                "memory_bytes": 64_000_000,
                "latency_ms": 0.08 / (i + 1), "size_bytes": (path / f"{name}.onnx").stat().st_size,
                "parity_max_difference": 1e-6, "parity_agreement": 1.0, "parent": None,
                "verdict": "chosen" if name == chosen else "eligible", "reason": "fastest",
            }
        )  # fmt: skip
    write_json(
        path / "candidates.json",
        {
            "chosen": chosen, "reason": f"{chosen} is the fastest within the budget",
            "fp32": "fp32", "eager_fp32_latency_ms": 0.4, "candidates": rows,
            "eager_threads": 2, "batch": 32, "noise": 0.01, "rounds": 10,
            "failed": [], "skipped": [],
        },
    )  # fmt: skip


def read_metrics(root: Path) -> dict:
    """What the step wrote to data/metrics/evaluate.json."""
    return json.loads((root / "data/metrics/evaluate.json").read_text())
