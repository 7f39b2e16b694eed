"""The measure of unfamiliarity: distances, the promise of its threshold, its features, and its way through a file."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import foveola
from foveola.errors import ModelError
from foveola.images import Dataset, ImageSet
from foveola.models.classifier import open_classifier
from foveola.models.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D
from foveola.models.metadata import METADATA_KEY, ModelMetadata
from foveola.models.model_file import read_metadata
from foveola.models.unfamiliarity import (
    MAX_FEATURES,
    PREFIX,
    FeatureStatistics,
    calibrate,
    energy,
    feature_layers,
    named_layers,
    score,
    shrunk_covariance,
)

RECIPE = """
name = "small"
description = "Two layers with weights"
validation = 0.4
batch_size = 16
epochs = 8
learning_rate = 0.01
precision = "float32"
layers = [
  { type = "Conv2D", filters = 4, activation = "relu" },
  { type = "MaxPool2D" },
  { type = "Flatten" },
  { type = "Dropout", rate = 0.1 },
  { type = "Dense", units = "classes" },
]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def toy():
    """300 grey images of 8×8 with a bright bar left, in the middle or right."""
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = random.integers(0, 60, (300, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2:6, 1 + 2 * label : 3 + 2 * label] += 180
    return Dataset("bars", ImageSet(images, labels, ("left", "middle", "right")))


@pytest.fixture(scope="module")
def run(toy, recipe, tmp_path_factory):
    """A run of the toy data that measures unfamiliarity; to be read only."""
    return foveola.train(toy, recipe, out=tmp_path_factory.mktemp("runs") / "r", report=False, verbose=False)


@pytest.mark.parametrize(("images", "features"), [(2, 3), (8, 30), (30, 8), (2_000, 64), (50, 1)])
def test_covariance_is_that_of_scikit_learn(images, features):
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(0)
    values = rng.normal(size=(images, features)) * rng.uniform(0.1, 3, features)
    expected, _ = ledoit_wolf(values, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(values), expected, rtol=1e-10, atol=1e-12)


def test_covariance_of_constant_features_is_zero():
    np.testing.assert_array_equal(shrunk_covariance(np.zeros((10, 3))), np.zeros((3, 3)))


def gaussians(count, seed, features=6, classes=3):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    mixing = np.eye(features) + 0.1 * np.random.default_rng(1).normal(size=(features, features))
    means = 4 * np.random.default_rng(2).normal(size=(classes, features))
    return np.float32(means[labels] + random.normal(size=(count, features)) @ mixing), labels


def logits(features):
    return np.float32(features @ np.random.default_rng(3).normal(size=(features.shape[1], 3)))


# The measure


def test_distances_are_mahalanobis_to_the_nearest_class_mean():
    from scipy.spatial.distance import mahalanobis

    features, labels = gaussians(5000, 0)
    statistics = FeatureStatistics.of(features, labels)
    means = [features[labels == label].mean(axis=0) for label in range(3)]
    residuals = features - np.stack(means)[labels]
    inverse = np.linalg.inv(residuals.T @ residuals / len(features))
    images, _ = gaussians(20, 1)
    expected = [min(mahalanobis(image, mean, inverse) for mean in means) for image in images]
    # 5,000 images leave little to shrink
    np.testing.assert_allclose(statistics.log_distances(images), 2 * np.log(expected), atol=0.02)


def test_features_that_never_vary_and_classes_without_images_are_left_out():
    features, labels = gaussians(200, 0)
    features[:, 2] = 7
    statistics = FeatureStatistics.of(features, np.where(labels == 1, 2, labels))
    assert statistics.class_means.shape == (2, 6)
    odd = features.copy()
    odd[:, 2] = 8
    np.testing.assert_array_equal(statistics.log_distances(odd), statistics.log_distances(features))


def test_fewer_images_than_features_give_finite_distances():
    features, labels = gaussians(12, 0, features=40)
    assert np.isfinite(FeatureStatistics.of(features, labels).log_distances(gaussians(5, 1, features=40)[0])).all()


@pytest.mark.parametrize("images", [3, 30])
def test_classes_without_any_variation_do_not_overflow(images):
    labels = np.arange(images) % 3
    features = np.eye(3, 5, dtype=np.float32)[labels]
    statistics = FeatureStatistics.of(features, labels)
    assert np.abs(statistics.whitening).max() < 1e4
    near, far = statistics.log_distances(np.float32([features[0] + 0.01, features[0] + 1]))
    assert near < far
    nothing = FeatureStatistics.of(np.ones_like(features), labels)
    assert np.isfinite(nothing.log_distances(features)).all()


def test_energy():
    from scipy.special import logsumexp

    values = np.array([[1.0, 2.0, 3.0], [1000, -1000, 0]], np.float32)
    np.testing.assert_allclose(energy(values), -logsumexp(values.astype(np.float64), axis=1))


# What the threshold promises


@pytest.mark.parametrize(("images", "promised"), [(20, 1 / 21), (70, 1 / 71), (99, 0.01), (250, 2 / 251), (999, 0.01)])
def test_false_alarms_are_as_rare_as_promised(images, promised):
    statistics = FeatureStatistics.of(*gaussians(1000, 0))
    others, _ = gaussians(5000, 1)
    rates = []
    for seed in range(200):
        validation, _ = gaussians(images, (2, seed))
        measure = calibrate(statistics, validation, logits(validation), ["dense_1"])
        rates.append((score(statistics, measure, others, logits(others)) > measure.threshold).mean())
    assert measure.false_alarms == pytest.approx(promised)
    assert np.mean(rates) <= promised + 2 * np.std(rates) / np.sqrt(len(rates))


def test_too_few_validation_images_give_no_measure():
    statistics = FeatureStatistics.of(*gaussians(1000, 0))
    validation, _ = gaussians(19, 1)
    assert calibrate(statistics, validation, logits(validation), ["dense_1"]) is None


def test_what_lies_far_from_every_class_is_unfamiliar():
    statistics = FeatureStatistics.of(*gaussians(1000, 0))
    validation, _ = gaussians(200, 1)
    measure = calibrate(statistics, validation, logits(validation), ["dense_1"])
    far = np.float32(validation[:50] + 100)
    assert (score(statistics, measure, far, np.zeros((50, 3), np.float32)) > measure.threshold).all()


# Where the features come from


def metadata(*layers, shape=(28, 28, 1)):
    return ModelMetadata(class_names=("a", "b", "c"), image_shape=shape, layers=layers)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([Flatten(), Dense(units="classes")], []),
        ([Flatten(), Dense(units=9), Dropout(rate=0.5), Dense(units="classes")], ["dense_1"]),
        ([Conv2D(filters=2), MaxPool2D(), Flatten(), Dense(units="classes")], ["maxpool2d_1"]),
        ([Conv2D(filters=2), Flatten(), BatchNorm(), Dense(units="classes")], []),  # 1,352 features
        (
            [Conv2D(filters=2), BatchNorm(), Conv2D(filters=3), Flatten(), Dense(units=9), Dense(units="classes")],
            ["batchnorm_1", "conv2d_2", "dense_1"],
        ),
    ],
)
def test_features_are_what_layers_with_weights_receive(layers, expected):
    assert [info.name for info in feature_layers(metadata(*layers))] == expected


