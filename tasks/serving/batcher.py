"""Micro-batching: images that arrive together are run together.

Takes single images from any number of requests, gives each its own result. The worker
lives only while images wait, so a batcher that nobody uses any more needs no closing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.pixels import Pixels

Floats = npt.NDArray[np.float32]
Run = Callable[[Pixels], Sequence[Floats]]


class Result(NamedTuple):
    """One image's probabilities float32 [C], embedding float32 [D], and score if there is one."""

    probabilities: Floats
    embedding: Floats
    ood_score: np.float32 | None = None


class _Waiting(NamedTuple):
    image: Pixels
    future: asyncio.Future[Result]
    arrived: float


class Batcher:
    """Runs `run` (uint8 N×S×S×3 -> the arrays of N rows that make a `Result`) on `executor`.

    A batch starts when it has `max_batch` images or its oldest has waited `max_wait` seconds.
    """

    def __init__(self, run: Run, executor: Executor, max_batch: int, max_wait: float) -> None:
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._waiting: deque[_Waiting] = deque()
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, images: Sequence[Pixels]) -> list[Result]:
        """The results of uint8 S×S×3 images, in order; raises what `run` raised for one of them."""
        loop = asyncio.get_running_loop()
        entries = [_Waiting(image, loop.create_future(), loop.time()) for image in images]
        self._waiting.extend(entries)
        if len(self._waiting) >= self._max_batch:
            self._full.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return list(await asyncio.gather(*(entry.future for entry in entries)))

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._fill()
                await self._finish(self._next_batch())
        finally:
            self._worker = None

    async def _fill(self) -> None:
        """Wait until a batch is full or its oldest image has waited long enough."""
        if len(self._waiting) >= self._max_batch:
            return
        self._full.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._waiting[0].arrived + self._max_wait):
                await self._full.wait()

    def _next_batch(self) -> list[_Waiting]:
        size = min(self._max_batch, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(size)]
        return [entry for entry in batch if not entry.future.done()]  # the client may be gone

    async def _finish(self, batch: list[_Waiting]) -> None:
        """Run a batch; one that fails is run image by image, so only the culprit fails."""
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            images = np.stack([entry.image for entry in batch])
            outputs = await loop.run_in_executor(self._executor, self._run, images)
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    await self._finish([entry])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for entry, *rows in zip(batch, *outputs, strict=True):
            if not entry.future.done():
                entry.future.set_result(Result(*rows))
