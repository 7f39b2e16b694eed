"""Progress of long operations on standard error: bars in a terminal, plain lines otherwise."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich import progress as bars
from rich.console import Console


class Progress(Protocol):
    """Callable that receives progress: `done` of `total` (None if unknown) units of `what`."""

    def __call__(self, done: int, total: int | None, what: str) -> None: ...


def no_progress(done: int, total: int | None, what: str) -> None:
    """Ignore progress."""


# Minimum interval between progress lines, outside of a terminal
MIN_SECONDS_BETWEEN_LINES = 5.0


def console(verbose: bool) -> Console:
    """Console on standard error, because standard output is for results only; silent unless `verbose`."""
    return Console(stderr=True, quiet=not verbose)


@contextmanager
def show_progress(target: Console) -> Iterator[Progress]:
    """Show the progress of loading data inside the block."""
    if not target.is_terminal:
        yield _Lines(target)
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=target, transient=True) as bar:
        yield _Bars(bar)


class _Bars:
    def __init__(self, bar: bars.Progress) -> None:
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
        self.last_printed = time.monotonic()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if time.monotonic() - self.last_printed >= MIN_SECONDS_BETWEEN_LINES:
            self.last_printed = time.monotonic()
            self.target.print(f"{what}: {done:,}" + (f" of {total:,}" if total else ""), highlight=False)
