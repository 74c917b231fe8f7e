"""Images packed encoded: Arrow IPC files of one binary column, memory-mapped.

Any Arrow reader opens them; a row is a WebP or JPEG file. Needs pyarrow and Pillow. What is indexed
is decoded, on every core; nothing else is read. docs/data.md says why this format.
"""

import io
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.data.parallel import cores
from tasks.files import atomic_write
from tasks.pixels import Pixels

COLUMN = "image"
SHARD_BYTES = 512 << 20  # of a file: large enough for few files, small enough to hash on all cores
_THREADED_SIDE = 64  # smaller images decode faster than threads can share them out

Ints = npt.NDArray[np.int64]


def encode(image: Pixels, jpeg_quality: int | None) -> bytes:
    """A uint8 S×S×3 image as a lossless WebP file, or as JPEG of a quality (no subsampling)."""
    stream = io.BytesIO()
    picture = Image.fromarray(image)
    if jpeg_quality is None:
        # The least effort: some 20 times as fast as Pillow's default for files an eighth larger.
        picture.save(stream, "WEBP", lossless=True, quality=0, method=0)
    else:
        picture.save(stream, "JPEG", quality=jpeg_quality, subsampling=0)
    return stream.getvalue()


def decode(data: Any, out: Pixels) -> None:
    """The pixels of an encoded image into `out`, uint8 S×S×3."""
    with Image.open(io.BytesIO(data), formats=("WEBP", "JPEG")) as image:
        out[:] = np.asarray(image)


def write_encoded(
    folder: Path, name: str, parts: Iterable[Sequence[bytes]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Stream chunks of encoded images into <name>_images-00000.arrow, -00001, …, in order.

    A file is closed with the chunk that brings it to `shard_bytes`. Nothing is written for no
    chunks.
    """
    import pyarrow as pa

    schema = pa.schema([pa.field(COLUMN, pa.binary(), nullable=False)])
    for number, chunks in itertools.groupby(parts, _shard_number(shard_bytes)):
        path = folder / f"{name}_images-{number:05d}.arrow"
        with atomic_write(path) as stream, pa.ipc.new_file(stream, schema) as writer:
            for images in chunks:
                writer.write_batch(pa.record_batch([pa.array(images, pa.binary())], schema=schema))


def _shard_number(limit: int) -> Callable[[Sequence[bytes]], int]:
    """A function that tells for one chunk after the other the number of its file."""
    number = written = 0

    def of_next(images: Sequence[bytes]) -> int:
        nonlocal number, written
        if written >= limit:
            number, written = number + 1, 0
        written += sum(map(len, images))
        return number

    return of_next


class _Batch(NamedTuple):
    """A record batch in the memory map: image i is data[offsets[i] : offsets[i + 1]]."""

    offsets: npt.NDArray[np.int32]
    data: memoryview


class EncodedImages:
    """The encoded images of a split, indexed as a uint8 N×S×S×3 array is: [5], [2:9], [indices].

    What comes back is a new array in memory. May be used by several threads, and pickled to
    another process, which maps the same files.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Sequence[Path], count: int, side: int) -> None:
        self.files = tuple(files)
        self.shape = (count, side, side, 3)

    def __reduce__(self) -> tuple[Any, ...]:
        return EncodedImages, (self.files, self.shape[0], self.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: "int | np.integer[Any] | slice | Sequence[int] | Ints") -> Pixels:
        if isinstance(key, int | np.integer):
            image: Pixels = self._decoded(self._positions(np.array([key])))[0]
            return image
        if isinstance(key, slice):
            return self._decoded(np.arange(*key.indices(len(self))))
        indices: npt.NDArray[Any] = np.asarray(key) if len(key) else np.empty(0, np.int64)
        if indices.dtype == bool:
            return self._decoded(_where(indices, len(self)))
        return self._decoded(self._positions(indices.astype(np.int64, casting="same_kind")))

    def __iter__(self) -> Iterator[Pixels]:
        return (self[index] for index in range(len(self)))

    def encoded(self, index: int) -> memoryview:
        """The WebP or JPEG file of the image at `index` (from 0), as a view of the memory map."""
        starts, batches = self._batches
        number = bisect_right(starts, index) - 1
        offsets, data = batches[number]
        row = index - starts[number]
        return data[offsets[row] : offsets[row + 1]]

    def _positions(self, indices: Ints) -> Ints:
        """Indices counted from the front; IndexError when one is beyond the end."""
        count = len(self)
        beyond = indices[(indices < -count) | (indices >= count)]
        if beyond.size:
            raise IndexError(f"index {beyond[0]} is out of bounds for {count} images")
        return np.where(indices < 0, indices + count, indices)

    def _decoded(self, indices: Ints) -> Pixels:
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)

        def fill(part: Ints) -> None:
            for row in part:
                decode(self.encoded(int(indices[row])), images[row])

        rows = np.arange(len(indices))
        if self.shape[1] < _THREADED_SIDE or len(indices) < 2:
            fill(rows)
        else:
            # pieces, not halves: images differ in how long they take
            list(self._pool.map(fill, np.array_split(rows, min(len(rows), 4 * cores()))))
        return images

    @cached_property
    def _batches(self) -> tuple[list[int], list[_Batch]]:
        """The position of the first image of every batch, and the batches."""
        batches = [batch for file in self.files for batch in _mapped(file)]
        lengths = [len(batch.offsets) - 1 for batch in batches]
        return list(itertools.accumulate(lengths, initial=0))[:-1], batches

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores(), "decode")


def _mapped(file: Path) -> Iterator[_Batch]:
    import pyarrow as pa

    with pa.ipc.open_file(pa.memory_map(str(file))) as reader:
        for number in range(reader.num_record_batches):
            column = reader.get_batch(number).column(0)
            _, offsets, data = column.buffers()
            yield _Batch(np.frombuffer(offsets, np.int32, len(column) + 1), memoryview(data))


def _where(chosen: npt.NDArray[np.bool_], count: int) -> Ints:
    if chosen.shape != (count,):
        raise IndexError(f"{chosen.shape} truth values for {count} images")
    return np.flatnonzero(chosen)
