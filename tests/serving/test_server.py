"""The server as a process: slow, endless and silent clients, signals, workers that die."""

import asyncio
import contextlib
import http.client
import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from foveola.errors import Failure, FoveolaError, ModelError, UserError
from foveola.serving import app as app_module
from foveola.serving import server as server_module
from foveola.serving.server import JsonLines, available_address, log_configuration, serve
from foveola.serving.settings import Settings
from foveola.serving.workers import Workers

PATIENCE = 60  # seconds until a test gives up; nothing is measured
BODY = json.dumps([[0, 90], [255, 0]]).encode()

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes")


def post(path: str = "/predict?findings=false", body: bytes = BODY) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def ask(server, path: str = "/predict?findings=false", body: bytes | None = BODY) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# Addresses


def test_a_port_in_use_is_refused_with_a_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1: another program is using it.* --port"):
            available_address("127.0.0.1", port)


def test_a_host_that_is_none_of_this_machines_is_refused():
    with pytest.raises(UserError, match=r"port 8000 of 192\.0\.2\.1: .* --host"):
        available_address("192.0.2.1", 8000)
    with pytest.raises(UserError, match="--host"):
        available_address("no such host", 8000)


def test_a_free_port_is_found():
    address, port = available_address("localhost", 0)
    assert address == "127.0.0.1"
    assert port > 0


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_an_ipv6_address_is_in_brackets(start):
    server = start(host="::1")
    assert re.fullmatch(r"http://\[::1\]:\d+", server.address)


