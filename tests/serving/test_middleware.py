"""Who is let in, what every answer carries, what is written down."""

import asyncio
import gzip
import json
import logging
import re
import zlib

import numpy as np
import pytest

from foveola.serving.body_limits import Body, Queue
from foveola.serving.metrics import Metrics
from foveola.serving.middleware import SecurityHeaders, middleware
from foveola.serving.refusals import Busy
from foveola.serving.settings import Settings

REQUESTS = "foveola.serving.requests"
JSON = {"Content-Type": "application/json"}
PIXELS = json.dumps(np.zeros((8, 8), int).tolist()).encode()


@pytest.fixture
def lines(caplog):
    """The log of requests."""
    caplog.set_level(logging.INFO, REQUESTS)
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == REQUESTS]


# By which name


def allows(host, bound_to, *allowed):
    settings = Settings(host=bound_to, allowed_hosts=allowed)
    return answered(settings, headers=[(b"host", host)], body=[b""])[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1:8000", "localhost", "LOCALHOST.:1", "[::1]", "[::1]:80"])
@pytest.mark.parametrize("bound_to", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_may_always_be_asked(bound_to, host):
    assert allows(host.encode(), bound_to)


@pytest.mark.parametrize(
    "host",
    ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "10.0.0.7", "1.2.3.4", "[fe80::1]", "2130706433",
     "0x7f.1", "", "a b", "localhost:", "localhost:x", "localhost:123456", "[::1", "::1", "user@localhost", "lócal"],
)  # fmt: skip
def test_other_names_and_addresses_may_not(host):
    assert not allows(host.encode("latin-1"), "127.0.0.1")


def test_on_a_network_addresses_pass_and_names_do_not():
    everywhere = "0.0.0.0"  # noqa: S104 - nothing is bound
    assert allows(b"10.0.0.7:8000", everywhere)
    assert allows(b"[fe80::1]", everywhere)
    assert not allows(b"evil.test", everywhere)


def test_names_that_were_allowed():
    names = ("Digits.test", "10.0.0.7")
    assert allows(b"digits.TEST:443", "127.0.0.1", *names)
    assert allows(b"10.0.0.7", "127.0.0.1", *names)
    assert not allows(b"www.digits.test", "127.0.0.1", *names)
    assert allows(b"digits.test", "digits.test")
    assert allows(b"anything.test", "127.0.0.1", "*")
    assert not allows(b"any thing", "127.0.0.1", "*")


def test_a_forged_host_is_refused_everywhere(client):
    for path in ("/", "/model", "/v2/health/live", "/metrics", "/nothing"):
        answer = client.get(path, headers={"Host": "evil.test"})
        assert answer.status_code == 421
        assert "does not have the name" in answer.json()["error"]


# From which page


def test_own_pages_and_programs_may_ask(client, address):
    assert client.get("/model").status_code == 200
    for origin in (address, address.replace("http:", "https:"), address.upper()):
        assert client.get("/model", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:1", "file://", "", "127.0.0.1"])
def test_pages_from_elsewhere_may_not(client, origin):
    answer = client.post("/predict", content=PIXELS, headers=JSON | {"Origin": origin})
    assert answer.status_code == 403
    assert "another origin" in answer.json()["error"]
    assert not any(name.startswith("access-control") for name in answer.headers)


# With which key


@pytest.fixture
def locked(serve):
    return serve(api_key="s3cret-ü")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer s3cret-ü"},
        {"Authorization": "bearer   s3cret-ü"},
        {"X-API-Key": "s3cret-ü"},
    ],
)
def test_the_key_opens(locked, headers):
    encoded = {name: value.encode() for name, value in headers.items()}
    assert locked.get("/model", headers=encoded).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer s3cret"},
        {"Authorization": "Basic s3cret-ü"},
        {"X-API-Key": ""},
        {"X-API-Key": "x"},
    ],
)
def test_nothing_else_does(locked, headers):
    encoded = {name: value.encode() for name, value in headers.items()}
    for path in ("/model", "/metrics", "/openapi.json", "/v2", "/v2/models/model/ready", "/nothing"):
        answer = locked.get(path, headers=encoded)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert locked.post("/predict", content=PIXELS, headers=JSON | encoded).status_code == 401


