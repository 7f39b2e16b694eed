"""A small model behind the server's API, in this process: with a socket, or without one."""

import base64
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.exports import onnx
from foveola.exports.onnx import OnnxModel
from foveola.serving.app import create_app
from foveola.serving.process import Server
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
def model(toy, tmp_path_factory) -> OnnxModel:
    """An export of a small network with a convolution, which tells the toy's three classes apart."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "maps.toml").write_text(CONVOLUTION)
    run = foveola.train(toy, folder / "maps.toml", out=folder / "run", seed=0, verbose=False)
    return onnx.open(export(run.path, "onnx", data=toy, verbose=False).path, threads=1)


@contextmanager
def served(model: OnnxModel, **settings: object) -> Iterator[str]:
    """Serve on loopback, in a thread; the address."""
    chosen = Settings(**settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready = threading.Event()
        app = create_app(model, chosen)
        server = Server(app, chosen, on_ready=ready.set)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert ready.wait(10), "the server has not started"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.end()
            thread.join()


@pytest.fixture(scope="session")
def address(model) -> Iterator[str]:
    """A server with the settings that one has who says nothing."""
    with served(model) as address:
        yield address


@pytest.fixture
def client(address) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture
def serve(model) -> Iterator[Callable[..., httpx.Client]]:
    """A server of its own with other settings, or another model; a client of it."""
    with ExitStack() as stack:

        def start(other: OnnxModel | None = None, **settings: object) -> httpx.Client:
            address = stack.enter_context(served(other or model, **settings))
            return stack.enter_context(httpx.Client(base_url=address))

        yield start


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
    """Bytes sent as they are; status and the whole answer, read until the server closes the connection."""

    def exchange(sent: bytes, to: str = address) -> tuple[int, bytes]:
        host, port = to.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return int(received.split(b" ", 2)[1]), received

    return exchange
