"""Training images that are read batch by batch: each while the batches before it are being trained on."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from foveola.lazy import Images, Indices, LazyImages

MAX_BATCHES = 8
MAX_BYTES = 2**26
"""So many batches are read ahead, unless they have more bytes; one always is."""


class ReadAhead:
    """Lazy images in the place of a tensor on a device: `images[indices]` gives uint8 N×H×W×C.

    Parameters
    ----------
    images : where they are read from
    device : where batches are wanted
    """

    def __init__(self, images: LazyImages, device: torch.device) -> None:
        self.images, self.device = images, device
        self.reader = ThreadPoolExecutor(1, "read-ahead")
        self.announced: Iterator[Indices] = iter(())
        self.reading: deque[tuple[Indices, Future[Images]]] = deque()

    def __len__(self) -> int:
        return len(self.images)

    def announce(self, batches: Iterable[Tensor]) -> None:
        """Say which batches will be asked for, in which order; what was announced before is forgotten."""
        self.reading.clear()
        self.announced = (indices.cpu().numpy() for indices in batches)
        self._read_next()

    def __getitem__(self, indices: Tensor) -> Tensor:
        wanted = indices.cpu().numpy()
        if self.reading and np.array_equal(self.reading[0][0], wanted):
            images = self.reading.popleft()[1].result()
            self._read_next()
        else:
            images = self.images[wanted]
        return torch.from_numpy(images).to(self.device)

    def _read_next(self) -> None:
        """Keep the reader busy."""
        while len(self.reading) < MAX_BATCHES:
            ahead = sum(len(indices) for indices, _ in self.reading) * self.images.size // len(self.images)
            if self.reading and ahead > MAX_BYTES:
                return
            indices = next(self.announced, None)
            if indices is None:
                return
            self.reading.append((indices, self.reader.submit(self.images.__getitem__, indices)))
