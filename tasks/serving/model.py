"""A release, loaded and proved ready to answer: decode, predict."""

from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError
from tasks.params import Settings
from tasks.pixels import Pixels, read, statistics
from tasks.releases import Release
from tasks.schema import Serve
from tasks.serving.batcher import Batcher


class Decoded(NamedTuple):
    """A file as the model's input, uint8 S×S×3, and the original's statistics, float32 [5]."""

    pixels: Pixels
    statistics: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ServedModel:
    """One release in service. A request keeps the one that it began with."""

    version: int
    bundle: Bundle
    batcher: Batcher
    loaded: datetime

    def decode(self, data: bytes) -> Decoded:
        """The pixels of `Bundle.pixels`, decoded once for them and for the statistics.

        Raises UnreadableImage.
        """
        contract = self.bundle.info.input
        image = read(data, contract.max_pixels)
        return Decoded(contract.fit(image), statistics(image))


def load_model(
    release: Release, settings: Settings, params: Serve, executor: Executor
) -> ServedModel:
    """Verify a release, open its graph and prove it on images; raises BundleError.

    Takes seconds for a large model: call it off the event loop.
    """
    bundle = open_bundle(release.path, settings)
    try:
        _prove(bundle, params.max_batch)
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BundleError(f"{release.path} cannot be run: {error}") from error
    batcher = Batcher(bundle.judge, executor, params.max_batch, params.max_wait_ms / 1000)
    return ServedModel(release.version, bundle, batcher, datetime.now(UTC))


def _prove(bundle: Bundle, max_batch: int) -> None:
    """Run the smallest and the largest batch: warms the session up, and checks what it gives."""
    size, classes = bundle.info.input.size, len(bundle.info.classes)
    random = np.random.default_rng(0)
    for count in (1, max_batch):
        images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        probabilities, embedding, *scores = bundle.judge(images)
        if any(score.shape != (count,) or not np.isfinite(score).all() for score in scores):
            raise BundleError(f"{bundle.path} gives scores {scores} for {count} images")
        if probabilities.shape != (count, classes) or len(embedding) != count:
            raise BundleError(
                f"{bundle.path} gives probabilities {probabilities.shape} for {count} images "
                f"of {classes} classes"
            )
        if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
            raise BundleError(f"{bundle.path} gives probabilities that do not sum to 1")
