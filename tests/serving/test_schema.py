"""What the OpenAPI document says is so: generated requests, fitting it and not, against every route."""

import json
import math
from collections import Counter
from contextlib import suppress

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
    *(f"POST {model}/infer" for model in MODEL),
}


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
    assert seen.keys() == ROUTES
    answered = {route.replace("/versions/{version}", "") for route, statuses in seen.items() if min(statuses) < 300}
    assert answered == {route.replace("/versions/{version}", "") for route in ROUTES}
    assert sum(map(Counter.total, seen.values())) >= 200


@pytest.mark.slow
def test_thousands_of_requests(schema):
    assert sum(map(Counter.total, explore(schema, 400).values())) >= 5000