def test_the_page_and_the_health_of_the_server_need_no_key(locked):
    for path in ("/", "/page/main.js", "/v2/health/live", "/v2/health/ready"):
        assert locked.get(path).status_code == 200
    described = locked.get("/openapi.json", headers={"X-API-Key": "s3cret-ü".encode()}).json()
    assert described["security"] == [{"bearer": []}, {"header": []}]
    assert described["paths"]["/v2/health/live"]["get"]["security"] == []


def test_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda *pair: compared.append(pair))
    headers = [(b"host", b"localhost"), (b"x-api-key", b"wrong")]
    status, _ = answered(Settings(api_key="right"), headers=headers, path="/model")
    assert (status, compared) == (401, [(b"wrong", b"right")])


# How much, how fast


def answered(settings, *, headers=((b"host", b"localhost"),), body=(b"",), app=None, **scope):
    """The middleware alone: its response to a client that sends a body in these parts, and then nothing."""
    parts, sent = list(body), []

    async def echo(scope, receive, send):
        received = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": received})

    async def receive():
        if not parts:
            await asyncio.Event().wait()
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)} if isinstance(part, bytes) else part

    async def send(message):
        sent.append(message)

    head = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": list(headers)}
    wrapped = app or echo
    for layer in reversed(middleware(settings, Metrics())):
        wrapped = layer.cls(wrapped, *layer.args, **layer.kwargs)
    asyncio.run(wrapped(head | scope, receive, send))
    return (sent[0]["status"], sent) if sent else (None, None)


def chunked(*parts):
    return {"headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")], "body": [*parts, b""]}


def test_a_body_that_comes_in_parts_reaches_the_app_whole():
    status, sent = answered(Settings(), **chunked(b"abc", b"", b"defg"))
    assert (status, sent[1]["body"]) == (200, b"abcdefg")


def test_a_declared_length_is_refused():
    for length in (b"11", b"9" * 30):
        headers = [(b"host", b"localhost"), (b"content-length", length)]
        assert answered(Settings(max_body_bytes=10), headers=headers, body=[bytes(5), bytes(6)])[0] == 413


def test_a_client_that_waits_before_it_sends_is_refused_before_anything_is_read():
    headers = [(b"host", b"localhost"), (b"content-length", b"11"), (b"expect", b"100-continue")]
    parts = [b"unread", b""]
    assert answered(Settings(max_body_bytes=10), headers=headers, body=parts)[0] == 413


def test_what_a_client_sends_after_a_refusal_is_read_up_to_a_limit_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(Body, "_PAUSE_SECONDS", 0.05)
    headers = [(b"host", b"localhost"), (b"content-length", b"99")]
    assert answered(Settings(max_body_bytes=10), headers=headers, body=[])[0] == 413  # it sends nothing
    monkeypatch.setattr(Body, "_DISCARDED_BYTES", 100)
    assert answered(Settings(max_body_bytes=10), headers=headers, body=[bytes(60)] * 99)[0] == 413


def test_an_undeclared_length_is_counted():
    assert answered(Settings(max_body_bytes=10), **chunked(b"12345", b"67890"))[0] == 200
    assert answered(Settings(max_body_bytes=10), **chunked(b"12345", b"678901"))[0] == 413
    assert answered(Settings(max_body_bytes=10), **chunked(b"12345678901"))[0] == 413


def test_a_body_has_a_deadline():
    headers = [(b"host", b"localhost"), (b"content-length", b"9")]
    assert answered(Settings(receive_seconds=0.01), headers=headers, body=[])[0] == 408


def test_bodies_have_a_limit_together(monkeypatch):
    monkeypatch.setattr(Body, "_AT_ONCE", 1)
    assert answered(Settings(max_body_bytes=10), **chunked(b"12345", b"67890"))[0] == 200
    held = Body(None, max_bytes=10, seconds=9)
    held._held = 8

    async def receive():
        return {"type": "http.request", "body": b"123", "more_body": True}

    with pytest.raises(Busy):
        asyncio.run(held({"type": "http", "method": "POST", "headers": []}, receive, None))
    assert held._held == 8


