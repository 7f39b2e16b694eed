"""A small model behind the server's API: as a process with a port, or in this process without one."""

import base64
import io
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import foveola
from foveola.exports import onnx
from foveola.exports.onnx import OnnxModel
from foveola.serving.app import create_app
from foveola.serving.settings import Settings
from foveola.workflow.export import export

CONVOLUTION = """
name = "maps"
description = "A convolution to look at"
validation = 0.2
batch_size = 16
epochs = 20
learning_rate = 0.01
precision = "float32"
layers = [
  { type = "Conv2D", filters = 4, kernel = 3, activation = "relu" },
  { type = "Flatten" },
  { type = "Dense", units = "classes" },
]
"""


@pytest.fixture(scope="session")
def model_path(toy, tmp_path_factory) -> Path:
    """An export of a small network with a convolution, which tells the toy's three classes apart."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "maps.toml").write_text(CONVOLUTION)
    run = foveola.train(toy, folder / "maps.toml", out=folder / "run", seed=0, verbose=False)
    return export(run.path, "onnx", data=toy, verbose=False).path


@pytest.fixture(scope="session")
def model(model_path) -> OnnxModel:
    """The same export, opened in this process."""
    return onnx.open(model_path, threads=1)


@dataclass
class Running:
    """A server's process, and where it listens."""

    process: subprocess.Popen[str]
    address: str
    log: Path
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def connect(self) -> socket.socket:
        self.connections.append(socket.create_connection(("127.0.0.1", self.port), timeout=60))
        return self.connections[-1]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(model_path: Path, **settings: object) -> Iterator[Running]:
    """A server as a process, once it is ready; it does not outlive the block. Its standard error goes to a file."""
    command = [sys.executable, Path(__file__).with_name("serve_model.py"), model_path, json.dumps(settings)]
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            url = process.stdout.readline().strip()
            if not url:
                pytest.fail(Path(log.name).read_text())
            server = Running(process, url, Path(log.name))
            yield server
            for connection in server.connections:
                connection.close()
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="session")
def address(model_path) -> Iterator[str]:
    """A server with default settings."""
    with running(model_path, log_requests=False) as server:
        yield server.address


@pytest.fixture
def client(address) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture
def start(model_path) -> Iterator[Callable[..., Running]]:
    """Start a server with other settings, or another export."""
    with ExitStack() as stack:
        yield lambda export=model_path, **settings: stack.enter_context(running(export, **settings))


@pytest.fixture
def serve(model) -> Iterator[Callable[..., TestClient]]:
    """Run the application in this process, with other settings or another model; a client of it."""
    with ExitStack() as stack:

        def application(other: OnnxModel | None = None, **settings: object) -> TestClient:
            app = create_app(other or model, Settings(**settings))
            client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield application


@pytest.fixture
def images(toy) -> np.ndarray:
    return toy.train.images


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Pixels, uint8 H×W×C, as an image file."""

    def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def decoded() -> Callable[[dict], np.ndarray]:
    """The array in a document of shape and base64."""

    def decode(document: dict) -> np.ndarray:
        (content,) = (document[key] for key in ("pixels", "values") if key in document)
        return np.frombuffer(base64.b64decode(content), np.uint8).reshape(document["shape"])

    return decode


@pytest.fixture
def raw(address) -> Callable[..., tuple[int, bytes]]:
    """Bytes sent as they are; status (0 without a response) and all that comes until the server closes."""

    def exchange(sent: bytes, to: str = address) -> tuple[int, bytes]:
        host, port = to.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return int(received.split(b" ", 2)[1]) if received else 0, received

    return exchange
