"""Runs compared: what is said of them, and what cannot be compared."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import foveola
from foveola.errors import DataError, ModelError, OutputError, UserError
from foveola.images import Dataset, ImageSet
from foveola.layers import Conv2D, Dense, Flatten
from foveola.run import Run

CONVOLUTION = [Conv2D(filters=2), Flatten(), Dense(units="classes")]


@pytest.fixture(scope="module")
def hard():
    """240 noisy images of two classes: no training gets all of them right."""
    random = np.random.default_rng(1)
    labels = np.arange(240) % 2
    images = random.integers(0, 256, (240, 6, 6, 1), dtype=np.uint8)
    images[labels == 1, 2:4, 2:4] //= 2
    return Dataset("hard", ImageSet(images, labels, ("dark", "light")))


@pytest.fixture(scope="module")
def runs(hard, tiny, tmp_path_factory):
    """Two runs of different lengths, and one with a convolution."""
    folder = tmp_path_factory.mktemp("compared")

    def train(name, **overrides):
        return foveola.train(hard, tiny, out=folder / name, overrides=overrides, verbose=False).path

    layers = [layer.model_dump() for layer in CONVOLUTION]
    return train("short", epochs=1), train("long", epochs=15), train("conv", epochs=3, layers=layers)


@pytest.fixture
def compare(hard):
    def run(*paths, data=hard, **options):
        return foveola.compare(*paths, data=data, verbose=False, **options)

    return run


def test_two_runs(compare, runs, hard):
    document = compare(*runs[:2])
    first, second = document["runs"]
    (pair,) = document["pairs"]
    written = [Run.open(path).evaluation for path in runs]
    assert [first["name"], second["name"]] == [pair["first"], pair["second"]] == ["short", "long"]
    assert document["n"] == written[0]["n"] == 48
    assert first["accuracy"] == written[0]["accuracy"]
    assert first["parameters"] == first["multiply_adds"] + 2 == 36 * 2 + 2
    assert first["seconds_training"] == Run.open(runs[0]).status["seconds"]["training"]
    assert first["latency_ms"] > 0
    assert first["images_per_second"] > 0
    apart = written[0]["accuracy"]["value"] - written[1]["accuracy"]["value"]
    assert pair["accuracy_difference"]["value"] == pytest.approx(apart)
    mcnemar = pair["mcnemar"]
    assert mcnemar["only_first"] - mcnemar["only_second"] == pytest.approx(48 * apart)
    for name in ("log_loss", "brier", "auc_macro_ovr", "ece"):
        difference = written[0][name]["value"] - written[1][name]["value"]
        assert pair["differences"][name]["value"] == pytest.approx(difference, abs=1e-6)
    assert (document["seeds"], first["accuracy_mean"], len(first["trainings"])) == (1, None, 1)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_images_that_they_disagree_on(compare, runs, hard):
    (pair,) = compare(*runs[:2])["pairs"]
    _, test = hard.train.split(0.2, 0)
    models = [foveola.open(path) for path in runs[:2]]
    predicted = [model.predict_logits(test.images).argmax(axis=1) for model in models]
    differing = np.flatnonzero(predicted[0] != predicted[1])
    assert pair["disagreements"] == len(differing) > 0
    for found, index in zip(pair["disagreeing_images"], differing, strict=True):
        true, first, second = (test.class_names[labels[index]] for labels in (test.labels, *predicted))
        assert found == {"index": index, "true": true, "first": first, "second": second}


def test_a_run_and_itself_do_not_differ(compare, runs):
    (pair,) = compare(runs[0], runs[0])["pairs"]
    assert pair["verdict"] == "no difference: short and short give the same answer for every image"
    assert (pair["real"], pair["disagreements"], pair["mcnemar"]["p"]) == (False, 0, 1.0)


def test_of_several_the_first_is_compared_with_each_other(compare, runs):
    from foveola.evaluation.comparison import holm

    document = compare(*runs)
    pairs = document["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("short", "long"), ("short", "conv")]
    p_values = [pair["mcnemar"]["p"] for pair in pairs]
    assert [pair["test"]["p"] for pair in pairs] == p_values
    assert [pair["test"]["p_corrected"] for pair in pairs] == holm(p_values)


@pytest.fixture(scope="module")
def seeded(runs, hard, tmp_path_factory):
    """Two of the runs, the comparison of them with two seeds a side, and the folder where all trainings lie."""
    folder = tmp_path_factory.mktemp("seeded")
    copies = [shutil.copytree(path, folder / path.name) for path in runs[:2]]
    return folder, copies, foveola.compare(*copies, data=hard, seeds=2, verbose=False)


def test_seeds_are_trained_beside(seeded):
    folder, copies, document = seeded
    assert sorted(path.name for path in folder.iterdir()) == ["long", "long-seed1", "short", "short-seed1"]
    for run, copy in zip(document["runs"], copies, strict=True):
        found = [Run.open(training["path"]) for training in run["trainings"]]
        accuracies = [one.evaluation["accuracy"]["value"] for one in found]
        assert [training["seed"] for training in run["trainings"]] == [0, 1]
        assert [training["accuracy"] for training in run["trainings"]] == accuracies
        assert run["accuracy_mean"] == pytest.approx(np.mean(accuracies))
        assert run["accuracy_standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
        assert {one.recipe for one in found} == {Run.open(copy).recipe}
    means = [run["accuracy_mean"] for run in document["runs"]]
    (pair,) = document["pairs"]
    assert pair["accuracy_difference"]["value"] == pytest.approx(means[0] - means[1])
    assert pair["test"]["name"] == "Student's t over 2 and 2 trainings and 48 images"


def test_seeds_that_are_there_are_used_again(compare, seeded, monkeypatch):
    def no_training(*_, **__):
        raise AssertionError("what is there is used again")

    monkeypatch.setattr("foveola.workflow.compare.train", no_training)
    _, copies, document = seeded
    assert compare(*copies, seeds=2)["pairs"] == document["pairs"]


def test_an_interrupted_seed_is_trained_again(compare, seeded):
    folder, copies, document = seeded
    run = Run.open(folder / "short-seed1")
    run.write_status(run.status | {"status": "interrupted"})
    run.model_path.unlink()
    assert compare(*copies, seeds=2)["pairs"] == document["pairs"]
    assert run.status["status"] == "done"


def test_another_training_in_the_place_of_a_seed_is_left_alone(compare, runs, tmp_path):
    copies = [shutil.copytree(path, tmp_path / path.name) for path in runs[:2]]
    shutil.copytree(runs[1], tmp_path / "short-seed1")
    before = (tmp_path / "short-seed1" / "run.json").read_bytes()
    with pytest.raises(OutputError, match=r"short-seed1 should hold short with seed 1, but .* Move or remove it"):
        compare(*copies, seeds=2)
    assert (tmp_path / "short-seed1" / "run.json").read_bytes() == before


def test_why_a_dense_layer_does_not_scale(compare, runs):
    scaling = compare(runs[0], runs[2])["scaling"]
    small, large = scaling[0], scaling[-1]
    assert small["image_shape"] == [28, 28, 1]
    assert large["image_shape"] == [4096, 2160, 3]
    assert small["networks"] == [
        {"name": "short", "parameters": 28 * 28 * 2 + 2, "before_dense": 0},
        {"name": "conv", "parameters": 2 * 10 + 26 * 26 * 2 * 2 + 2, "before_dense": 2 * 10},
    ]
    assert large["networks"][0]["parameters"] == 4096 * 2160 * 3 * 2 + 2
    assert large["networks"][1]["before_dense"] == 2 * (3 * 9 + 1)
    assert compare(runs[2], runs[2])["scaling"] == []


def test_data_is_found_where_the_run_says(hard, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "hard.npz"
    np.savez(data, x_train=hard.train.images, y_train=hard.train.labels, class_names=np.array(hard.class_names))
    copies = [Run(shutil.copytree(path, tmp_path / path.name)) for path in runs[:2]]
    paths = [run.path for run in copies]
    with pytest.raises(DataError, match=r"on their test images, but .* \(hard\) .* --data"):
        foveola.compare(*paths, verbose=False)
    for run in copies:
        run.write_status(run.status | {"data": run.status["data"] | {"path": str(data)}})
    assert foveola.compare(*paths, verbose=False)["n"] == 48
    assert foveola.compare(*paths, data=data, verbose=False)["n"] == 48


def test_other_data_is_refused(compare, runs, toy, toy_run, hard):
    with pytest.raises(DataError, match=r"short has learnt from hard \(fingerprint .* train both on the same data"):
        compare(runs[0], toy_run)
    with pytest.raises(DataError, match=r"toy .* is not what .* has learnt from \(hard, .* --data"):
        compare(*runs[:2], data=toy)
    with pytest.raises(DataError, match=r"is not what .* has learnt from"):
        compare(*runs[:2], data=replace(hard, train=hard.train.take(range(239))))


def test_other_test_images_of_the_same_data_are_refused(compare, runs, hard, tiny, tmp_path):
    other = foveola.train(hard, tiny, out=tmp_path / "other", overrides={"test": 0.3}, verbose=False)
    with pytest.raises(DataError, match=r"measured on 48 test images, other on 72 others .* --set test"):
        compare(runs[0], other.path)


def test_runs_that_cannot_be_compared(compare, runs, hard, tiny, tmp_path):
    with pytest.raises(UserError, match="at least two runs"):
        compare(runs[0])
    with pytest.raises(UserError, match="needs at least 1"):
        compare(*runs[:2], seeds=0)
    with pytest.raises(ModelError, match=r"nothing is no run"):
        compare(runs[0], tmp_path / "nothing")
    whole = foveola.train(hard, tiny, out=tmp_path / "whole", overrides={"test": 0.0}, verbose=False)
    with pytest.raises(ModelError, match="without test images"):
        compare(runs[0], whole.path)
    stopped = Run(shutil.copytree(runs[0], tmp_path / "stopped"))
    stopped.write_status(stopped.status | {"status": "interrupted"})
    with pytest.raises(ModelError, match=r"has not come to its end \(status: interrupted\)"):
        compare(runs[0], stopped.path)
    stopped.write_status({"status": "done"})
    with pytest.raises(ModelError, match="damaged"):
        compare(runs[0], stopped.path)
    with pytest.raises(OutputError, match="does not exist"):
        compare(*runs[:2], out=tmp_path / "missing" / "page.html")


def test_the_page_holds_verdict_figures_and_pictures(compare, runs, tmp_path):
    page = tmp_path / "page.html"
    document = compare(*runs, out=page)
    text = page.read_text("utf-8")
    for pair in document["pairs"]:
        assert pair["verdict"] in text
        assert f"{pair['disagreements']:,} of 48 images" in text
    shown = {image["index"] for pair in document["pairs"] for image in pair["disagreeing_images"]}
    for index in shown:
        assert f'alt="test image {index}"' in text
    assert f"{document['scaling'][-1]['networks'][0]['parameters']:,}" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/", "")


def test_names_that_two_runs_share_become_paths(compare, runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "short")
    document = compare(runs[0], other)
    assert [run["name"] for run in document["runs"]] == [str(runs[0]), str(other)]
