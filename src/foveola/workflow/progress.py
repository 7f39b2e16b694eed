"""How far reading and training have come, on standard error: bars in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from foveola.datasets import Progress as DataProgress

# Elsewhere than in a terminal, a line is printed no more often
SECONDS_BETWEEN_LINES = 5.0


def console(verbose: bool) -> Console:
    """Standard error, so that standard output holds results alone; silent unless `verbose`."""
    return Console(stderr=True, quiet=not verbose)


@contextmanager
def reading(target: Console) -> Iterator[DataProgress]:
    """Report on the reading and downloading of data inside the block."""
    if not target.is_terminal:
        yield _Lines(target)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=target, transient=True) as bar:
        yield _Bars(bar)


class _Bars:
    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.what = ""

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if what != self.what:
            self.what = what
            self.task = self.bar.add_task(what, total=total)
        self.bar.update(self.task, completed=done, total=total)


class _Lines:
    def __init__(self, target: Console) -> None:
        self.target = target
        self.printed = time.monotonic()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if time.monotonic() - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            self.target.print(f"{what}: {done:,}" + (f" of {total:,}" if total else ""), highlight=False)
