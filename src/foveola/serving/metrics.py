"""Metrics of the server, for Prometheus."""

import os
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Set before workers start: each writes its metrics there, and any of them can report the sum
_SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The metrics of one application.

    Routes are labelled with their template, never with a request's path, so that clients cannot fill the memory.
    """

    def __init__(self) -> None:
        # Looking a counter up takes prometheus_client longer than incrementing it
        self._labelled = lru_cache(self._look_up)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "foveola_requests", "Answered requests.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "foveola_request_seconds",
            "From the head of a request to the end of its response.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "foveola_batch_images", "Images in a batch.", buckets=_IMAGES, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "foveola_batch_seconds", "Inference of a batch.", buckets=_SECONDS, registry=self._registry
        )
        self._queued = Gauge(
            "foveola_queue_images",
            "Images waiting for the model.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._findings = Counter(
            "foveola_findings", "How images differed from the training images.", ("code",), registry=self._registry
        )

    def _look_up(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, method, str(status)), self._seconds.labels(route)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        answered, took = self._labelled(route, method, status)
        answered.inc()
        took.observe(seconds)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch that was computed."""
        self._batches.observe(images)
        self._batch_seconds.observe(seconds)

    def findings(self, codes: Iterable[str]) -> None:
        """Count the findings of an image."""
        for code in codes:
            self._findings.labels(code).inc()

    def queued(self, images: int) -> None:
        """Set how many images wait now."""
        self._queued.set(images)

    def response(self) -> Response:
        """All metrics in Prometheus' text format, summed over the workers."""
        registry = self._registry
        if _SHARED_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
