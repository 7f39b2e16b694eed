"""Runs compared: metrics, verdicts, further seeds, and what cannot be compared."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import foveola
from foveola.documents import Comparison, Disagreement
from foveola.errors import DataError, ModelError, OutputError, UserError
from foveola.evaluation.metrics import METRICS
from foveola.images import Dataset, ImageSet
from foveola.models.layers import Conv2D, Dense, Flatten
from foveola.runs import Run

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
    first, second = document.runs
    (pair,) = document.pairs
    written = [Run.open(path).evaluation for path in runs]
    assert [first.name, second.name] == [pair.first, pair.second] == ["short", "long"]
    assert document.n == written[0].n == 48
    assert first.accuracy == written[0].accuracy
    assert first.parameters == first.multiply_adds + 2 == 36 * 2 + 2
    assert first.seconds_training == Run.open(runs[0]).status.seconds.training
    assert first.latency_ms > 0
    assert first.images_per_second > 0
    difference = written[0].accuracy.value - written[1].accuracy.value
    assert pair.accuracy_difference.value == pytest.approx(difference)
    assert pair.mcnemar.only_first - pair.mcnemar.only_second == pytest.approx(48 * difference)
    for name in METRICS.keys() - {"accuracy"}:
        difference = written[0].metrics[name].value - written[1].metrics[name].value
        assert pair.differences[name].value == pytest.approx(difference, abs=1e-6)
    assert (document.seeds, first.accuracy_mean, len(first.trainings)) == (1, None, 1)
    assert Comparison.from_json(document.to_json(), "comparison") == document


def test_the_images_that_two_runs_classify_differently(compare, runs, hard):
    (pair,) = compare(*runs[:2]).pairs
    _, test = hard.train.split(0.2, 0)
    models = [foveola.open(path) for path in runs[:2]]
    predicted = [model.predict_logits(test.images).argmax(axis=1) for model in models]
    differing = np.flatnonzero(predicted[0] != predicted[1])
    assert pair.disagreements == len(differing) > 0
    for image, index in zip(pair.disagreeing_images, differing, strict=True):
        true, first, second = (test.class_names[labels[index]] for labels in (test.labels, *predicted))
        assert image == Disagreement(index=int(index), true=true, first=first, second=second)


def test_a_run_and_itself_do_not_differ(compare, runs):
    (pair,) = compare(runs[0], runs[0]).pairs
    assert pair.verdict == "no difference: short and short predict the same class for every image"
    assert (pair.real, pair.disagreements, pair.mcnemar.p) == (False, 0, 1.0)


def test_the_first_of_several_runs_is_compared_with_each_other(compare, runs):
    from foveola.evaluation.comparison import holm

    document = compare(*runs)
    pairs = document.pairs
    assert [(pair.first, pair.second) for pair in pairs] == [("short", "long"), ("short", "conv")]
    p_values = [pair.mcnemar.p for pair in pairs]
    assert [pair.test.p for pair in pairs] == p_values
    assert [pair.test.p_corrected for pair in pairs] == holm(p_values)


@pytest.fixture(scope="module")
def seeded(runs, hard, tmp_path_factory):
    """The folder of all trainings, two of the runs, and their comparison with two seeds per run."""
    folder = tmp_path_factory.mktemp("seeded")
    copies = [shutil.copytree(path, folder / path.name) for path in runs[:2]]
    return folder, copies, foveola.compare(*copies, data=hard, seeds=2, verbose=False)


def test_missing_seeds_are_trained_beside_the_runs(seeded):
    folder, copies, document = seeded
    assert sorted(path.name for path in folder.iterdir()) == ["long", "long-seed1", "short", "short-seed1"]
    for run, copy in zip(document.runs, copies, strict=True):
        trainings = [Run.open(training.path) for training in run.trainings]
        accuracies = [training.evaluation.accuracy.value for training in trainings]
        assert [training.seed for training in run.trainings] == [0, 1]
        assert [training.accuracy for training in run.trainings] == accuracies
        assert run.accuracy_mean == pytest.approx(np.mean(accuracies))
        assert run.accuracy_standard_deviation == pytest.approx(np.std(accuracies, ddof=1))
        assert {training.recipe for training in trainings} == {Run.open(copy).recipe}
    means = [run.accuracy_mean for run in document.runs]
    (pair,) = document.pairs
    assert pair.accuracy_difference.value == pytest.approx(means[0] - means[1])
    assert pair.test.name == "Student's t over 2 and 2 trainings and 48 images"


def test_existing_seeds_are_reused(compare, seeded, monkeypatch):
    def no_training(*_, **__):
        raise AssertionError("existing seeds are not trained again")

    monkeypatch.setattr("foveola.workflow.compare.train", no_training)
    _, copies, document = seeded
    assert compare(*copies, seeds=2).pairs == document.pairs


def test_an_interrupted_seed_is_gone_on_with(compare, seeded, monkeypatch):
    folder, copies, document = seeded
    shutil.rmtree(folder / "short-seed1")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("foveola.workflow.fit_run.calibrate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare(*copies, seeds=2)
    assert Run.open(folder / "short-seed1").status.status == "interrupted"
    assert compare(*copies, seeds=2).pairs == document.pairs
    assert Run.open(folder / "short-seed1").status.status == "done"


def test_another_training_in_the_place_of_a_seed_is_not_overwritten(compare, runs, tmp_path):
    copies = [shutil.copytree(path, tmp_path / path.name) for path in runs[:2]]
    shutil.copytree(runs[1], tmp_path / "short-seed1")
    before = (tmp_path / "short-seed1" / "run.json").read_bytes()
    with pytest.raises(OutputError, match=r"short-seed1 should hold short with seed 1, but .* Move or remove it"):
        compare(*copies, seeds=2)
    assert (tmp_path / "short-seed1" / "run.json").read_bytes() == before


def test_parameters_by_image_size_are_listed_for_a_dense_network(compare, runs):
    scaling = compare(runs[0], runs[2]).scaling
    small, large = scaling[0], scaling[-1]
    assert small.image_shape == (28, 28, 1)
    assert large.image_shape == (4096, 2160, 3)
    assert [network.model_dump() for network in small.networks] == [
        {"name": "short", "parameters": 28 * 28 * 2 + 2, "before_dense": 0},
        {"name": "conv", "parameters": 2 * 10 + 26 * 26 * 2 * 2 + 2, "before_dense": 2 * 10},
    ]
    assert large.networks[0].parameters == 4096 * 2160 * 3 * 2 + 2
    assert large.networks[1].before_dense == 2 * (3 * 9 + 1)
    assert compare(runs[2], runs[2]).scaling == []


def test_data_is_read_from_the_path_that_the_run_records(hard, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "hard.npz"
    np.savez(data, x_train=hard.train.images, y_train=hard.train.labels, class_names=np.array(hard.class_names))
    copies = [Run(shutil.copytree(path, tmp_path / path.name)) for path in runs[:2]]
    paths = [run.path for run in copies]
    with pytest.raises(DataError, match=r"on their test images, but .* \(hard\) .* --data"):
        foveola.compare(*paths, verbose=False)
    for run in copies:
        status = run.status
        status.data.path = str(data)
        run.write_status(status)
    assert foveola.compare(*paths, verbose=False).n == 48
    assert foveola.compare(*paths, data=data, verbose=False).n == 48


def test_other_data_is_refused(compare, runs, toy, toy_run, hard):
    with pytest.raises(DataError, match=r"short was trained on hard \(fingerprint .* train both on the same data"):
        compare(runs[0], toy_run)
    with pytest.raises(DataError, match=r"toy .* is not the data that .* was trained on \(hard, .* --data"):
        compare(*runs[:2], data=toy)
    with pytest.raises(DataError, match=r"is not the data that .* was trained on"):
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
    with pytest.raises(ModelError, match=r"There is no run .*nothing\."):
        compare(runs[0], tmp_path / "nothing")
    whole = foveola.train(hard, tiny, out=tmp_path / "whole", overrides={"test": 0.0}, verbose=False)
    with pytest.raises(ModelError, match="without test images"):
        compare(runs[0], whole.path)
    stopped = Run(shutil.copytree(runs[0], tmp_path / "stopped"))
    stopped.write_status(stopped.status.model_copy(update={"status": "interrupted"}))
    with pytest.raises(ModelError, match=r"is not complete: it was interrupted.*--resume"):
        compare(runs[0], stopped.path)
    (stopped.path / "run.json").write_text('{"status": "done"}')
    with pytest.raises(ModelError, match="damaged"):
        compare(runs[0], stopped.path)
    with pytest.raises(OutputError, match="does not exist"):
        compare(*runs[:2], out=tmp_path / "missing" / "page.html")


def test_the_page_holds_verdicts_numbers_and_images(compare, runs, tmp_path):
    page = tmp_path / "page.html"
    document = compare(*runs, out=page)
    text = page.read_text("utf-8")
    for pair in document.pairs:
        assert pair.verdict in text
        assert f"{pair.disagreements:,} of 48 images" in text
    shown = {image.index for pair in document.pairs for image in pair.disagreeing_images}
    for index in shown:
        assert f'alt="test image {index}"' in text
    assert f"{document.scaling[-1].networks[0].parameters:,}" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/", "")


def test_runs_of_the_same_name_are_shown_by_path(compare, runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "short")
    document = compare(runs[0], other)
    assert [run.name for run in document.runs] == [str(runs[0]), str(other)]
