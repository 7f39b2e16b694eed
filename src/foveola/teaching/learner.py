"""Trainings, exports and audits of a project, and the model of the newest run."""

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foveola.errors import FoveolaError
from foveola.runs import STATUS_FILE
from foveola.serving.refusals import Refused
from foveola.serving.settings import Settings
from foveola.teaching import commands
from foveola.teaching.current import MODEL, Current, OpenedRun
from foveola.teaching.ending import call_at_end
from foveola.teaching.events import Events
from foveola.teaching.findings import read_findings, remaining
from foveola.teaching.jobs import Job, JobRunning, Jobs, JobStopped, Kind, Progress
from foveola.teaching.listing import Picture
from foveola.teaching.project import Project
from foveola.teaching.snapshot import SNAPSHOTS, keep_snapshot, take_snapshot
from foveola.teaching.summary import Summary, summarize
from foveola.teaching.unfinished import Unfinished, can_go_on, find_unfinished

DEFAULT_SECONDS = 60.0
MIN_PICTURES = 2
"""Of a class."""

# A connection on which nothing is sent is taken for stuck some time later
REPORT_SECONDS = 10.0

log = logging.getLogger(__name__)


class Learner:
    """What a studio learns from its project: jobs, and the model that they have led to.

    Parameters
    ----------
    project : whose pictures are learnt from
    settings : limits of requests to the model
    """

    def __init__(self, project: Project, settings: Settings) -> None:
        self.project = project
        self.events = Events({"project": dict, "job": self._job_document})
        self.jobs = Jobs(lambda: self.events.changed("job"))
        self.current = Current(settings, lambda: self.events.changed("project"))
        self._reports = Jobs()
        self._unfinished: Unfinished | None = None
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._restore_signals: Callable[[], None] = lambda: None
        project.on_change.append(lambda: self.events.changed("project"))

    async def start(self) -> None:
        """Open the newest run, and look for a training that was interrupted."""
        self._loop = loop = asyncio.get_running_loop()
        self.events.open()
        self._restore_signals = call_at_end(lambda: loop.call_soon_threadsafe(self._end))
        newest = await asyncio.to_thread(self._newest)
        if newest is not None:
            await self.current.use(newest)
        self._unfinished = await asyncio.to_thread(self._find_unfinished)

    def _end(self) -> None:
        """Let nothing delay the end of the server: streams of events, a job."""
        self._ending = True
        self.events.close()
        self.jobs.stop()

    async def stop(self) -> None:
        """End the running job, and answer what was accepted."""
        self._restore_signals()
        self._end()
        await asyncio.gather(asyncio.to_thread(self.jobs.close), asyncio.to_thread(self._reports.close))
        await self.current.close()

    # What the project document says

    def fields(self) -> dict[str, Any]:
        """Model, job, summary, commands, and the name of a training that can be gone on with."""
        run, summary = self.current.run, self.summary()
        trained = None if run is None else datetime.fromtimestamp(run.trained, UTC).isoformat(timespec="seconds")
        return {
            "model": run and {"run": run.path.name, "classes": run.model.class_names, "trained": trained},
            "job": self._job_document(),
            "summary": summary and summary.model_dump(),
            "commands": self.commands(),
            "unfinished": self._unfinished_name(),
        }

    def summary(self) -> Summary | None:
        """What the current run means; None if there is none."""
        run = self.current.run
        if run is None:
            return None
        found = run.mistakes
        rows = [] if found is None else [(self.project.picture_at(row.picture), row) for row in found.mistakes]
        mistakes = [(picture.id, row) for picture, row in rows if picture is not None]
        counts = self.project.counts() if found is None else found.counts
        return summarize(run.path.name, run.status, run.evaluation, counts, mistakes)

    def commands(self) -> dict[str, str]:
        """What to type in a terminal for the same, by button."""
        folder, run = self.project.folder, self.current.run
        pictures = self.project.all_pictures()
        found = {
            "train": self._training_command(folder, commands.next_run(folder), DEFAULT_SECONDS, "auto", pictures),
            "audit": commands.audit(folder, commands.audit_folder(folder), grouped=_has_recordings(pictures)),
        }
        if run is not None:
            found |= {
                "evaluate": ["evaluate", str(run.path), str(folder)],
                "export_onnx": commands.export(run.path, "onnx"),
                "export_web": commands.export(run.path, "web"),
                "report": commands.report(run.path),
            }
        return {name: commands.shown(command) for name, command in found.items()}

    def job(self) -> Job | None:
        """The job that runs, or ran last; of an audit, what was dealt with since is left out."""
        job = self.jobs.job
        if job is not None and job.kind == "audit" and job.result is not None:
            return job.model_copy(update={"result": remaining(job.result, self.project)})
        return job

    def _job_document(self) -> dict[str, Any] | None:
        job = self.job()
        return None if job is None else job.model_dump()

    # Jobs

    def train(self, seconds: float | None, recipe: str) -> Job:
        """Start a training.

        Parameters
        ----------
        seconds : for everything; None for as long as the recipe says
        recipe : "auto" or a recipe's name

        Raises
        ------
        Refused
            If pictures are missing, or a job is running.
        """
        counts = self.project.counts()
        if (missing := missing_pictures(counts)) is not None:
            raise Refused(409, missing)

        def work(progress: Progress) -> dict[str, Any]:
            run = commands.make_next_run(self.project.folder)
            # From the snapshot: images that are added while it is read change nothing
            command = self._training_command(self._snapshot(run), run, seconds, recipe, self.project.all_pictures())
            return self._trained(progress, run, command)

        return self._start("training", work)

    def resume(self) -> Job:
        """Go on with a training that was interrupted.

        Raises
        ------
        Refused
            If there is none, its images have changed, or a job is running.
        """
        unfinished = self._unfinished
        if unfinished is None or not unfinished.has_read(self.project.all_pictures()):
            raise Refused(
                409,
                "There is no interrupted training to go on with, or images have changed since it began. Start a new "
                "training.",
            )

        def work(progress: Progress) -> dict[str, Any]:
            self._unfinished = None
            return self._trained(progress, unfinished.run, commands.resume(unfinished.run), resumed=True)

        return self._start("training", work)

    def _training_command(
        self, folder: Path, run: Path, seconds: float | None, recipe: str, pictures: Sequence[Picture]
    ) -> Sequence[str]:
        return commands.train(
            folder, run, seconds, recipe,
            pictures=len(pictures), grouped=_has_recordings(pictures),
            measured=_can_be_measured(self.project),
        )  # fmt: skip

    def _trained(
        self, progress: Progress, run: Path, command: Sequence[str], *, resumed: bool = False
    ) -> dict[str, Any]:
        """Train, export, look at the mistakes, and answer with the new model.

        If that fails, nothing is left but a training that can be gone on with; if it is stopped, nothing.
        """
        snapshot = self._snapshot(run)
        mistakes = _mistakes_file(snapshot)
        try:
            if resumed:
                progress.say("Reading the images")
            else:
                progress.say("Reading the images, and measuring how fast this machine is")
                take_snapshot(self.project.folder, snapshot)
            progress.run("foveola", *command, "--callback", commands.ANNOUNCE)
            progress.say("Saving the model")
            progress.run("foveola", *commands.export(run, "onnx", snapshot))
            progress.say("Looking at the mistakes")
            try:
                progress.run("foveola.teaching.held_out", str(run), str(snapshot), str(mistakes))
            except FoveolaError as error:  # the model is good all the same
                log.warning("The mistakes of %s are not known: %s", run, error)
            opened = OpenedRun(run, mistakes)
        except BaseException as error:
            stopped = isinstance(error, JobStopped) and not self._ending
            if stopped or not can_go_on(snapshot, run):
                self._discard(run)
            else:
                self._unfinished = self._find_unfinished()
            raise
        self._unfinished = None
        keep_snapshot(snapshot)
        assert self._loop is not None, "the server has started"
        asyncio.run_coroutine_threadsafe(self.current.use(opened), self._loop).result()
        return {"run": run.name}

    def _discard(self, run: Path) -> None:
        snapshot = self._snapshot(run)
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(snapshot, ignore_errors=True)
        with suppress(OSError):
            _mistakes_file(snapshot).unlink(missing_ok=True)

    def export(self, format: str) -> Job:
        """Start an export of the current run; its result has the path. Raises as `train`."""
        run = self._run()
        path = run.path / (MODEL if format == "onnx" else Path("exports", format))

        def work(progress: Progress) -> dict[str, Any]:
            if not path.is_file() and not (path / "index.html").is_file():
                progress.say("Writing the web page" if format == "web" else "Saving the model")
                progress.run("foveola", *commands.export(run.path, format, self._data(run)))
            return {"path": str(path)}

        return self._start("export", work)

    def audit(self) -> Job:
        """Start a search for wrong labels and copies. Raises as `train`."""
        if (missing := missing_pictures(self.project.counts())) is not None:
            raise Refused(409, missing)
        grouped = _has_recordings(self.project.all_pictures())

        def work(progress: Progress) -> dict[str, Any]:
            out = self.project.hidden / "audit"
            progress.say("Checking the images")
            progress.run("foveola", *commands.audit(self.project.folder, out, grouped=grouped))
            return read_findings(out, self.project)

        return self._start("audit", work)

    def _start(self, kind: Kind, work: Callable[[Progress], dict[str, Any]]) -> Job:
        try:
            return self.jobs.start(kind, work)
        except JobRunning as error:
            raise Refused(409, str(error)) from None

    def stop_job(self) -> Job:
        """Have the running job end.

        Raises
        ------
        Refused
            If none is running.
        """
        if not self.jobs.busy:
            raise Refused(409, "Nothing is running that could be stopped.")
        job = self.jobs.stop()
        assert job is not None, "one was running"
        return job

    async def stopped(self) -> None:
        """Have the running job end, and wait for that."""
        self.jobs.stop()
        await asyncio.to_thread(self.jobs.wait)

    # The report

    async def report(self) -> bytes | None:
        """The report of the current run, written if there is none yet; None if that takes longer.

        Raises
        ------
        Refused
            If there is no run, or its report cannot be written.
        """
        run = self._run()
        page = run.path / "report.html"
        if not page.is_file():
            with suppress(JobRunning):  # another request has started it
                command = commands.report(run.path, self._data(run))
                self._reports.start("report", lambda progress: progress.run("foveola", *command))
            if not await asyncio.to_thread(self._reports.wait, REPORT_SECONDS):
                return None
        try:
            return await asyncio.to_thread(page.read_bytes)
        except OSError:
            job = self._reports.job
            why = "" if job is None or job.error is None else f" {job.error}"
            raise Refused(409, f"The report could not be written.{why}") from None

    # What is where

    def _newest(self) -> OpenedRun | None:
        """The newest run that can be used; damaged ones are logged."""
        for path in commands.runs_of(self.project.folder):
            if (path / STATUS_FILE).is_file() and (path / MODEL).is_file():
                try:
                    return OpenedRun(path, _mistakes_file(self._snapshot(path)))
                except FoveolaError as error:
                    log.warning("A run is left out: %s", error)
        return None

    def _find_unfinished(self) -> Unfinished | None:
        """The newest training that was interrupted; one that a later training has followed has no snapshot."""
        runs = [path for path in commands.runs_of(self.project.folder) if not (path / MODEL).is_file()]
        return find_unfinished(runs, self.project.hidden / SNAPSHOTS)

    def _unfinished_name(self) -> str | None:
        unfinished = self._unfinished
        if unfinished is None or not unfinished.has_read(self.project.all_pictures()):
            return None
        return unfinished.run.name

    def _run(self) -> OpenedRun:
        if self.current.run is None:
            raise Refused(409, "There is no model yet. Add images to two classes, and train.")
        return self.current.run

    def _snapshot(self, run: Path) -> Path:
        return self.project.hidden / SNAPSHOTS / run.name

    def _data(self, run: OpenedRun) -> Path | None:
        """The images that a run was trained on, if they are still known."""
        snapshot = self._snapshot(run.path)
        return snapshot if snapshot.is_dir() else None


