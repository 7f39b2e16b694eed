"""A connection without a network: what it writes, and what it tells of its refusals."""

import asyncio

import pytest
from uvicorn import Config

from foveola.serving.connection import WHOLE, Connection, State
from foveola.serving.settings import Settings


class Wire(asyncio.Transport):
    """A transport that keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def exchange(app, *parts: bytes) -> tuple[list[bytes], list[int]]:
    """What is written to a client that sends these parts one by one, and the status of every refusal."""
    refused: list[int] = []

    async def scene() -> list[bytes]:
        state = State(Settings())
        state.on_refused = refused.append
        config = Config(app, http=Connection, lifespan="off", log_config=None)
        config.load()
        connection, wire = Connection(config, state, {}), Wire()
        connection.connection_made(wire)
        for part in parts:
            connection.data_received(part)
            for _ in range(10):
                await asyncio.sleep(0)
        connection.connection_lost(None)
        return wire.writes

    return asyncio.run(scene()), refused


async def echo(scope, receive, send):
    """Answers with the body, and whether it was there from the first moment on."""
    whole = b"whole" if WHOLE in scope else b"in parts"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    length = str(len(whole + body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": whole + body})


def test_an_answer_is_one_write():
    writes, refused = exchange(echo, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" * 3)
    assert len(writes) == 3
    assert all(write.startswith(b"HTTP/1.1 200") and write.endswith(b"\r\n\r\nwholeabc") for write in writes)
    assert refused == []


def test_an_answer_to_head_has_no_body_and_is_written_all_the_same():
    writes, _ = exchange(echo, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(writes) == 1
    assert writes[0].endswith(b"content-length: 5\r\n\r\n")


def test_who_waits_for_a_word_before_the_body_gets_it_at_once():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    (interim, answer), _ = exchange(echo, head, b"abc")
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.endswith(b"\r\n\r\nin partsabc")


def test_an_answer_in_parts_is_written_as_they_come():
    async def parts(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, more in ((b"one", True), (b"two", True), (b"", False)):
            await send({"type": "http.response.body", "body": number, "more_body": more})

    (first, *others), _ = exchange(parts, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert first.endswith(b"\r\n\r\n3\r\none\r\n")
    assert others == [b"3\r\ntwo\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("parts", "status"), [([b"HELLO\r\n\r\n"], 400), ([b"GET / HTTP/1.1\r\nx: ", 99_999 * b"x"], 431)]
)
def test_refusals_are_told(parts, status):
    (answer,), refused = exchange(echo, *parts)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert refused == [status]
