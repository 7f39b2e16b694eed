"""Middleware for bodies: received within a deadline and limits, inflated; more requests than can wait are rejected."""

import asyncio
import contextlib
import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveola.serving.refusals import Busy, Refused


def header(scope: Scope, name: bytes) -> bytes | None:
    """A header of a request; None if it is missing.

    Raises
    ------
    Refused
        If it is given twice, with different values.
    """
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            if found is not None and found != value:
                raise Refused(400, f"The header {name.decode()} is given twice. Send it once.")
            found = value
    return found


class Body:
    """Receives the whole body within a deadline, counts its bytes, and inflates it; a route gets it in one message.

    Parameters
    ----------
    max_bytes : of a body, also after inflating
    seconds : the deadline
    """

    # Bodies that are being received or processed, together: so many of the largest
    _AT_ONCE = 16
    # Before a body is refused, what the client is sending is read on until it pauses, up to a limit: it would otherwise
    # lose the response to a reset of the connection (RFC 9112, section 9.6)
    _DISCARDED_BYTES, _PAUSE_SECONDS = 64 * 2**20, 0.5

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        coding = header(scope, b"content-encoding") or b"identity"
        body = await self._received(scope, receive)
        self._held += len(body)
        try:
            if coding.lower() != b"identity":
                body = await asyncio.to_thread(_inflated, body, coding.lower(), self.max_bytes)
            await self.app(scope, _replay(body, receive), send)
        finally:
            self._held -= len(body)

    async def _received(self, scope: Scope, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self.seconds):
                if int(header(scope, b"content-length") or 0) > self.max_bytes:
                    if header(scope, b"expect") is None:  # otherwise the client waits before it sends
                        await self._discard(receive)
                    raise self._too_long()
                return await self._parts(receive)
        except TimeoutError:
            raise Refused(
                408,
                f"The body did not arrive within {self.seconds:g} seconds. Send it faster, or less.",
                {"Connection": "close"},
            ) from None

    async def _parts(self, receive: Receive) -> bytes:
        """The body, from one part or several."""
        body = bytearray()  # a list of many small parts would take far more memory
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":  # who has left does not read this, who sent nonsense does
                    raise Refused(400, "The body ended before it was complete, or is not HTTP/1.1. Send it again.")
                part, more = message.get("body", b""), message.get("more_body", False)
                if len(body) + len(part) > self.max_bytes:
                    if more:
                        await self._discard(receive)
                    raise self._too_long()
                if not more:
                    return bytes(body + part) if body else part
                body += part
                self._held += len(part)
                if self._held > self._AT_ONCE * self.max_bytes:
                    raise Busy("Too much is being received at once. Try again later.")
        finally:
            self._held -= len(body)

    async def _discard(self, receive: Receive) -> None:
        size, more = 0, True
        with contextlib.suppress(TimeoutError):
            while more and size < self._DISCARDED_BYTES:
                message = await asyncio.wait_for(receive(), self._PAUSE_SECONDS)
                size += len(message.get("body", b""))
                more = message.get("more_body", False)

    def _too_long(self) -> Refused:
        return Refused(
            413,
            f"The body is too long: at most {self.max_bytes:,} bytes are accepted. Send smaller images, or fewer.",
            {"Connection": "close"},
        )


def _inflated(body: bytes, coding: bytes, limit: int) -> bytes:
    """A body without its compression; refused if that is longer than the limit."""
    if coding not in (b"gzip", b"deflate"):
        raise Refused(
            415,
            "The body has an unknown Content-Encoding. Send it without, or with gzip or deflate.",
            {"Accept-Encoding": "gzip, deflate"},
        )
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either, according to the first bytes
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"The body is not compressed as declared: {error}. Send it again.") from None
    if len(inflated) > limit:
        raise Refused(413, f"The body is too long: at most {limit:,} bytes are accepted, also after inflating.")
    if not inflater.eof or inflater.unused_data:
        raise Refused(400, "The compressed body is truncated, or continues after its end. Send it again.")
    return inflated


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns the body, then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class Queue:
    """Rejects requests with a body at once while as many as may wait are in progress.

    Parameters
    ----------
    limit : requests that may be in progress
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self._requests >= self.limit:
            raise Busy("The server has as many requests as it can process. Try again in a moment.")
        self._requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._requests -= 1
