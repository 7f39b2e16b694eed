"""The server as a process: slow and endless clients, too many of them, signals, workers."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from foveola.errors import UserError
from foveola.serving.connection import MOST_OVERHEAD
from foveola.serving.listening import address, listen, refuse_newcomers

STUB = Path(__file__).with_name("stub_application.py")
IPV6 = socket.has_dualstack_ipv6()
PATIENCE = 60  # seconds until a test gives up; nothing is measured

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes")


@dataclass
class Running:
    """A server's process, and where it listens."""

    process: subprocess.Popen
    host: str
    port: int
    connections: list[socket.socket] = field(default_factory=list)

    def connect(self) -> socket.socket:
        self.connections.append(socket.create_connection((self.host, self.port), timeout=PATIENCE))
        return self.connections[-1]

    def ask(self, method: str = "GET", path: str = "/", body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and standard error after a signal."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@contextlib.contextmanager
def running(*command: object, **environment: str) -> Iterator[Running]:
    """The command's process, once it says where it listens; it must not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    try:
        url = process.stdout.readline()
        if not url:
            pytest.fail(process.stderr.read())
        place = urlsplit(url.strip())
        server = Running(process, place.hostname, place.port)
        yield server
        for connection in server.connections:
            connection.close()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Start the stub with these settings."""
    with contextlib.ExitStack() as stack:
        yield lambda stub="", **settings: stack.enter_context(
            running(STUB, json.dumps({"port": 0, **settings}), STUB=stub)
        )


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# Addresses


def test_a_port_in_use_is_refused_with_a_way_out():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} of 127.0.0.1 .*another program.* --port"):
            listen("127.0.0.1", port)


def test_a_host_that_is_none_of_this_machines_is_refused():
    with pytest.raises(UserError, match=r"Port 8000 of 192\.0\.2\.1 .*no address of this machine.* --host"):
        listen("192.0.2.1", 8000)
    with pytest.raises(UserError, match="--host"):
        listen("no such host", 8000)


def test_the_address_is_a_url():
    with listen("127.0.0.1", 0) as listener:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address(listener))


@pytest.mark.skipif(not IPV6, reason="no IPv6")
def test_an_ipv6_address_is_in_brackets():
    with listen("::1", 0) as listener:
        assert re.fullmatch(r"http://\[::1\]:\d+", address(listener))


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not IPV6, reason="no IPv6"))]
)
def test_newcomers_are_refused_and_who_is_at_the_door_is_not(host):
    listener = listen(host, 0)
    place = listener.getsockname()[:2]
    with listener, socket.create_connection(place) as early:
        refuse_newcomers(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(place, timeout=0.2)
        early.sendall(b"hello")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(10) == b"hello"
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place)


# Clients


def test_it_answers_over_a_connection_that_stays(serve):
    server = serve()
    with server.connect() as connection:
        for body in (b"one", b"two" * 100_000, b""):
            connection.sendall(post("/", body))
            status, headers, answer = read_answer(connection)
            assert (status, answer) == (200, body)
            assert "connection" not in headers
            assert "server" not in headers


def test_200_slow_heads_harm_nobody_and_are_turned_out(serve):
    server = serve(receive_seconds=2)
    slow = [server.connect() for _ in range(200)]
    for connection in slow[:100]:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: local")
    for _ in range(20):
        assert server.ask("POST", "/", b"meanwhile") == (200, b"meanwhile")
    for connection in slow:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"\r\n")  # a little more does not buy time
    answers = [read_all(connection) for connection in slow]
    for answer in answers[:100]:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"within 2 seconds" in answer
    assert all(answer in (b"", answers[0]) or answer.startswith(b"HTTP/1.1 408 ") for answer in answers[100:])


def test_200_slow_bodies_harm_nobody(serve):
    server = serve(queue_images=4)
    slow = [server.connect() for _ in range(200)]
    for connection in slow:
        connection.sendall(post("/", b"0123456789")[:-5])
    for _ in range(20):
        assert server.ask("POST", "/", b"meanwhile") == (200, b"meanwhile")
    for connection in slow:
        connection.sendall(b"56789")
    # All are complete at almost the same time, and only so many may wait
    assert {read_answer(connection)[0] for connection in slow} <= {200, 503}


def test_blank_lines_do_not_keep_a_connection(serve):
    server = serve(receive_seconds=1)
    with server.connect() as connection:
        connection.sendall(post("/", b"first"))
        assert read_answer(connection)[0] == 200
        until(lambda: _is_closed_after(connection, b"\r\n"))


