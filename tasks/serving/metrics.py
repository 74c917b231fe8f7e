"""What the server counts, in Prometheus's text format."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tasks.errors import ServiceError, UploadError
from tasks.serving.service import Service


class Metrics:
    """Requests by outcome and duration, the version in service, rows logged and lost."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, service: Service) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "visionloop_requests", "Prediction requests", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "visionloop_request_seconds", "Seconds a prediction request took", registry=registry
        )
        gauges = {
            "visionloop_model_version": lambda: (service.follower.model or _NoModel).version,
            "visionloop_release_refused": lambda: float(service.follower.refused is not None),
            "visionloop_predictions_logged": lambda: service.writer.written,
            "visionloop_predictions_lost": lambda: service.writer.lost,
        }
        for name, value in gauges.items():
            Gauge(name, name.replace("_", " "), registry=registry).set_function(value)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count and time one request."""
        started, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "answered"
        except UploadError:
            outcome = "refused"
            raise
        except ServiceError:
            outcome = "unavailable"
            raise
        finally:
            self._requests.labels(outcome).inc()
            self._seconds.observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """The present values."""
        return generate_latest(self._registry)


class _NoModel:
    version = 0
