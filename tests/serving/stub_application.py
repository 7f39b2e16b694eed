"""An application to try the server with, and the server as a process: python stub_application.py SETTINGS

SETTINGS are JSON. The server's URL is the first line on standard output.
"""

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from foveola.errors import FoveolaError, ModelError
from foveola.serving.server import serve
from foveola.serving.settings import Settings


class Stub:
    """Answers with what it was sent; /slow after 1 s, /hanging never, /early at once."""

    def __init__(self):
        self.turned_away = 0
        self.state = SimpleNamespace(draining=False, on_refused=self.count)

    def count(self, status):
        self.turned_away += status == 503

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        path = scope["path"]
        if path == "/early":
            await self.answer(send, 413, b"too long", [(b"connection", b"close")])
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        if path == "/slow":
            await asyncio.sleep(1)
        if path == "/hanging":
            await asyncio.sleep(3600)
        if path == "/ready" and self.state.draining:
            await self.answer(send, 503, b"draining")
            return
        told = {"/pid": os.getpid(), "/turned-away": self.turned_away}
        await self.answer(send, 200, str(told[path]).encode() if path in told else body)

    async def live(self, receive, send):
        await receive()
        if os.environ.get("STUB") == "does not start":
            await send({"type": "lifespan.startup.failed", "message": "as was asked for"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def answer(self, send, status, body, headers=()):
        headers = [(b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def make(model_path, settings):
    if os.environ.get("STUB") == "bad model":
        raise ModelError("The model is bad. Take another.")
    return Stub()


class SlowToClose(socket.socket):
    """A copy of a listener; a while goes by between the last connection that it accepts and its close."""

    def accept(self):
        try:
            return super().accept()
        except BlockingIOError:
            time.sleep(0.02)
            raise


if os.environ.get("STUB") == "slow to close":
    socket.socket.dup = lambda it: SlowToClose(it.family, it.type, it.proto, fileno=os.dup(it.fileno()))


def main():
    settings = Settings(**json.loads(sys.argv[1]))
    try:
        serve(Path("model.onnx"), settings, announce=lambda url: print(url, flush=True), make=make)
    except FoveolaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
