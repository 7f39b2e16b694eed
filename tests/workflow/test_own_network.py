"""A network of the user's own: checked before its training, and used afterwards by processes without its code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2 as httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveola
from foveola.errors import ExportError, ModelError, UserError
from foveola.exports import own_graph
from foveola.exports.own_graph import NotExportable
from foveola.exports.parity import TOLERANCE
from foveola.files import CHECKSUM_FILE
from foveola.images import Dataset, ImageSet
from foveola.progress import console
from foveola.recipe import load_recipe
from foveola.tasks import softmax
from foveola.workflow import own_network
from foveola.workflow.export import export
from foveola.workflow.own_network import check_network
from foveola.workflow.train import train
from own_networks import AttentionNetwork, ResidualNetwork

RECIPE = """
name = "own"
epochs = 1
batch_size = 64
learning_rate = 0.01
validation = 0.1
precision = "float32"
layers = [{ type = "Flatten" }, { type = "Dense", units = "classes" }]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "own.toml"
    path.write_text(RECIPE)
    return path


def trained(network, recipe, path, data="digits"):
    torch.manual_seed(0)
    return foveola.train(data, recipe, network=network, out=path, report=False, verbose=False)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """A run of the network with attention."""
    return trained(AttentionNetwork(), recipe, tmp_path_factory.mktemp("own") / "attention").path


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


def elsewhere(code, *arguments):
    """What code prints as JSON in a process that has no code of the network."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# With its code gone

USE = """
import json, sys
import numpy as np
import foveola
from foveola.workflow.export import export
run, image, out = sys.argv[1:]
model, data = foveola.open(run), foveola.load("digits")
evaluation = foveola.evaluate(run, "digits", verbose=False)
(prediction,) = foveola.predict(run, [image], verbose=False)
report = export(run, out=out, verbose=False)
logits = model.predict_logits(data.test.images if data.test is not None else data.train.images)
np.testing.assert_array_equal(foveola.open(out).predict_logits(data.train.images), logits)
print(json.dumps({
    "logits": logits.tolist(), "accuracy": evaluation.accuracy.value, "held_out": evaluation.held_out,
    "seen": evaluation.seen.training, "class": prediction.class_name, "parity": report.parity.largest_difference,
    "loaded": sorted({"torch", "own_networks"} & sys.modules.keys()),
}))
"""


def test_another_process_opens_evaluates_predicts_and_exports_it(run, tmp_path):
    images = foveola.load("digits").train.images
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "image.png")
    found = elsewhere(USE, run, tmp_path / "image.png", tmp_path / "model.onnx")
    expected = foveola.open(run, network=AttentionNetwork()).predict_logits(images)
    np.testing.assert_allclose(np.array(found["logits"]), expected, atol=1e-4)
    recorded = foveola.Run.open(run)
    assert found["accuracy"] == recorded.evaluation.accuracy.value
    assert (found["held_out"], found["seen"]) == (True, 0)
    assert found["class"] == str(expected[0].argmax())
    assert found["parity"] == recorded.status.graph.largest_difference < TOLERANCE
    assert found["loaded"] == []  # neither PyTorch nor the network's code


def test_the_run_says_how_its_graph_was_compared(run):
    graph = foveola.Run.open(run).status.graph
    assert (graph.network, graph.images, graph.missing) == ("AttentionNetwork", 1000, None)
    assert "model.onnx" in (run / CHECKSUM_FILE).read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "model.onnx").unlink(), r"no model\.onnx beside it.*network=YourModule\(\)"),
        (lambda run: (run / "model.onnx").write_bytes(b"damaged"), r"model\.onnx .*SHA256SUMS"),
    ],
)
def test_a_graph_that_is_missing_or_damaged_is_refused(copied, change, message):
    change(copied)
    with pytest.raises(ModelError, match=message):
        foveola.open(copied)
    assert foveola.open(copied, network=AttentionNetwork()).class_names[0] == "0"


def test_the_graph_of_another_model_is_refused(copied):
    (copied / CHECKSUM_FILE).unlink()
    model = foveola.open(copied, network=AttentionNetwork())
    model.metadata = model.metadata.model_copy(update={"temperature": 2.0})
    model.save(copied / "model.safetensors")
    with pytest.raises(ModelError, match=r"not the export of .*model\.safetensors, but of another model"):
        foveola.open(copied)


def test_without_the_code_it_runs_on_the_cpu(run):
    with pytest.raises(UserError, match=r"runs on the CPU.*network=YourModule"):
        foveola.open(run, device="cuda")


def test_weights_alone_are_no_export(run):
    with pytest.raises(ModelError, match=r"could not be opened\. Export it as onnx or web"):
        export(run, "safetensors", verbose=False)


def test_further_seeds_cannot_be_trained_from_the_recipe(run):
    with pytest.raises(UserError, match="a network of your own, which its recipe does not say"):
        foveola.compare(run, run, seeds=2, verbose=False)


EVERYTHING = """
import json, sys
from pathlib import Path
import foveola
from foveola.workflow.export import export
first, second, image, folder = sys.argv[1:]
folder, found = Path(folder), {}
for name, run in (("first", first), ("second", second)):
    explanation = foveola.explain(run, [image], out=folder / name, verbose=False)["explanations"][0]
    found[name] = {"cam": explanation["cam"], "layers": [layer["name"] for layer in explanation["layers"]],
                   "files": [file for of_class in explanation["classes"] for file in of_class["files"]]}
    page = foveola.report(run, out=folder / f"{name}.html", verbose=False).read_text("utf-8")
    found[name]["report"] = "Occlusion" in page
    file = export(run, verbose=False).path
    again = foveola.explain(file, [image], out=folder / f"{name}-export", verbose=False)["explanations"][0]
    found[name]["same"] = [of_class["largest_drop"] for of_class in again["classes"]] == [
        of_class["largest_drop"] for of_class in explanation["classes"]
    ]
