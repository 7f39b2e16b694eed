"""Connections that are stuck are found, and nothing else is touched."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from foveola.serving.connections import end_stuck_connections

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reveals what waits to be sent")


@pytest.fixture
def pair():
    """A server's end of a connection, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield server, client


def fill(server):
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            server.send(bytes(65536))


def test_a_connection_whose_client_does_not_read_is_ended(pair):
    server, _ = pair
    fill(server)
    port = server.getsockname()[1]
    assert end_stuck_connections(port, 60, 60) == 0
    while not end_stuck_connections(port, 0.1, 60):  # the system may still be moving bytes to the client
        time.sleep(0.05)
    with pytest.raises(BrokenPipeError):
        server.send(b"more")


def test_other_connections_stay(pair):
    server, client = pair
    port = server.getsockname()[1]
    server.sendall(b"read")
    assert client.recv(4) == b"read"
    fill(client)  # the client's own end is at another port, and what waits there is to be read by this server
    time.sleep(0.2)
    assert end_stuck_connections(port, 0.1, 60) == 0
    assert end_stuck_connections(port + 1, 0, 0) == 0
    server.sendall(b"still there")
    assert client.recv(11) == b"still there"


def test_a_connection_on_which_nothing_happens_is_ended(pair):
    server, client = pair
    port = server.getsockname()[1]
    client.sendall(b"a request")
    assert end_stuck_connections(port, 60, 60) == 0
    time.sleep(0.3)
    assert end_stuck_connections(port, 60, 0.1) == 1
    assert client.recv(1) == b""


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(pair):
    reader, writer = os.pipe()
    unix = socket.socketpair()
    before = open_descriptors()
    for _ in range(20):
        end_stuck_connections(pair[0].getsockname()[1], 1, 1)
    assert open_descriptors() == before
    os.close(reader), os.close(writer), unix[0].close(), unix[1].close()
