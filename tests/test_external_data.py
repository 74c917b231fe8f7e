"""A model is one file: weights in another one are refused wherever it lies, though signed."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.bundle import Bundle, open_bundle, write_bundle
from tasks.errors import BundleError
from tasks.external_data import _WITHIN, refuse_external_data
from tasks.params import Settings
from tasks.signing import sign_directory

WEIGHTS = np.arange(8, dtype=np.float32)


def elsewhere(location: str) -> TensorProto:
    """A tensor whose values are in the file `location`."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(WEIGHTS.nbytes))
    return tensor


def with_weights(model: Path, location: str) -> None:
    """Give the ONNX file `model` one more initializer, which is kept at `location`."""
    proto = onnx.load(model)
    proto.graph.initializer.append(elsewhere(location))
    model.write_bytes(proto.SerializeToString())


def _beside(folder: Path, outside: Path) -> str:
    (folder / "weights.bin").write_bytes(outside.read_bytes())
    return "weights.bin"


def _hard_link(folder: Path, outside: Path) -> str:
    os.link(outside, folder / "weights.bin")
    return "weights.bin"


def _parent(folder: Path, outside: Path) -> str:
    return f"../{outside.name}"


def _absolute(folder: Path, outside: Path) -> str:
    return str(outside)


def _missing(folder: Path, outside: Path) -> str:
    return "nowhere.bin"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside the bundle that its model has no business with."""
    path = tmp_path / "secret.bin"
    path.write_bytes(WEIGHTS.tobytes())
    return path


@pytest.mark.parametrize("place", [_beside, _hard_link, _parent, _absolute, _missing])
def test_a_signed_bundle_with_weights_elsewhere_is_refused(
    digits_bundle: Bundle,
    settings: Settings,
    outside: Path,
    place: Callable[[Path, Path], str],
) -> None:
    location = place(digits_bundle.path, outside)
    with_weights(digits_bundle.path / "model.onnx", location)
    sign_directory(digits_bundle.path, settings)
    with pytest.raises(BundleError, match="'weights' in another file") as error:
        open_bundle(digits_bundle.path, settings)
    assert repr(location) in str(error.value)


def test_weights_swapped_for_a_symbolic_link_to_the_same_bytes_are_refused(
    digits_bundle: Bundle, settings: Settings, outside: Path
) -> None:
    with_weights(digits_bundle.path / "model.onnx", _beside(digits_bundle.path, outside))
    sign_directory(digits_bundle.path, settings)
    (digits_bundle.path / "weights.bin").unlink()
    (digits_bundle.path / "weights.bin").symlink_to(outside)
    with pytest.raises(BundleError, match=r"weights\.bin is not a plain file"):
        open_bundle(digits_bundle.path, settings)
    with pytest.raises(BundleError, match=r"another file, 'weights\.bin'"):
        refuse_external_data(digits_bundle.path / "model.onnx")


def test_a_folder_that_links_out_of_the_bundle_is_refused(
    digits_bundle: Bundle, settings: Settings, outside: Path
) -> None:
    with_weights(digits_bundle.path / "model.onnx", f"parts/{outside.name}")
    sign_directory(digits_bundle.path, settings)
    (digits_bundle.path / "parts").symlink_to(outside.parent, target_is_directory=True)
    with pytest.raises(BundleError, match="parts is not a plain file"):
        open_bundle(digits_bundle.path, settings)
    (digits_bundle.path / "parts").unlink()
    with pytest.raises(BundleError, match=r"another file, 'parts/secret\.bin'"):
        open_bundle(digits_bundle.path, settings)


def test_such_a_bundle_is_not_written_either(
    digits_bundle: Bundle, settings: Settings, outside: Path, tmp_path: Path
) -> None:
    def fill(directory: Path) -> None:
        for path in digits_bundle.path.iterdir():
            (directory / path.name).write_bytes(path.read_bytes())
        with_weights(directory / "model.onnx", str(outside))

    with pytest.raises(BundleError, match=r"in another file, '.*secret\.bin'"):
        write_bundle(tmp_path / "new", digits_bundle.info, settings, fill)
    assert not (tmp_path / "new").exists()


def _model(**parts: object) -> onnx.ModelProto:
    graph = helper.make_graph(parts.get("nodes", []), "graph", [], [])
    return helper.make_model(graph, functions=parts.get("functions", []))


def _in_a_branch() -> onnx.ModelProto:
    branch = helper.make_graph([], "then", [], [], [elsewhere("x")])
    return _model(nodes=[helper.make_node("If", ["c"], ["y"], then_branch=branch)])


def _in_a_constant() -> onnx.ModelProto:
    return _model(nodes=[helper.make_node("Constant", [], ["y"], value=elsewhere("x"))])


def _in_a_function() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=elsewhere("x"))
    opset = [helper.make_opsetid("", 20)]
    return _model(functions=[helper.make_function("own", "f", [], ["y"], [node], opset)])


def _in_a_sparse_tensor() -> onnx.ModelProto:
    model = _model()
    indices = numpy_helper.from_array(np.arange(8, dtype=np.int64), "indices")
    model.graph.sparse_initializer.add(values=elsewhere("x"), indices=indices, dims=[8])
    return model


def _by_its_entries_alone() -> onnx.ModelProto:
    model = _model()
    model.graph.initializer.append(elsewhere("x"))
    model.graph.initializer[0].ClearField("data_location")
    return model


@pytest.mark.parametrize(
    "make",
    [_in_a_branch, _in_a_constant, _in_a_function, _in_a_sparse_tensor, _by_its_entries_alone],
)
def test_it_is_found_wherever_a_model_can_hold_a_tensor(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(BundleError, match="'weights' in another file, 'x'"):
        refuse_external_data(path)


def test_every_way_to_a_tensor_that_onnx_knows_is_looked_at() -> None:
    """The numbers of the fields are ONNX's own: a new one in a later version is noticed."""
    ways: dict[str, dict[int, str]] = {}
    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name in ways or message.name == "TensorProto":
            continue
        held = [field for field in message.fields if field.message_type]
        ways[message.name] = {field.number: field.message_type.name for field in held}
        waiting += [field.message_type for field in held]
    leading = {"TensorProto"}
    while more := {m for m, held in ways.items() if leading & set(held.values())} - leading:
        leading |= more
    wanted = {
        message: {number: to for number, to in held.items() if to in leading}
        for message, held in ways.items()
        if message in leading
    }
    assert wanted == _WITHIN


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x05\x0a"]
)
def test_what_is_no_onnx_file_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read as an ONNX file"):
        refuse_external_data(path)


def test_a_model_in_one_file_passes(digits_bundle: Bundle) -> None:
    refuse_external_data(digits_bundle.path / "model.onnx")