def _is_closed_after(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
        connection.setblocking(False)
        return connection.recv(1000) is not None
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


ENDLESS = {
    "header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ", b"x" * 10_000),
    "headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"x: y\r\n" * 2_000),
    "address": (b"GET /", b"x" * 10_000),
    "blank lines": (b"", b"\r\n" * 5_000),
    "trailer": (b"POST /slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: ", b"x" * 10_000),
    "trailers": (b"POST /slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"x: y\r\n" * 2_000),
    "chunk extension": (b"POST /slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 10_000),
    "pipeline": (b"", post("/slow", b"x") * 200),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_cut_off(serve, kind):
    start, more = ENDLESS[kind]
    server = serve(receive_seconds=PATIENCE)
    with server.connect() as connection:
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(start)
            while sent < 1000 * MOST_OVERHEAD:
                connection.sendall(more)
                sent += len(more)
        assert sent < 1000 * MOST_OVERHEAD
    assert server.ask("POST", "/", b"still there") == (200, b"still there")


def test_a_body_in_small_chunks_is_no_attack(serve):
    server = serve()
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(30_000):
            connection.sendall(b"8\r\n12345678\r\n")
        connection.sendall(b"0\r\n\r\n")
        status, _, body = read_answer(connection)
        assert (status, body) == (200, b"12345678" * 30_000)


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELLO\r\n\r\n", b"GET  HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_refused_in_words(serve, nonsense):
    server = serve()
    with server.connect() as connection:
        connection.sendall(nonsense)
        status, headers, body = read_answer(connection)
    assert (status, headers["connection"]) == (400, "close")
    document = json.loads(body)
    assert "no HTTP/1.1" in document["error"]
    assert document["request_id"] == headers["x-request-id"]


def test_connections_beyond_the_limit_are_refused_until_others_end(serve):
    server = serve(max_connections=5)
    kept = [server.connect() for _ in range(5)]
    for connection in kept:
        connection.sendall(post("/", b"kept"))
        assert read_answer(connection)[0] == 200
    with server.connect() as connection:
        status, headers, body = read_answer(connection)
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    assert "as many connections" in json.loads(body)["error"]
    kept.pop().close()
    until(lambda: server.ask("POST", "/", b"next") == (200, b"next"))
    for connection in kept:
        connection.sendall(post("/", b"kept still"))
        assert read_answer(connection)[2] == b"kept still"


def test_requests_beyond_the_queue_are_turned_away_at_once_and_may_come_back(serve):
    server = serve(queue_images=2)
    busy = [server.connect() for _ in range(2)]
    for connection in busy:
        connection.sendall(post("/slow", b"slow"))
    with server.connect() as connection:
        until(lambda: _status_of(connection, post("/", b"x" * 1000)) == 503)
        connection.sendall(post("/", b"more"))
        status, headers, body = read_answer(connection)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "connection" not in headers
        assert "as many requests" in json.loads(body)["error"]
        connection.sendall(b"GET /turned-away HTTP/1.1\r\nHost: localhost\r\n\r\n")  # what costs little is answered
        status, _, counted = read_answer(connection)
        assert status == 200
        assert int(counted) >= 2
        for other in busy:
            assert read_answer(other)[2] == b"slow"
        connection.sendall(post("/", b"back"))
        assert read_answer(connection)[::2] == (200, b"back")


def _status_of(connection: socket.socket, request: bytes) -> int:
    connection.sendall(request)
    return read_answer(connection)[0]


def test_an_early_answer_reaches_a_client_that_is_still_sending(serve):
    server = serve()
    with server.connect() as connection:
        body = bytes(8 * 2**20)
        connection.sendall(post("/early", body))
        status, _, answer = read_answer(connection)
        assert (status, answer) == (413, b"too long")
        assert connection.recv(1) == b""


# The end


async def _client(server: Running, number: int, outcomes: list[str], told: asyncio.Event) -> None:
    """Send requests until the server is gone; every one that was sent must be answered."""
    sent = 0
    while True:
        try:
            reader, writer = await asyncio.open_connection(server.host, server.port)
        except ConnectionError:
            assert told.is_set()
            return
        with contextlib.closing(writer):
            closing = False
            while not closing:
                sent += 1
                body = f"{number} {sent}".encode()
                try:
                    writer.write(post("/", body))
                    head = await reader.readuntil(b"\r\n\r\n")
                    answer = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
                except (ConnectionError, asyncio.IncompleteReadError) as error:
                    outcomes.append(f"lost: {error!r}")
                    return
                outcomes.append("answered" if (head[9:12], answer) == (b"200", body) else f"wrong: {head!r} {answer!r}")
                closing = b"connection: close" in head


async def _under_load(server: Running, number: int) -> list[str]:
    outcomes: list[str] = []
    told = asyncio.Event()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as clients:
        for client in range(32):
            clients.create_task(_client(server, client, outcomes, told))
        while len(outcomes) < 500:
            await asyncio.sleep(0.01)
        told.set()
        server.process.send_signal(number)
    return outcomes


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_told_to_end_under_load_it_answers_what_it_accepted(serve, number, workers):
    assert _end_under_load(serve(workers=workers), number) == {"answered"}


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
@pytest.mark.parametrize("workers", [1, 2])
def test_who_connects_between_the_last_accept_and_the_close_is_not_reset(serve, workers):
    assert _end_under_load(serve("slow to close", workers=workers), signal.SIGTERM) == {"answered"}


# Where it is not Linux, who connects just as it ends may be reset
@pytest.mark.slow
def test_told_to_end_20_times(serve):
    for _ in range(20):
        assert _end_under_load(serve(), signal.SIGTERM) == {"answered"}


def _end_under_load(server: Running, number: int) -> set[str]:
    """What became of the requests, after an ending without complaint."""
    outcomes = asyncio.run(_under_load(server, number))
    _, err = server.process.communicate(timeout=PATIENCE)
    assert (server.process.returncode, err) == (0, "")
    return set(outcomes)


def test_while_it_ends_it_says_so_and_asks_clients_to_leave(serve):
    server = serve()
    with server.connect() as busy, server.connect() as other, server.connect() as idle:
        for connection in (other, idle):
            connection.sendall(post("/"))
            read_answer(connection)
        busy.sendall(post("/slow", b"slow"))
        time.sleep(0.2)  # for it to arrive
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        other.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, _ = read_answer(other)
        assert (status, headers["connection"]) == (503, "close")
        assert idle.recv(1) == b""
        status, headers, body = read_answer(busy)
        assert (status, headers["connection"], body) == (200, "close", b"slow")
    server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_it_does_not_wait_for_ever(serve, workers):
    server = serve(shutdown_seconds=1, workers=workers)
    with server.connect() as hanging, server.connect() as half:
        hanging.sendall(post("/hanging"))
        half.sendall(post("/", b"0123456789")[:-5])
        time.sleep(0.2)
        assert server.end()[0] == 0


@pytest.mark.parametrize(("workers", "codes"), [(1, {-signal.SIGTERM}), (2, {128 + signal.SIGTERM})])
def test_a_second_signal_ends_at_once(serve, workers, codes):
    server = serve(shutdown_seconds=3600, workers=workers)
    with server.connect() as connection:
        connection.sendall(post("/hanging"))
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert server.process.poll() is None
        assert server.end()[0] in codes


# Workers


def pids(server: Running) -> set[int]:
    return {int(server.ask(path="/pid")[1]) for _ in range(20)}


def test_workers_share_the_port_and_one_that_dies_is_started_again(serve):
    server = serve(workers=2)
    first = set()
    until(lambda: len(first.update(pids(server)) or first) == 2)
    assert server.process.pid not in first
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    second = set()
    until(lambda: len(second.update(pids(server)) or second - {victim}) == 2)
    assert len(second - first) == 1
    assert server.end()[0] == 0
    for pid in first | second:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_do_not_outlive_their_supervisor(serve):
    server = serve(workers=2)
    assert server.ask("POST", "/", b"there") == (200, b"there")
    server.process.kill()

    def gone():
        try:
            server.ask()
        except ConnectionRefusedError:
            return True
        except (OSError, http.client.HTTPException):
            pass
        return False

    until(gone)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [("bad model", 2, "The model is bad. Take another."), ("does not start", 1, "lines above say why")],
)
def test_what_cannot_be_served_ends_with_one_message(workers, fault, code, message):
    settings = json.dumps({"port": 0, "workers": workers})
    done = subprocess.run(
        [sys.executable, STUB, settings],
        env=os.environ | {"STUB": fault},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]
    if code == 2:
        assert len(done.stderr.splitlines()) == 1
