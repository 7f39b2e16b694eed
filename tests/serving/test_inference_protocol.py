"""The Open Inference Protocol, asked by Triton's own client and by hand."""

import json
import warnings

import numpy as np
import pytest

from foveola.tasks import softmax

with warnings.catch_warnings():  # of its own dependencies, which are none of ours
    warnings.simplefilter("ignore")
    from tritonclient import http as triton
    from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.filterwarnings("ignore:::gevent", "ignore:::geventhttpclient")

INFER = "/v2/models/model/infer"


@pytest.fixture
def published(address):
    """The published client."""
    with triton.InferenceServerClient(address.removeprefix("http://")) as client:
        yield client


def tensor(images, *, binary):
    given = triton.InferInput("images", list(images.shape), "UINT8")
    return given.set_data_from_numpy(images, binary_data=binary)


# The published client


def test_metadata_configuration_and_readiness(published):
    assert published.is_server_live()
    assert published.is_server_ready()
    assert published.is_model_ready("model")
    assert published.is_model_ready("model", "1")
    assert not published.is_model_ready("other")
    assert not published.is_model_ready("model", "2")
    assert set(published.get_server_metadata()["extensions"]) == {"binary_tensor_data", "model_configuration"}
    for version in ("", "1"):
        assert published.get_model_metadata("model", version) == {
            "name": "model",
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 1]}],
            "outputs": [
                {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            ],
        }
        assert published.get_model_config("model", version)["output"][0]["dims"] == [3]


@pytest.mark.parametrize("binary_output", [False, True])
@pytest.mark.parametrize("binary_input", [False, True])
@pytest.mark.parametrize("count", [1, 7])
def test_answers_are_those_of_the_model(published, model, images, count, binary_input, binary_output):
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_output) for name in ("probabilities", "logits")]
    found = published.infer("model", [tensor(images[:count], binary=binary_input)], outputs=outputs, request_id="7")
    expected = model.predict_logits(images[:count])
    np.testing.assert_allclose(found.as_numpy("logits"), expected, atol=1e-5)
    np.testing.assert_allclose(found.as_numpy("probabilities"), softmax(expected), atol=1e-6)
    assert found.get_response()["id"] == "7"
    assert [output["name"] for output in found.get_response()["outputs"]] == ["probabilities", "logits"]


def test_all_outputs_where_none_is_named(published, model, images):
    found = published.infer("model", [tensor(images[:3], binary=True)], model_version="1")
    np.testing.assert_allclose(found.as_numpy("logits"), model.predict_logits(images[:3]), atol=1e-5)
    assert found.as_numpy("probabilities").shape == (3, 3)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_compressed_requests(published, model, images, coding, binary):
    found = published.infer("model", [tensor(images[:9], binary=binary)], request_compression_algorithm=coding)
    np.testing.assert_allclose(found.as_numpy("logits"), model.predict_logits(images[:9]), atol=1e-5)


def test_requests_that_wait_together(published, model, images):
    waiting = [published.async_infer("model", [tensor(images[k : k + 1], binary=True)]) for k in range(20)]
    found = np.concatenate([request.get_result().as_numpy("logits") for request in waiting])
    np.testing.assert_allclose(found, model.predict_logits(images[:20]), atol=1e-5)


def test_images_of_another_size(published, model):
    large = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 1), dtype=np.uint8)
    found = published.infer("model", [tensor(large, binary=True)])
    np.testing.assert_allclose(found.as_numpy("logits"), model.predict_logits(large), atol=1e-5)


def test_the_client_gets_to_read_what_was_wrong(published, images):
    with pytest.raises(InferenceServerException, match="no such model"):
        published.infer("other", [tensor(images[:1], binary=True)])
    with pytest.raises(InferenceServerException, match="name: Input should be 'images'"):
        published.infer("model", [triton.InferInput("x", [1], "UINT8").set_data_from_numpy(np.zeros(1, np.uint8))])
    with pytest.raises(InferenceServerException, match="classification belongs to an extension"):
        outputs = [triton.InferRequestedOutput("logits", class_count=1)]
        published.infer("model", [tensor(images[:1], binary=True)], outputs=outputs)


# By hand


def asked(**changes):
    given = {"name": "images", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64} | changes
    return {"inputs": [{name: value for name, value in given.items() if value is not None}]}


def test_nested_and_flat_data_are_the_same(client, images):
    flat = client.post(INFER, json=asked(data=images[0].ravel().tolist())).json()
    nested = client.post(INFER, json=asked(data=images[:1].tolist())).json()
    assert flat == nested
    assert flat["model_name"] == "model"
    assert "id" not in flat