def test_more_requests_than_may_wait_are_rejected_at_once():
    async def scene():
        free = asyncio.Event()

        async def app(scope, receive, send):
            await free.wait()

        queue = Queue(app, limit=2)
        post, get = ({"type": "http", "method": method} for method in ("POST", "GET"))
        waiting = [asyncio.create_task(queue(scope, None, None)) for scope in (post, get, post)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await queue(post, None, None)
        free.set()
        await asyncio.gather(*waiting)
        await queue(post, None, None)

    asyncio.run(scene())


def test_a_body_that_breaks_off_is_refused(lines):
    gone = {
        "headers": [(b"host", b"localhost"), (b"content-length", b"9")],
        "body": [b"abc", {"type": "http.disconnect"}],
    }
    assert answered(Settings(), **gone)[0] == lines()[-1]["status"] == 400


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
def test_compressed_bodies(client, coding):
    content = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[coding](PIXELS)
    answer = client.post("/predict", content=content, headers=JSON | {"Content-Encoding": coding})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("content", "coding", "status"),
    [
        (gzip.compress(bytes(2**20 + 1)), "gzip", 413),
        (zlib.compress(bytes(2**26)), "deflate", 413),
        (gzip.compress(PIXELS)[:-9], "gzip", 400),
        (gzip.compress(PIXELS) + b"more", "gzip", 400),
        (PIXELS, "gzip", 400),
        (PIXELS, "br", 415),
        (gzip.compress(gzip.compress(PIXELS)), "gzip, gzip", 415),
    ],
    ids=["just too long", "bomb", "cut off", "goes on", "not compressed", "unknown", "twice"],
)
def test_what_cannot_be_inflated_within_bounds(serve, content, coding, status):
    client = serve(max_body_bytes=2**20)
    answer = client.post("/predict", content=content, headers=JSON | {"Content-Encoding": coding})
    assert answer.status_code == status


def test_headers_that_contradict_themselves():
    host = (b"host", b"localhost")
    assert answered(Settings(), headers=[])[0] == 400
    for name in (b"host", b"content-length", b"origin"):
        assert answered(Settings(), headers=[host, (name, b"1"), (name, b"2")])[0] == 400
    twice = [(b"authorization", b"Bearer right"), (b"authorization", b"Bearer wrong")]
    assert answered(Settings(api_key="right"), headers=[host, *twice], path="/model")[0] == 400
    assert answered(Settings(), headers=[host, host, (b"cookie", b"1"), (b"cookie", b"2")], body=[b""])[0] == 200


# What comes back


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/model", "/nothing", "/v2/health/live"])
def test_every_answer_has_the_headers(client, path):
    answer = client.get(path)
    for name, value in SecurityHeaders.HEADERS:
        assert answer.headers[name.decode()] == value.decode()


def test_ids_of_requests(client):
    assert client.get("/model", headers={"X-Request-ID": "a-1.B_2"}).headers["X-Request-ID"] == "a-1.B_2"
    made = []
    for bad in (None, "", "a b", "é", "x" * 65, '"'):
        headers = {} if bad is None else {"X-Request-ID": bad.encode()}
        made.append(client.get("/nothing", headers=headers))
        assert re.fullmatch("[0-9a-f]{32}", made[-1].headers["X-Request-ID"])
        assert made[-1].json()["request_id"] == made[-1].headers["X-Request-ID"]
    assert len({answer.headers["X-Request-ID"] for answer in made}) == len(made)


def test_every_request_is_a_line_of_the_log(serve, lines):
    client = serve()
    client.post("/predict?top=1", content=PIXELS, headers=JSON | {"X-Request-ID": "mine"})
    client.get("/v2/models/model", headers={"X-Request-ID": "next"})
    client.get("/secret/path?key=1", headers={"X-Request-ID": "last"})
    found = {line["request_id"]: line for line in lines()}
    assert {name: found["mine"][name] for name in ("method", "route", "status", "client")} == {
        "method": "POST", "route": "/predict", "status": 200, "client": "testclient"
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found["mine"]["time"])
    assert found["mine"]["seconds"] >= 0
    assert found["mine"]["bytes"] > 50
    assert found["next"]["route"] == "/v2/models/{name}"
    assert found["last"]["route"] == "none"
    assert "secret" not in json.dumps(found["last"])


def test_a_failure_is_told_to_the_log_and_not_to_the_client(lines):
    async def app(scope, receive, send):
        raise RuntimeError("the password is 1234")

    status, sent = answered(Settings(), app=app, headers=[(b"host", b"localhost"), (b"x-request-id", b"it")])
    assert status == 500
    assert b"1234" not in sent[1]["body"]
    failure, request = lines()
    assert "the password is 1234" in failure["error"]
    assert "Traceback" in failure["traceback"]
    assert request["status"] == 500


def test_an_answer_that_fails_half_way_is_cut_off():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        answered(Settings(), app=app)
