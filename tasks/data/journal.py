"""An append-only file of tables that a killed writer leaves readable.

Each table is a record: its length and CRC-32 (little-endian), then an Arrow IPC stream. One that
was not written to its end is passed over by readers, and overwritten by the next writer.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    import pyarrow as pa

_HEADER = struct.Struct("<QI")


class Journal:
    """Appends tables to a file, which is made with the first of them; a context manager."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, table: "pa.Table") -> None:
        """Add a table; once this returns, a killed process does not lose it."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        data = sink.getvalue().to_pybytes()
        stream = self._stream = self._stream or self._open()
        stream.write(_HEADER.pack(len(data), zlib.crc32(data)) + data)
        stream.flush()

    def _open(self) -> IO[bytes]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        end = sum(_HEADER.size + len(data) for data in _records(self._file))
        stream = self._file.open("ab")
        stream.truncate(end)
        return stream


def read_journal(file: Path) -> "list[pa.Table]":
    """The tables that were written whole, in order; [] without a file."""
    import pyarrow as pa

    return [pa.ipc.open_stream(data).read_all() for data in _records(file)]


def _records(file: Path) -> Iterator[bytes]:
    if not file.exists():
        return
    with file.open("rb") as stream:
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            data = stream.read(length)
            if len(data) < length or zlib.crc32(data) != checksum:
                return
            yield data
