"""A model on a port: the address is taken, then one process serves, or several."""

import errno
import socket
from collections.abc import Callable
from pathlib import Path

from foveola.errors import UserError
from foveola.serving.logs import write_logs
from foveola.serving.process import BACKLOG, Application, Server
from foveola.serving.settings import Settings
from foveola.serving.supervisor import MakeApplication, supervise

_REASONS = {
    errno.EADDRINUSE: "another program does",
    errno.EACCES: "you may not; ports below 1024 are the system's",
    errno.EADDRNOTAVAIL: "it is no address of this machine",
}


def make_application(model_path: Path, settings: Settings) -> Application:
    """The inference API before an export, computed by one thread.

    Raises
    ------
    ModelError
        If the file is missing, damaged, altered or no export of Foveola's.
    """
    from foveola.export import onnx
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


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises
    ------
    UserError
        If host or port cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost is 127.0.0.1 to most
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # :: is everywhere
        return socket.create_server(place, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = _REASONS.get(number or 0, str(error))
        raise UserError(
            f"Port {port} of {host} cannot be listened at: {reason}. "
            f"Choose another with --port (0 takes a free one), or another --host."
        ) from None


def address(listener: socket.socket) -> str:
    """Where a listening socket is reached, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
