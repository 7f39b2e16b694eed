"""Batches requests for the model: all that wait are computed together, and none waits for more to come.

A batch has one of a few fixed sizes, at which an image's logits are the same, bit for bit, so that a prediction does
not depend on its neighbours; other numbers of images are split. ONNX Runtime does not promise this: version 1.31 on
x86-64 (AVX-512) fulfils it for every recipe and size from 1 to 64, because it computes convolutions image by image and
multiplies matrices in an order that depends on the weights alone. A test checks these sizes on every machine that runs
it.

A batch that takes a few milliseconds is computed in the event loop: with two threads that alternate in the interpreter,
each turn costs up to 5 ms.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError
from foveola.images import Images
from foveola.serving.refusals import Busy, Refused

Logits = NDArray[np.float32]
Shape = tuple[int, ...]

SIZES = (1, 2, 4, 8, 16, 32, 64)
# Images that a request puts into a batch before it is the next request's turn
TURN = 8
# A batch becomes floating-point numbers, four times as many bytes, in several layers
MOST_BYTES_IN_BATCH = 16 * 2**20
MOST_BYTES_WAITING = 256 * 2**20
# Expected time of the model for all images of a request, and for all that wait
MOST_SECONDS = 10.0


@dataclass(eq=False, slots=True)
class _Request:
    images: Images
    result: asyncio.Future[Logits]
    taken: int = 0  # images that the model has or had
    logits: list[Logits] = field(default_factory=list)


Batch = list[tuple[_Request, Images]]


class Batcher:
    """A bounded queue in front of a model.

    Parameters
    ----------
    predict : returns logits, float32 n×K, of images, uint8 n×H×W×C; called for one batch at a time
    capacity : images that may wait at once
    sizes : of batches; 1 is among them
    at_once_seconds : batches that are expected to take longer are computed in a thread
    on_batch : called for every batch, where it was computed, with the number of images and the seconds it took

    Attributes
    ----------
    queued : images that wait, without those that are being computed
    """

    def __init__(
        self,
        predict: Callable[[Images], Logits],
        capacity: int,
        sizes: Sequence[int] = SIZES,
        at_once_seconds: float = 0.005,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.predict = predict
        self.capacity = capacity
        self.sizes = tuple(sizes)
        self.at_once_seconds = at_once_seconds
        self.on_batch = on_batch
        self.queued = 0
        self._bytes = 0
        self._seconds = 0.0
        self._times: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=16))
        self._waiting: dict[Shape, deque[_Request]] = {}
        self._wake = asyncio.Event()
        self._in_thread = False
        self._ending = False

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Accept no more requests, answer those that were accepted."""
        self._ending = True
        self._wake.set()
        await self._task
        self._thread.shutdown()

    async def submit(self, images: Images) -> Logits:
        """Logits, float32 n×K, of a request's images, uint8 n×H×W×C of any size; they may share batches with others'.

        A request that is cancelled gives up its place at once.

        Raises
        ------
        Busy
            If the queue is full.
        DataError
            If there are no images, or more than the queue can hold.
        Refused
            If the model would take too long for them.
        Exception
            What the model raised for a batch with images of this request.
        """
        seconds = self._check(images)
        self.queued += len(images)
        self._bytes += images.nbytes
        self._seconds += seconds
        request = _Request(images, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(images.shape[1:], deque()).append(request)
        try:
            await asyncio.sleep(0)  # requests that have arrived by now share a batch
            while request.taken < len(images) and self._is_quick():
                self._answer(batch := self._next_batch(), self._try(batch))
            if request.taken < len(images):
                self._wake.set()
            return await request.result
        finally:
            if not request.result.cancel() and not request.result.cancelled():
                request.result.exception()  # seen, even if the request was cancelled before it could await it
            self._seconds -= seconds
            self._take(request, len(images) - request.taken)

    def _check(self, images: Images) -> float:
        """The seconds that the images are expected to take, if they are accepted."""
        if not 0 < len(images) <= self.capacity or images.nbytes > MOST_BYTES_WAITING:
            raise DataError(
                f"The request has {len(images):,} images with {images.nbytes:,} bytes of pixels; 1 to "
                f"{self.capacity:,} with {MOST_BYTES_WAITING:,} bytes at most are accepted. Send them in several "
                f"requests."
            )
        seconds = len(images) * (self._seconds_an_image(images[0].nbytes) or 0.0)
        if seconds > MOST_SECONDS:
            raise Refused(
                413,
                f"The model would take about {seconds:.0f} s for these {len(images):,} images; at most "
                f"{MOST_SECONDS:.0f} s are accepted. Send fewer at a time, or smaller ones.",
            )
        if self._ending:
            raise Busy("The server is about to end.")
        if (
            self.queued + len(images) > self.capacity
            or self._bytes + images.nbytes > MOST_BYTES_WAITING
            or (self._seconds and self._seconds + seconds > MOST_SECONDS)
        ):
            raise Busy(f"{self.queued:,} images wait already. Try again in a moment.")
        return seconds

    def _take(self, request: _Request, count: int) -> Images:
        """The next images of a request; they no longer wait."""
        images = request.images[request.taken : request.taken + count]
        request.taken += len(images)
        self.queued -= len(images)
        self._bytes -= images.nbytes
        return images

    async def _run(self) -> None:
        """Compute in the thread what takes too long for the event loop, and what has come to wait behind it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            if self._waiting:
                if self._is_quick():
                    self._answer(batch := self._next_batch(), self._try(batch))
                    await asyncio.sleep(0)  # others' turn
                    continue
                batch, self._in_thread = self._next_batch(), True
                self._answer(batch, await loop.run_in_executor(self._thread, self._try, batch))
                self._in_thread = False
            elif self._ending:
                return
            else:
                self._wake.clear()

    def _is_quick(self) -> bool:
        """Whether the next batch can be computed in the event loop."""
        shape, requests = next(iter(self._waiting.items()))
        seconds = self._seconds_an_image(int(np.prod(shape)))
        return (
            not self._in_thread
            and seconds is not None
            and seconds * self._size(requests, shape) <= self.at_once_seconds
        )

    def _next_batch(self) -> Batch:
        """Images of one size, a few of each request in turn, so that a long request does not delay short ones."""
        shape = next(iter(self._waiting))
        requests = self._waiting.pop(shape)
        batch, room = [], self._size(requests, shape)
        while requests and room:
            request = requests.popleft()
            if request.result.done():  # cancelled, or the model failed for an earlier part
                continue
            images = self._take(request, min(TURN, room))
            room -= len(images)
            batch.append((request, images))
            if request.taken < len(request.images):
                requests.append(request)
        if requests:
            self._waiting[shape] = requests  # behind the other sizes
        return batch

    def _size(self, requests: Iterable[_Request], shape: Shape) -> int:
        """The largest size that the images that wait can fill."""
        waiting = sum(len(request.images) - request.taken for request in requests if not request.result.done())
        most = min(waiting, MOST_BYTES_IN_BATCH // int(np.prod(shape)))
        return max((size for size in self.sizes if size <= most), default=1)

    def _try(self, batch: Batch) -> Logits | Exception:
        """The logits of a batch, or what the model raised."""
        try:
            return self._compute([images for _, images in batch])
        except Exception as error:
            return error

    def _answer(self, batch: Batch, found: Logits | Exception) -> None:
        start = 0
        for request, images in batch:
            if request.result.done():  # cancelled
                pass
            elif isinstance(found, Exception):
                request.result.set_exception(found)
            else:
                request.logits.append(found[start : start + len(images)])
                if sum(map(len, request.logits)) == len(request.images):
                    request.result.set_result(np.concatenate(request.logits))
            start += len(images)

    def _seconds_an_image(self, size: int) -> float | None:
        """Expected time of the model for images of so many bytes; None if it has not been measured.

        From the last batches of images about as large, or else of the next smaller size that has been measured.

        The least of the measured times counts: whatever else happens on the machine only adds to them.
        """
        own = size.bit_length()
        nearest = max((known for known in self._times if known <= own), default=min(self._times, default=None))
        return None if nearest is None else min(self._times[nearest]) * 2 ** max(own - nearest, 0)

    def _compute(self, parts: list[Images]) -> Logits:
        if not parts:  # all requests were cancelled
            return np.empty((0, 0), np.float32)
        start, used = time.perf_counter(), time.thread_time()
        images = parts[0] if len(parts) == 1 else np.concatenate(parts)
        logits = self.predict(images)
        if len(logits) != len(images):
            raise RuntimeError(f"The model returned {len(logits)} rows of logits for {len(images)} images.")
        # Of the processor: waiting for it says nothing about the model
        self._times[images[0].nbytes.bit_length()].append((time.thread_time() - used) / len(images))
        if self.on_batch is not None:
            self.on_batch(len(images), time.perf_counter() - start)
        return logits
