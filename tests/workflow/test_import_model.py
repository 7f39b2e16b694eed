"""A Keras file becomes a run that every command takes, or refuses with a clear sentence."""

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import foveola
from foveola.claims import Claim
from foveola.documents import RunStatus
from foveola.errors import DataError, ModelError, OutputError, RecipeError, UserError
from foveola.exports import int8, onnx, web, web_runtime
from foveola.images import Dataset, ImageSet
from foveola.recipe import load_recipe
from foveola.serving.app import create_app
from foveola.serving.settings import Settings
from foveola.tasks import softmax
from foveola.workflow.export import export
from foveola.workflow.serve import find_export
from keras_cases import MODELS, ROWS, altered, saved_predictions

CHAIN, LABELS = MODELS / "keras3-chain.keras", MODELS / "keras3-labels.keras"
NAMES = ("circle", "cross", "square")


@pytest.fixture
def run(tmp_path):
    return foveola.import_model(CHAIN, class_names=NAMES, out=tmp_path / "run", verbose=False)


@pytest.fixture
def data():
    """Images that the network takes, with labels in turn."""
    images = saved_predictions(CHAIN)["images"]
    return Dataset("drawn", ImageSet(images, np.arange(len(images)) % 3, NAMES))


def test_the_run_predicts_what_keras_predicts(run):
    expected = saved_predictions(CHAIN)
    model = foveola.open(run.path)
    assert model.class_names == NAMES
    assert np.abs(softmax(model.predict_logits(expected["images"])) - expected["probabilities"]).max() <= 1e-6


def test_the_run_says_where_it_comes_from_and_what_was_assumed(run):
    status = RunStatus.from_json((run.path / "run.json").read_bytes(), "run.json")
    assert status.status == "imported"
    assert (status.data.name, status.data.train, status.data.classes) == ("unknown", 0, list(NAMES))
    assert status.data.summary == ["Pixels: 0 is black, 1 is white (assumed; the file does not say it)."]
    assert status.versions["keras"].startswith("3.")
    metadata = foveola.open(run.path).metadata
    assert metadata.data is None
    origin = str(metadata.pretrained)
    assert origin.startswith("keras3-chain.keras, from a file of unknown origin and licence, SHA-256 ")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "SHA256SUMS", "model.safetensors", "recipe.toml", "run.json"
    ]  # fmt: skip


def test_it_is_evaluated_on_data_of_the_users(run, data):
    evaluation = foveola.evaluate(run.path, data, verbose=False)
    expected = saved_predictions(CHAIN)["probabilities"].argmax(axis=1) == data.train.labels
    assert evaluation.accuracy.value == pytest.approx(expected.mean())
    assert (evaluation.n, evaluation.held_out, evaluation.seen) == (20, False, None)


def test_it_predicts_and_explains_image_files(run, data, tmp_path):
    Image.fromarray(data.train.images[0, :, :, 0]).save(tmp_path / "a.png")
    [prediction] = foveola.predict(run.path, [tmp_path / "a.png"], verbose=False)
    expected = saved_predictions(CHAIN)["probabilities"][0]
    assert prediction.class_name == NAMES[expected.argmax()]
    document = foveola.explain(run.path, [tmp_path / "a.png"], out=tmp_path / "explained", verbose=False)
    assert document["explanations"][0]["class"] == prediction.class_name


def test_several_labels_are_evaluated_predicted_and_explained(tmp_path):
    run = foveola.import_model(LABELS, out=tmp_path / "run", verbose=False)
    saved = saved_predictions(LABELS)
    images, given = saved["images"], saved["probabilities"] >= 0.5
    model = foveola.open(run.path)
    assert np.abs(model.predict_proba(images) - saved["probabilities"]).max() <= 1e-6
    evaluation = foveola.evaluate(run.path, images, given, verbose=False)
    assert (evaluation.task, evaluation.accuracy.value) == ("multilabel", 1.0)
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "a.png")
    [prediction] = foveola.predict(run.path, [tmp_path / "a.png"], verbose=False)
    assert set(prediction.labels) == {str(label) for label in np.flatnonzero(given[0])}
    document = foveola.explain(run.path, [tmp_path / "a.png"], out=tmp_path / "explained", verbose=False)
    assert document["explanations"][0]["class"] == str(saved["probabilities"][0].argmax())


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_it_is_exported_and_compared_on_random_or_given_images(run, data, format, tmp_path):
    report = export(run.path, format, verbose=False)
    assert report.parity.largest_difference < 1e-4
    expected = saved_predictions(CHAIN)
    exported = foveola.open(report.path)
    assert np.abs(softmax(exported.predict_logits(expected["images"])) - expected["probabilities"]).max() <= 1e-5
    assert export(run.path, format, data=data, out=tmp_path / report.path.name, verbose=False).parity.images == 1000


