"""A server in a process of its own, which ends with the process that started it: for notebooks and scripts.

python -m foveola.serving.background MODEL    settings as a line of JSON on standard input, whose end ends the server
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from foveola.errors import Failure, FoveolaError, UserError
from foveola.serving.settings import Settings

# After a signal, beyond the time in which requests are answered
_EXTRA_SECONDS = 5


class BackgroundServer:
    """A running server; it ends with `stop`, at the end of a `with` block, or with this Python process.

    Attributes
    ----------
    url : where it answers, such as http://127.0.0.1:8000

    Raises
    ------
    UserError
        If the address is not available, or the export cannot be used.
    Failure
        If the server cannot start.
    """

    def __init__(self, model: Path, settings: Settings) -> None:
        self._seconds = settings.shutdown_seconds + _EXTRA_SECONDS
        # In a session of its own, on Windows in a group, so that Ctrl+C, or Jupyter's "interrupt", does not end it
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(model)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )  # fmt: skip
        atexit.register(self.stop)
        self.url = self._start(settings)

    def _start(self, settings: Settings) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None, "they are pipes"
        key = settings.api_key
        document = settings.model_dump(mode="json") | {"api_key": None if key is None else key.get_secret_value()}
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "{}")
        except BaseException as error:  # also an interrupt while it starts
            self.stop()
            if isinstance(error, OSError | ValueError):
                raise Failure(f"The server cannot start: {error}. Its messages say why.") from None
            raise
        if "url" in answer:
            return str(answer["url"])
        self.stop()
        kind = UserError if answer.get("input") else Failure
        raise kind(answer.get("error", "The server ended while it started; its messages say why."))

    def stop(self) -> None:
        """End the server; requests that it has received are answered."""
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            self._process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"BackgroundServer({self.url}{'' if self._process.poll() is None else ', stopped'})"


def main() -> None:
    """The other process: serve, and print the URL, or what is wrong, as a line of JSON."""
    from foveola.serving.server import serve

    settings = Settings.model_validate_json(sys.stdin.readline())

    def report(**document: object) -> None:
        print(json.dumps(document), flush=True)

    def announce(url: str) -> None:
        report(url=url)
        threading.Thread(target=_end_with_input, daemon=True).start()

    try:
        serve(Path(sys.argv[1]), settings, announce=announce)
    except FoveolaError as error:
        report(error=str(error), input=isinstance(error, UserError))
        sys.exit(error.exit_code)


def _end_with_input() -> None:
    """Standard input ends with the process that has started this one."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
