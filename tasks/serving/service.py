"""What the server does with a request, apart from HTTP: admit, decode, predict, log."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from fastapi import Request

from tasks.decision import ALWAYS_ANSWERS
from tasks.errors import ServiceError, UploadError
from tasks.params import Settings
from tasks.pixels import UnreadableImage
from tasks.predictions import Prediction, open_log
from tasks.schema import Serve
from tasks.serving.answers import Answer, Answers, RefusedFile
from tasks.serving.batcher import Result
from tasks.serving.follower import Follower
from tasks.serving.model import Decoded, ServedModel
from tasks.serving.prediction_writer import PredictionWriter
from tasks.serving.uploads import Upload, read_uploads


class RefusedFiles(UploadError):
    """One or more files of a request are not usable images; names each."""

    def __init__(self, files: list[RefusedFile]) -> None:
        listed = "; ".join(f"{file.filename}: {file.reason}" for file in files)
        super().__init__(f"{listed} (nothing in this request was predicted)")
        self.files = files


class Service:
    """The model in service, the threads that decode and predict, and the prediction log."""

    def __init__(self, settings: Settings, params: Serve) -> None:
        self._params = params
        self._decoding = ThreadPoolExecutor(os.cpu_count(), "decode")
        self._predicting = ThreadPoolExecutor(1, "predict")
        self._images = 0
        self.follower = Follower(settings, params, self._predicting)
        self.writer = PredictionWriter(open_log(settings.predictions_url))

    def close(self) -> None:
        """Write the predictions that wait, and end the threads."""
        self.writer.close()
        self._decoding.shutdown()
        self._predicting.shutdown()

    def model(self) -> ServedModel:
        """The model in service; raises ServiceError before there is one."""
        if self.follower.model is None:
            raise ServiceError(f"no model to serve: {self.follower.reason}")
        return self.follower.model

    async def predict(self, request: Request) -> Answers:
        """Answer one request's images, all of them or none; raises UploadError, ServiceError."""
        model = self.model()
        with self._admitted(1):
            uploads = await read_uploads(request, self._params)
            with self._admitted(len(uploads) - 1):
                decoded = await self._decode(model, uploads)
                results = await model.batcher.submit([image.pixels for image in decoded])
        rows = _rows(model, decoded, results)
        self.writer.put(rows)
        return _answers(model, uploads, results)

    @contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        """Hold places for `count` images; past serve.max_queue the answer is 503, no wait."""
        if count and self._images + count > self._params.max_queue:
            raise ServiceError(
                f"busy: {self._images} images are being answered and the limit is "
                f"{self._params.max_queue} (serve.max_queue); try again in a second"
            )
        self._images += count
        try:
            yield
        finally:
            self._images -= count

    async def _decode(self, model: ServedModel, uploads: Sequence[Upload]) -> list[Decoded]:
        loop = asyncio.get_running_loop()
        outcomes = await asyncio.gather(
            *(loop.run_in_executor(self._decoding, _decode, model, item) for item in uploads)
        )
        refused = [item for item in outcomes if isinstance(item, RefusedFile)]
        if refused:
            raise RefusedFiles(refused)
        return [item for item in outcomes if isinstance(item, Decoded)]


def _decode(model: ServedModel, upload: Upload) -> Decoded | RefusedFile:
    try:
        return model.decode(upload.read())
    except UnreadableImage as error:
        return RefusedFile(filename=upload.filename, reason=str(error))


def _rows(
    model: ServedModel, decoded: Sequence[Decoded], results: Sequence[Result]
) -> list[Prediction]:
    now = datetime.now(UTC)
    return [
        Prediction(
            time=now,
            model_version=model.version,
            bundle_digest=model.bundle.digest,
            predicted=int(result.probabilities.argmax()),
            probabilities=result.probabilities,
            embedding=result.embedding,
            statistics=image.statistics,
        )
        for image, result in zip(decoded, results, strict=True)
    ]


def _answers(
    model: ServedModel,
    uploads: Sequence[Upload],
    results: Sequence[Result],
) -> Answers:
    classes = model.bundle.info.classes
    decision = model.bundle.info.decision or ALWAYS_ANSWERS
    scores = [None if one.ood_score is None else float(one.ood_score) for one in results]
    predictions = [
        Answer(filename=upload.filename, **decision.answer(classes, result.probabilities, score))
        for upload, result, score in zip(uploads, results, scores, strict=True)
    ]
    return Answers(model_version=model.version, predictions=predictions)
