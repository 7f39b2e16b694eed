"""Teach: a page on which a classifier is made of pictures, trained, tried and corrected."""

import threading
from collections.abc import Callable
from importlib import util
from pathlib import Path

from foveola.errors import UserError
from foveola.files import expanded
from foveola.progress import console
from foveola.serving.settings import Settings
from foveola.workflow.serve import make_settings, signals_kept, warning_without_key

SHUTDOWN_SECONDS = 3
"""After a signal, requests are answered for so long; event streams have no end of their own."""

SEE_IMAGES = "add and see images"
"""What a server without a key lets others do."""


def teach(
    folder: str | Path = "pictures",
    settings: Settings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    announce: Callable[[str], None] | None = None,
    verbose: bool = True,
) -> None:
    """Serve a page for collecting images and training a classifier of them, until SIGINT (Ctrl+C) or SIGTERM.

    The project is an image folder: FOLDER/CLASS/IMAGE. `foveola.train` reads it like any other, and an existing image
    folder can be opened. Runs are written into `runs` beside it.

    Parameters
    ----------
    folder : made if it does not exist
    settings : every setting of the server, instead of host, port and api_key; one process serves it
    host : address to listen on; "0.0.0.0" for all
    port : 0 takes a free one
    api_key : require this key on every request
    announce : called with the page's URL when it is ready; by default the URL is printed on standard error
    verbose : print the URL

    Raises
    ------
    UserError
        If the folder is not an image folder without splits, cannot be written, or is open in another `teach`; or the
        address is not available.

    Examples
    --------
    >>> foveola.teach("pictures", port=0)                                # doctest: +SKIP
    """
    screen = console(verbose)
    if settings is None:
        settings = make_settings(
            host=host, port=port, api_key=api_key, shutdown_seconds=SHUTDOWN_SECONDS, log_requests=False
        )
        if (warning := warning_without_key(settings, SEE_IMAGES)) is not None:
            screen.print(warning, soft_wrap=True)
    if threading.current_thread() is not threading.main_thread():
        raise UserError("The server runs in the main thread, which receives signals. Call `teach` there.")
    if util.find_spec("torch") is None:
        screen.print(
            "Images can be collected, but training needs torch, which is not installed. Install it with: "
            "pip install 'foveola[train]'",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    from foveola.teaching.server import teach as run_server

    with signals_kept():
        run_server(
            expanded(folder), settings,
            announce=announce or (lambda url: screen.print(f"Open {url} (interrupt to stop)", soft_wrap=True)),
        )  # fmt: skip
