"""Throughput and latency of the server under load, beside plain FastAPI and LitServe, in one run.

    make peers-serving    # LitServe and FastAPI in an environment of their own, once
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/load.py [--model model.onnx] [--seconds 20] [--json]

Trains `fast` on Fashion-MNIST and exports it; all servers run this export in float32. Then, for each server, with 64
clients on persistent connections in a process of their own:

1. Closed loop: every client sends its next request as soon as it has a response. Responses a second are the saturation
   rate.
2. Open loop at 70 % of that rate: requests are sent as a Poisson process, whether or not earlier ones have a response;
   latency counts from the moment at which the request was due.
3. Open loop at one rate for all servers that can sustain it.
4. Foveola only: open loop at twice its saturation rate, from up to 640 connections.

A request is a JSON array of 28×28 pixels; a response gives the class and all probabilities, and is compared with the
model's own output for that image. Servers run on one processor, clients on another if there are two; no server writes
an access log.
"""

import argparse
import asyncio
import gc
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers-serving" / "bin" / "python"
DATA = "fashion-mnist"
CLIENTS = 64
MOST_CLIENTS = 640
WARM_UP = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an export for 28×28 images; by default one is trained")
    parser.add_argument("--seconds", type=float, default=20, help="duration of each phase of each server")
    parser.add_argument("--rounds", type=int, default=1, help="repetitions; results are medians over them")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second in the phase with one rate for all")
    parser.add_argument("--only", choices=SERVERS, help="measure one server only")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(Load(**json.loads(options.client)).run()))
        return
    if not PEERS.exists() and options.only != "foveola":
        sys.exit(f"{PEERS} is missing. Run make peers-serving first.")
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or trained(Path(folder))
        questions = Path(folder) / "questions.npz"
        write_questions(model, questions)
        rounds: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            names = [options.only] if options.only else list(SERVERS)
            rounds.append({name: measure(name, model, questions, options.seconds, options.rate) for name in names})
    print(json.dumps(rounds, indent=2) if options.json else table(rounds))


def trained(folder: Path) -> Path:
    import foveola
    from foveola.workflow.export import export

    run = foveola.train(DATA, "fast", overrides={"epochs": 1}, out=folder / "run", verbose=False)
    return export(run.path, verbose=False).path


def write_questions(model: Path, target: Path) -> None:
    """Write the 10,000 test images, and the model's own output for them."""
    import foveola
    from foveola.tasks import softmax

    images = foveola.load(DATA).test.images
    opened = foveola.open(model)
    np.savez(
        target,
        images=images[..., 0],
        probabilities=softmax(opened.predict_logits(images)),
        class_names=np.array(opened.class_names),
    )


