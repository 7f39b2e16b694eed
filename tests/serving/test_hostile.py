"""What attackers send: all of it is refused, and whoever else asks gets the right answer meanwhile."""

import json
import re
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

MIB = 2**20


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *, rows=b"", depth=8, colour=2):
    """A PNG that says this of itself, whatever it holds."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def flat(width, height):
    """A grey PNG that is really that large, in few bytes."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    return png(width, height, colour=0, rows=b"".join(packer.compress(row) for _ in range(height)) + packer.flush())


def swollen(name):
    """A PNG with a chunk of 200 MB of zeros."""
    return png(2, 2)[:33] + chunk(name, b"a\0\0" + zlib.compress(bytes(200 * MIB), 9))


BOMBS = {
    "64 megapixels of black": lambda: flat(8000, 8000),
    "a picture that says it has 4 gigapixels": lambda: png(2**16, 2**16),
    "a picture that says it has 2^62 pixels": lambda: png(2**31 - 1, 2**31 - 1),
    "a text chunk of 200 MB": lambda: swollen(b"zTXt"),
    "a colour profile of 200 MB": lambda: swollen(b"iCCP"),
    "a GIF of 3.6 gigapixels": lambda: b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0, 0, 0) + b"\x2c" + bytes(20),
    "a BMP of 2^62 pixels": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "a WebP of 268 megapixels": lambda: (
        b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\0" * 2 + bytes(8)
    ),
}

FILES = {
    "TIFF": b"II*\0" + bytes(100),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "zip": b"PK\3\4" + bytes(100),
    "HTML": b"<html><script>alert(1)</script>",
    "nothing": b"",
    "zeros": bytes(1000),
}


@contextmanager
def bystander(address, images, model):
    """Another client, who asks all the while and must be answered rightly."""
    expected = [model.class_names[k] for k in model.predict_logits(images).argmax(axis=1)]
    done, failures, answered = threading.Event(), [], []

    def ask():
        with httpx.Client(base_url=address, timeout=30) as client:
            while True:
                answer = client.post("/predict?findings=false", json=images.tolist())
                if answer.status_code != 200 or [each["class"] for each in answer.json()["predictions"]] != expected:
                    failures.append(answer.text)
                answered.append(1)
                if done.is_set():
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        assert answered
        assert not failures, failures[0]


@pytest.fixture(autouse=True)
def others(address, images, model):
    with bystander(address, images[::20], model):
        yield


# Pictures


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(client, address, name):
    content = BOMBS[name]()
    assert len(content) < MIB
    for path in ("/predict", "/look"):
        assert client.post(path, content=content).status_code == 422
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{address}/predict", content=content), range(16)))
    assert {answer.status_code for answer in answers} <= {422, 503}


def test_bombs_take_no_memory(start):
    """Of the server's process, from before the first bomb to its peak."""
    server = start(log_requests=False)
    process = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()[0]
    with httpx.Client(base_url=server.address, timeout=60) as client:
        assert client.post("/predict", content=b"no image").status_code == 422
        before = peak(process)
        for content in BOMBS.values():
            client.post("/predict", content=content())
        assert peak(process) - before < 64 * 1024


