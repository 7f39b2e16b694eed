"""Model files: sealed, bounded, and refused by name before anything is built from them."""

import json
import math
import re

import numpy as np
import pytest
import safetensors.numpy
from pydantic import ValidationError

from foveola.errors import DataError, ModelError, RecipeError
from foveola.images import ImageSet
from foveola.models.classifier import open_classifier
from foveola.models.layers import Conv2D, Dense, Flatten, MaxPool2D
from foveola.models.metadata import METADATA_KEY, ModelMetadata, parse_metadata
from foveola.models.model_file import read_metadata, read_model_file
from foveola.models.shapes import check_size, infer_shapes
from foveola.recipe import parse_recipe
from foveola.sealed import CHECKSUM_KEY, seal, unsealed, verify_seal
from foveola.training.build import build_classifier

LAYERS = [{"type": "BatchNorm"}, {"type": "Flatten"}, {"type": "Dense", "units": "classes"}]
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
SOUND = {"class_names": ["a", "b", "c"], "image_shape": [8, 8, 1]}


@pytest.fixture
def saved(tmp_path):
    data = ImageSet(IMAGES, np.arange(20) % 3, ("a", "b", "c"))
    classifier = build_classifier(parse_recipe({"name": "toy", "layers": LAYERS}), data, 7).eval()
    classifier.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewrite(path, weights=None, sealed=True, extra=None, **changes):
    """Write a model file with other weights or metadata, whose checksum is right, as by a faulty program."""
    tensors = safetensors.numpy.load_file(path) | (weights or {})
    entries = {METADATA_KEY: json.dumps(json.loads(read_metadata(path).model_dump_json()) | changes)} | (extra or {})
    content = safetensors.numpy.save(tensors, unsealed(entries) if sealed else entries)
    path.write_bytes(seal(content) if sealed else content)


# The seal


def test_one_flipped_bit_anywhere_is_refused(saved):
    content, random = saved.read_bytes(), np.random.default_rng(1)
    for position in random.choice(len(content), 200, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random.integers(8)
        saved.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            read_model_file(saved)


def test_the_same_model_gives_the_same_bytes(saved):
    content = saved.read_bytes()
    for _ in range(20):  # safetensors writes metadata in another order every time
        open_classifier(saved).save(saved)
        assert saved.read_bytes() == content


def test_a_damaged_key_does_not_pass_for_an_older_file(saved):
    content = saved.read_bytes()
    start = content.index(b'"sha256"') + 1
    for position in range(start, start + 6):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            saved.write_bytes(damaged)
            with pytest.raises(ModelError, match="damaged"):
                open_classifier(saved)


def test_a_file_of_an_older_foveola_has_no_seal_and_is_opened(saved):
    expected = open_classifier(saved).predict_logits(IMAGES)
    rewrite(saved, sealed=False)
    np.testing.assert_array_equal(open_classifier(saved).predict_logits(IMAGES), expected)
    rewrite(saved, sealed=False, extra={"other": "text"})
    with pytest.raises(ModelError, match="no checksum"):
        open_classifier(saved)


def test_other_safetensors_readers_read_a_sealed_file(saved):
    with safetensors.safe_open(saved, framework="numpy") as file:
        assert set(file.metadata()) == {METADATA_KEY, CHECKSUM_KEY}
        assert file.get_tensor("dense_1.weight").shape == (3, 64)


def test_a_checkpoint_is_not_a_model(tmp_path):
    content = seal(safetensors.numpy.save({"x": np.zeros(2, np.float32)}, unsealed({"state": "{}"})))
    verify_seal(content, "here")
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is a checkpoint of a training, not a model"):
        read_metadata(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"__metadata__": ' + b"1" * 5000 + b"}", b'{"__metadata__": {"foveola": 1}}', b"[]"]
)
def test_rubbish_in_the_header_is_refused(tmp_path, header):
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match=r"a\.safetensors cannot be read"):
        read_metadata(tmp_path / "a.safetensors")


# Bounds