def test_a_model_that_cannot_be_used_ends_the_server_with_the_reason(model_path, tmp_path):
    """What only a worker finds out is reported by the process that supervises it."""
    script = Path(__file__).with_name("serve_model.py")
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes()[:-100])
    done = subprocess.run(
        [sys.executable, script, tmp_path / "model.onnx", "{}"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "model.onnx" in done.stderr
    assert "Traceback" not in done.stderr


# Clients


def test_it_answers_over_a_connection_that_stays(start):
    server = start()
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(post())
            status, headers, _ = read_response(connection)
            assert status == 200
            assert "connection" not in headers


def test_200_slow_heads_harm_nobody_and_are_let_go(start):
    server = start(receive_seconds=2)
    slow = [server.connect() for _ in range(200)]
    for connection in slow[:100]:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: local")
    for _ in range(20):
        assert ask(server)[0] == 200
    for connection in slow:
        read_all(connection)  # returns, since the server closes them


def test_200_slow_bodies_harm_nobody(start):
    server = start()
    slow = [server.connect() for _ in range(200)]
    for connection in slow:
        connection.sendall(post()[:-5])
    for _ in range(20):
        assert ask(server)[0] == 200
    for connection in slow:
        connection.sendall(BODY[-5:])
    assert {read_response(connection)[0] for connection in slow} == {200}


def test_a_slow_body_is_refused_after_the_deadline(start):
    server = start(receive_seconds=1)
    with server.connect() as connection:
        connection.sendall(post()[:-5])
        status, _, body = read_response(connection)
    assert status == 408
    assert "within 1 seconds" in json.loads(body)["error"]


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ", b"x" * 10_000),
    "headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"x: y\r\n" * 2_000),
    "address": (b"GET /", b"x" * 10_000),
    "trailer": (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: ",
        b"x" * 10_000,
    ),
    "chunk extension": (b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 10_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_cut_off(start, kind):
    first, more = ENDLESS[kind]
    server = start(receive_seconds=PATIENCE)
    with server.connect() as connection:
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(first)
            while sent < 64 * 2**20:
                connection.sendall(more)
                sent += len(more)
        assert sent < 64 * 2**20
    assert ask(server)[0] == 200


def test_a_body_in_small_chunks_is_no_attack(start):
    server = start(receive_seconds=300)  # a busy machine takes its time
    with server.connect() as connection:
        connection.sendall(CHUNKED)
        for _ in range(10_000):
            connection.sendall(b"8\r\n12345678\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read_response(connection)[0] == 422  # no image, but all of it has arrived


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELLO\r\n\r\n", b"GET  HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_refused(start, nonsense):
    server = start()
    with server.connect() as connection:
        connection.sendall(nonsense)
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_connections_beyond_the_limit_wait_until_others_end(start):
    server = start(max_connections=5)
    kept = [server.connect() for _ in range(5)]
    for connection in kept:
        connection.sendall(post())
        assert read_response(connection)[0] == 200
    with server.connect() as waiting:
        waiting.sendall(post())
        kept.pop().close()
        assert read_response(waiting)[0] == 200


def test_a_refusal_reaches_a_client_that_is_still_sending(start):
    server = start(max_body_bytes=1000)
    with server.connect() as connection:
        connection.sendall(post(body=bytes(8 * 2**20)))
        status, _, body = read_response(connection)
    assert status == 413
    assert "1,000 bytes" in json.loads(body)["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reveals what waits to be sent")
def test_clients_that_ask_and_never_read_are_let_go(start):
    """40 files of the page are more than the system keeps for a connection."""
    server = start(receive_seconds=1)
    silent = [socket.socket() for _ in range(100)]
    for connection in silent:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /page/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40)
    assert ask(server)[0] == 200
    try:
        until(lambda: _connections(server.port) == 0)
    finally:
        for connection in silent:
            connection.close()


def _connections(port: int) -> int:
    """Established connections at a port, on the server's side."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


# The end


async def _client(server, number: int, outcomes: Counter[str], told: asyncio.Event) -> None:
    """Send requests until the server is gone."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except ConnectionError:
            assert told.is_set()
            return
        with contextlib.closing(writer):
            answered = 0
            while True:
                try:
                    writer.write(post("/predict?findings=false&top=1"))
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
                except (ConnectionError, asyncio.IncompleteReadError) as error:
                    partial = getattr(error, "partial", b"")
                    outcomes["cut off" if partial else "unanswered" if answered else "not accepted"] += 1
                    break
                answered += 1
                outcomes["answered" if head[9:12] == b"200" else f"status {head[9:12]!r}"] += 1
                if b"connection: close" in head:
                    break


async def _under_load(server, number: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    told = asyncio.Event()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as clients:
        for client in range(32):
            clients.create_task(_client(server, client, outcomes, told))
        while outcomes.total() < 500:
            await asyncio.sleep(0.01)
        told.set()
        server.process.send_signal(number)
    return outcomes


def end_under_load(server, number: int) -> tuple[Counter[str], list[dict]]:
    """What became of the requests, and the log."""
    outcomes = asyncio.run(_under_load(server, number))
    assert server.process.wait(PATIENCE) == 0, server.log.read_text()
    return outcomes, [json.loads(line) for line in server.log.read_text().splitlines()]


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_told_to_end_under_load_it_answers_what_the_application_received(start, number, workers):
    outcomes, log = end_under_load(start(workers=workers), number)
    # Every request that the application received is in the log with its status; all of them reached their clients
    received = [line for line in log if line.get("route") == "/predict"]
    assert {line["status"] for line in received} == {200}
    assert outcomes["answered"] == len(received)
    assert not outcomes["cut off"]


@pytest.mark.slow
def test_told_to_end_20_times(start):
    total: Counter[str] = Counter()
    for _ in range(20):
        outcomes, log = end_under_load(start(), signal.SIGTERM)
        received = [line for line in log if line.get("route") == "/predict"]
        assert outcomes["answered"] == len(received)
        assert not outcomes["cut off"]
        total += outcomes
    print(f"\nSIGTERM 20 times: {dict(total)}")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_is_being_received_is_still_answered(start, workers):
    server = start(workers=workers)
    with server.connect() as late:
        late.sendall(post()[:-5])
        time.sleep(0.3)  # for it to arrive
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        late.sendall(BODY[-5:])
        assert read_response(late)[0] == 200
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_it_does_not_wait_for_ever(start, workers):
    server = start(shutdown_seconds=1, receive_seconds=3600, workers=workers)
    with server.connect() as half:
        half.sendall(post()[:-5])
        time.sleep(0.3)
        assert server.end() == 0


# Workers


def worker_pids(server) -> set[int]:
    """The processes that answer: children of the server's."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return set(map(int, children))


def ready(server) -> dict:
    return json.loads(ask(server, "/v2/health/ready", None)[1])


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_workers_share_the_port_and_one_that_dies_is_replaced(start):
    server = start(workers=2, log_requests=False)
    assert ready(server) == {"ready": True, "workers": {"ready": 2, "of": 2}}
    before = worker_pids(server)
    os.kill(min(before), signal.SIGKILL)
    until(lambda: ready_workers(server) == 2 and worker_pids(server) != before)
    assert max(before) in worker_pids(server)
    assert server.end() == 0


def ready_workers(server) -> int:
    """How many are ready; 0 where a connection went to one that has just died."""
    try:
        return ready(server)["workers"]["ready"]
    except (OSError, http.client.HTTPException):
        return 0


@linux
def test_a_worker_and_its_replacement_die_and_the_model_is_gone(start, model_path, tmp_path):
    """The healthy worker goes on, readiness says that one is missing, and the model is not needed again."""
    server = start(workers=2, log_requests=False)
    healthy, victim = sorted(worker_pids(server))
    os.kill(victim, signal.SIGKILL)
    until(lambda: worker_pids(server) - {healthy, victim})
    (replacement,) = worker_pids(server) - {healthy, victim}
    os.kill(replacement, signal.SIGKILL)
    until(lambda: worker_pids(server) - {healthy, victim, replacement})
    assert healthy in worker_pids(server)
    until(lambda: ready_workers(server) == 1)
    until(lambda: ask_safely(server) == 200)
    until(lambda: ready_workers(server) == 2)
    assert healthy in worker_pids(server)


def ask_safely(server) -> int:
    try:
        return ask(server)[0]
    except (OSError, http.client.HTTPException):
        return 0


@linux
def test_a_model_that_was_moved_away_is_served_on(start, model_path, tmp_path):
    moved = tmp_path / "model.onnx"
    moved.write_bytes(model_path.read_bytes())
    server = start(moved, workers=2, log_requests=False)
    moved.unlink()
    before = worker_pids(server)
    os.kill(min(before), signal.SIGKILL)
    until(lambda: ready_workers(server) == 2 and worker_pids(server) != before)
    assert ask(server)[0] == 200


@linux
def test_a_single_worker_that_dies_is_replaced(start):
    server = start(log_requests=False)
    for _ in range(2):
        (victim,) = worker_pids(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: worker_pids(server) - {victim} and ask_safely(server) == 200)


@linux
@pytest.mark.slow
def test_workers_are_killed_20_times(start):
    server = start(workers=2, log_requests=False)
    for number in range(20):
        before = worker_pids(server)
        victim = sorted(before)[number % 2]
        os.kill(victim, signal.SIGKILL)
        if number % 3 == 0:  # the replacement, too
            until(lambda before=before: worker_pids(server) - before)
            os.kill(min(worker_pids(server) - before), signal.SIGKILL)
        until(lambda victim=victim: ready_workers(server) == 2 and victim not in worker_pids(server))
    assert server.end() == 0


@linux
def test_workers_end_with_the_process_that_supervises_them(start):
    server = start(workers=2, log_requests=False)
    workers = worker_pids(server)
    server.process.kill()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


@linux
def test_metrics_are_summed_over_the_workers(start):
    server = start(workers=2, log_requests=False)
    for _ in range(20):
        assert ask(server)[0] == 200
    text = ask(server, "/metrics", None)[1].decode()
    assert 'foveola_requests_total{method="POST",route="/predict",status="200"} 20.0' in text


# The log


def test_log_messages_are_json(caplog):
    record = logging.LogRecord("x", logging.WARNING, "", 1, " a %s ", ("b",), None)
    assert json.loads(JsonLines().format(record))["message"] == "a b"
    document = logging.LogRecord("foveola.serving.requests", logging.INFO, "", 1, '{"status":200}', (), None)
    assert JsonLines().format(document) == '{"status":200}'
    try:
        raise RuntimeError("why")
    except RuntimeError:
        failed = logging.LogRecord("x", logging.ERROR, "", 1, "it failed", (), sys.exc_info())
    assert "why" in json.loads(JsonLines().format(failed))["traceback"]
    assert log_configuration(True)["loggers"]["foveola.serving.requests"]["level"] == "INFO"
    assert log_configuration(False)["loggers"]["foveola.serving.requests"]["level"] == "WARNING"


# Parts of a server's process, in this one


class FakeGranian:
    """Stands for the HTTP server: makes the application in this process, and ends as it is told."""

    ending: BaseException | None = None

    def __init__(self, target, **settings):
        self.settings = settings
        self.interrupt_signal = False

    def serve(self, target_loader, wrap_loader):
        self.application = target_loader()
        if self.ending is not None:
            raise self.ending


@pytest.fixture
def in_this_process(monkeypatch):
    """Serve without Granian; signals are as before afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(server_module, "Granian", FakeGranian)
    monkeypatch.setattr(server_module._Starter, "start", lambda starter: None)
    monkeypatch.setattr(FakeGranian, "ending", None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_end_without_a_signal_is_a_failure(in_this_process, model_path, monkeypatch):
    serve(model_path, Settings(port=0), announce=print)
    monkeypatch.setattr(FakeGranian, "ending", SystemExit(1))
    with pytest.raises(Failure, match="lines above"):
        serve(model_path, Settings(port=0), announce=print)


def test_what_a_worker_reports_is_raised(in_this_process, model_path, monkeypatch):
    def start(starter):
        starter.failure = UserError("The model is bad.")

    monkeypatch.setattr(server_module._Starter, "start", start)
    with pytest.raises(UserError, match="The model is bad"):
        serve(model_path, Settings(port=0, workers=2), announce=print)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_several_workers_need_a_temporary_folder(model_path, monkeypatch):
    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server_module.tempfile, "TemporaryDirectory", full)
    with pytest.raises(UserError, match=r"No space left on device.* leave out --workers"):
        serve(model_path, Settings(port=0, workers=2), announce=print)


@pytest.mark.parametrize(
    ("error", "reported"), [(ModelError("Take another."), "Take another."), (RuntimeError("odd"), "cannot start.*odd")]
)
def test_a_worker_that_cannot_start_reports_why_and_tries_again(
    in_this_process, model_path, monkeypatch, error, reported, tmp_path
):
    reads, writes = multiprocessing.Pipe(duplex=False)
    attempts, pauses = [error, None], []
    monkeypatch.setattr(server_module.time, "sleep", pauses.append)
    monkeypatch.setattr(server_module.onnx, "open_bytes", lambda *given, **more: _raise(attempts.pop(0)))
    monkeypatch.setattr("foveola.serving.app.create_app", lambda *given: given)
    workers = Workers(tmp_path, 2)
    *_, ready = server_module._application(b"", model_path, Settings(), workers, 1, writes)
    found = reads.recv()
    assert isinstance(found, FoveolaError)
    assert re.search(reported, str(found))
    assert pauses == [0, 1]
    ready()
    assert reads.recv() is None
    assert workers.count_ready() == 1


def _raise(error):
    if error is not None:
        raise error


def test_it_is_announced_when_all_workers_are_ready():
    reads, writes = multiprocessing.Pipe(duplex=False)
    announced = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        granian = SimpleNamespace(bind_addr="127.0.0.1", bind_port=port)
        starter = server_module._Starter(reads, granian, Settings(workers=2), announced.append)
        starter.start()
        writes.send(None)
        assert not announced
        writes.send(None)
        until(lambda: announced == [f"http://127.0.0.1:{port}"])


def test_a_report_ends_the_server():
    reads, writes = multiprocessing.Pipe(duplex=False)
    ended = []
    granian = SimpleNamespace(signal_handler_interrupt=lambda: ended.append(True))
    starter = server_module._Starter(reads, granian, Settings(), print)
    writes.send(ModelError("bad"))
    starter._wait()
    assert ended
    assert isinstance(starter.failure, ModelError)


def test_while_it_runs_connections_are_examined(model, monkeypatch):
    examined = threading.Event()
    monkeypatch.setattr(app_module, "_EXAMINE_SECONDS", 0.01)
    monkeypatch.setattr(app_module, "end_stuck_connections", lambda *given: examined.set())
    app = app_module.create_app(model, Settings(), port=1)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert examined.wait(PATIENCE)
