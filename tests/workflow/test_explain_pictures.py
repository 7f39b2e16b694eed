"""Images explained into a folder: its files, its page, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveola
from foveola.errors import DataError, ModelError, OutputError, UserError
from foveola.explanation.cam import class_activation_maps, enlarge_maps
from foveola.explanation.occlusion import occlusion
from foveola.inputs import decode
from foveola.recipe import parse_recipe
from foveola.workflow.export import export

LAYERS = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "MaxPool2D"},
    {"type": "Dropout", "rate": 0.1},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


@pytest.fixture(scope="module")
def convolutional(toy, tmp_path_factory):
    recipe = parse_recipe({"name": "conv", "layers": LAYERS, "epochs": 30, "batch_size": 16, "precision": "float32"})
    return foveola.train(toy, recipe, out=tmp_path_factory.mktemp("runs") / "conv", verbose=False).path


@pytest.fixture
def image_file(toy, tmp_path):
    Image.fromarray(toy.train.images[25, :, :, 0]).save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


def explain(model, *images, **options):
    return foveola.explain(model, images, verbose=False, **options)


def test_the_folder_holds_the_page_and_every_file_of_the_document(convolutional, image_file, tmp_path):
    document = explain(convolutional, image_file, out=tmp_path / "out", classes=["left"])
    json.dumps(document, allow_nan=False)
    (row,) = document["explanations"]
    assert document["page"] == str(tmp_path / "out" / "explanation.html")
    named = {document["filters"], "explanation.html", "1-bar/seen.png"}
    named |= {f"1-bar/{layer['file']}" for layer in row["layers"] if layer["file"]}
    named |= {f"1-bar/{name}" for explained in row["classes"] for name in explained["files"]}
    assert named == {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert {path.name for path in tmp_path.iterdir()} == {"bar.png", "out"}
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).verify()


def test_the_document_agrees_with_the_model(convolutional, image_file, toy, tmp_path):
    (prediction,) = foveola.predict(convolutional, [image_file], top=5, verbose=False)
    (row,) = explain(convolutional, image_file, out=tmp_path / "out", classes=["left", "middle"])["explanations"]
    assert [(top["class"], top["probability"]) for top in row["top"]] == prediction.top
    assert [explained["class"] for explained in row["classes"]] == ["middle", "left"]  # predicted first
    assert row["classes"][0]["probability"] == pytest.approx(prediction.probability)
    assert (row["cam"], row["grad_cam"], row["cam_shape"]) == ("done", "done", [8, 8])
    shapes = {layer["name"]: layer["shape"] for layer in row["layers"]}
    assert shapes == {
        "conv2d_1": [8, 8, 4], "maxpool2d_1": [4, 4, 4], "dropout_1": [4, 4, 4], "flatten_1": [64], "dense_1": [3],
    }  # fmt: skip
    drawn = {layer["name"] for layer in row["layers"] if layer["file"]}
    assert drawn == {"conv2d_1", "maxpool2d_1", "dense_1"}  # the others pass on what they get
    classifier, image = foveola.open(convolutional), toy.train.images[25:26]
    (drop,) = occlusion(classifier, classifier.metadata.polarity, image, np.array([1]))
    assert row["classes"][0]["largest_drop"] == pytest.approx(float(drop.max()))


@pytest.mark.parametrize(("method", "file"), [("hires-cam", "hires_cam"), ("grad-cam", "grad_cam")])
def test_heat_maps_are_orange_where_a_pixel_speaks_for_the_class(
    convolutional, image_file, toy, tmp_path, method, file
):
    document = explain(convolutional, image_file, out=tmp_path / "out", classes=toy.class_names, method=method)
    assert document["method"] == method
    model, images = foveola.open(convolutional), toy.train.images[[25] * 3]
    cams = enlarge_maps(model, class_activation_maps(model, images, np.arange(3), method), (8, 8))
    assert (cams.min() < 0) == (method == "hires-cam")
    for label, cam in enumerate(cams):
        drawn = np.asarray(Image.open(tmp_path / "out" / "1-bar" / f"{file}_class_{label}.png"))
        assert drawn.shape == (224, 224, 3)
        centers = drawn[14::28, 14::28].astype(int)
        warmth = centers[..., 0] - centers[..., 2]
        assert (warmth[cam == 0] == 0).all()
        assert (warmth[cam > 0.9] > 100).all()
        assert (warmth[cam < -0.9] < -50).all()


def test_evidence_and_remainder_are_the_logit(convolutional, image_file, toy, tmp_path):
    document = explain(convolutional, image_file, out=tmp_path / "out", classes=toy.class_names)
    model, image = foveola.open(convolutional), toy.train.images[25:26]
    logits = model.predict_logits(image)[0]
    biases = model.network.dense_1.bias.detach().numpy() / model.metadata.temperature
    page = Path(document["page"]).read_text("utf-8")
    for explained in document["explanations"][0]["classes"]:
        label, evidence = toy.class_names.index(explained["class"]), explained["evidence"]
        (map_,) = class_activation_maps(model, image, np.array([label]))
        assert evidence["logit"] == pytest.approx(logits[label], abs=1e-5)
        assert evidence["added"] == pytest.approx(map_[map_ > 0].sum(), abs=1e-5)
        assert evidence["subtracted"] == pytest.approx(-map_[map_ < 0].sum(), abs=1e-5)
        assert evidence["remainder"] == pytest.approx(biases[label], abs=1e-4)
        assert f"{evidence['added']:+.2f} (orange)" in page
        assert f"= logit {evidence['logit']:+.2f}".replace("-", "−") in page


def test_a_grad_cam_of_zeros_does_not_claim_that_nothing_speaks_for_the_class(convolutional, image_file, tmp_path):
    model = foveola.open(convolutional)
    with torch.no_grad():  # negative on average, positive where the bar is
        model.network.dense_1.weight[0] = -1
        model.network.dense_1.weight[0].view(4, 4, 4)[:, 1:3] = 0.5
        model.network.dense_1.bias[0] = 50
    pages = {}
    for method in ("grad-cam", "hires-cam"):
        document = explain(model, image_file, out=tmp_path / method, method=method)
        pages[method] = Path(document["page"]).read_text("utf-8")
        (explained,) = document["explanations"][0]["classes"]
        assert explained["class"] == "left"
    assert "This does not mean that nothing speaks for the class" in pages["grad-cam"]
    assert explained["evidence"]["added"] > 0.1
    assert "0 everywhere" not in pages["hires-cam"]


def test_a_dense_network_says_that_hires_cam_is_not_possible(toy_run, image_file, tmp_path):
    document = explain(toy_run, image_file, out=tmp_path / "out")
    assert document["filters"] is None
    (row,) = document["explanations"]
    assert row["cam"].startswith("HiResCAM is not possible")
    assert row["grad_cam"] == row["cam"]
    (explained,) = row["classes"]
    assert (row["cam_shape"], explained["evidence"]) == (None, None)
    assert [name.partition("_")[0] for name in explained["files"]] == ["occlusion"]
    page = Path(document["page"]).read_text("utf-8")
    assert row["cam"] in page
    assert "Filters of the first layer" not in page


def test_a_network_of_the_users_own_with_any_layer_names(toy, image_file, tmp_path):
    network = nn.ModuleDict({"größe/x": nn.Conv2d(1, 2, 3), "end": nn.Linear(72, 3)})
    network.forward = lambda x: network["end"](torch.relu(network["größe/x"](x)).flatten(1))
    run = foveola.train(toy, network=network, overrides={"epochs": 1}, out=tmp_path / "run", verbose=False)
    (row,) = explain(foveola.open(run.path, network=network), image_file, out=tmp_path / "out")["explanations"]
    assert [layer["file"] for layer in row["layers"]] == ["layer_01_größe_x.png", "layer_02_end.png"]
    assert (tmp_path / "out" / "1-bar" / "layer_01_größe_x.png").is_file()


def test_hostile_class_names_are_escaped(toy, tiny, image_file, tmp_path):
    names = ("<script>alert(1)</script>", "a&b", "../c")
    data = foveola.Dataset("toy", foveola.ImageSet(toy.train.images, toy.train.labels, names))
    run = foveola.train(data, tiny, out=tmp_path / "run", verbose=False).path
    page = Path(explain(run, image_file, out=tmp_path / "out", classes=names)["page"]).read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("name", "folder", "shown"),
    [
        (b"caf\xe9.png", "1-caf_", "caf\\xe9.png"),
        (
            b"<b>a&amp;\n\x1b[31m'\".png",
            "1-_b_a_amp____31m__",
            "&lt;b&gt;a&amp;amp;\n�[31m&#39;&#34;.png",
        ),
        ("ä ".encode() * 80 + b".png", "1-" + ("ä " * 30).rstrip(), "ä ä"),
    ],
)
def test_an_image_may_have_any_name(toy_run, image_file, tmp_path, name, folder, shown):
    image = tmp_path / os.fsdecode(name)
    image_file.rename(image)
    document = explain(toy_run, image, out=tmp_path / "out")
    (row,) = document["explanations"]
    assert row["folder"] == folder
    assert (tmp_path / "out" / folder / "seen.png").is_file()
    assert shown in Path(document["page"]).read_text("utf-8")


def test_folders_and_patterns_are_explained_as_they_are_predicted(toy_run, image_file, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("b.png", "a.png"):
        (scans / name).write_bytes(image_file.read_bytes())
    (scans / "Thumbs.db").write_bytes(b"")
    for number, given in enumerate((scans, f"{scans}/*.png")):
        rows = explain(toy_run, given, out=tmp_path / f"out-{number}")["explanations"]
        assert [row["image"] for row in rows] == [str(scans / "a.png"), str(scans / "b.png")]
        assert [row["folder"] for row in rows] == ["1-a", "2-b"]


def test_more_images_than_a_page_can_hold_are_refused(toy_run, image_file, tmp_path):
    with pytest.raises(DataError, match="101 images, but one page explains at most 100"):
        explain(toy_run, *[image_file] * 101, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fixed_image_is_shown_before_and_after(convolutional, toy, tmp_path):
    Image.fromarray(255 - toy.train.images[25, :, :, 0]).save(tmp_path / "dark.png")
    (row,) = explain(convolutional, tmp_path / "dark.png", fix=["invert"], out=tmp_path / "out")["explanations"]
    assert row["fixes"] == ["invert"]
    assert row["class"] == "middle"
    assert "polarity" in [finding["code"] for finding in row["findings"]]
    seen = np.asarray(Image.open(tmp_path / "out" / "1-dark" / "seen.png"))[14::28, 14::28]
    np.testing.assert_array_equal(seen, toy.train.images[25, :, :, 0])
    page = (tmp_path / "out" / "explanation.html").read_text("utf-8")
    assert "network input without fixes" in page and "after invert" in page


def test_each_image_is_decoded_once(toy_run, image_file, tmp_path, monkeypatch):
    original, names = decode.decode_first_frame, []

    def counted(data, name, **more):
        names.append(name)
        return original(data, name, **more)

    monkeypatch.setattr(decode, "decode_first_frame", counted)
    explain(toy_run, image_file, image_file, out=tmp_path / "out")
    assert names == [str(image_file)] * 2


def test_a_live_model_is_not_changed(convolutional, image_file, tmp_path):
    model = foveola.open(convolutional).train()
    model.network.dropout_1.eval()  # a mode other than the rest of the network
    explain(model, image_file, out=tmp_path / "out")
    assert [name for name, module in model.named_modules() if not module.training] == ["network.dropout_1"]


def test_default_folders_are_numbered(toy_run, image_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [explain(toy_run, image_file)["out"] for _ in range(3)] == ["explanation", "explanation-2", "explanation-3"]


def test_an_empty_folder_is_used(toy_run, image_file, tmp_path):
    (tmp_path / "out").mkdir()
    assert Path(explain(toy_run, image_file, out=tmp_path / "out")["page"]).is_file()


# What is refused, with nothing written


def grey_file(tmp_path, mode="L", size=(8, 8), **options):
    Image.new(mode, size, **options).save(tmp_path / "bad.png")
    return tmp_path / "bad.png"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": ["Middle"]}, DataError, "Unknown class 'Middle'. Did you mean 'middle'"),
        ({"fix": ["turn"]}, UserError, "Unknown fix 'turn'"),
        ({"method": "gradcam"}, UserError, "Unknown method 'gradcam'. Did you mean 'grad-cam'"),
        ({"images": lambda tmp_path: grey_file(tmp_path, "RGB", color="red")}, DataError, "colour image .*--grey"),
        ({"images": lambda tmp_path: grey_file(tmp_path, "L", (9000, 8000))}, DataError, "refused because of its size"),
        ({"images": lambda tmp_path: tmp_path / "none.png"}, DataError, "does not exist"),
        ({"out": lambda tmp_path: tmp_path}, OutputError, "holds files, which are left alone"),
        ({"out": lambda tmp_path: tmp_path / "bar.png"}, OutputError, "is a file"),
        ({"out": lambda tmp_path: tmp_path / "bar.png" / "x"}, OutputError, "cannot be written"),
        ({"model": lambda tmp_path: tmp_path / "no-run"}, ModelError, "no run or model file"),
    ],
)
def test_bad_input_is_named_and_nothing_written(toy_run, image_file, tmp_path, options, error, message):
    values = {"model": toy_run, "images": image_file, "out": tmp_path / "out"} | {
        name: value(tmp_path) if callable(value) else value for name, value in options.items()
    }
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        explain(values.pop("model"), values.pop("images"), **values)
    assert set(tmp_path.rglob("*")) == before


def test_an_export_is_explained_by_occlusion_and_its_layers(toy_run, toy, image_file, tmp_path):
    report = export(toy_run, data=toy, out=tmp_path / "model.onnx", verbose=False)
    (expected,) = explain(toy_run, image_file, out=tmp_path / "run")["explanations"]
    for number, model in enumerate((report.path, foveola.open(report.path))):
        document = explain(model, image_file, out=tmp_path / str(number))
        (row,) = document["explanations"]
        assert row["cam"].startswith("HiResCAM is not possible: it needs gradients")
        assert row["cam"] in Path(document["page"]).read_text("utf-8")
        assert document["filters"] is None
        drops = ([of_class["largest_drop"] for of_class in found["classes"]] for found in (row, expected))
        np.testing.assert_allclose(*drops, atol=1e-4)
        assert row["layers"][-1]["name"] == "logits"


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (2000, 3000)])
def test_any_size_is_explained(toy_run, tmp_path, size):
    Image.new("L", size, 90).save(tmp_path / "a.png")
    (row,) = explain(toy_run, tmp_path / "a.png", out=tmp_path / "out")["explanations"]
    assert row["findings"]


def test_an_animation_has_a_finding(toy_run, toy, tmp_path):
    first, *others = (Image.fromarray(image[:, :, 0]) for image in toy.train.images[:3])
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    (row,) = explain(toy_run, tmp_path / "a.gif", out=tmp_path / "out")["explanations"]
    assert "an animation: only its first frame is used" in [finding["text"] for finding in row["findings"]]