def test_the_server_makes_its_export(run):
    assert find_export(run.path, verbose=False) == run.path / "exports" / "model.onnx"


def test_what_needs_training_data_is_refused_with_a_remedy(run):
    with pytest.raises(ModelError, match=r"was imported, so that there is no training to report on.*foveola evaluate"):
        foveola.report(run.path, verbose=False)
    with pytest.raises(ModelError, match=r"was imported, so that it has no test images.*foveola evaluate"):
        foveola.compare(run.path, run.path, verbose=False)
    with pytest.raises(UserError, match=r"was imported, has none. Give some with --data"):
        export(run.path, int8=True, verbose=False)


def test_8_bit_integers_are_calibrated_on_images_of_the_users(run, data, monkeypatch):
    """Timed as if they were faster; classes are matched by their names."""
    turns = itertools.cycle((0.004, 0.001))
    monkeypatch.setattr(int8, "seconds", lambda model, images: next(turns))
    expected = saved_predictions(CHAIN)["probabilities"]
    turned = Dataset("turned", ImageSet(data.train.images, 2 - expected.argmax(axis=1), NAMES[::-1]))
    report = export(run.path, int8=True, data=turned, verbose=False)
    assert report.path.name == "model.int8.onnx"
    assert (report.gain.images, report.gain.accuracy_float32) == (20, 1.0)
    strange = Dataset("strange", ImageSet(data.train.images, data.train.labels, ("circle", "cross", "heart")))
    with pytest.raises(DataError, match="has classes that the model does not know"):
        export(run.path, int8=True, data=strange, verbose=False)


def test_its_recipe_goes_on_training_it(run, data, tmp_path):
    recipe = load_recipe(run.path / "recipe.toml", {"epochs": 1, "validation": 0.0, "test": 0.0, "augment.flip": False})
    again = foveola.train(data, recipe, init=run.path, out=tmp_path / "again", report=False, verbose=False)
    assert str(again.status.pretrained).startswith("keras3-chain.keras")


def test_without_names_classes_are_numbers_and_the_folder_is_named_after_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [foveola.import_model(ROWS, verbose=False) for _ in range(2)]
    assert [run.path.name for run in runs] == ["keras3-rows", "keras3-rows-2"]
    assert foveola.open(runs[0].path).class_names == ("0", "1", "2")


def test_class_names_come_from_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("circle\ncross ö\nsquare\n\n", "utf-8")
    run = foveola.import_model(ROWS, class_names=tmp_path / "names.txt", out=tmp_path / "run", verbose=False)
    assert run.status.data.classes == ["circle", "cross ö", "square"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "has 3 outputs, but there are 2 class names"),
        (["a", "b", " "], "some of them empty"),
        (["a", "b", "a"], "two classes have the same name"),
    ],
)
def test_names_that_do_not_fit_the_outputs_are_refused(names, message, tmp_path):
    with pytest.raises(UserError, match=message):
        foveola.import_model(ROWS, class_names=names, out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()


def test_a_file_without_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "names.txt", tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match=r"--class-names|Save them as UTF-8"):
            foveola.import_model(ROWS, class_names=path, out=tmp_path / "run", verbose=False)


def test_a_run_that_is_there_is_replaced_only_if_told_so_and_by_a_whole_one(run, tmp_path):
    with pytest.raises(OutputError, match="already holds a run"):
        foveola.import_model(ROWS, out=run.path, verbose=False)
    with pytest.raises(ModelError):
        foveola.import_model(tmp_path / "none.keras", out=run.path, force=True, verbose=False)
    assert foveola.open(run.path).class_names == NAMES
    foveola.import_model(ROWS, out=run.path, force=True, verbose=False)
    assert foveola.open(run.path).class_names == ("0", "1", "2")
    with Claim.take(run.path, force=True) as claim:
        assert claim.keeps_old


