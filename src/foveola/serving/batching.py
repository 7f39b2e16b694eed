"""Requests gathered into batches for the model: whatever waits goes together, and nothing waits for more to come.

A batch has one of a few fixed sizes, at which an image's logits are the same, bit for bit, so that an answer does not
depend on its neighbours; those who are too many for one size make several. That ONNX Runtime computes so is no promise
of its own: with version 1.31 on x86-64 (AVX-512) it does for every recipe and size from 1 to 64, because it computes
convolutions image by image and multiplies matrices in an order that depends on the weights alone. A test looks at these
sizes on every machine that runs it.

A batch that takes the model a few milliseconds is computed in the event loop: between two threads that take turns at
the interpreter, each turn costs up to 5 ms. While few requests are under way, each is computed as it comes: of a batch,
the first is answered only after the last has been read.
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

Logits = NDArray[np.float32]
Shape = tuple[int, ...]

SIZES = (1, 2, 4, 8, 16, 32, 64)
# How many images a request puts into a batch before it is the next one's turn
TURN = 8
# A batch becomes floating-point numbers, four times as many bytes, and several layers of them
MOST_BYTES_IN_BATCH = 16 * 2**20
MOST_BYTES_WAITING = 256 * 2**20


class Busy(Exception):
    """There is no room for another request now; there will be in a moment."""


@dataclass(eq=False, slots=True)
class _Request:
    images: Images
    result: asyncio.Future[Logits]
    taken: int = 0  # images that the model has or had
    logits: list[Logits] = field(default_factory=list)


class Batcher:
    """A bounded queue before a model that one thread runs.

    Parameters
    ----------
    predict : logits, float32 n×K, of images, uint8 n×H×W×C; one batch at a time, in a thread of its own where it is
        expected to take longer than `at_once_seconds`
    capacity : how many images may wait at once
    sizes : of batches; 1 is among them
    at_once_seconds : of the processor, that may be spent in the event loop
    few : whether so few requests are under way that a single image is better not kept waiting for others
    on_batch : told of every batch, where it was computed: how many images it had, seconds that it took

    Attributes
    ----------
    queued : images that wait; those that the model is working on are no longer among them
    """

    def __init__(
        self,
        predict: Callable[[Images], Logits],
        capacity: int,
        sizes: Sequence[int] = SIZES,
        at_once_seconds: float = 0.005,
        few: Callable[[], bool] = lambda: False,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.predict = predict
        self.capacity = capacity
        self.sizes = tuple(sizes)
        self.at_once_seconds = at_once_seconds
        self.few = few
        self.on_batch = on_batch
        self.queued = 0
        self._bytes = 0
        self._seconds_a_byte: dict[int, deque[float]] = defaultdict(lambda: deque([1.0], maxlen=16))
        self._in_thread = False
        self._waiting: dict[Shape, deque[_Request]] = {}
        self._wake = asyncio.Event()
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
        """Accept no more, answer what was accepted."""
        self._ending = True
        self._wake.set()
        await self._task
        self._thread.shutdown()

    async def submit(self, images: Images) -> Logits:
        """Logits, float32 n×K, of a request's images, uint8 n×H×W×C of any size; they may share batches with others'.

        A request that is cancelled gives up its room at once.

        Raises
        ------
        Busy
            If the queue has no room.
        DataError
            If there are no images, or more than the queue holds when it is empty.
        Exception
            What the model raised at a batch with images of this request.
        """
        self._check(images)
        if len(images) == 1 and self._is_free() and self.few() and self._is_quick([images]):
            return self._compute([images])
        self.queued += len(images)
        self._bytes += images.nbytes
        request = _Request(images, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(images.shape[1:], deque()).append(request)
        self._wake.set()
        try:
            return await request.result
        finally:
            self._take(request, len(images) - request.taken)

    def _check(self, images: Images) -> None:
        if not 0 < len(images) <= self.capacity or images.nbytes > MOST_BYTES_WAITING:
            raise DataError(
                f"The request has {len(images):,} images with {images.nbytes:,} bytes of pixels; the server takes 1 to "
                f"{self.capacity:,} with {MOST_BYTES_WAITING:,} at most. Send them in several requests."
            )
        if self._ending:
            raise Busy("The server is about to end.")
        if self.queued + len(images) > self.capacity or self._bytes + images.nbytes > MOST_BYTES_WAITING:
            raise Busy(f"{self.queued:,} images wait already. Try again in a moment.")

    def _is_free(self) -> bool:
        """Whether nobody waits and the thread is not at work."""
        return not self._waiting and not self._in_thread

    def _take(self, request: _Request, count: int) -> Images:
        """The next images of a request, which no longer wait."""
        images = request.images[request.taken : request.taken + count]
        request.taken += len(images)
        self.queued -= len(images)
        self._bytes -= images.nbytes
        return images

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._waiting:
                await self._answer(self._next_batch())
            elif self._ending:
                return
            else:
                self._wake.clear()

    def _next_batch(self) -> list[tuple[_Request, Images]]:
        """Images of one size, a few of each request in turn, so that a long request does not hold up the short ones."""
        shape = next(iter(self._waiting))
        requests = self._waiting.pop(shape)
        batch, room = [], self._size(requests, shape)
        while requests and room:
            request = requests.popleft()
            if request.result.done():  # cancelled, or the model failed at an earlier part
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
        """The largest size that those who wait can fill."""
        waiting = sum(len(request.images) - request.taken for request in requests if not request.result.done())
        most = min(waiting, MOST_BYTES_IN_BATCH // int(np.prod(shape)))
        return max((size for size in self.sizes if size <= most), default=1)

    async def _answer(self, batch: list[tuple[_Request, Images]]) -> None:
        if not batch:  # all of them were cancelled
            return
        try:
            logits = await self._computed([images for _, images in batch])
        except Exception as error:
            for request, _ in batch:
                if not request.result.done():
                    request.result.set_exception(error)
            return
        start = 0
        for request, images in batch:
            request.logits.append(logits[start : start + len(images)])
            start += len(images)
            if not request.result.done() and sum(map(len, request.logits)) == len(request.images):
                request.result.set_result(np.concatenate(request.logits))

    async def _computed(self, parts: list[Images]) -> Logits:
        if self._is_quick(parts):
            return self._compute(parts)
        self._in_thread = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, parts)
        finally:
            self._in_thread = False

    def _is_quick(self, parts: list[Images]) -> bool:
        """Whether the images of a batch are expected to take the model little time."""
        return sum(images.nbytes for images in parts) * min(self._times(parts)) <= self.at_once_seconds

    def _times(self, parts: list[Images]) -> deque[float]:
        """Seconds a byte of the last batches of images about as large as these, within a factor of two.

        The least of them counts: what else happens on the machine only ever adds to it.
        """
        return self._seconds_a_byte[parts[0][0].nbytes.bit_length()]

    def _compute(self, parts: list[Images]) -> Logits:
        start, used = time.perf_counter(), time.thread_time()
        images = parts[0] if len(parts) == 1 else np.concatenate(parts)
        logits = self.predict(images)
        if len(logits) != len(images):
            raise RuntimeError(f"The model answered {len(images)} images with {len(logits)} rows of logits.")
        # Of the processor: waiting for it says nothing about the model
        self._times(parts).append((time.thread_time() - used) / images.nbytes)
        if self.on_batch is not None:
            self.on_batch(len(images), time.perf_counter() - start)
        return logits
