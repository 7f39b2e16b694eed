"""What a server counts and measures, for Prometheus."""

import os
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Set by the command before workers start: each writes its figures there, and any of them tells the sum
_SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The figures of one app.

    Routes are named by their template, never by what a client has asked for, so that nobody can fill the memory with
    names.
    """

    def __init__(self) -> None:
        # prometheus_client takes longer to look a counter up than to count
        self._labelled = lru_cache(self._look_up)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "foveola_requests", "Answered requests.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "foveola_request_seconds",
            "From the head of a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "foveola_batch_images", "Images that a batch held.", buckets=_IMAGES, registry=self._registry
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
            "foveola_findings", "In what pictures were unlike the training images.", ("code",), registry=self._registry
        )

    def _look_up(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, method, str(status)), self._seconds.labels(route)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """An answered request; 503 among the states are those turned away."""
        answered, took = self._labelled(route, method, status)
        answered.inc()
        took.observe(seconds)

    def refused(self, status: int) -> None:
        """A request or a connection refused before anybody looked at what it asks for."""
        self._labelled("none", "none", status)[0].inc()

    def batch(self, images: int, seconds: float) -> None:
        """A batch computed."""
        self._batches.observe(images)
        self._batch_seconds.observe(seconds)

    def findings(self, codes: Iterable[str]) -> None:
        """What the doctor has said of a picture."""
        for code in codes:
            self._findings.labels(code).inc()

    def queued(self, images: int) -> None:
        """How many images wait now."""
        self._queued.set(images)

    def response(self) -> Response:
        """All figures in Prometheus' text format; of all workers where there are several."""
        registry = self._registry
        if _SHARED_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