def test_a_recipe_cannot_hold_what_no_recipe_may(tmp_path):
    """Such as dropout of everything, whose layer is refused."""

    def change(document):
        document["config"]["layers"].insert(2, {"class_name": "Dropout", "config": {"name": "all", "rate": 1.0}})

    with pytest.raises((ModelError, RecipeError), match="rate: Input should be less than 1"):
        foveola.import_model(altered(tmp_path, config=change), out=tmp_path / "run", verbose=False)


def test_the_command_says_what_it_assumes_and_prints_the_run(foveola_command, tmp_path):
    arguments = ("import", CHAIN, "--classes", "circle,cross,square", "--pixel-range", "-1,1")
    code, out, err = foveola_command(*arguments, "--out", tmp_path / "run")
    assert code == 0
    assert "Pixels: -1 is black, 1 is white (as given" in " ".join(out.split())
    assert err == ""
    code, out, err = foveola_command(*arguments, "--out", tmp_path / "second", "--json", "--quiet")
    document = json.loads(out)
    assert (code, err, document["status"], document["run"]) == (0, "", "imported", str(tmp_path / "second"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--classes", "a,b,c", "--class-names", "names.txt"), "Give one of them"),
        (("--pixel-range", "1,0"), "should be black,white"),
        (("--pixel-range", "0..1"), "should be black,white"),
        (("--image", "28"), "height x width x channels"),
        (("--image", "7x7x1"), "not of 7×7×1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(foveola_command, options, message):
    code, _, err = foveola_command("import", CHAIN, "--out", "run", *options)
    assert code == 2
    assert message in err


# Served


@pytest.fixture
def served(tmp_path):
    """A client of the application that serves an imported model of several labels, in this process."""
    run = foveola.import_model(LABELS, class_names=["sun", "sea", "sand", "snow"], out=tmp_path / "run", verbose=False)
    model = onnx.open(find_export(run.path, verbose=False), threads=1)
    with TestClient(create_app(model, Settings()), base_url="http://localhost") as client:
        yield client


def test_the_server_gives_keras_probabilities_and_the_labels_that_reach_a_half(served):
    expected = saved_predictions(LABELS)
    document = served.get("/model").json()
    assert (document["task"], document["thresholds"], document["data"]) == ("multilabel", None, None)
    for image, row in zip(expected["images"][:3], expected["probabilities"], strict=False):
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0]).save(file, "PNG")
        (prediction,) = served.post("/predict?top=4", content=file.getvalue()).json()["predictions"]
        found = {one["class"]: one["probability"] for one in prediction["top"]}
        assert found == pytest.approx(dict(zip(document["class_names"], row, strict=True)), abs=1e-6)
        assert set(prediction["labels"]) == {name for name, probability in found.items() if probability >= 0.5}


def test_the_page_of_the_server_and_its_explanations(served):
    assert served.get("/").status_code == 200
    file = io.BytesIO()
    Image.new("L", (5, 6), 200).save(file, "PNG")
    explained = served.post("/look?class=sea", content=file.getvalue())
    assert explained.status_code == 200
    assert "sea" in explained.text


# In the browser


def test_the_web_export_holds_the_imported_model(run, monkeypatch):
    """With a file in the place of the runtime, which would be downloaded."""
    monkeypatch.setattr(web_runtime, "fetch_runtime", lambda progress: None)
    monkeypatch.setattr(web, "runtime_files", lambda: {"ort.js": b""})
    report = export(run.path, "web", verbose=False)
    assert report.parity.largest_difference < 1e-4
    document = json.loads((report.path / "model.json").read_text())
    assert document["class_names"] == list(NAMES)
    expected = saved_predictions(CHAIN)
    exported = foveola.open(report.path)
    assert np.abs(softmax(exported.predict_logits(expected["images"])) - expected["probabilities"]).max() <= 1e-5
