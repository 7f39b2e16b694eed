"""The classifier: preprocessing, prediction, the model file, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from torch import nn

import foveola
from foveola.errors import DataError, ModelError
from foveola.images import ImageSet
from foveola.inputs.resize import letterbox
from foveola.models.classifier import INFERENCE_BATCH, Classifier, open_classifier
from foveola.models.metadata import METADATA_KEY, ModelMetadata
from foveola.models.model_file import read_metadata
from foveola.recipe import load_recipe, parse_recipe
from foveola.training.build import build_classifier

NAMES = ("a", "b", "c")
STACK = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "activation": "relu"},
    {"type": "BatchNorm"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dense", "units": "classes"},
]


def some_images(n=20, height=8, width=8, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def some_set(**shape):
    images = some_images(**shape)
    return ImageSet(images, np.arange(len(images)) % 3, NAMES)


def recipe_of(**changes):
    return parse_recipe({"name": "toy", "layers": STACK, **changes})


def preprocessing(height=8, width=8, channels=1, **metadata):
    """A classifier whose network returns its input."""
    metadata = ModelMetadata(class_names=NAMES, image_shape=(height, width, channels), **metadata)
    return Classifier(nn.Identity(), metadata).eval()


def randomize_running_statistics(classifier):
    """Give batch normalisation statistics that differ from their initial values."""
    for name, buffer in classifier.network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2, generator=torch.Generator().manual_seed(3))
    return classifier


# Preprocessing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("scaling", ["unit", "standard"])
def test_normalize_pads_and_scales(channels, pad, scaling):
    data = some_set(height=7, width=9, channels=channels)
    data = ImageSet((data.images // np.arange(1, channels + 1)).astype(np.uint8), data.labels, NAMES)
    classifier = build_classifier(recipe_of(pad=pad, scaling=scaling), data, 0, network=nn.Identity())
    values = np.pad(data.images / 255, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    if scaling == "standard":
        mean, std = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
        np.testing.assert_allclose(classifier.metadata.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(classifier.metadata.std, std, rtol=1e-12)
        values = (values - mean) / std
    normalized = classifier.normalize(torch.from_numpy(data.images)).numpy()
    np.testing.assert_allclose(normalized, values.transpose(0, 3, 1, 2), atol=2e-6)
    assert classifier.metadata.network_shape == (7 + 2 * pad, 9 + 2 * pad, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (5, 7), (40, 13), (8, 9)])
def test_resizing_matches_pillows_bilinear_without_rounding(height, width, channels):
    images = some_images(4, height, width, channels)
    resized = preprocessing(8, 12, channels).fit_shape(torch.from_numpy(images)).numpy()
    assert resized.dtype == np.float32
    for result, image in zip(resized, images, strict=True):
        for channel in range(channels):
            plane = Image.fromarray(image[..., channel].astype(np.float32))
            expected = np.asarray(plane.resize((12, 8), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(result[..., channel], expected, atol=0.001)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (5, 70), (40, 13), (90, 1), (1, 90), (8, 12), (200, 3)])
def test_a_letterbox_is_that_of_single_images_without_rounding(height, width, channels):
    images = some_images(4, height, width, channels)
    model = preprocessing(8, 12, channels, resize="letterbox", fill=77)
    boxed = model.fit_shape(torch.from_numpy(images)).numpy()
    expected = np.stack([letterbox(image, 8, 12, 77) for image in images])
    assert np.abs(boxed - expected).max() <= 1  # each axis was rounded


def test_images_of_the_models_shape_are_returned_unchanged():
    images = torch.from_numpy(some_images())
    assert preprocessing().fit_shape(images) is images


def test_a_colour_model_takes_grey_images():
    images = some_images(channels=1)
    colour_model = preprocessing(channels=3, mean=(0, 0, 0), std=(1, 1, 1))
    converted = colour_model.fit_shape(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(converted, np.repeat(images, 3, axis=3))


def test_colour_images_are_refused_by_a_grey_model():
    with pytest.raises(DataError, match=r'trained on grey ones.*channels = "grey"'):
        preprocessing().predict_logits(some_images(channels=3))


def test_colour_images_are_converted_as_in_pillow_if_the_recipe_says_grey():
    images = some_images(channels=3)
    classifier = Classifier(nn.Identity(), ModelMetadata(class_names=NAMES, image_shape=(8, 8, 1), channels="grey"))
    grey = classifier.fit_shape(torch.from_numpy(images)).numpy()
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[..., None]
    assert grey.shape == expected.shape
    assert np.abs(grey - expected).max() < 0.51  # Pillow rounds


def test_logits_are_divided_by_the_temperature():
    classifier = build_classifier(recipe_of(), some_set(), 0)
    before = classifier.predict_logits(some_images())
    classifier.metadata = classifier.metadata.model_copy(update={"temperature": 2.0})
    np.testing.assert_array_equal(classifier.predict_logits(some_images()), before / 2)


# Prediction


@pytest.mark.parametrize(("side", "size"), [(28, 64), (64, 64), (224, 41), (2000, 1)])
def test_batches_of_large_images_are_small(side, size):
    classifier = build_classifier(recipe_of(), some_set(), 0)
    classifier.metadata = classifier.metadata.model_copy(update={"image_shape": (side, side, 3)})
    assert classifier.inference_batch == size


def test_predictions_do_not_depend_on_the_batch():
    classifier = build_classifier(recipe_of(), some_set(), 0)
    images = some_images(INFERENCE_BATCH + 3)
    logits = classifier.predict_logits(images)
    assert (logits.shape, logits.dtype) == ((INFERENCE_BATCH + 3, 3), np.float32)
    one_by_one = np.concatenate([classifier.predict_logits(images[i : i + 1]) for i in (0, 255, 256, 258)])
    np.testing.assert_allclose(logits[[0, 255, 256, 258]], one_by_one, rtol=1e-5, atol=1e-6)


def test_prediction_restores_training_mode():
    classifier = build_classifier(recipe_of(), some_set(), 0).train()
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    frozen = next(classifier.network.children()).eval()
    classifier.predict_logits(some_images())
    assert classifier.training
    assert classifier.network.training
    assert not frozen.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.network.state_dict().items())


def test_read_only_arrays_and_flipped_views_are_predicted():
    classifier = build_classifier(recipe_of(), some_set(), 0)
    images = some_images()
    flipped = classifier.predict_logits(np.ascontiguousarray(images[:, :, ::-1]))
    np.testing.assert_array_equal(classifier.predict_logits(images[:, :, ::-1]), flipped)
    images.setflags(write=False)
    assert classifier.predict_logits(images).shape == (20, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (some_images() / 255, "uint8 array.*not float64"),
        (some_images()[..., 0], "N×H×W×C.*20×8×8"),
        (some_images()[:0], "no images"),
        ([[1]], "NumPy array of uint8, not list"),
    ],
)
def test_anything_but_an_image_array_is_refused(images, message):
    with pytest.raises(DataError, match=message):
        build_classifier(recipe_of(), some_set(), 0).predict_logits(images)


# The model file


@pytest.fixture
def saved(tmp_path):
    recipe = recipe_of(pad=1, scaling="standard")
    classifier = randomize_running_statistics(build_classifier(recipe, some_set(), 7)).eval()
    classifier.metadata = classifier.metadata.model_copy(update={"temperature": 1.7})
    path = tmp_path / "model.safetensors"
    classifier.save(path)
    return classifier, path


def test_a_saved_model_reopens_bit_for_bit(saved):
    classifier, path = saved
    reopened = open_classifier(path)
    assert reopened.metadata == classifier.metadata
    assert reopened.class_names == NAMES
    np.testing.assert_array_equal(reopened.predict_logits(some_images()), classifier.predict_logits(some_images()))
    for name, tensor in classifier.network.state_dict().items():
        assert torch.equal(reopened.network.state_dict()[name], tensor)


def test_a_saved_model_reopens_bit_for_bit_in_another_process(saved, tmp_path):
    classifier, path = saved
    np.save(tmp_path / "images.npy", some_images())
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom foveola.models.classifier import open_classifier\n"
        "images, model, out = sys.argv[1:]\n"
        "np.save(out, open_classifier(Path(model)).predict_logits(np.load(images)))"
    )
    arguments = [tmp_path / "images.npy", path, tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), classifier.predict_logits(some_images()))


def test_metadata_is_json_that_any_safetensors_reader_sees(saved):
    classifier, path = saved
    with safetensors.safe_open(path, framework="numpy") as file:
        document = json.loads(file.metadata()[METADATA_KEY])
    assert document["class_names"] == list(NAMES)
    assert document["image_shape"] == [8, 8, 1]
    assert document["pad"] == 1
    assert document["temperature"] == 1.7
    assert document["mean"] == list(classifier.metadata.mean)
    assert [layer["type"] for layer in document["layers"]] == [layer["type"] for layer in STACK]
    assert read_metadata(path) == classifier.metadata
    assert ModelMetadata.model_validate_json(classifier.metadata.model_dump_json()) == classifier.metadata


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors (cannot be read|is damaged).*again"):
        open_classifier(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="missing or damaged"):
        open_classifier(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no model", b"\xff" * 64, bytes(64)])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        open_classifier(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelError, match="not a Foveola model"):
        open_classifier(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: "not json", "damaged or from a newer Foveola"),
        (lambda metadata: json.dumps(metadata | {"format": 2}), "damaged or from a newer Foveola"),
        (lambda metadata: json.dumps(metadata | {"layers": [{"type": "Lambda"}]}), "damaged or from a newer Foveola"),
        (
            lambda metadata: json.dumps(metadata | {"image_shape": [1, 1, 1], "pad": 0}),
            "The layers in .*do not fit together",
        ),
    ],
)
def test_damaged_metadata_is_refused(saved, change, message):
    _, path = saved
    weights = safetensors.numpy.load_file(path)
    metadata = json.loads(read_metadata(path).model_dump_json())
    safetensors.numpy.save_file(weights, path, {METADATA_KEY: change(metadata)})
    with pytest.raises(ModelError, match=message):
        open_classifier(path)


def test_all_weights_that_do_not_fit_are_listed(saved):
    _, path = saved
    weights = safetensors.numpy.load_file(path)
    del weights["conv2d_1.bias"]
    weights["extra.weight"] = np.zeros(2, np.float32)
    weights["dense_1.bias"] = np.zeros(5, np.float32)
    safetensors.numpy.save_file(weights, path, {METADATA_KEY: read_metadata(path).model_dump_json()})
    with pytest.raises(ModelError) as error:
        open_classifier(path)
    assert str(error.value).endswith(
        "do not fit the network: conv2d_1.bias is missing; dense_1.bias is 5 instead of 3; extra.weight is unexpected."
    )


def test_weights_that_do_not_fit_leave_the_network_unchanged(saved):
    _, path = saved
    other = build_classifier(recipe_of(layers=STACK[3:]), some_set(), 0)
    before = other.network.dense_1.weight.clone()
    with pytest.raises(ModelError, match="do not fit the network"):
        open_classifier(path, other.network)
    assert torch.equal(other.network.dense_1.weight, before)


def test_a_model_file_of_an_older_version_opens_and_stretches(saved):
    classifier, path = saved
    metadata = json.loads(read_metadata(path).model_dump_json())
    for key in ("statistics", "reject", "resize", "fill"):
        del metadata[key]
    weights = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(weights, path, {METADATA_KEY: json.dumps(metadata)})
    reopened = open_classifier(path)
    assert (reopened.metadata.statistics, reopened.metadata.reject) == (None, None)
    assert reopened.metadata.resize == "stretch"
    images = some_images(2, 20, 50, classifier.metadata.image_shape[2])
    np.testing.assert_array_equal(reopened.predict_logits(images), classifier.predict_logits(images))


# A user's own network


class UserNetwork(nn.Module):
    """Two dense layers that share their weights, as in autoencoders and language models."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))