comparison = foveola.compare(first, second, out=folder / "compare.html", verbose=False)
found["compared"] = [(run.name, run.parameters, run.multiply_adds) for run in comparison.runs]
found["loaded"] = sorted({"own_networks"} & sys.modules.keys())
print(json.dumps(found))
"""


@pytest.mark.slow
def test_another_process_explains_reports_and_compares_both_networks(run, recipe, tmp_path):
    residual = trained(ResidualNetwork(), recipe, tmp_path / "residual").path
    Image.fromarray(foveola.load("digits").train.images[0, :, :, 0]).save(tmp_path / "image.png")
    found = elsewhere(EVERYTHING, residual, run, tmp_path / "image.png", tmp_path)
    for name, layers in (
        ("first", {"stem.2", "blocks.0", "blocks.1", "features"}),
        ("second", {"patches", "features"}),
    ):
        assert found[name]["cam"].startswith("HiResCAM is not possible: it needs gradients")
        assert layers <= set(found[name]["layers"])
        assert any(file.startswith("occlusion") for file in found[name]["files"])
        assert found[name]["report"]
        assert found[name]["same"]
    assert [tuple(row) for row in found["compared"]] == [
        ("residual", sum(p.numel() for p in ResidualNetwork().parameters()), 139_936),
        ("attention", sum(p.numel() for p in AttentionNetwork().parameters()), found["compared"][1][2]),
    ]
    assert found["loaded"] == []


@pytest.mark.slow
def test_the_server_answers_for_it(run, tmp_path):
    images = foveola.load("digits").train.images
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "image.png")
    expected = foveola.open(run, network=AttentionNetwork()).predict_logits(images[:1])
    command = [sys.executable, "-m", "foveola", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            lines = iter(server.stderr.readline, "")
            url = next(found[1] for line in lines if (found := re.search(r"at (http://\S+) ", line)))
            image = (tmp_path / "image.png").read_bytes()
            with httpx.Client(base_url=url, timeout=60) as client:
                answer = client.post("/predict", content=image, headers={"Content-Type": "image/png"}).json()
                layers = client.post("/look", content=image, headers={"Content-Type": "image/png"}).json()["layers"]
                page = client.get("/").text
        finally:
            server.terminate()
            server.communicate(timeout=60)
    (prediction,) = answer["predictions"]
    assert prediction["class"] == str(expected.argmax())
    assert prediction["probability"] == pytest.approx(softmax(expected).max(), abs=1e-4)
    assert [layer["name"] for layer in layers] == ["patches", "features", "logits"]
    assert "<title>" in page


# Before its training


def network_of(forward):
    network = nn.Linear(64, 10)
    network.forward = forward
    return network


DIGITS = ImageSet(np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 10, tuple("0123456789"))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(3, 10, 3), r"cannot take images of this data, float N×1×8×8: RuntimeError"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "cannot take images of this data"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
            r"float32 2×7 for 2 images, but the data has 10 classes",
        ),
        (nn.Conv2d(1, 10, 3), "returns float32 2×10×6×6 for 2 images"),
        (network_of(lambda x: x.flatten(1)[:, :10].long()), "returns int64 2×10"),
        (network_of(lambda x: (x, x)), r"returns tuple, .*returns them alone"),
        (network_of(lambda x: SimpleNamespace(logits=x)), r"returns SimpleNamespace, .*returns its output\.logits"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(network, message):
    with pytest.raises(UserError, match=message):
        check_network(network, load_recipe("fast", {"pad": 0}), DIGITS)


def test_a_network_is_checked_as_it_is_used_and_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    network[1].eval()
    check_network(network, load_recipe("fast", {"pad": 0}), DIGITS)
    assert (network.training, network[1].training, network[1].num_batches_tracked.item()) == (True, False, 0)


def test_a_wrong_network_leaves_nothing_behind(toy, recipe, tmp_path):
    with pytest.raises(UserError, match="but the data has 3 classes"):
        trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), recipe, tmp_path / "run", toy)
    assert list(tmp_path.iterdir()) == []


# If it cannot be exported


def refuse(*_):
    raise NotExportable("its graph has a node of the operator Einsum which exports do not allow")


def test_a_network_that_cannot_be_exported_is_trained_all_the_same(toy, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own_graph, "build_own_graph", refuse)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    run = train(toy, recipe, network=network, out=tmp_path / "run", report=False)
    said = capsys.readouterr().err
    sentence = "The network cannot be exported: its graph has a node of the operator Einsum which exports do not allow."
    assert said.count(sentence) == 2
    assert said.index(sentence) < said.index("epoch 1/1")
    assert (run.status.status, run.status.graph.largest_difference) == ("done", None)
    assert not (run.path / "model.onnx").exists()
    with pytest.raises(ModelError, match=r"its weights only: .*Einsum.*network=YourModule\(\)"):
        foveola.open(run.path)
    with pytest.raises(ModelError, match=r"no model\.onnx beside"):
        export(run.path, verbose=False)
    assert foveola.evaluate(foveola.open(run.path, network=network), toy, verbose=False).n == 12


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ExportError("The logits differ."), "The logits differ."), (None, "pip install 'foveola[train]'")],
)
def test_other_reasons_for_a_missing_graph_are_recorded(toy, tmp_path, monkeypatch, capsys, error, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(own_network, "export_network", fail)
    if error is None:
        monkeypatch.setitem(sys.modules, "onnxscript", None)
    classifier = SimpleNamespace(network=nn.Identity())
    graph = own_network.write_graph(foveola.Run(tmp_path), classifier, toy.train.images, console(True))
    assert (graph.network, graph.largest_difference) == ("Identity", None)
    assert expected in graph.missing
    assert expected in capsys.readouterr().err


class BatchCentred(nn.Module):
    """A network whose answer for an image depends on the others in its batch."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 3)

    def forward(self, x):
        logits = self.dense(x.flatten(1))
        return logits - logits.mean(dim=0)


@pytest.mark.slow
def test_a_network_that_mixes_images_is_not_exported(toy: Dataset, recipe, tmp_path):
    run = trained(BatchCentred(), recipe, tmp_path / "run", toy)
    assert "its logits differ from the model's" in run.status.graph.missing
    assert not (run.path / "model.onnx").exists()
