"""The model of the newest run, which answers requests; a new one takes its place while the old one still answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI

from foveola.documents import Evaluation, RunStatus
from foveola.errors import FoveolaError, ModelError
from foveola.exports import onnx
from foveola.exports.onnx import OnnxModel
from foveola.runs import Run
from foveola.serving.refusals import Refused
from foveola.serving.service import Service
from foveola.serving.settings import Settings
from foveola.teaching.held_out import Mistakes

MODEL = Path("exports", "model.onnx")
"""In a run."""


class OpenedRun:
    """A finished run with its export, read whole.

    Parameters
    ----------
    path : of the run
    mistakes : file with those on its test pictures

    Raises
    ------
    ModelError
        If it is not finished, or something in it is missing or damaged.

    Attributes
    ----------
    mistakes : None if they were not looked for
    """

    def __init__(self, path: Path, mistakes: Path) -> None:
        run = Run.open(path)
        if run.status.status != "done":
            raise ModelError(f"The training of {path} is not finished. Train again.")
        self.path = path
        self.status: RunStatus = run.status
        self.evaluation: Evaluation | None = run.evaluation if run.evaluation_path.is_file() else None
        self.model: OnnxModel = onnx.open(path / MODEL, threads=1)
        self.trained = run.model_path.stat().st_mtime
        self.mistakes = _read_mistakes(mistakes)


def _read_mistakes(file: Path) -> Mistakes | None:
    try:
        return Mistakes.from_json(file.read_bytes(), str(file))
    except (OSError, FoveolaError):
        return None


class _Served:
    """A model at work, and the requests that it is answering."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.requests = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.stack = AsyncExitStack()


class Current:
    """The run whose model answers now.

    Parameters
    ----------
    settings : limits of requests
    on_change : called when another run has become the current one
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None] = lambda: None) -> None:
        self.run: OpenedRun | None = None
        self.on_change = on_change
        self._settings = settings
        self._served: _Served | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def use(self, run: OpenedRun) -> None:
        """Answer with the model of this run from now on; requests under way are answered by the one before."""
        served = _Served(Service(run.model, self._settings, None))
        await served.stack.enter_async_context(served.service.running())
        before, self._served, self.run = self._served, served, run
        if before is not None:
            task = asyncio.create_task(_retire(before))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self.on_change()

    @asynccontextmanager
    async def answering(self, app: FastAPI) -> AsyncIterator[Service]:
        """The service of the current model, which `service_of` gives, too, and which stays until the block ends.

        Raises
        ------
        Refused
            If there is no model yet.
        """
        served = self._served
        if served is None:
            raise Refused(409, "There is no model yet. Add images to two classes, and train.")
        app.state.service = served.service
        served.requests += 1
        served.idle.clear()
        try:
            yield served.service
        finally:
            served.requests -= 1
            if not served.requests:
                served.idle.set()

    async def close(self) -> None:
        """Answer what was accepted."""
        served, self._served = self._served, None
        for task in list(self._retiring):
            with suppress(Exception):
                await task
        if served is not None:
            await _retire(served)


async def _retire(served: _Served) -> None:
    await served.idle.wait()
    await served.stack.aclose()
