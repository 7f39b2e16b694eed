"""Connections that are stuck: ended after a while, since HTTP servers wait for their clients without limit."""

import os
import socket
import stat
import struct
import sys
from pathlib import Path

# struct tcp_info of Linux (linux/tcp.h): offsets of the state, of the milliseconds since data was sent and received
# last, and of the number of bytes that wait to be sent
_STATE, _SENT, _RECEIVED, _WAITING = 0, 44, 52, 144
_ESTABLISHED, _SIZE = 1, 148


def end_stuck_connections(port: int, reading_seconds: float, silent_seconds: float) -> int:
    """End this process's connections at a port whose clients do not read, or on which nothing happens any more.

    A client that asks and never reads fills the system's buffers; one that was refused while it was sending may stay.
    Both would hold a connection, of which there are so many, as long as they like. Only Linux reveals this; elsewhere
    nothing is done.

    Parameters
    ----------
    reading_seconds : for which nothing can be sent, though something waits
    silent_seconds : for which nothing is sent or received; longer than any response takes

    Returns
    -------
    Number of connections that were ended.
    """
    if sys.platform != "linux":
        return 0
    descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    limits = 1000 * reading_seconds, 1000 * silent_seconds
    return sum(_end_if_stuck(descriptor, port, *limits) for descriptor in descriptors if _is_socket(descriptor))


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:  # closed in the meantime
        return False


def _end_if_stuck(descriptor: int, port: int, reading: float, silent: float) -> bool:
    try:
        with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as connection:
            name = connection.getsockname()
            if not isinstance(name, tuple) or name[1] != port:  # a socket of another kind has no tuple
                return False
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
            if len(info) < _SIZE or info[_STATE] != _ESTABLISHED:
                return False
            sent, received, waiting = (struct.unpack_from("I", info, at)[0] for at in (_SENT, _RECEIVED, _WAITING))
            if not (waiting and sent > reading) and min(sent, received) <= silent:
                return False
            connection.shutdown(socket.SHUT_RDWR)
            return True
    except OSError:  # no TCP socket, or closed in the meantime
        return False