def peak(process):
    """Largest resident memory so far, KiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("type_", ["image/png", "application/octet-stream", "application/json"])
def test_files_that_are_no_pictures(client, name, type_):
    answer = client.post("/predict", content=FILES[name], headers={"Content-Type": type_})
    assert answer.status_code == 422
    assert "root:" not in answer.text


@pytest.mark.parametrize("type_", ["multipart/form-data; boundary=x", "text/xml", "application/x-pickle", "x" * 5000])
def test_types_that_are_not_taken(client, type_):
    assert client.post("/predict", content=b"--x", headers={"Content-Type": type_}).status_code == 415


def test_absurd_json(client):
    for content in (
        b"[" * 10 * MIB,
        b'{"images":' * 100_000,
        b"[[" + b"1" * 8 * MIB + b"]]",
        b"[[" + b"-" * 1000 + b"]]",
        b'{"images": ["' + b"A" * 15 * MIB + b'"]}',
        b'{"images": [' + b"[]," * 300_000 + b"[]]}",
        b"[" + b"[1]," * 300_000 + b"[1, 2]]",
        json.dumps({"images": ["\ud800"]}).encode(),
        json.dumps({"images": ["http://127.0.0.1/", "file:///etc/passwd"]}).encode(),
        json.dumps({"url": "http://169.254.169.254/latest/meta-data"}).encode(),
        b"\xff\xfe[\x00]\x00",
        b" " * 15 * MIB,
    ):
        answer = client.post("/predict", content=content, headers={"Content-Type": "application/json"}, timeout=30)
        assert answer.status_code in (413, 422), answer.text
        assert len(answer.content) < 1000


def test_absurd_tensors(client):
    for tensor in (
        {"shape": [2**31 - 1] * 4, "data": [1]},
        {"shape": [1, 1, 2**31 - 1, 1], "data": [1]},
        {"shape": [-1, 8, 8, 1], "data": [1] * 64},
        {"shape": [10**400, 8, 8, 1], "data": [1] * 64},
        {"shape": [1, 8, 8, 1], "parameters": {"binary_data_size": 10**18}},
        {"shape": [1, 8, 8, 1], "parameters": {"shared_memory_region": "/etc/passwd"}},
    ):
        body = {"inputs": [{"name": "images", "datatype": "UINT8", **tensor}]}
        assert client.post("/v2/models/model/infer", json=body).status_code == 400


# Lengths that lie, bodies that never end; the connections are raw, for no client sends this


def head(*lines, path="/predict"):
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def test_less_comes_than_was_said(start):
    server = start(receive_seconds=0.5)
    assert status_of(server.port, head("Content-Length: 1000") + b"x" * 10) == 408


def status_of(port, sent):
    """The status of the first response."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        return int(connection.recv(1000).split(b" ", 2)[1])


def test_more_comes_than_was_said(raw):
    status, answer = raw(
        head("Content-Length: 2", "Content-Type: application/json") + b"[]" + b"x" * 1000 + b"\r\n\r\n"
    )
    assert 400 <= status < 500
    assert b"HTTP/1.1 400" in answer  # what follows is taken for another request, and is none


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: -5"],
        ["Content-Length: 5x"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding: chunked, gzip"],
    ],
)
def test_lengths_that_contradict_themselves(raw, lines):
    status, answer = raw(head(*lines, "Connection: close") + b"0\r\n\r\n")
    assert 400 <= status < 500
    assert answer.count(b"HTTP/1.1 ") == 1


def test_more_than_is_taken_is_refused_at_once(client):
    assert status_of(client.base_url.port, head(f"Content-Length: {10**12}")) == 413


def test_chunks_that_never_end(start):
    server = start(max_body_bytes=MIB, receive_seconds=5)
    with server.connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        with pytest.raises(OSError):  # the server closes the connection
            for _ in range(100_000):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    assert httpx.get(f"{server.address}/model").status_code == 200


@pytest.mark.parametrize("size", [b"ffffffffffffffffff", b"-1", b"zz", b""])
def test_chunks_of_impossible_size(raw, size):
    status, _ = raw(head("Transfer-Encoding: chunked") + size + b"\r\nxx\r\n0\r\n\r\n")
    assert status == 400


# Requests of which two programs may disagree where they end


SECOND = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def request(*lines, first=b"POST /predict HTTP/1.1"):
    return b"\r\n".join([first, b"Host: localhost", *lines, b"", b""])