def test_of_too_many_features_the_last_are_taken():
    wide = [Flatten(), *(Dense(units=600) for _ in range(3)), Dense(units="classes")]
    assert [info.name for info in feature_layers(metadata(*wide))] == ["dense_3"]
    assert 600 <= MAX_FEATURES < 1200


def test_a_network_of_the_users_has_no_features():
    assert feature_layers(ModelMetadata(class_names=("a", "b"), image_shape=(8, 8, 1))) == ()


# Through training and file


def test_training_gives_the_measure_and_the_file_keeps_it(run, toy):
    model = foveola.open(run.path)
    measure = model.metadata.unfamiliarity
    assert measure.layers == ("maxpool2d_1",)
    assert measure.validation_images == run.status.data.validation
    inverted = 255 - toy.train.images
    assert (model.predict_outputs(inverted).unfamiliarity > measure.threshold).mean() > 0.9
    outputs = model.predict_outputs(toy.train.images)
    assert (outputs.unfamiliarity > measure.threshold).mean() < 0.2
    np.testing.assert_allclose(outputs.logits, model.predict_logits(toy.train.images), atol=1e-6)


def test_features_are_channel_means_of_the_activations(run, toy):
    from foveola.explanation.activations import feature_maps

    model = foveola.open(run.path)
    _, features = model.predict_features(toy.train.images[:1], ["maxpool2d_1"])
    maps = feature_maps(model, toy.train.images[0])["maxpool2d_1"]
    np.testing.assert_allclose(features[0], maps.mean(axis=(0, 1)), rtol=1e-5)


