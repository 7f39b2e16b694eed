"""A model on a port: the address is taken, then one process serves, or several."""

from collections.abc import Callable
from pathlib import Path

from foveola.serving.listening import address, listen
from foveola.serving.logs import write_logs
from foveola.serving.process import Application, Server
from foveola.serving.settings import Settings
from foveola.serving.supervisor import MakeApplication, supervise


def make_application(model_path: Path, settings: Settings) -> Application:
    """The inference API before an export, computed by one thread.

    Raises
    ------
    ModelError
        If the file is missing, damaged, altered or no export of Foveola's.
    """
    from foveola.exports import onnx
    from foveola.serving.app import create_app

    return create_app(onnx.open(model_path, threads=1), settings)


def serve(
    model_path: Path,
    settings: Settings,
    *,
    announce: Callable[[str], None],
    make: MakeApplication = make_application,
) -> None:
    """Serve until SIGINT or SIGTERM, answer what was accepted, and return; a second signal ends at once.

    Parameters
    ----------
    model_path : an export
    announce : told the server's URL, once it is ready
    make : the application; with several workers each makes its own, so that this must be importable by name

    Raises
    ------
    UserError
        If the address cannot be listened at, or the export cannot be used.
    Failure
        If the application does not start.
    """
    with listen(settings.host, settings.port) as listener:
        url = address(listener)
        if settings.workers > 1:
            supervise(model_path, settings, listener, on_ready=lambda: announce(url), make=make)
        else:
            application = make(model_path, settings)
            write_logs(requests=settings.log_requests)
            Server(application, settings, on_ready=lambda: announce(url)).run([listener])
