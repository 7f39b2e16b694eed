"""The port of a server: taken, named, and closed without losing who is at the door."""

import contextlib
import ctypes
import errno
import socket
import struct
import sys

from foveola.errors import UserError

# Connections that the system accepts before the server does
BACKLOG = 2048

_REASONS = {
    errno.EADDRINUSE: "another program does",
    errno.EACCES: "you may not; ports below 1024 are the system's",
    errno.EADDRNOTAVAIL: "it is no address of this machine",
}


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


# A socket filter of Linux (packet(7), bpf(4)): of what arrives at the port, drop what asks for a new connection
_SO_ATTACH_FILTER = 26
_FLAGS, _SYN = 13, 0x02  # where a TCP header has its flags, and the one of a connection's first packet (RFC 9293)
_DROP_SYN = (
    (0x30, 0, 0, _FLAGS),  # load the byte
    (0x45, 0, 1, _SYN),  # where the flag is not set, skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def refuse_newcomers(listener: socket.socket) -> None:
    """Let no new connection begin, while those that have begun can still be accepted, from any copy of the socket.

    To who connects now, the port does not answer; at the next try, a second later, it is closed, or another's. Without
    this, those that the system accepts between a server's last accept and its close are reset, with their requests.
    Linux alone has the means; elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN))
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(code))
    with contextlib.suppress(OSError):  # sandboxes may have no filters
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
