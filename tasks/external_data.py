"""Whether an ONNX file keeps weights in other files. Needs nothing but Python.

ONNX lets a tensor name a file that its values are in. What signs or hashes the ONNX file alone
says nothing of that file, and its name can lead anywhere: up by "..", to an absolute path,
through a symbolic or hard link. A bundle is one file, so any such tensor is refused.

Read is the protobuf encoding itself (protobuf.dev/programming-guides/encoding), of the messages
of onnx.proto that can hold a tensor: a server that only predicts need not import onnx.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import BundleError

# Message → number of a field → the message in that field, of those that lead to a tensor.
_WITHIN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 10: "TensorProto", 6: "GraphProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}  # fmt: skip
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 8, 13, 14, 1
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_UINT32 = 0xFFFFFFFF  # what protobuf keeps of a tag or an enumeration

Field = tuple[int, int, tuple[int, int]]  # number, wire type, and (value, 0) or (start, end)


def refuse_external_data(path: Path) -> None:
    """Raise BundleError naming the first tensor of an ONNX file whose values are elsewhere.

    Also when the file is no ONNX file.
    """
    try:
        with (
            open(path, "rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            found = next(_external(data), None)
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(f"{path} cannot be read as an ONNX file: {error}") from None
    if found is not None:
        tensor, location = found
        raise BundleError(
            f"{path} keeps the tensor {tensor!r} in another file, {location!r}; a bundle's model "
            "is one file. Export it anew, or save it with onnx.save(model, path) after onnx.load"
        )


def _external(data: mmap.mmap) -> Iterator[tuple[str, str]]:
    """(name, location) of each tensor with external data; a stack, so that depth costs nothing."""
    waiting = [("ModelProto", 0, len(data))]
    while waiting:
        message, start, end = waiting.pop()
        fields = _fields(data, start, end)
        if message == "TensorProto":
            yield from _if_external(data, list(fields))
            continue
        for number, wire, (first, last) in fields:
            if wire == _BYTES and number in _WITHIN[message]:
                waiting.append((_WITHIN[message][number], first, last))


def _if_external(data: mmap.mmap, fields: list[Field]) -> Iterator[tuple[str, str]]:
    entries = [span for number, _, span in fields if number == _EXTERNAL_DATA]
    located = any(n == _DATA_LOCATION and span[0] & _UINT32 == _EXTERNAL for n, _, span in fields)
    if entries or located:
        named = [data[a:b].decode(errors="replace") for n, _, (a, b) in fields if n == _TENSOR_NAME]
        pairs = dict(_pair(data, *span) for span in entries)
        yield (named or [""])[-1], pairs.get("location", "")


def _pair(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    texts = {n: data[a:b].decode(errors="replace") for n, _, (a, b) in _fields(data, start, end)}
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[at:end]; ValueError where that is none."""
    while at < end:
        tag, at = _varint(data, at)
        number, wire = (tag & _UINT32) >> 3, tag & 7
        if number == 0:
            raise ValueError(f"no field at byte {at}")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, (value, 0)
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > end:
            raise ValueError(f"a field at byte {at} is longer than what holds it")
        yield number, wire, (at, at + size)
        at += size


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends; IndexError past the end of the file."""
    value, shift = 0, 0
    while shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} is too long")
