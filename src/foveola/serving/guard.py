"""What every request passes before a route sees it, and what every answer carries.

One ASGI middleware: request id → size of the head → Host → Origin → key → length of the body → the body itself, with a
deadline. A route gets the whole body at once, so that none ever waits for a slow client.
"""

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType

from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.datastructures import State
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveola.serving.admission import (
    Headers,
    check_host,
    check_key,
    check_origin,
    headers_of,
    inflated,
    length_of,
    too_long,
)
from foveola.serving.connection import WHOLE, new_request_id
from foveola.serving.hosts import HostRule
from foveola.serving.logs import REQUESTS
from foveola.serving.observing import Metrics
from foveola.serving.responses import Refused, refusal
from foveola.serving.settings import Settings

# Its messages are JSON documents, one for each request
log = logging.getLogger(REQUESTS)

WITHOUT_KEY = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""What is served to everybody; so is what lies under PAGE."""
PAGE = "/page/"

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

# Bodies that are arriving or not answered yet, together: so many of the largest
_BODIES_AT_ONCE = 16

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_CLIENT_GONE = 499  # nginx's word for it; nobody but the log and the metrics gets to see it

FixedRoutes = Mapping[tuple[str, str], APIRoute]
_NO_ROUTES: FixedRoutes = MappingProxyType({})


class Guard:
    """The middleware.

    Parameters
    ----------
    app : what answers the requests that pass
    settings : of the server
    metrics : gets every answered request
    state : of the app; while its `draining` is true, every answer closes its connection
    fixed : the routes without parameters, by method and path; they are called from here, because the layers of a web
        framework between here and them take a tenth of the time of a small picture
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, state: State, fixed: FixedRoutes = _NO_ROUTES
    ) -> None:
        self._app = app
        self._fixed = fixed
        self._settings = settings
        self._metrics = metrics
        self._state = state
        self._is_allowed: Callable[[bytes], bool] = lru_cache(1024)(
            HostRule(settings.host, settings.allowed_hosts).allows
        )
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key is not None else None
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._state, self._note)
        held = 0
        try:
            headers = self._admitted(scope)
            body = await self._body(headers, exchange)
            held = len(body)
            self._held_bytes += held
            await self._answered(scope, _replayed(body, receive), exchange.send)
        except _ClientGone:
            exchange.status = _CLIENT_GONE
        except Exception as error:
            await _refuse(error, exchange)
        finally:
            self._held_bytes -= held
            exchange.end()

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._fixed.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        response = await route.endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def _admitted(self, scope: Scope) -> Headers:
        """The headers of a request whose head has nothing against it."""
        headers = headers_of(scope)
        check_host(headers, self._is_allowed)
        check_origin(headers)
        path: str = scope["path"]
        if self._key is not None and path not in WITHOUT_KEY and not path.startswith(PAGE):
            check_key(headers, self._key)
        return headers

    async def _body(self, headers: Headers, exchange: "_Exchange") -> bytes:
        """The whole body, inflated."""
        limit = self._settings.max_body_bytes
        if not exchange.unread:
            return b""
        if length_of(headers) > limit:
            raise too_long(limit)
        if WHOLE in exchange.scope:
            body = await self._received(exchange)
        else:
            body = await self._received_in_time(exchange)
        exchange.unread = False
        coding = headers.get(b"content-encoding", b"identity").lower()
        return body if coding == b"identity" else inflated(body, coding, limit)

    async def _received_in_time(self, exchange: "_Exchange") -> bytes:
        try:
            async with asyncio.timeout(self._settings.receive_seconds):
                return await self._received(exchange)
        except TimeoutError:
            exchange.unread = False  # it is not waited for any longer
            exchange.close = True
            raise Refused(
                408,
                f"The body did not arrive within {self._settings.receive_seconds:g} seconds. Send it faster, or less.",
            ) from None

    async def _received(self, exchange: "_Exchange") -> bytes:
        """The body as it arrives, counted."""
        limit = self._settings.max_body_bytes
        body = bytearray()  # a list of chunks of a byte each would take fifty times as much memory
        try:
            while True:
                message = await exchange.receive()
                if message["type"] != "http.request":
                    raise _ClientGone
                chunk: bytes = message.get("body", b"")
                if len(body) + len(chunk) > limit:
                    raise too_long(limit)
                if not message.get("more_body", False):
                    return bytes(body + chunk) if body else chunk
                if self._held_bytes + len(chunk) > _BODIES_AT_ONCE * limit:
                    raise Refused(503, "Too much is being received at once. Try again later.", {"Retry-After": "1"})
                body += chunk
                self._held_bytes += len(chunk)
        finally:
            self._held_bytes -= len(body)

    def _note(self, exchange: "_Exchange") -> None:
        method = exchange.scope["method"]
        route = getattr(exchange.scope.get("route"), "path_format", "none")
        seconds = time.perf_counter() - exchange.started
        self._metrics.request(route, method, exchange.status, seconds)
        if log.isEnabledFor(logging.INFO):
            client = exchange.scope.get("client")
            log.info(
                exchange.line(
                    method=method,
                    route=route,
                    status=exchange.status,
                    seconds=round(seconds, 6),
                    bytes=exchange.sent,
                    client=client[0] if client else None,
                )
            )


class _ClientGone(Exception):
    """The connection has ended before the request did."""


class _Exchange:
    """A request, and what has been answered to it so far.

    `unread` says that a part of the body may still arrive, `close` that the connection ends with the answer.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, state: State, note: Callable[["_Exchange"], None]
    ) -> None:
        self.started = time.perf_counter()
        self.scope = scope
        self.receive = receive
        self.request_id = _request_id(scope)
        self.unread = _has_body(scope)
        self.close = False
        self.status = 0
        self.sent = 0
        self._send = send
        self._state = state
        self._note = note
        self._ended = False

    async def send(self, message: Message) -> None:
        """Send a message of the app, with the headers that every answer carries."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *SECURITY_HEADERS, (b"x-request-id", self.request_id)]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            if self.close or self._state.draining:
                headers.append((b"connection", b"close"))
            message = {"type": "http.response.start", "status": self.status, "headers": headers}
        else:
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.end()
        await self._send(message)

    def end(self) -> None:
        """Count and log the request, once.

        This happens before the last part of the answer is sent: a client that has its answer finds the request counted
        when it reads /metrics, also from another worker.
        """
        if not self._ended:
            self._ended = True
            self._note(self)

    def line(self, **fields: object) -> str:
        """A line of the log about this request."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return to_json({"time": now, "request_id": self.request_id.decode(), **fields}).decode()


def _request_id(scope: Scope) -> bytes:
    """The client's own, if it is well-formed; otherwise a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return new_request_id().encode()


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(error: Exception, exchange: _Exchange) -> None:
    try:
        refused = refusal(error)
    except Exception:  # none of the client's doing, and so no business of its
        log.error(exchange.line(error=repr(error), traceback=traceback.format_exc()))
        refused = Refused(500, "The server has failed; its log says why, under this request id. Try again later.")
    if exchange.status:  # too late to say anything: cutting the answer off is all that is left
        raise error
    content = to_json({"error": refused.message, "request_id": exchange.request_id.decode()})
    headers = [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    exchange.close |= exchange.unread
    await exchange.send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": content})