def test_without_validation_images_or_with_few_there_is_no_measure(toy, recipe, tmp_path):
    for share in (0, 0.05):
        settings = {"validation": share, "epochs": 1}
        few = foveola.train(toy, recipe, out=tmp_path / str(share), overrides=settings, report=False, verbose=False)
        model = foveola.open(few.path)
        assert model.metadata.unfamiliarity is None
        assert model.predict_outputs(toy.train.images[:2]).unfamiliarity is None


def test_the_network_of_a_file_has_the_same_weights_with_and_without_the_measure(
    run, toy, recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("foveola.workflow.calibrate._measure_unfamiliarity", lambda *_: None)
    plain = foveola.train(toy, recipe, out=tmp_path / "plain", report=False, verbose=False)
    with_measure, without = load_file(run.model_path), load_file(plain.model_path)
    assert not any(name.startswith(PREFIX) for name in without)
    for name, values in without.items():
        np.testing.assert_array_equal(values, with_measure[name])
    assert foveola.open(plain.path).metadata.unfamiliarity is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(PREFIX + "center"), "lacks"),
        (lambda tensors: tensors.update({PREFIX + "center": np.zeros(3, np.float32)}), "damaged"),
        (lambda tensors: tensors.update({PREFIX + "class_means": np.zeros((9, 4), np.float32)}), "damaged"),
        (lambda tensors: tensors[PREFIX + "whitening"].fill(np.nan), "damaged"),
        (lambda tensors: tensors.update({PREFIX + "center": np.zeros(4)}), "damaged"),
    ],
)
def test_a_file_with_damaged_statistics_is_refused(run, tmp_path, change, message):
    tensors = {name: values.copy() for name, values in load_file(run.model_path).items()}
    change(tensors)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {METADATA_KEY: read_metadata(run.model_path).model_dump_json()})
    with pytest.raises(ModelError, match=message):
        open_classifier(path)


def test_layers_that_the_network_lacks_are_refused(run):
    known = read_metadata(run.model_path)
    wrong = known.unfamiliarity.model_copy(update={"layers": ("conv2d_9",)})
    with pytest.raises(ModelError, match="conv2d_9"):
        named_layers(known.model_copy(update={"unfamiliarity": wrong}))


def test_predictions_say_what_is_unlike_anything_trained_on(run, toy, tmp_path, foveola_command):
    from PIL import Image

    inverted = tmp_path / "inverted.png"
    Image.fromarray(255 - toy.train.images[0, :, :, 0]).save(inverted)
    [prediction] = foveola.predict(run.path, [inverted], verbose=False)
    assert prediction.unfamiliar
    assert dataclasses.asdict(prediction)["unfamiliarity"] > prediction.unfamiliarity_threshold
    out = foveola_command("predict", run.path, inverted).out
    assert "unlike anything the model was trained on" in " ".join(out.split())
    assert "unfamiliar (most likely" in " ".join(out.split())


def test_models_of_older_files_open_without_the_measure(run, tmp_path):
    tensors = {name: values for name, values in load_file(run.model_path).items() if not name.startswith(PREFIX)}
    old = read_metadata(run.model_path).model_dump_json(exclude={"unfamiliarity"}, by_alias=True)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {METADATA_KEY: old})
    assert open_classifier(path).metadata.unfamiliarity is None