OUT_OF_BOUNDS = [
    ("pad", [10_000, -1]),
    ("temperature", [0.0, -1.0, math.nan, math.inf, 1e300, 1e-300]),
    ("std", [[0.0], [math.nan], [-1.0], [1.0, 1.0], [], [1e-300]]),
    ("mean", [[math.inf], [math.nan], [0.0, 0.0], [], [1e300]]),
    ("class_names", [[], ["a", "a", "b"], [str(number) for number in range(20_000)]]),
    ("image_shape", [[2**40, 2**40, 1], [0, 8, 1], [8, 8, 2], [8, 8, 4], [-8, 8, 1], [8, 8]]),
    ("reject", [{"error": 0.01, "threshold": value} for value in (math.nan, math.inf, -1.0, 1e9)]),
    ("unfamiliarity", [{"layers": ["a"], "energy_weight": 1, "threshold": value, "false_alarms": 0.01,
                        "validation_images": 9} for value in (math.nan, math.inf)]),
    ("layers", [LAYERS * 1000, [{"type": "Dense", "units": 10**4000}]]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUT_OF_BOUNDS for value in values])
def test_metadata_out_of_bounds_is_refused_by_name(key, value):
    with pytest.raises(ModelError, match=rf"metadata in here is damaged.*({key}|same name)"):
        parse_metadata(json.dumps(SOUND | {key: value}), "here")


def test_sound_metadata_is_accepted():
    assert parse_metadata(json.dumps(SOUND | {"pad": 64, "temperature": 20, "std": [1 / 255]}), "here").pad == 64


HUGE = {
    "units": [Flatten(), Dense(units=2**20), Dense(units=2**20), Dense(units="classes")],
    "filters": [Conv2D(filters=2**20, padding="same"), Flatten(), Dense(units="classes")],
    "window": [MaxPool2D(size=2**20, stride=1, padding="same"), Flatten(), Dense(units="classes")],
    "work": [*[Conv2D(filters=512, kernel=31, padding="same")] * 4, Flatten(), Dense(units="classes")],
    "sum": [*[Conv2D(filters=64, kernel=1)] * 80, MaxPool2D(size=224), Flatten(), Dense(units="classes")],
}


@pytest.mark.parametrize("kind", HUGE)
def test_networks_that_are_too_large_are_refused_before_they_are_built(kind):
    side = 224 if kind == "sum" else 64
    metadata = ModelMetadata(class_names=("a", "b"), image_shape=(side, side, 1), layers=tuple(HUGE[kind]))
    with pytest.raises(ModelError, match=r"here is not opened: The (layer|network).* is too large.* at most"):
        parse_metadata(metadata.model_dump_json(), "here")
    with pytest.raises(RecipeError, match="too large"):
        check_size(infer_shapes(metadata.layers, metadata.network_shape, 2))


def test_a_network_that_would_allocate_gigabytes_takes_no_memory(saved, peak_memory):
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom foveola.errors import ModelError\n"
        "from foveola.models.classifier import open_classifier\n"
        "try:\n    open_classifier(Path(sys.argv[1]))\n"
        "except ModelError as error:\n    assert sys.argv[2] in str(error)\nelse:\n    assert False"
    )
    layers = [json.loads(layer.model_dump_json()) for layer in HUGE["units"]]
    rewrite(saved, layers=layers)
    assert peak_memory(code, saved, "too large") < 2**30


def test_training_refuses_what_could_not_be_opened_again():
    recipe = parse_recipe({"name": "huge", "layers": [json.loads(layer.model_dump_json()) for layer in HUGE["units"]]})
    data = ImageSet(IMAGES, np.arange(20) % 3, ("a", "b", "c"))
    with pytest.raises(RecipeError, match="too large"):
        build_classifier(recipe, data, 0)
    names = tuple(map(str, range(10_001)))
    with pytest.raises(DataError, match="10,001 classes; a model has at most 10,000"):
        build_classifier(recipe, ImageSet(IMAGES, np.arange(20), names), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["dense_1.weight", "batchnorm_1.running_var"])
def test_weights_that_are_not_finite_are_refused(saved, name, value):
    weights = safetensors.numpy.load_file(saved)[name].copy()
    weights.flat[-1] = value
    rewrite(saved, {name: weights})
    with pytest.raises(ModelError, match=f"{re.escape(name)} holds values that are NaN or infinite"):
        open_classifier(saved)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, np.bool_])
def test_weights_of_another_type_are_refused(saved, dtype):
    rewrite(saved, {"dense_1.weight": np.ones((3, 64), dtype)})
    with pytest.raises(ModelError, match=r"dense_1\.weight is \w+ instead of float32"):
        open_classifier(saved)


def test_metadata_is_checked_where_it_is_made():
    with pytest.raises(ValidationError, match="temperature"):
        ModelMetadata(class_names=("a",), image_shape=(8, 8, 1), temperature=0)
