"""What is printed: consoles for results and progress, without what a terminal would obey in names from data."""

import html
import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich import progress as bars
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from foveola.text import printable


class Progress(Protocol):
    """Callable that receives progress: `done` of `total` (None if unknown) units of `what`."""

    def __call__(self, done: int, total: int | None, what: str) -> None: ...


def no_progress(done: int, total: int | None, what: str) -> None:
    """Ignore progress."""


def duration_text(seconds: float) -> str:
    """A time as a person would say it.

    Examples
    --------
    >>> duration_text(3.21), duration_text(119.96), duration_text(1742.2), duration_text(7321)
    ('3.2 s', '2 min 0 s', '29 min 2 s', '2 h 2 min')
    """
    if round(seconds, 1) < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


# Minimum interval between progress lines, outside of a terminal
MIN_SECONDS_BETWEEN_LINES = 5.0


def console(verbose: bool) -> Console:
    """Console on standard error, because standard output is for results only; silent unless `verbose`.

    In a notebook it is standard output, because Jupyter shows standard error on red.
    """
    return _without_control_characters(
        Console(
            stderr=not in_notebook(),
            quiet=not verbose,
            highlight=False,
            markup=False,
            force_jupyter=False,
            force_terminal=False if _of_jupyter() else None,
        )
    )


def in_notebook() -> bool:
    """Whether this process runs the cells of a Jupyter notebook."""
    return Console().is_jupyter


def _of_jupyter() -> bool:
    """Whether this is Jupyter's kernel, or a command that one of its cells has started with "!".

    Both look like a terminal to rich, but show what should move a cursor as further lines.
    """
    return "JPY_PARENT_PID" in os.environ or in_notebook()


def results_console() -> Console:
    """Console on standard output."""
    # A pipe has no width of its own; a table that is folded at 80 columns cannot be searched
    width = None if Console().is_terminal else 160
    return _without_control_characters(Console(width=width, highlight=False, markup=False))


def _without_control_characters(target: Console) -> Console:
    target.push_render_hook(_PrintableHook())
    return target


class _PrintableHook(RenderHook):
    """Called by a console with everything that it is about to print."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    """Anything printed, without the control characters of its text; rich's own, for colours and bars, stay."""

    def __init__(self, renderable: RenderableType) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


@contextmanager
def show_progress(target: Console) -> Iterator[Progress]:
    """Show the progress of loading data inside the block."""
    if in_notebook() and not target.quiet:
        bar_in_cell = NotebookBar()
        try:
            yield bar_in_cell
        finally:
            bar_in_cell.close()
        return
    if not target.is_terminal:
        yield _Lines(target)
        return
    columns = (
        bars.TextColumn("{task.description}", markup=False),
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
            self.task = self.bar.add_task(printable(what), total=total)
        self.bar.update(self.task, completed=done, total=total)


class NotebookBar:
    """Progress below a notebook's cell, in one place, which is empty again at the end; nothing of short work."""

    _FIRST_SECONDS, _SECONDS_BETWEEN = 0.5, 0.25

    def __init__(self) -> None:
        self._next = time.monotonic() + self._FIRST_SECONDS
        self._shown: Any = None

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + self._SECONDS_BETWEEN
        numbers = f"{done:,}" + (f" of {total:,}" if total else "")
        extent = f'value="{done}" max="{total}" ' if total else ""
        text = html.escape(printable(f"{what}: {numbers}"))
        self._show(f'<progress {extent}style="width: 16em; vertical-align: middle"></progress> {text}')

    def close(self) -> None:
        """Leave the place empty."""
        if self._shown is not None:
            self._show("")

    def _show(self, content: str) -> None:
        jupyter: Any = importlib.import_module("IPython.display")  # there, where there are notebooks
        if self._shown is None:
            self._shown = jupyter.display(jupyter.HTML(content), display_id=True)
        else:
            self._shown.update(jupyter.HTML(content))


class _Lines:
    def __init__(self, target: Console) -> None:
        self.target = target
        self.last_printed = time.monotonic()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if time.monotonic() - self.last_printed >= MIN_SECONDS_BETWEEN_LINES:
            self.last_printed = time.monotonic()
            self.target.print(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))
