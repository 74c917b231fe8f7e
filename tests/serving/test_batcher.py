"""Micro-batching: every image gets its own result, whatever shares its batch."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tasks.serving.batcher import Batcher


def images_of(values: range) -> list[np.ndarray]:
    return [np.full((2, 2, 3), value, np.uint8) for value in values]


def mean_and_batch_size(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if (images == 13).all(axis=(1, 2, 3)).any():
        raise ValueError("thirteen")
    means = images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None]
    return means, np.full_like(means, len(images))


def run(use: Callable[[Batcher], object], max_batch: int = 8, max_wait: float = 0.02) -> object:
    async def main() -> object:
        with ThreadPoolExecutor(1) as executor:
            return await use(Batcher(mean_and_batch_size, executor, max_batch, max_wait))

    return asyncio.run(main())


def test_images_of_many_requests_share_batches_and_keep_their_results() -> None:
    async def use(batcher: Batcher) -> list:
        requests = (batcher.submit(images_of(range(n, n + 2))) for n in range(20, 60, 2))
        return await asyncio.gather(*requests)

    results = [result for request in run(use) for result in request]
    assert [result.probabilities[0] for result in results] == list(range(20, 60))
    assert max(result.embedding[0] for result in results) == 8


def test_a_lone_image_is_not_kept_waiting_for_company() -> None:
    async def use(batcher: Batcher) -> list:
        return await asyncio.wait_for(batcher.submit(images_of(range(5, 6))), 60)

    assert run(use)[0].probabilities[0] == 5


def test_batches_never_exceed_the_limit() -> None:
    async def use(batcher: Batcher) -> list:
        return await batcher.submit(images_of(range(100, 125)))

    sizes = [result.embedding[0] for result in run(use, max_batch=8)]
    assert sizes == [8] * 24 + [1]


def test_a_failing_image_fails_its_own_request_only() -> None:
    async def use(batcher: Batcher) -> list:
        requests = [batcher.submit(images_of(range(n, n + 1))) for n in range(10, 17)]
        return await asyncio.gather(*requests, return_exceptions=True)

    results = run(use)
    assert isinstance(results.pop(3), ValueError)
    assert [result[0].probabilities[0] for result in results] == [10, 11, 12, 14, 15, 16]


def test_a_client_that_left_does_not_disturb_the_others() -> None:
    async def use(batcher: Batcher) -> list:
        gone = asyncio.create_task(batcher.submit(images_of(range(1, 2))))
        stays = asyncio.create_task(batcher.submit(images_of(range(2, 3))))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert run(use)[0].probabilities[0] == 2


def test_images_that_arrive_during_a_run_go_into_the_next() -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        started.set()
        go_on.wait(60)
        return mean_and_batch_size(images)

    async def main() -> list:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(slow, executor, 4, 0)
            first = asyncio.create_task(batcher.submit(images_of(range(1, 2))))
            await asyncio.to_thread(started.wait, 60)
            late = [
                asyncio.create_task(batcher.submit([image])) for image in images_of(range(2, 5))
            ]
            await asyncio.sleep(0)
            go_on.set()
            return [await first, *[await task for task in late]]

    results = [request[0] for request in asyncio.run(main())]
    assert [result.probabilities[0] for result in results] == [1, 2, 3, 4]
    assert [result.embedding[0] for result in results] == [1, 3, 3, 3]
