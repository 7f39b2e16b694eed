"""What the routes share: the project, its pictures, the job that runs, the current model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import Request

from foveola.serving.metrics import Metrics
from foveola.serving.settings import Settings
from foveola.serving.threads import ThreadPool
from foveola.teaching.copies import Copies
from foveola.teaching.doctor import Doctor
from foveola.teaching.pictures import Thumbnails
from foveola.teaching.project import Project
from foveola.teaching.survey import Survey
from foveola.text import escape_surrogates


class Part(Protocol):
    """What adds to a studio: the jobs, the current model. Its fields appear in the project document."""

    def fields(self) -> dict[str, Any]:
        """Fields of the project document, such as {"job": …}."""
        ...

    async def start(self) -> None:
        """Called when the server starts."""
        ...

    async def stop(self) -> None:
        """Called when the server ends; what it has started must be gone when this returns."""
        ...


class Studio:
    """A project at work.

    Attributes
    ----------
    parts : by name, such as "jobs"; started and stopped with the server
    """

    def __init__(self, project: Project, settings: Settings) -> None:
        self.project = project
        self.settings = settings
        self.metrics = Metrics()
        self.thumbnails = Thumbnails(project.hidden / "thumbnails")
        # Two large images at once occupy two cores, and need half a gigabyte while they are decoded
        self.decoding = ThreadPool("decoding", threads=2, waiting=64)
        self.thumbnailing = ThreadPool("thumbnails", threads=2, waiting=512)
        self.storing = ThreadPool("storage", threads=2, waiting=128)
        self.copies = Copies(project.hidden / "fingerprints", project.picture_with)
        self.doctor = Doctor()
        self.parts: dict[str, Part] = {"survey": Survey(project, self.copies, self.doctor)}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the parts; at the end, stop them in reverse."""
        started: list[Part] = []
        try:
            await self.storing.run(self.thumbnails.remove_stale, {one.key for one in self.project.all_pictures()})
            for part in self.parts.values():
                await part.start()
                started.append(part)
            yield
        finally:
            for part in reversed(started):
                await part.stop()
            self.project.close()
            for threads in (self.decoding, self.thumbnailing, self.storing):
                threads.close()

    def document(self) -> dict[str, Any]:
        """The project document."""
        project = self.project
        with project.lock:
            counts = project.counts()
            document = {
                "name": escape_surrogates(project.folder.name),
                "folder": escape_surrogates(str(project.folder)),
                "classes": [{"name": name, "count": count} for name, count in counts.items()],
                "pictures": sum(counts.values()),
                "undo": project.undo_text,
                "bin": project.bin_size._asdict(),
                "notes": project.notes,
            }
        document |= {"model": None, "job": None, "summary": None, "commands": {}, "unfinished": None}
        for part in self.parts.values():
            document |= part.fields()
        return document


def studio_of(request: Request) -> Studio:
    """The studio of the application that received a request."""
    studio: Studio = request.app.state.studio
    return studio
