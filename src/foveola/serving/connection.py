"""A connection of the server: uvicorn's, with deadlines and limits for clients that are slow, endless or too many.

uvicorn parses HTTP and runs the application. Of itself it waits for the head of a request for ever, reads heads and
trailers of any length and pipelines of any number, and at an early answer resets the connection of a client that is
still sending.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from foveola.serving.settings import Settings

# Bytes that a request may have beside its body, in its head and trailers; around chunks, as many again as in the body
MOST_OVERHEAD = 64 * 2**10
# Requests sent ahead on one connection; browsers and clients send none
MOST_PIPELINED = 64
# In the scope of a request that arrived whole, so that nobody need watch the clock while it is read
WHOLE = "foveola.whole"
# How long a client that has its answer may go on sending before it is cut off
LINGER_SECONDS = 2.0


def _nothing(status: int) -> None:
    pass


def new_request_id() -> str:
    """32 hexadecimal digits. They are no secret, and so need no call of the system."""
    return f"{random.getrandbits(128):032x}"


class State(ServerState):
    """What the connections of a server share."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.draining = False
        self.on_refused: Callable[[int], None] = _nothing
        """Called with the status of every request and connection that is refused before the application sees it."""
        self.waiting: set[Connection] = set()
        """Those with a request that has wholly arrived and is not answered yet."""


class Connection(HttpToolsProtocol):
    """A client's connection."""

    server_state: State

    def __init__(
        self,
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadline: asyncio.TimerHandle | None = None
        self.overhead = 0
        self.turned_away = False
        self.lingering = False

    @property
    def idle(self) -> bool:
        """True while nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > self.server_state.settings.max_connections:
            self._refuse(503, "The server has as many connections as it can keep. Try again in a moment.")
        else:
            self._expect_a_head()

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        self.overhead += len(data)
        super().data_received(data)
        if self.overhead > MOST_OVERHEAD:
            self._refuse(431, f"The request has more than {MOST_OVERHEAD:,} bytes beside its body. Send fewer headers.")
        elif self.idle and self.deadline is None:
            self._expect_a_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_the_deadline()
        self.server_state.waiting.discard(self)

    # What the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.overhead = 0

    def on_headers_complete(self) -> None:
        if self._full():
            self.turned_away = True  # and told so when the body has passed; until then, the deadline holds
            return
        self._forget_the_deadline()
        super().on_headers_complete()
        self.cycle.transport = _Answer(self)  # type: ignore[assignment]  # as much of one as an answer needs
        if self.server_state.draining:
            self.make_last()
        if len(self.pipeline) > MOST_PIPELINED:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self.overhead -= 2 * len(body)
        if not self.turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.turned_away:
            self._turn_away()
            return
        super().on_message_complete()
        if not self.idle:
            self.server_state.waiting.add(self)
            self.scope[WHOLE] = True  # type: ignore[literal-required]  # a key of our own

    # What an answer calls

    def on_response_complete(self) -> None:
        self.cycle.transport.flush()  # type: ignore[attr-defined]  # a head without a body
        if not self.pipeline:
            self.server_state.waiting.discard(self)
        if not self.lingering:
            super().on_response_complete()

    def finish(self) -> None:
        """Close after an answer. Who is still sending would lose it to a reset, and gets a moment to read it.

        RFC 9112, section 9.6.
        """
        if self.cycle.more_body and not self.transport.is_closing():
            self.lingering = True
            self.pipeline.clear()
            self.transport.write_eof()
            self.flow.resume_reading()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def make_last(self) -> None:
        """Close after the answer that is under way."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # Refusals, before a request reaches the application

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "The request is no HTTP/1.1. Check what sends it.")

    def _full(self) -> bool:
        """True for a request that would cost the model time while as many as may wait are already there.

        Turned away here, it costs a tenth of an answer, so that the server answers on at its full rate.
        """
        return (
            len(self.server_state.waiting) >= self.server_state.settings.queue_images
            and self.idle
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
        )

    def _turn_away(self) -> None:
        self.turned_away = False
        self._forget_the_deadline()
        close = self.server_state.draining or not self.parser.should_keep_alive()
        self._write(503, "The server has as many requests as it can answer. Try again in a moment.", close=close)
        if close:
            self.transport.close()

    def _expect_a_head(self) -> None:
        seconds = self.server_state.settings.receive_seconds
        self.deadline = self.loop.call_later(seconds, self._too_slow)

    def _forget_the_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _too_slow(self) -> None:
        self.deadline = None
        if not self.idle:  # the answer to an earlier request comes first; what follows gets a deadline after it
            return
        if self.overhead:
            seconds = self.server_state.settings.receive_seconds
            self._refuse(408, f"The request did not arrive within {seconds:g} seconds. Send it at once.")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        if not self.transport.is_closing():
            self._write(status, message, close=True)
            self.transport.close()

    def _write(self, status: int, message: str, *, close: bool) -> None:
        self.server_state.on_refused(status)
        request_id = new_request_id()
        body = to_json({"error": message, "request_id": request_id})
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
        ]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        if close:
            headers.append((b"connection", b"close"))
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body))


class _Answer:
    """The transport as an answer sees it: its head leaves with its body, and its close is the connection's."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.cycle = connection.cycle
        self.transport = connection.transport
        self.is_closing = connection.transport.is_closing
        self.kept_back = b""
        self.head_written = False

    def write(self, data: bytes) -> None:
        if self.cycle.response_started and not self.head_written:
            self.head_written = True
            self.kept_back = data
        else:
            self.transport.write(self.kept_back + data)
            self.kept_back = b""

    def flush(self) -> None:
        if self.kept_back:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self.connection.finish()
