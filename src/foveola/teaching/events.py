"""Server-sent events: browsers hear that something has changed, and get its latest state."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pydantic_core import to_json

KEEP_ALIVE_SECONDS = 15.0
SECONDS_BETWEEN = 0.2
"""Between two messages to a client: of changes that follow each other more quickly, the last one is sent."""


class Events:
    """What has changed, for any number of clients.

    A client that is slow, or begins later, gets the latest state of everything, and never a queue of old ones.

    Parameters
    ----------
    topics : by event name, what gives its data as a JSON document
    """

    def __init__(self, topics: Mapping[str, Callable[[], Any]]) -> None:
        self._topics = topics
        self._versions = dict.fromkeys(topics, 0)
        self._clients: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def open(self) -> None:
        """Serve clients of the running event loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._wake()

    def changed(self, topic: str) -> None:
        """Tell all clients; called from any thread."""
        self._versions[topic] += 1
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield events for one client, beginning with the state of every topic; comments keep the connection open."""
        wake, sent = asyncio.Event(), dict.fromkeys(self._topics, -1)
        self._clients.add(wake)
        try:
            while not self._closed:
                wake.clear()
                for topic, document in self._topics.items():
                    version = self._versions[topic]
                    if version != sent[topic]:
                        sent[topic] = version
                        yield b"event: " + topic.encode() + b"\ndata: " + to_json(document()) + b"\n\n"
                try:
                    await asyncio.wait_for(wake.wait(), KEEP_ALIVE_SECONDS)
                    await asyncio.sleep(SECONDS_BETWEEN)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._clients.discard(wake)

    def _wake(self) -> None:
        for client in self._clients:
            client.set()
