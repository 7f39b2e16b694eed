"""What a request's head and the length of its body must be like; everything else is refused, with the reason."""

import hmac
import zlib
from collections.abc import Callable

from starlette.types import Scope

from foveola.serving.responses import Refused

Headers = dict[bytes, bytes]

_MAX_HEAD_BYTES, _MAX_URL_BYTES, _MAX_HOST_BYTES = 32 * 1024, 8 * 1024, 300
_ONCE = frozenset({b"host", b"origin", b"authorization", b"x-api-key", b"content-length", b"content-encoding"})


def headers_of(scope: Scope) -> Headers:
    """The headers by their names, which are in lower case; of several of one name the first."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MAX_URL_BYTES:
        raise Refused(414, f"The address is too long: at most {_MAX_URL_BYTES:,} bytes are taken.")
    headers: Headers = {}
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value) + len(": \r\n")
        if size > _MAX_HEAD_BYTES:
            raise Refused(431, f"The headers are too long: at most {_MAX_HEAD_BYTES:,} bytes are taken.")
        if headers.setdefault(name, value) != value and name in _ONCE:
            raise Refused(400, f"The header {name.decode('latin-1')} is there twice. Send it once.")
    return headers


def check_host(headers: Headers, is_allowed: Callable[[bytes], bool]) -> None:
    """Refuse a request that asks for the server by another name, as one does whose DNS was rebound."""
    host = headers.get(b"host")
    if host is None:
        raise Refused(400, "The header Host is missing. Send it; HTTP/1.1 asks for it.")
    if len(host) > _MAX_HOST_BYTES or not is_allowed(host):
        raise Refused(
            421,
            "This server is not known by the name in the header Host. Ask for it as localhost or by its address, or "
            "start it with --allow-host and that name.",
        )


def check_origin(headers: Headers) -> None:
    """Refuse what a page from elsewhere sends; programs send no Origin."""
    origin = headers.get(b"origin")
    if origin is None:
        return
    scheme, _, host = origin.lower().partition(b"://")
    if scheme not in (b"http", b"https") or host != headers[b"host"].lower():
        raise Refused(
            403, "The request comes from a page of another origin, which is not served. Use this server's own."
        )


def check_key(headers: Headers, key: bytes) -> None:
    """Refuse a request without the server's key; how long that takes tells nothing of it."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    if not hmac.compare_digest(given, key):
        raise Refused(
            401,
            "The server's key is missing or wrong. Send it as Authorization: Bearer KEY, or as X-API-Key: KEY.",
            {"WWW-Authenticate": 'Bearer realm="foveola"'},
        )


def length_of(headers: Headers) -> int:
    """How long the body says it is; 0 where it does not say."""
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise Refused(400, "The header Content-Length is no number. Send the number of bytes.")
    return int(declared[:20])


def inflated(body: bytes, coding: bytes, limit: int) -> bytes:
    """A compressed body as it was, if that is no longer than the limit."""
    if coding not in (b"gzip", b"deflate"):
        raise Refused(
            415,
            "The body has a Content-Encoding that is not known here. Send it as it is, or with gzip or deflate.",
            {"Accept-Encoding": "gzip, deflate"},
        )
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either, as its first bytes say
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(400, f"The body is not compressed as it says: {error}. Send it again.") from None
    if len(inflated) > limit:
        raise too_long(limit)
    if not inflater.eof or inflater.unused_data:
        raise Refused(400, "The compressed body is cut off, or goes on after its end. Send it again.")
    return inflated


def too_long(limit: int) -> Refused:
    """The refusal of a body beyond the limit."""
    return Refused(413, f"The body is too long: at most {limit:,} bytes are taken. Send smaller pictures, or fewer.")
