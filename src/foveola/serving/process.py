"""One server process: ready, told to end, done. It is uvicorn's, but for its end."""

import asyncio
import contextlib
import gc
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import uvicorn

from foveola.errors import Failure
from foveola.serving.connection import Connection, State
from foveola.serving.listening import BACKLOG, refuse_newcomers
from foveola.serving.settings import Settings

# ASGI. Its `state.draining` becomes true when the server is told to end; its `state.waiting` is the set of connections
# whose request has arrived and is not answered yet; its `state.on_refused`, if it has one, is called with the status of
# all that the server refuses by itself
Application = Any

ENDING = (signal.SIGINT, signal.SIGTERM)
# Longer than a proxy keeps an idle connection (60 s in nginx and most load balancers), so that it is the one to close
KEEP_ALIVE_SECONDS = 75
# For requests that are on their way when the server is told to end
GRACE_SECONDS = 0.25
# For connections that are being made then
HANDSHAKE_SECONDS = 0.05


class Server(uvicorn.Server):
    """Serves until a signal; then it answers what it has accepted, and returns.

    Parameters
    ----------
    application : what is served
    on_ready : called when requests can be answered
    signals : that tell it to end; the second one does so at once, as the system has it
    shares_port : other processes accept from the same sockets, and may go on when this one ends
    """

    server_state: State

    def __init__(
        self,
        application: Application,
        settings: Settings,
        *,
        on_ready: Callable[[], None],
        signals: Sequence[signal.Signals] = ENDING,
        shares_port: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                loop="asyncio" if sys.platform == "win32" else "uvloop",
                http=Connection,
                ws="none",
                lifespan="on",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=BACKLOG,
            )
        )
        self.server_state = State(settings)
        application.state.waiting = self.server_state.waiting
        if hasattr(application.state, "on_refused"):
            self.server_state.on_refused = application.state.on_refused
        self.application = application
        self.settings = settings
        self.on_ready = on_ready
        self.signals = signals
        self.shares_port = shares_port

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which raises the signals again at the end, so that the process dies of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in self.signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for number in self.signals:
            signal.signal(number, signal.SIG_DFL)
        self.end()

    def end(self) -> None:
        """Answer what was accepted, then return from `run`."""
        self.should_exit = True
        self.server_state.draining = True
        self.application.state.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            raise Failure("The server could not start; the lines above say why.") from None
        # What is there now stays; looking through it for garbage, again and again, would hold up requests
        gc.collect()
        gc.freeze()
        self.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new connections, answers for all requests, an end to idle connections; within `shutdown_seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.shutdown_seconds
        await self._stop_listening(sockets or [])
        for connection in self._connections():
            connection.make_last()
        await asyncio.sleep(GRACE_SECONDS)
        while (self.server_state.connections or self.server_state.tasks) and loop.time() < deadline:
            self._close_idle()
            await asyncio.sleep(0.02)
        for connection in self._connections():
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.lifespan.shutdown(), 1)

    async def _stop_listening(self, listeners: Sequence[socket.socket]) -> None:
        """Close the listeners, and take the connections that the system had accepted by then: it would reset them."""
        if not self.shares_port:
            for listener in listeners:
                refuse_newcomers(listener)
        await asyncio.sleep(HANDSHAKE_SECONDS)
        copies = [listener.dup() for listener in listeners]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for copy in copies:
            copy.setblocking(False)
            with copy, contextlib.suppress(OSError):  # BlockingIOError, when none is left
                while True:
                    client, _ = copy.accept()
                    await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def _connections(self) -> list[Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Connection)]

    def _close_idle(self) -> None:
        """Close the connections on which nothing is being answered and nothing has arrived unread.

        A request that is sent just then is lost, as ever with HTTP: it was not accepted, and may be sent again.
        """
        idle = {
            connection
            for connection in self._connections()
            if connection.idle and not connection.transport.is_closing()
        }
        with selectors.DefaultSelector() as selector:
            for connection in idle:
                selector.register(connection.transport.get_extra_info("socket"), selectors.EVENT_READ, connection)
            unread = {key.data for key, _ in selector.select(0)}
        for connection in idle - unread:
            connection.transport.close()