def measure(name: str, model: Path, questions: Path, seconds: float, same_rate: float) -> dict[str, Any]:
    """Results of all phases with one server."""
    figures: dict[str, Any] = {}
    with served(name, model) as (port, process):

        def load(**how: Any) -> dict[str, Any]:
            path = "/predict?top=10&findings=false" if name == "foveola" else "/predict"
            settings = {"port": port, "path": path, "questions": str(questions), **how}
            command = [sys.executable, __file__, "--client", json.dumps(settings)]
            return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, **pinned(1)).stdout))

        load(clients=CLIENTS, count=WARM_UP)
        if name == "foveola":
            load(clients=MOST_CLIENTS, count=WARM_UP)
        before = resident(process)
        figures["closed"] = load(clients=CLIENTS, seconds=seconds)
        rate = figures["closed"]["rate"]
        figures["at_70_percent"] = load(clients=CLIENTS, rate=0.7 * rate, seconds=seconds)
        if same_rate < 0.9 * rate:
            figures["at_one_rate"] = load(clients=CLIENTS, rate=same_rate, seconds=seconds)
        if name == "foveola":
            figures["at_200_percent"] = load(clients=MOST_CLIENTS, rate=2 * rate, seconds=seconds)
            figures["after"] = load(clients=CLIENTS, seconds=seconds / 4)
            figures["mib"] = {"after_warm_up": before, "at_the_end": resident(process)}
    print(f"{name}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


SERVERS = {
    "foveola": lambda model, port: [
        str(Path(sys.executable).with_name("foveola")), "serve", str(model), "--port", str(port), "--quiet",
    ],
    "fastapi": lambda model, port: [str(PEERS), str(HERE / "peers" / "serving_fastapi.py"), str(model), str(port)],
    "litserve": lambda model, port: [str(PEERS), str(HERE / "peers" / "serving_litserve.py"), str(model), str(port)],
}  # fmt: skip


@contextmanager
def served(name: str, model: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that is ready, on the first processor; stopped afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = SERVERS[name](model, port)
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, **pinned(0))
    try:
        wait_for(port, process)
        yield port, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server predicts an image."""
    request = request_for(np.zeros((28, 28), np.uint8), "/predict")
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"The server exited with {process.returncode}.")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request)
                if connection.recv(12) == b"HTTP/1.1 200":
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("The server does not respond.")


def pinned(processor: int) -> dict[str, Any]:
    """Arguments of Popen that pin a process to one processor, if there are at least two."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(processors) < 2:
        return {}
    return {"preexec_fn": lambda: os.sched_setaffinity(0, {processors[processor]})}


def resident(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a process and its children, MiB; pages that they share are counted once."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    files = [Path(f"/proc/{number}/smaps_rollup").read_text() for number in [process.pid, *children]]
    return sum(int(re.search(r"^Pss:\s+(\d+) kB", file, re.MULTILINE)[1]) for file in files) / 1024


def request_for(image: np.ndarray, path: str) -> bytes:
    body = json.dumps(image.tolist(), separators=(",", ":")).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Load:
    """Load generator: sends requests, checks responses, and measures latency.

    Parameters
    ----------
    clients : number of connections
    count : number of requests, or
    seconds : duration of sending
    rate : requests a second, as a Poisson process; without it, every client sends again after each response
    """

    def __init__(
        self,
        port: int,
        path: str,
        questions: str,
        clients: int,
        count: int | None = None,
        seconds: float | None = None,
        rate: float | None = None,
    ) -> None:
        self.port, self.clients, self.count, self.seconds, self.rate = port, clients, count, seconds, rate
        with np.load(questions) as file:
            self.probabilities = file["probabilities"].max(axis=1).tolist()
            self.classes = file["class_names"][file["probabilities"].argmax(axis=1)].tolist()
            self.requests = [request_for(image, path) for image in file["images"]]
        self.sent = self.done = self.wrong = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: dict[int, list[float]] = {200: [], 503: []}
        self.free: deque[Client] = deque()
        self.due: deque[float] = deque()

    def run(self) -> dict[str, Any]:
        import uvloop

        gc.disable()  # pauses of the clients must not count as latency
        return uvloop.run(self._run())

    async def _run(self) -> dict[str, Any]:
        self.loop = asyncio.get_running_loop()
        self.idle = asyncio.Event()
        self.sending = self.rate is not None
        for _ in range(self.clients):
            await self.loop.create_connection(lambda: Client(self), "127.0.0.1", self.port)
        start = time.perf_counter()
        self.end = start + (self.seconds or float("inf"))
        if self.rate is None:
            for client in list(self.free):
                self.free.remove(client)
                self._ask(client, time.perf_counter())
        else:
            await self._send_when_due(start)
        await asyncio.wait_for(self.idle.wait(), 60)
        return self._figures(time.perf_counter() - start)

    async def _send_when_due(self, start: float) -> None:
        gaps = np.random.default_rng(0).exponential(1 / self.rate, int(2 * self.rate * self.seconds) + 1000)
        for moment in (start + np.cumsum(gaps)).tolist():
            if moment > self.end:
                break
            while (wait := moment - time.perf_counter()) > 0:
                await asyncio.sleep(wait if wait > 0.001 else 0)
            if self.free:
                self._ask(self.free.popleft(), moment)
            else:
                self.due.append(moment)
        self.sending = False
        self._rest()

    def _rest(self) -> None:
        if self.done == self.sent and not self.sending and not self.due:
            self.idle.set()

    def _ask(self, client: "Client", moment: float) -> None:
        client.ask(self.sent % len(self.requests), moment)
        self.sent += 1

    def answered(self, client: "Client", status: int, body: bytes) -> None:
        """A client has its response: check it, and send the next request that is due."""
        now = time.perf_counter()
        self.statuses[status] += 1
        self.latencies.setdefault(status, []).append(now - client.moment)
        if status == 200:
            found = json.loads(body)["predictions"][0]
            expected = self.classes[client.question], self.probabilities[client.question]
            if found["class"] != expected[0] or abs(found["probability"] - expected[1]) > 1e-6:
                self.wrong += 1
        self.done += 1
        if self.rate is None and now < self.end and (self.count is None or self.sent < self.count):
            self._ask(client, now)
        elif self.due:
            self._ask(client, self.due.popleft())
        else:
            self.free.append(client)
            self._rest()

    def _figures(self, seconds: float) -> dict[str, Any]:
        good = np.array(self.latencies[200])
        refused = np.array(self.latencies[503])

        def milliseconds(values: np.ndarray, percent: float) -> float | None:
            return round(1000 * float(np.percentile(values, percent)), 2) if len(values) else None

        return {
            "sent": self.sent,
            "wrong": self.wrong,
            "statuses": dict(self.statuses),
            "seconds": round(seconds, 2),
            "rate": round(len(good) / seconds, 1),
            "p50_ms": milliseconds(good, 50),
            "p99_ms": milliseconds(good, 99),
            "refused_share": round(len(refused) / max(self.done, 1), 4),
            "refused_p50_ms": milliseconds(refused, 50),
            "refused_p99_ms": milliseconds(refused, 99),
        }


class Client(asyncio.Protocol):
    """A persistent connection with one request at a time."""

    _LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)

    def __init__(self, load: Load) -> None:
        self.load = load
        self.data = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.load.free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.load.done < self.load.sent:
            sys.exit(f"A connection was lost: {error!r}; {self.data[:200]!r}")

    def ask(self, question: int, moment: float) -> None:
        self.question, self.moment = question, moment
        self.transport.write(self.load.requests[question])

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if end and len(body) >= int(self._LENGTH.search(head + b"\r\n")[1]):
            self.data = b""
            self.load.answered(self, int(head[9:12]), body)


def table(rounds: list[dict[str, Any]]) -> str:
    """Markdown table of medians over the rounds."""

    def median(name: str, phase: str, key: str) -> float:
        return statistics.median(found[name][phase][key] or 0 for found in rounds)

    def latency(name: str, phase: str) -> str:
        if any(phase not in found[name] for found in rounds):
            return "—"
        return f"{median(name, phase, 'p50_ms'):.1f} / {median(name, phase, 'p99_ms'):.1f}"

    lines = ["| | responses a second | p50 / p99, ms, at 70 % | at one rate | wrong |", "|---|---:|---:|---:|---:|"]
    for name, title in (
        ("foveola", "`foveola serve`"),
        ("fastapi", "FastAPI, one request at a time"),
        ("litserve", "LitServe"),
    ):
        if name not in rounds[0]:
            continue
        phases = [phase for found in rounds for phase in found[name].values() if "wrong" in phase]
        lines.append(
            f"| {title} | {median(name, 'closed', 'rate'):,.0f} | {latency(name, 'at_70_percent')} | "
            f"{latency(name, 'at_one_rate')} | "
            f"{sum(phase['wrong'] for phase in phases)} of {sum(phase['sent'] for phase in phases):,} |"
        )
    if "foveola" in rounds[0]:
        lines += ["", *over_the_limit(median)]
    return "\n".join(lines)


def over_the_limit(median: Any) -> list[str]:
    peak, good = median("foveola", "closed", "rate"), median("foveola", "at_200_percent", "rate")
    before, after = (median("foveola", "mib", moment) for moment in ("after_warm_up", "at_the_end"))
    return [
        f"Foveola at twice its rate: {good:,.0f} responses a second, {good / peak:.0%} of its peak "
        f"(p99 {median('foveola', 'at_200_percent', 'p99_ms'):.0f} ms); "
        f"{median('foveola', 'at_200_percent', 'refused_share'):.0%} rejected "
        f"(p50 {median('foveola', 'at_200_percent', 'refused_p50_ms'):.1f} ms, "
        f"p99 {median('foveola', 'at_200_percent', 'refused_p99_ms'):.1f} ms). "
        f"Memory: {before:.1f} MiB after {2 * WARM_UP:,} requests, {after:.1f} MiB at the end.",
    ]


if __name__ == "__main__":
    main()
