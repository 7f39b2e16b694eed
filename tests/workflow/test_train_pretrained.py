"""Trainings that begin with pretrained weights: what is copied, what is recorded, and what is refused."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import foveola
from foveola.datasets import weights
from foveola.errors import DownloadError, ModelError, UserError
from foveola.exports import FORMATS
from foveola.images import Dataset, ImageSet
from foveola.models.model_file import read_metadata
from foveola.models.pretrained import ENTRIES, Pretrained
from foveola.training import cross_fit, cross_validation
from foveola.workflow.export import export

RECIPE = """
name = "small"
description = "One convolution with pretrained weights"
validation = 0.2
batch_size = 16
steps = 1
learning_rate = 1e-9
precision = "float32"
channels = "rgb"
pretrained = "small"
layers = [
  { type = "Conv2D", filters = 4, bias = false },
  { type = "BatchNorm" },
  { type = "Activation", function = "relu" },
  { type = "GlobalAveragePool2D" },
  { type = "Dense", units = "classes" },
]
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An entry whose weights lie in the data folder; returns their path."""
    entry = Pretrained("small", "small", "someone/small", "MIT", "Someone, 2020", "x", ("a", "b", "c"), 8, "signed", 7)
    folder = tmp_path_factory.mktemp("weights")
    path = folder / "data" / "backbones" / "small" / "model.safetensors"
    path.parent.mkdir(parents=True)
    write(path, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENTRIES, "small", entry)
        patch.setenv("FOVEOLA_DATA", str(folder / "data"))
        patch.setenv("FOVEOLA_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield path


@pytest.fixture
def removed(published):
    """The weights are not there during the test."""
    content = published.read_bytes()
    published.unlink()
    yield
    published.write_bytes(content)


def write(path, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "a.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "b.weight": torch.rand(4, generator=generator) + 0.5,
        "b.bias": torch.rand(4, generator=generator),
        "b.running_mean": torch.zeros(4),
        "b.running_var": torch.ones(4),
        "c.weight": torch.randn(7, 4, generator=generator),
        "c.bias": torch.zeros(7),
    }
    save_file(tensors, path)


@pytest.fixture(scope="module")
def recipe(published):
    path = published.parent / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def colour(toy):
    images = np.repeat(toy.train.images, 3, axis=3)
    return Dataset("colour", ImageSet(images, toy.train.labels, toy.class_names))


@pytest.fixture
def train(recipe, colour, tmp_path):
    def run(out="run", **options):
        given = {"data": colour, "recipe": recipe, "out": tmp_path / out, "report": False, "verbose": False}
        return foveola.train(**given | options)

    return run


@pytest.fixture(scope="module")
def pretrained_run(recipe, colour, tmp_path_factory):
    """A run that began with the weights, to be read only."""
    return foveola.train(colour, recipe, out=tmp_path_factory.mktemp("runs") / "run", verbose=False)


def weights_of(path, name):
    return load_file(path)[name]


def close(one, other):
    """Whether weights are the same but for a step with a tiny learning rate."""
    return torch.allclose(one, other, atol=1e-6, rtol=0)


def test_a_training_begins_with_the_weights_of_its_recipe(pretrained_run, train, published):
    model = pretrained_run.model_path
    assert close(weights_of(model, "conv2d_1.weight"), weights_of(published, "a.weight"))
    random = train(overrides={"pretrained": "none"})
    assert not close(weights_of(random.model_path, "conv2d_1.weight"), weights_of(published, "a.weight"))
    assert random.status.pretrained is read_metadata(random.model_path).pretrained is None
    # The last layer is that of the seed
    assert close(weights_of(random.model_path, "dense_1.weight"), weights_of(model, "dense_1.weight"))


def test_run_and_report_say_where_the_weights_are_from(pretrained_run):
    page = (pretrained_run.path / "report.html").read_text("utf-8")
    assert "pretrained: small, MIT, https://huggingface.co/someone/small" in page
    recorded = json.loads((pretrained_run.path / "run.json").read_text("utf-8"))["pretrained"]
    sha256 = recorded.pop("sha256")
    source = "https://huggingface.co/someone/small"
    assert recorded == {"name": "small", "source": source, "licence": "MIT", "verified": False}
    assert re.fullmatch("[0-9a-f]{64}", sha256)


def test_every_export_says_so(pretrained_run, colour, tmp_path):
    run = pretrained_run
    for format in FORMATS:
        report = export(run.path, format, out=tmp_path / f"export.{format}", data=colour, verbose=False)
        assert FORMATS[format].open(report.path).metadata.pretrained == run.status.pretrained
    described = json.loads((tmp_path / "export.web" / "model.json").read_text("utf-8"))
    assert described["pretrained"]["licence"] == "MIT"


def test_a_file_takes_the_place_of_the_published_weights(train, tmp_path, capsys):
    path = tmp_path / "mine.safetensors"
    write(path, 1)
    run = train(weights=path, verbose=True)
    assert close(weights_of(run.model_path, "conv2d_1.weight"), weights_of(path, "a.weight"))
    assert (run.status.weights, run.status.pretrained.source) == (str(path), None)
    assert "Initial weights: small, from a file of unknown origin and licence" in capsys.readouterr().err


def test_a_model_initialised_from_another_inherits_what_that_began_with(train, pretrained_run, removed):
    run = train(init=pretrained_run.path)
    assert run.status.pretrained == read_metadata(run.model_path).pretrained == pretrained_run.status.pretrained


def test_weights_that_are_not_there_are_asked_for_before_the_data_is_read(train, removed, tmp_path):
    with pytest.raises(DownloadError, match=r"put it at .*small.*or give it with --weights FILE"):
        train(data=tmp_path / "no data")
    assert not (tmp_path / "run").exists()


def test_what_contradicts_the_weights_is_refused(train, toy, tiny, published):
    with pytest.raises(UserError, match="--weights and --init both say"):
        train(weights=published, init="run")
    with pytest.raises(UserError, match="a network of your own"):
        train(weights=published, network=torch.nn.Flatten())
    with pytest.raises(UserError, match="begins with random ones"):
        train(recipe=tiny, weights=published)
    with pytest.raises(ModelError, match=r"a\.weight is 4×3×3×3 instead of 4×1×3×3"):
        train(data=toy, overrides={"channels": "data"})


def test_a_training_is_resumed_with_the_same_weights_only(train, colour, published, tmp_path):
    class Interrupt(foveola.Callback):
        step = 3

        def on_step_end(self, fit):
            if fit.step == self.step:
                raise KeyboardInterrupt

    callback = Interrupt()
    options = {"overrides": {"steps": 6}, "callbacks": [callback], "checkpoint_every": 1e-9}
    with pytest.raises(KeyboardInterrupt):
        train(**options)
    callback.step = None
    original = published.read_bytes()
    write(published, 1)
    try:
        with pytest.raises(ModelError, match="belongs to another training"):
            foveola.resume(tmp_path / "run", data=colour, callbacks=[callback], verbose=False)
    finally:
        published.write_bytes(original)
    resumed = foveola.resume(tmp_path / "run", data=colour, callbacks=[callback], verbose=False)
    assert (resumed.status.status, resumed.status.steps) == ("done", 6)


@pytest.mark.parametrize("module", [cross_validation, cross_fit])
def test_networks_of_folds_begin_with_the_weights(module, recipe, colour, published, monkeypatch):
    """Those of tuning and of the label audit."""
    given, build = [], module.build_classifier

    def record(*arguments, **options):
        given.append(options["pretrained"].path)
        return build(*arguments, **options)

    monkeypatch.setattr(module, "build_classifier", record)
    images, loaded = colour.train, foveola.load_recipe(recipe)
    units, options = np.arange(len(images)), {"seed": 0, "device": torch.device("cpu")}
    if module is cross_validation:
        folds = cross_validation.k_folds(images, units, 2, 1, 0)
        cross_validation.cross_validate(images, folds, loaded, lambda predictions: 0.0, **options)
    else:
        cross_fit.cross_fit(images, np.ones(len(images), bool), loaded, folds=2, rounds=1, units=units, **options)
    assert given == [published] * 2


@pytest.mark.slow
def test_further_seeds_of_a_comparison_begin_with_the_same_weights(train, colour, tmp_path):
    write(tmp_path / "mine.safetensors", 1)
    one, two = train("one", weights=tmp_path / "mine.safetensors"), train("two", overrides={"pretrained": "none"})
    foveola.compare(one.path, two.path, data=colour, seeds=2, verbose=False)
    assert foveola.Run.open(tmp_path / "one-seed1").status.pretrained == one.status.pretrained
    assert foveola.Run.open(tmp_path / "two-seed1").status.pretrained is None


def test_a_learning_rate_is_found_with_the_weights(recipe, colour, published, tmp_path, monkeypatch):
    seen, find = [], weights.find_weights

    def record(*arguments):
        seen.append(arguments[1])
        return find(*arguments)

    monkeypatch.setattr("foveola.workflow.find_rate.find_weights", record)
    foveola.find_rate(colour, recipe, out=tmp_path / "rates", weights=published, verbose=False)
    assert seen == [published]