def missing_pictures(counts: Mapping[str, int]) -> str | None:
    """What a training needs before it can begin; None if there is enough.

    Examples
    --------
    >>> missing_pictures({"cup": 12})
    'Make a second class, and add images to it.'
    >>> missing_pictures({"cup": 12, "glass": 0})
    'The class “glass” has no images. Add some, or delete it.'
    >>> missing_pictures({"cup": 12, "glass": 9}) is None
    True
    """
    if not counts:
        return "Make two classes, and add images to them."
    if len(counts) < 2:
        return "Make a second class, and add images to it."
    for name, count in counts.items():
        if not count:
            return f"The class “{name}” has no images. Add some, or delete it."
        if count < MIN_PICTURES:
            return f"The class “{name}” has only one image. Add more."
    return None


def _has_recordings(pictures: Iterable[Picture]) -> bool:
    return any(picture.recording is not None for picture in pictures)


def _can_be_measured(project: Project) -> bool:
    """Whether each class has recordings or single images for every split."""
    return all(_has_units(project.pictures(name), commands.MIN_UNITS) for name in project.counts())


def _has_units(pictures: Iterable[Picture], count: int) -> bool:
    units: set[str] = set()
    for picture in pictures:
        units.add(picture.recording or picture.id)
        if len(units) >= count:
            return True
    return False


def _mistakes_file(snapshot: Path) -> Path:
    return snapshot.with_name(f"{snapshot.name}.json")
