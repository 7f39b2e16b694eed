"""The survey: a thread that looks at pictures which nobody has sent, since copies and what is usual must be known."""

import logging
import threading
import time
from typing import Any

from foveola.errors import DataError
from foveola.inputs.decode import read_first_frame
from foveola.teaching.copies import Copies, fingerprint
from foveola.teaching.doctor import Doctor
from foveola.teaching.listing import Picture
from foveola.teaching.project import MAX_PICTURES, Project

# Of the thread's time, at most this fraction is work: requests and a training come first
_WORKING_FRACTION = 0.5
_PAUSE_SECONDS = 0.5
_STOP_SECONDS = 2.0


class Survey:
    """Reads a project's pictures after the start, and those that others put into the folder.

    Parameters
    ----------
    project, copies, doctor : whose pictures are read, and what learns of them
    """

    def __init__(self, project: Project, copies: Copies, doctor: Doctor) -> None:
        self._project, self._copies, self._doctor = project, copies, doctor
        self._changed, self._stopping = threading.Event(), threading.Event()
        self._unreadable: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="survey", daemon=True)
        project.on_change.append(self._changed.set)

    def fields(self) -> dict[str, Any]:
        """Nothing that the page must know."""
        return {}

    async def start(self) -> None:
        """Begin, in a thread."""
        self._changed.set()
        self._thread.start()

    async def stop(self) -> None:
        """End after the picture that is being read."""
        self._stopping.set()
        self._changed.set()
        self._thread.join(_STOP_SECONDS)

    def look(self) -> None:
        """Read all pictures that are not known yet."""
        pictures = self._project.all_pictures()
        if self._doctor.is_outdated(len(pictures)):
            self._doctor.learn(pictures)
        for picture in pictures[:MAX_PICTURES]:
            if self._stopping.is_set():
                return
            if picture.key not in self._unreadable and not self._copies.knows(picture):
                started = time.perf_counter()
                self._read(picture)
                self._stopping.wait((time.perf_counter() - started) * (1 / _WORKING_FRACTION - 1))

    def _read(self, picture: Picture) -> None:
        try:
            found = fingerprint(read_first_frame(picture.path).pixels)
        except DataError:
            self._unreadable.add(picture.key)
            return
        if not self._copies.knows(picture):  # it has not been read by a request meanwhile
            self._copies.add(picture, found)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._changed.wait()
            self._stopping.wait(_PAUSE_SECONDS)  # pictures come several at a time
            self._changed.clear()
            try:
                self.look()
            except Exception:  # what is read for convenience must not end with one odd file
                logging.getLogger(__name__).exception("The images cannot be surveyed")
