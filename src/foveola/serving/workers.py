"""A few threads for work that would hold up the event loop, and a short queue before them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from foveola.serving.batching import Busy

Result = TypeVar("Result")


class Workers:
    """So many threads compute at once, which bounds the memory; so many callers wait, which bounds the time.

    Parameters
    ----------
    task : what the threads do, for messages
    threads : how many
    waiting : callers beyond those; further ones are turned away
    """

    def __init__(self, task: str, threads: int, waiting: int) -> None:
        self._task = task
        self._room = threads + waiting
        self._callers = 0
        self._threads = ThreadPoolExecutor(threads, task)

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Call `work` with the arguments in a thread.

        Raises
        ------
        Busy
            At once, if too many wait already.
        """
        if self._callers >= self._room:
            raise Busy(f"Too many requests wait for {self._task} already. Try again in a moment.")
        self._callers += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))
        finally:
            self._callers -= 1

    def close(self) -> None:
        """Let running work end, and begin none."""
        self._threads.shutdown(wait=False, cancel_futures=True)
