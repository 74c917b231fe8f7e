"""Weights in fewer bits: smaller files that say what the network says."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tasks.compression.export import export
from tasks.compression.runtime import run_logits
from tasks.compression.storage import store
from tasks.data.shards import Shards
from tasks.errors import CompressionError
from tasks.runtime import open_session
from tasks.schema import Storage
from tasks.training.models import Classifier, ModelSpec, build

Network = tuple[Classifier, ModelSpec]


@pytest.mark.parametrize(("kind", "share", "close"), [("fp16", 0.6, 0.02), ("int8", 0.4, 0.5)])
def test_smaller_files_say_nearly_the_same(
    kind: Storage,
    share: float,
    close: float,
    network: Network,
    digit_shards: Shards,
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "fp32.onnx", tmp_path / "small.onnx"
    export(*network, source)
    store(source, target, kind)
    assert target.stat().st_size < share * source.stat().st_size
    images = digit_shards.split("validation").images
    wanted, given = (run_logits(open_session(path, 1), images) for path in (source, target))
    assert np.abs(given - wanted).max() < close
    assert (given != wanted).any()
    held = {i.name: i.data_type for i in onnx.load(target).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in held.values() or onnx.TensorProto.INT8 in held.values()


def test_int8_weights_have_a_scale_of_each_output(network: Network, tmp_path: Path) -> None:
    """A channel a thousand times smaller than the next keeps its digits."""
    spec = network[1]
    torch.manual_seed(0)
    model = build(spec).eval()
    with torch.no_grad():
        model.head.weight[3:] *= 1e-3
    export(model, spec, tmp_path / "fp32.onnx")
    store(tmp_path / "fp32.onnx", tmp_path / "small.onnx", "int8")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    wanted, given = (
        run_logits(open_session(tmp_path / name, 1), images)[:, 3:]
        for name in ("fp32.onnx", "small.onnx")
    )
    assert np.abs(given - wanted).max() < 0.05 * wanted.std()


def test_what_float16_cannot_hold_is_named(network: Network, tmp_path: Path) -> None:
    spec = network[1]
    torch.manual_seed(0)
    model = build(spec).eval()
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    export(model, spec, tmp_path / "fp32.onnx")
    with pytest.raises(CompressionError, match=r"head\.weight: 1e\+06"):
        store(tmp_path / "fp32.onnx", tmp_path / "small.onnx", "fp16")
    assert not (tmp_path / "small.onnx").exists()
