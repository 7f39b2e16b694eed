"""Middleware: what every request passes before a route sees it, and what every response carries.

They apply in the order of `middleware`, from the outside in.
"""

import hmac
import ipaddress
import logging
import random
import re
import time
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_core import to_json
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveola.serving.body_limits import Body, Queue, header
from foveola.serving.metrics import Metrics
from foveola.serving.openapi import WITHOUT_KEY
from foveola.serving.refusals import Refused, error_response, refusal
from foveola.serving.settings import Settings
from foveola.serving.static_files import PAGE

# Its messages are JSON documents, one for each request
log = logging.getLogger("foveola.serving.requests")


def middleware(settings: Settings, metrics: Metrics) -> list[Middleware]:
    """The middleware of the application, from the outside in."""
    key = settings.api_key
    return [
        Middleware(SecurityHeaders),
        Middleware(RequestLog, metrics=metrics),
        Middleware(HostAndOrigin, bound_to=settings.host, allowed=settings.allowed_hosts),
        *([] if key is None else [Middleware(ApiKey, key=key.get_secret_value())]),
        Middleware(Body, max_bytes=settings.max_body_bytes, seconds=settings.receive_seconds),
        Middleware(Queue, limit=settings.queue_images),
    ]


class SecurityHeaders:
    """Adds headers that restrict what browsers do with a response, unless a route has given them; nothing is cached."""

    HEADERS = (
        (
            b"content-security-policy",
            b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
            b"frame-ancestors 'none'",
        ),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                missing = (pair for pair in self.HEADERS if pair[0] not in given)
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class RequestLog:
    """Gives each request an id, counts and logs it, and turns exceptions into responses.

    A request is counted and logged before the last part of its response is sent: a client that has its response finds
    the request in /metrics, also when another worker reports them.

    Parameters
    ----------
    metrics : receive every request
    """

    _ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = self._request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = size = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            else:
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    self._record(scope, request_id, status, size, started)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if status:  # the response has begun; all that is left is to cut it off
                raise
            refused = refusal(error)
            if refused is None:
                log.error(_line(request_id, error=repr(error), traceback=traceback.format_exc()))
                refused = Refused(500, "The server failed; its log has the cause under this request id. Try again.")
            await error_response(refused, request_id)(scope, receive, send_with_id)

    def _request_id(self, scope: Scope) -> str:
        """The id that the client sent, if it is well formed; otherwise a new one. Ids are not secret."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and self._ID.fullmatch(value):
                return bytes(value).decode()
        return f"{random.getrandbits(128):032x}"

    def _record(self, scope: Scope, request_id: str, status: int, size: int, started: float) -> None:
        method, route = scope["method"], getattr(scope.get("route"), "path", "none")
        seconds = time.perf_counter() - started
        self.metrics.request(route, method, status, seconds)
        if log.isEnabledFor(logging.INFO):
            client = scope.get("client")
            fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6), "bytes": size}
            log.info(_line(request_id, **fields, client=client[0] if client else None))


def _line(request_id: str, **fields: object) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return to_json({"time": now, "request_id": request_id, **fields}).decode()


class HostAndOrigin:
    """Refuses requests to hosts that are not this server's, and requests from pages of other origins.

    A web page can point its own name to 127.0.0.1 once it is open (DNS rebinding); the browser then takes this server
    for a part of that page. The request still carries the name, so names must be known. An address cannot be pointed
    elsewhere, so addresses are accepted where the server listens to a network anyway.

    Parameters
    ----------
    bound_to : address or name where the server listens
    allowed : further names and addresses; "*" for all
    """

    _HOST = re.compile(rb"(?:\[(?P<ipv6>[0-9a-fA-F:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")

    def __init__(self, app: ASGIApp, bound_to: str, allowed: Iterable[str]) -> None:
        self.app = app
        self._allowed = {"localhost", *(_plain(name) for name in (bound_to, *allowed))}
        address = _address(bound_to)
        self._any_address = not (bound_to == "localhost" if address is None else address.is_loopback)
        self._is_allowed = lru_cache(1024)(self._check)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host, origin = header(scope, b"host"), header(scope, b"origin")
            if host is None:
                raise Refused(400, "The header Host is missing. Send it; HTTP/1.1 requires it.")
            if len(host) > 300 or not self._is_allowed(host):
                raise Refused(
                    421,
                    "This server does not have the name in the header Host. Use localhost or its address; or its owner "
                    "may start it with --allow-host and that name.",
                )
            if origin is not None and origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower()):
                raise Refused(403, "The request comes from a page of another origin. Use this server's own page.")
        await self.app(scope, receive, send)

    def _check(self, host: bytes) -> bool:
        match = self._HOST.fullmatch(host)
        if match is None:
            return False
        name = _plain((match["ipv6"] or match["name"]).decode())
        if not self._allowed.isdisjoint({"*", name}):
            return True
        address = _address(name)
        return address is not None and (self._any_address or address.is_loopback)


def _plain(name: str) -> str:
    return name.lower().rstrip(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class ApiKey:
    """Refuses requests without the server's key, in constant time; the page and the health checks need none."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in WITHOUT_KEY and not scope["path"].startswith(PAGE):
            scheme, _, token = (header(scope, b"authorization") or b"").partition(b" ")
            given = token.strip() if scheme.lower() == b"bearer" else header(scope, b"x-api-key") or b""
            if not hmac.compare_digest(given, self.key):
                raise Refused(
                    401,
                    "The API key is missing or wrong. Send it as Authorization: Bearer KEY, or as X-API-Key: KEY.",
                    {"WWW-Authenticate": 'Bearer realm="foveola"'},
                )
        await self.app(scope, receive, send)