AMBIGUOUS = {
    "CL and TE": request(b"Content-Length: 5", b"Transfer-Encoding: chunked") + LAST_CHUNK + SECOND,
    "TE and CL": request(b"Transfer-Encoding: chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "two CL": request(b"Content-Length: 0", b"Content-Length: %d" % len(SECOND)) + SECOND,
    "CL list": request(b"Content-Length: 0, %d" % len(SECOND)) + SECOND,
    "CL plus": request(b"Content-Length: +0") + SECOND,
    "CL minus": request(b"Content-Length: -1") + SECOND,
    "CL hex": request(b"Content-Length: 0x0") + SECOND,
    "CL space inside": request(b"Content-Length: 1 0") + SECOND,
    "CL empty": request(b"Content-Length: ") + SECOND,
    "space before colon": request(b"Content-Length : 0") + SECOND,
    "TE space before colon": request(b"Transfer-Encoding : chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "TE tab before colon": request(b"Transfer-Encoding\t: chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "TE unknown": request(b"Transfer-Encoding: xchunked") + LAST_CHUNK + SECOND,
    "TE identity": request(b"Transfer-Encoding: identity", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "TE chunked not last": request(b"Transfer-Encoding: chunked, identity") + LAST_CHUNK + SECOND,
    "TE gzip": request(b"Transfer-Encoding: gzip") + LAST_CHUNK + SECOND,
    "TE twice": request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + LAST_CHUNK + SECOND,
    "TE quoted": request(b'Transfer-Encoding: "chunked"') + LAST_CHUNK + SECOND,
    "TE vertical tab": request(b"Transfer-Encoding: \x0bchunked") + LAST_CHUNK + SECOND,
    "TE folded": request(b"Transfer-Encoding:\r\n chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "TE null": request(b"Transfer-Encoding: chunked\x00") + LAST_CHUNK + SECOND,
    "bare CR": request(b"X: a\rTransfer-Encoding: chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "bare LF in header": request(b"X: a\nTransfer-Encoding: chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "leading space header": request(b" Transfer-Encoding: chunked", b"Content-Length: 5") + LAST_CHUNK + SECOND,
    "HTTP/1.0 chunked": request(
        b"Transfer-Encoding: chunked", b"Connection: keep-alive", first=b"POST /predict HTTP/1.0"
    )
    + LAST_CHUNK
    + SECOND,
    "chunk size minus": request(b"Transfer-Encoding: chunked") + b"-1\r\n\r\n" + SECOND,
    "chunk size 0x": request(b"Transfer-Encoding: chunked") + b"0x0\r\n\r\n" + SECOND,
    "chunk size space": request(b"Transfer-Encoding: chunked") + b"0 0\r\n\r\n" + SECOND,
    "chunk LF": request(b"Transfer-Encoding: chunked") + b"0\n\n" + SECOND,
    "chunk data no CRLF": request(b"Transfer-Encoding: chunked") + b"1\r\nxx0\r\n\r\n" + SECOND,
    "GET with body CL": request(
        b"Connection: close", b"Content-Length: %d" % len(SECOND), first=b"GET /v2/health/live HTTP/1.1"
    )
    + SECOND,
}


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_what_is_ambiguous_is_one_request_at_most(raw, form):
    """What looks like a second request to some programs is not answered here."""
    status, received = raw(AMBIGUOUS[form])
    assert received.count(b"HTTP/1.1 ") == 1
    assert status in (200, 400, 422)
    assert b'"live"' not in received or form == "GET with body CL"  # that asks for it itself


# Requests that cost much


def expensive(encoded):
    """Paths and bodies that take seconds, together."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 1), dtype=np.uint8)
    head = {"inputs": [{"name": "images", "shape": [100, 300, 300, 1], "datatype": "UINT8"}]}
    head["inputs"][0]["parameters"] = {"binary_data_size": 100 * 300 * 300}
    document = json.dumps(head).encode()
    length = {"Inference-Header-Content-Length": str(len(document))}
    return [
        ("/predict", json.dumps(pixels.tolist()).encode(), {"Content-Type": "application/json"}),
        ("/predict", flat(4000, 3999), {}),
        ("/predict?fix=auto", encoded(pixels[0].repeat(40, axis=0).repeat(40, axis=1)), {}),
        ("/look", encoded(pixels[0].repeat(20, axis=0).repeat(20, axis=1)), {}),
        ("/v2/models/model/infer", document + bytes(100 * 300 * 300), length),
    ]


def test_a_bystander_is_answered_during_expensive_requests(address, encoded, images):
    """Nothing that takes long happens where all requests pass: others are answered many times meanwhile."""
    finished, answered = threading.Event(), []

    def ask():
        with httpx.Client(base_url=address, timeout=60) as client:
            while not finished.is_set():
                answered.append(client.post("/predict?findings=false", json=images[0].tolist()).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    with ThreadPoolExecutor(5) as pool, httpx.Client(base_url=address, timeout=60) as client:
        statuses = list(
            pool.map(lambda it: client.post(it[0], content=it[1], headers=it[2]).status_code, expensive(encoded))
        )
    finished.set()
    thread.join()
    assert set(statuses) <= {200, 422}, statuses
    assert set(answered) == {200}
    assert len(answered) >= 10


# Names and addresses


TRAVERSALS = [
    "/page/../../etc/passwd",
    "/page/..%2f..%2f..%2fetc%2fpasswd",
    "/page/%2e%2e/%2e%2e/etc/passwd",
    "/page/..%5c..%5cetc%5cpasswd",
    "/page/....//....//etc/passwd",
    "/page/%252e%252e%252fetc%252fpasswd",
    "/page//etc/passwd",
    "/page/%2fetc%2fpasswd",
    "/page/app.py",
    "/page/../app.py",
    "/page/main.js%00.png",
    "/page/main.js/../../app.py",
    "/../../../../etc/passwd",
    "//etc/passwd",
    "/page/C:%5cwindows%5cwin.ini",
    "/v2/models/..%2f..%2fetc/config",
    "/v2/models/%2e%2e",
    "/file=/etc/passwd",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(raw, path):
    status, answer = raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status == 404
    assert b"root:" not in answer
    assert b"import " not in answer


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Host: evil.test"], 421),
        (["Host: 127.0.0.1.evil.test"], 421),
        (["Host: localhost@evil.test"], 421),
        (["Host: localhost", "Host: evil.test"], 400),
        (["Host:"], 421),
        ([], 421),
        (["Host: localhost", "Origin: http://evil.test"], 403),
        (["Host: localhost", "Origin: null"], 403),
        (["Host: localhost", "Origin: http://localhost.evil.test"], 403),
        (["Host: localhost", "Origin: http://localhost:81"], 403),
        (["Host: evil.test", "X-Forwarded-Host: localhost"], 421),
        (["Host: localhost", "Cookie: " + "x" * 600_000], 431),
        (["Host: localhost", *(f"X-{number}: y" for number in range(4000))], 431),
    ],
    ids=lambda value: str(value)[:50],
)
def test_forged_and_excessive_heads(raw, lines, status):
    found, answer = raw("\r\n".join(["GET /model HTTP/1.1", *lines, "Connection: close", "", ""]).encode())
    assert found == status
    assert b"class_names" not in answer


@pytest.mark.parametrize("target", ["/" + "x" * 80_000, "/model?" + "x=1&" * 20_000, "/predict?" + "&" * 70_000])
def test_excessive_addresses(raw, target):
    status, _ = raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status == 414


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\nHost localhost\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_request_for_this_server(raw, sent):
    assert raw(sent)[0] in (0, 400, 404, 421)


def test_a_hundred_attackers_at_once(client):
    sent = [head(f"Content-Length: {10**12}"), head("Transfer-Encoding: chunked") + b"zz\r\n"] * 50
    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(lambda request: status_of(client.base_url.port, request), sent))
    assert set(statuses) == {413, 400}
    assert np.bincount(statuses)[413] == 50