def test_a_users_own_network_is_saved_and_reopened(tmp_path):
    classifier = build_classifier(recipe_of(), some_set(), 0, network=UserNetwork())
    path = tmp_path / "model.safetensors"
    classifier.save(path)
    assert read_metadata(path).layers is None
    reopened = open_classifier(path, UserNetwork())
    np.testing.assert_array_equal(reopened.predict_logits(some_images()), classifier.predict_logits(some_images()))
    assert reopened.network.second.weight is reopened.network.first.weight
    with pytest.raises(ModelError, match=r"not its code.*foveola\.open\(.*network=YourModule\(\)"):
        open_classifier(path)


def test_another_network_than_the_users_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    build_classifier(recipe_of(), some_set(), 0, network=UserNetwork()).save(path)
    with pytest.raises(ModelError, match=r"first\.weight is unexpected"):
        open_classifier(path, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))


@pytest.mark.parametrize("name", ["lenet5", "fast"])
def test_a_built_in_recipe_is_saved_and_reopened(name, tmp_path):
    data = some_set(height=28, width=28)
    classifier = randomize_running_statistics(build_classifier(load_recipe(name), data, 0))
    classifier.save(tmp_path / "model.safetensors")
    reopened = open_classifier(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(reopened.predict_logits(data.images), classifier.predict_logits(data.images))
    assert reopened.metadata.recipe == name


# Nothing that runs code when it reads


@pytest.mark.parametrize(
    "banned",
    [
        r"torch\.load\b",
        r"(import|from)\s+(c?[pP]ickle|dill|joblib|shelve|marshal)\b",
        r"\bpickle\.\w",
        r"\ballow_pickle\b(?!\s*=\s*False)",
        r"weights_only\s*=\s*False",
        r"yaml\.load\b",
        r"\bextractall\b",
        r"(?<![.\w])eval\(",
        r"(?<![.\w])exec\(",
    ],
)
def test_no_source_file_can_run_what_it_reads(banned):
    sources = sorted(Path(foveola.__file__).parent.rglob("*.py"))
    assert len(sources) > 30
    matches = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sources
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(banned, line)
    ]
    assert not matches
