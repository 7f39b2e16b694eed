"""What the OpenAPI document says is so: generated requests, fitting it and not, against every route."""

import json
import math
import os
import shutil
import subprocess
from collections import Counter
from contextlib import suppress

import httpx2 as httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from foveola.serving.app import create_app
from foveola.serving.settings import Settings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODEL = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
ROUTES = {
    "GET /model",
    "POST /predict",
    "POST /look",
    "POST /keep",
    "GET /metrics",
    "GET /v2",
    "GET /v2/health/live",
    "GET /v2/health/ready",
    *(f"GET {model}{what}" for model in MODEL for what in ("", "/ready", "/config")),
}
INFER = {f"POST {model}/infer" for model in MODEL}


@st.composite
def image_files(draw, encoded, kind):
    """Image files that can be decoded, and some that break off."""
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.sampled_from([1, 3]))
    pixels = np.frombuffer(draw(st.binary(min_size=math.prod(shape), max_size=math.prod(shape))), np.uint8).reshape(
        shape
    )
    content = encoded(pixels, kind)
    return content[: draw(st.sampled_from([len(content), len(content) // 2]))]


@st.composite
def inferences(draw):
    """Requests of the inference protocol whose shape and data fit together."""
    shape = [draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9)), 1]
    data = list(draw(st.binary(min_size=math.prod(shape), max_size=math.prod(shape))))
    tensor = {"name": "images", "shape": shape, "datatype": "UINT8", "data": data}
    parameters = {"binary_data_output": draw(st.booleans())}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


@pytest.fixture
def schema(model, encoded, tmp_path):
    for kind in ("png", "jpeg", "bmp", "webp", "gif"):
        schemathesis.openapi.media_type(f"image/{kind}", image_files(encoded, kind.upper()))
    anything = st.binary() | image_files(encoded, "PNG") | inferences()
    schemathesis.openapi.media_type("application/octet-stream", anything)
    app = create_app(model, Settings(allowed_hosts=("testserver",), collect=tmp_path / "kept"))
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    schemathesis.python.asgi.shutdown_lifespans()


def explore(schema, examples):
    """Ask every route so often, with what it wants and with what it does not; the statuses that came back."""
    seen = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        seen[operation.label] = Counter()
        for mode in GenerationMode:
            with suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
                ask(operation.as_strategy(generation_mode=mode), examples, seen[operation.label])
    return seen


def ask(cases, examples, statuses):
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=cases)
    def one(case):
        statuses[case.call_and_validate(checks=CHECKS).status_code] += 1

    one()


def test_the_document_says_what_is_so(schema):
    seen = explore(schema, 25)
    assert seen.keys() == ROUTES | INFER
    assert {route for route, statuses in seen.items() if min(statuses) < 300} >= ROUTES
    assert sum(map(Counter.total, seen.values())) >= 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl to run the examples with")
@pytest.mark.parametrize("key", [None, "s3cret"])
def test_the_curl_examples_run_as_they_stand(start, images, encoded, tmp_path, key):
    (tmp_path / "image.png").write_bytes(encoded(images[0]))
    server = start(collect=str(tmp_path / "kept"), api_key=key, name="left-or-right")
    ask = httpx.get(f"{server.address}/openapi.json", headers={} if key is None else {"X-API-Key": key})
    operations = [operation for path in ask.json()["paths"].values() for operation in path.values()]
    samples = [sample["source"] for operation in operations for sample in operation.get("x-codeSamples", ())]
    assert len(samples) == 5
    for sample in samples:
        typed = sample.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
        environment = os.environ | {"FOVEOLA_API_KEY": key or ""}
        done = subprocess.run(
            ["bash", "-c", typed], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (sample, done.stdout, done.stderr)


@pytest.mark.slow
def test_thousands_of_requests(schema):
    seen = explore(schema, 400)
    # Generated by chance, a tensor seldom fits the shape that is generated for it
    assert {route for route, statuses in seen.items() if min(statuses) < 300} == ROUTES | INFER
    assert sum(map(Counter.total, seen.values())) >= 5000
