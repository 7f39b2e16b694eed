"""POST /predict: what comes in, in every form, gets the answer that the model gives outside of any server."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.exports import onnx
from foveola.images import Dataset, ImageSet
from foveola.workflow.export import export

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def offline(model, tmp_path):
    """What `foveola.predict` says of an image file."""

    def answer(content, **options):
        (tmp_path / "picture").write_bytes(content)
        return foveola.predict(model, [tmp_path / "picture"], verbose=False, **options)[0]

    return answer


MEASURING = """
name = "small"
validation = 0.4
batch_size = 16
epochs = 8
learning_rate = 0.01
precision = "float32"
layers = [
  { type = "Conv2D", filters = 4, activation = "relu" },
  { type = "MaxPool2D" },
  { type = "Flatten" },
  { type = "Dense", units = "classes" },
]
"""


def predictions(client, *, query="", **body):
    answer = client.post(f"/predict{query}", **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def error(client, *, query="", status=422, **body):
    answer = client.post(f"/predict{query}", **body)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_the_answer_to_a_file_is_that_of_the_command(client, images, encoded, offline, kind):
    content = encoded(images[3], kind)
    (found,) = predictions(
        client, content=content, headers={"Content-Type": f"image/{kind.lower()}"}, query="?grey=true"
    )
    expected = offline(content, grey=True)
    assert found["class"] == expected.class_name
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert [top["class"] for top in found["top"]] == [name for name, _ in expected.top]
    assert [finding["code"] for finding in found["findings"]] == [finding.code for finding in expected.findings]


@pytest.mark.parametrize("type_", ["application/octet-stream", "image/x-whatever", "IMAGE/PNG; a=b", None])
def test_the_bytes_say_what_kind_of_file_it_is(client, images, encoded, type_):
    headers = {} if type_ is None else {"Content-Type": type_}
    assert len(predictions(client, content=encoded(images[0]), headers=headers)) == 1


@pytest.mark.parametrize("type_", ["multipart/form-data", "text/plain", "application/x-www-form-urlencoded", "image"])
def test_other_types_are_refused(client, images, encoded, type_):
    reason = error(client, content=encoded(images[0]), headers={"Content-Type": type_}, status=415)
    assert type_ in reason
    assert "image/png" in reason


def test_arrays_and_files_get_the_same_answer(client, images, encoded):
    three = images[[0, 25, 45]]
    text = [base64.b64encode(encoded(image)).decode() for image in three]
    forms = {
        "N×H×W×C": three.tolist(),
        "files": {"images": text},
        "H×W×C": {"images": three.tolist()},
        "H×W": {"images": three[..., 0].tolist()},
        "mixed": {"images": [text[0], three[1].tolist(), three[2, ..., 0].tolist()]},
    }
    answers = {name: predictions(client, json=form) for name, form in forms.items()}
    assert [found["class"] for found in answers["files"]] == ["left", "middle", "right"]
    for found in answers.values():
        assert found == answers["files"]
    for number, image in enumerate(three):
        for form in (image.tolist(), image[..., 0].tolist()):
            assert predictions(client, json=form) == [answers["files"][number]]


def test_base64_is_taken_as_people_have_it(client, images, encoded):
    text = base64.b64encode(encoded(images[0])).decode()
    forms = [
        text,
        f"data:image/png;base64,{text}",
        "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
        text.rstrip("="),
        f" data:image/png;name=a.png;base64,\n{text}\n",
    ]
    answers = predictions(client, json={"images": forms})
    assert answers == [answers[0]] * len(forms)


def test_large_pictures_are_prepared_like_small_ones(client, images, encoded, offline):
    large = images[30].repeat(100, axis=0).repeat(100, axis=1)  # more than is decoded on the spot
    (found,) = predictions(client, content=encoded(large), headers=PNG)
    expected = offline(encoded(large))
    assert (found["class"], found["probability"]) == (
        expected.class_name,
        pytest.approx(expected.probability, abs=1e-6),
    )


def test_the_most_probable_classes(client, images, encoded):
    content = encoded(images[0])
    for top in (1, 2, 3, 10):
        (found,) = predictions(client, content=content, query=f"?top={top}")
        assert len(found["top"]) == min(top, 3)
        assert found["top"][0] == {"class": found["class"], "probability": found["probability"]}
    assert sum(each["probability"] for each in found["top"]) == pytest.approx(1)


def test_findings_fixes_and_what_was_seen(client, images, encoded, decoded):
    inverted = 255 - images[0]
    (found,) = predictions(client, content=encoded(inverted), query="?seen=true")
    assert found["findings"][0]["code"] == "polarity"
    assert found["findings"][0]["fix"] == "invert"
    assert found["fixes"] == []
    np.testing.assert_array_equal(decoded(found["seen"]), inverted)
    for query in ("?seen=true&fix=invert", "?seen=1&fix=auto&top=1"):
        (found,) = predictions(client, content=encoded(inverted), query=query)
        assert found["fixes"] == ["invert"]
        assert found["class"] == "left"
        np.testing.assert_array_equal(decoded(found["seen"]), images[0])
    (found,) = predictions(client, content=encoded(inverted), query="?findings=false&fix=")
    assert (found["findings"], found["fixes"]) == ([], [])
    assert "seen" not in found


def test_an_animation_is_named(client, encoded, images):
    frames = [Image.fromarray(image[..., 0]) for image in images[:2]]
    content = encoded(images[0], "GIF", save_all=True, append_images=frames[1:])
    assert "animation" in [finding["code"] for finding in predictions(client, content=content)[0]["findings"]]


def test_colour_for_a_grey_model_has_to_be_asked_for(client, images, encoded):
    colour = np.concatenate([images[0], images[0], 255 - images[0]], axis=2)
    assert "grey=true" in error(client, content=encoded(colour))
    assert predictions(client, content=encoded(colour), query="?grey=true")[0]["fixes"] == ["grey"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?tpo=3", "Unknown parameter 'tpo'. Did you mean 'top'?"),
        ("?top=0", "top: Input should be greater than or equal to 1; found '0'"),
        ("?top=x", "top: Input should be a valid integer"),
        ("?top=1&top=2", "twice"),
        ("?findings=maybe", "findings: Input should be a valid boolean"),
        ("?fix=invrt", "Unknown fix 'invrt'. Did you mean 'invert'?"),
        ("?fix=%ff%00", "Unknown fix"),
    ],
)
def test_wrong_questions(client, images, encoded, query, reason):
    assert reason in error(client, content=encoded(images[0]), query=query)


ROW = [0] * 8


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[[1, 2], [3", "not valid JSON"),
        (b'"\xff"', "not valid JSON"),
        (b"[[NaN]]", "not valid JSON"),
        (b"[[1e999]]", "not valid JSON|valid integer"),
        (b"[" * 100_000, "recursion limit"),
        (b"[" * 100 + b"]" * 100, "dimensions"),
        (b"[[1" + b"0" * 10_000 + b"]]", "not valid JSON|less than or equal to 255"),
        (b"[[1" + b"0" * 4000 + b"]]", "less than or equal to 255"),
        (7, "neither an array of pixels nor"),
        (None, "neither an array of pixels nor"),
        ({"image": [ROW]}, "neither an array of pixels nor"),
        ({"images": [[ROW]], "top": 1}, "neither an array of pixels nor"),
        ({"images": "x"}, "neither an array of pixels nor"),
        ({"images": []}, '"images" is empty'),
        ([], "1 dimensions"),
        ([[]], "at least 1 item"),
        ([[[]]], "at least 1 item"),
        (ROW, "1 dimensions; expected are 2, 3, 4"),
        ([[[[ROW]]]], "5 dimensions"),
        ([ROW, ROW[:-1]], "ragged"),
        ([ROW, 0], "1: Input should be a valid list; found 0"),
        ([ROW, [ROW]], "ragged|valid integer"),
        ([[0, 256]], "0.1: Input should be less than or equal to 255; found 256"),
        ([[0, -1]], "0.1: Input should be greater than or equal to 0; found -1"),
        ([[0, 0.5]], "0.1: Input should be a valid integer; found 0.5"),
        ([[0, 1.0]], "0.1: Input should be a valid integer; found 1.0"),
        ([[0, True]], "0.1: Input should be a valid integer; found True"),
        ([[0, None]], "0.1: Input should be a valid integer; found None"),
        ([[0, "1"]], "0.1: Input should be a valid integer; found '1'"),
        ([[0, {}]], "0.1: Input should be a valid integer"),
        ([[[0, 0]]], "2 values for each pixel"),
        ([[["x" * 1000]]], "found 'xxx.*…"),
        ({"images": ["%"]}, "Image 1 is text, but not base64"),
        ({"images": ["é"]}, "Image 1 is text, but not base64"),
        ({"images": [[ROW], base64.b64encode(b"no image").decode()]}, "Image 2 is not an image"),
        ({"images": [7]}, "Image 1 is a value of type int"),
        ({"images": [[[[ROW]]]]}, "Image 1 is an array of 4 dimensions"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_wrong_json_is_refused_with_what_was_found(client, document, reason):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = error(client, content=content, headers={"Content-Type": "application/json"})
    assert re.search(reason, found, re.DOTALL)
    assert len(found) < 600


def test_more_values_than_are_parsed(client):
    content = b"[[" + b"0," * 2**20 + b"0]]"
    assert "1,048,576 values" in error(
        client, content=content, headers={"Content-Type": "application/json"}, status=413
    )


def test_more_pictures_than_the_queue_holds(serve):
    client = serve(queue_images=4)
    assert len(predictions(client, json=np.zeros((4, 8, 8, 1), int).tolist())) == 4
    assert "There are 5 images; at most 4" in error(client, json=np.zeros((5, 8, 8, 1), int).tolist())


def test_larger_pictures_than_are_taken(serve, encoded):
    client = serve(max_pixels=400)
    assert predictions(client, content=encoded(np.zeros((20, 20, 1), np.uint8)))
    for body in ({"content": encoded(np.zeros((20, 21, 1), np.uint8))}, {"json": [[0] * 401]}):
        assert "1 to 400 pixels" in error(client, **body)


def test_a_threshold_makes_answers_uncertain(toy, tiny, tmp_path, serve, encoded):
    run = foveola.train(toy, tiny, out=tmp_path / "run", overrides={"reject": 0.01, "epochs": 1}, verbose=False)
    model = onnx.open(export(run.path, "onnx", data=toy, verbose=False).path)
    blank = np.full((8, 8, 1), 90, np.uint8)
    client = serve(model)
    assert client.get("/model").json()["reject"]["error"] == 0.01
    assert predictions(client, content=encoded(blank))[0]["uncertain"]


def test_answers_say_what_is_unlike_anything_trained_on(tmp_path, serve, encoded):
    images = np.random.default_rng(0).integers(0, 60, (300, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(300) % 3
    for image, label in zip(images, labels, strict=True):
        image[2:6, 1 + 2 * label : 3 + 2 * label] += 180
    (tmp_path / "small.toml").write_text(MEASURING)
    bars = Dataset("bars", ImageSet(images, labels, ("left", "middle", "right")))
    run = foveola.train(bars, tmp_path / "small.toml", out=tmp_path / "run", report=False, verbose=False)
    model = onnx.open(export(run.path, "onnx", data=bars, verbose=False).path)
    measure = model.metadata.unfamiliarity
    client = serve(model)
    assert client.get("/model").json()["unfamiliarity"] == json.loads(measure.model_dump_json())
    pixels = np.concatenate([images[:5], 255 - images[:5]])
    found = predictions(client, json=pixels.tolist())
    scores = model.predict_outputs(pixels).unfamiliarity
    for answer, score in zip(found, scores, strict=True):
        assert answer["unfamiliarity"] == {"score": pytest.approx(score), "threshold": measure.threshold}
        assert answer["unfamiliar"] is bool(score > measure.threshold)
    assert [answer["unfamiliar"] for answer in found].count(True) >= 5
    body = {
        "inputs": [{"name": "images", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": images[0].ravel().tolist()}]
    }
    name = client.get("/model").json()["name"]
    outputs = client.post(f"/v2/models/{name}/infer", json=body).json()["outputs"]
    assert [(output["name"], output["shape"]) for output in outputs] == [("logits", [1, 3]), ("probabilities", [1, 3])]


def test_a_model_that_does_not_measure_it_makes_no_statement(serve):
    (answer,) = predictions(serve(), json=np.zeros((1, 8, 8, 1), int).tolist())
    assert (answer["unfamiliar"], answer["unfamiliarity"]) == (None, None)