def test_answers_come_as_json_unless_asked_otherwise(client):
    everything = asked() | {"parameters": {"binary_data_output": True}}
    some = everything | {"outputs": [{"name": "logits", "parameters": {"binary_data": False}}]}
    assert len(client.post(INFER, json=asked()).json()["outputs"][0]["data"]) == 3
    assert len(client.post(INFER, json=some).json()["outputs"][0]["data"]) == 3
    answer = client.post(INFER, json=everything)
    length = int(answer.headers["Inference-Header-Content-Length"])
    header = json.loads(answer.content[:length])
    assert [output["parameters"]["binary_data_size"] for output in header["outputs"]] == [12, 12]
    assert len(answer.content) == length + 24


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ([], "Input should be an object; found []"),
        ({}, "inputs: Field required"),
        ({"inputs": []}, "at least 1 item"),
        ({"inputs": asked()["inputs"] * 2}, "at most 1 item"),
        (asked(name="image"), "Input should be 'images'; found 'image'"),
        (asked(datatype="FP32"), "Input should be 'UINT8'; found 'FP32'"),
        (asked(shape=[8, 8]), "shape: List should have at least 4 items"),
        (asked(shape=[1, 8, 8, 3]), "1×8×8×3; the model accepts N×H×W×1"),
        (asked(shape=[1, 8, 9, 1]), "64 values with the shape 64, but `shape` is 1×8×9×1"),
        (asked(shape=[0, 8, 8, 1]), "greater than or equal to 1; found 0"),
        (asked(shape=[1, 8.5, 8, 1]), "valid integer; found 8.5"),
        (asked(shape=[2**31, 2**31, 2**31, 1]), "less than 2147483648"),
        (asked(shape=[1, 2**30, 2**30, 1]), "at most 16,000,000 pixels"),
        (asked(data=[0] * 63 + [256]), "63: Input should be less than or equal to 255; found 256"),
        (asked(data=[0] * 63 + [-1]), "greater than or equal to 0; found -1"),
        (asked(data=[0] * 63 + [0.5]), "valid integer; found 0.5"),
        (asked(data=[0] * 63 + [True]), "valid integer; found True"),
        (asked(data=["0"] * 64), "valid integer; found '0'"),
        (asked(data=[[0] * 8] * 8), "an array of 2 dimensions; expected are 1, 4"),
        (asked(data=[[[[0]]] * 64]), "the shape 1×64×1×1, but `shape` is 1×8×8×1"),
        (asked(data=[]), "at least 1 item"),
        (asked(data=None), "neither data nor the parameter binary_data_size"),
        (asked(data=None, parameters={"binary_data_size": 64}), "binary_data_size is 64, but 0 bytes follow"),
        (asked(data=None, parameters={"binary_data_size": "64"}), "binary_data_size is '64'"),
        (asked(parameters={"shared_memory_region": "x"}), "shared_memory_region belongs to an extension"),
        (asked() | {"outputs": [{"name": "other"}]}, "'logits' or 'probabilities'; found 'other'"),
        (asked() | {"id": 7}, "id: Input should be a valid string; found 7"),
        (asked(shape=[257, 1, 1, 1], data=[0] * 257), "257 images"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(client, request_, reason):
    answer = client.post(INFER, json=request_)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def binary(client, head, tail, length=None):
    content = json.dumps(head).encode() + tail
    headers = {"Inference-Header-Content-Length": str(len(content) - len(tail) if length is None else length)}
    return client.post(INFER, content=content, headers=headers)


def test_bytes_that_do_not_fit_what_is_said_of_them(client):
    head = asked(data=None, parameters={"binary_data_size": 64})
    assert binary(client, head, bytes(64)).status_code == 200
    for answer, reason in [
        (binary(client, head, bytes(63)), "binary_data_size is 64, but 63 bytes follow"),
        (binary(client, head, bytes(65)), "but 65 bytes follow"),
        (binary(client, asked(), bytes(64)), "64 bytes follow the JSON, but the input has values in the JSON"),
        (binary(client, head, bytes(64), length="x"), "Inference-Header-Content-Length is x"),
        (binary(client, head, bytes(64), length=10_000), "Inference-Header-Content-Length is 10000, but the body has"),
        (binary(client, head, bytes(64), length=-1), "Inference-Header-Content-Length is -1"),
        (binary(client, head, bytes(64), length=5), "cannot be used"),
        (
            binary(client, asked(shape=[1, 8, 9, 1], data=None, parameters={"binary_data_size": 64}), bytes(64)),
            "1×8×9×1",
        ),
    ]:
        assert answer.status_code == 400
        assert reason in answer.json()["error"]


def test_other_models_and_versions_are_unknown(client):
    for path in ("", "/ready", "/config"):
        assert client.get(f"/v2/models/other{path}").status_code == 404
        assert client.get(f"/v2/models/model/versions/2{path}").status_code == 404
    answer = client.post("/v2/models/other/infer", json=asked())
    assert answer.status_code == 404
    assert "There is model, version 1" in answer.json()["error"]


def test_the_model_has_the_name_that_it_was_given(serve):
    client = serve(name="digits-7.b")
    assert client.get("/v2/models/digits-7.b").json()["name"] == "digits-7.b"
    assert client.get("/v2/models/model").status_code == 404
