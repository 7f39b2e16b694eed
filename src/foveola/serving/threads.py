"""Thread pools with a bounded queue, for work that would block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from foveola.serving.refusals import Busy

Result = TypeVar("Result")


class ThreadPool:
    """A few threads, which bound memory, and a short queue, which bounds waiting.

    Parameters
    ----------
    task : what the threads do, for messages
    threads : how many
    waiting : calls that may wait for a thread; further ones are rejected
    """

    def __init__(self, task: str, threads: int, waiting: int) -> None:
        self._task = task
        self._room = threads + waiting
        self._calls = 0
        self._executor = ThreadPoolExecutor(threads, task)

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Call `work` with the arguments in a thread.

        Raises
        ------
        Busy
            At once, if too many calls wait already.
        """
        if self._calls >= self._room:
            raise Busy(f"Too many requests wait for {self._task} already. Try again in a moment.")
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *arguments))
        finally:
            self._calls -= 1

    def close(self) -> None:
        """Drop calls that wait; running ones are not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
