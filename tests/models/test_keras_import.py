"""Keras files become networks that compute what Keras computed; everything else in them is refused by name."""

import json
import pickle
import sys
import tracemalloc
import zipfile
from contextlib import suppress

import h5py
import numpy as np
import pytest
import torch

from foveola.errors import ModelError
from foveola.models.classifier import Classifier
from foveola.models.keras_import import import_keras
from foveola.models.metadata import ModelMetadata
from foveola.models.modules import build_network
from foveola.models.shapes import infer_shapes
from foveola.tasks import probabilities
from keras_cases import (
    MODELS,
    NAMES,
    ROWS,
    ROWS_H5,
    altered,
    altered_h5,
    archive,
    layer,
    layers_of,
    put,
    read_members,
    replace_array,
    saved_predictions,
)

VALUES, LABELS = MODELS / "keras3-values.keras", MODELS / "keras3-labels.keras"


def classifier_of(imported):
    metadata = ModelMetadata(
        class_names=tuple(map(str, range(imported.classes))), task=imported.task, image_shape=imported.image_shape,
        pad=imported.pad, mean=imported.mean, std=imported.std, layers=imported.layers,
    )  # fmt: skip
    network = build_network(infer_shapes(imported.layers, metadata.network_shape, imported.classes))
    weights = {name: torch.from_numpy(values) for name, values in imported.weights.items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return Classifier(network, metadata)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_keras(name):
    imported = import_keras(MODELS / name, image_shape=(6, 8, 1) if "values" in name else None)
    expected = saved_predictions(MODELS / name)
    found = probabilities(classifier_of(imported).predict_logits(expected["images"]), imported.task)
    assert expected["probabilities"].std(axis=0).max() > 0.05  # the images matter
    assert np.abs(found - expected["probabilities"]).max() <= 1e-6


def test_what_is_assumed_converted_and_left_out_is_said():
    notes = import_keras(MODELS / "keras3-functional.keras").notes
    assert notes == (
        "Pixels: 0 is black, 255 is white (assumed: it begins with Rescaling; the file does not say it).",
        "RandomFlip (random_flip) is left out: it acts in training only.",
    )
    assert "One sigmoid became two logits" in import_keras(MODELS / "keras2-binary.h5").notes[1]
    assert (
        "ends with 4 sigmoids: each output is a label, given from probability 0.5 on" in import_keras(LABELS).notes[1]
    )
    assert "has no softmax" in import_keras(ROWS).notes[1]


def test_a_range_of_pixels_is_scaled_as_given():
    imported = import_keras(ROWS, pixel_range=(-1, 1))
    assert (imported.mean, imported.std) == ((0.5,), (0.5,))
    assert imported.notes[0] == "Pixels: -1 is black, 1 is white (as given; the file does not say it)."


def test_images_of_any_size_get_the_given_one(tmp_path):
    def any_size(document):
        layers_of(document)[0]["config"]["batch_shape"] = [None, None, None, 1]
        layers_of(document)[1:2] = [layer("GlobalAveragePooling2D", keepdims=False)]

    path = altered(tmp_path, config=any_size, weights=replace_array("layers/dense/vars/0", np.ones((1, 3), np.float32)))
    with pytest.raises(ModelError, match="does not say how large its images are"):
        import_keras(path)
    assert import_keras(path, image_shape=(7, 9, 1)).image_shape == (7, 9, 1)


def test_zeros_around_images_are_black_or_refused(tmp_path):
    assert import_keras(MODELS / "keras3-binary.keras").pad == 2
    with pytest.raises(ModelError, match=r"adds zeros around its images, but black is -1: .* --pixel-range"):
        import_keras(MODELS / "keras3-binary.keras", pixel_range=(-1, 1))


def test_a_layer_of_sigmoids_is_as_good_as_the_argument(tmp_path):
    def apart(document):
        set_in_dense(activation="linear")(document)
        layers_of(document).append(layer("Activation", activation="sigmoid"))

    one, other = import_keras(LABELS), import_keras(altered(tmp_path, config=apart, source=LABELS))
    assert (one.task, one.classes, one.layers, one.notes) == ("multilabel", 4, other.layers, other.notes)


def test_settings_become_those_of_our_layers():
    layers = {layer.type: layer for layer in import_keras(MODELS / "keras2-chain.h5").layers[:3]}
    assert layers["BatchNorm"].momentum == 0.99
    assert layers["BatchNorm"].epsilon == 1e-3
    assert layers["Activation"].slope == pytest.approx(0.3)
    named = import_keras(MODELS / "keras2-chain.h5").layers[6]
    assert (named.function, named.slope) == ("leaky-relu", 0.2)


# Refused: what the configuration says


def set_in_dense(**settings):
    return lambda document: layers_of(document)[2]["config"].update(settings)


def set_in(place, key, value):
    return lambda document: layers_of(document)[place].__setitem__(key, value)


def set_root(**entries):
    return lambda document: document.update(entries)


CONFIGURATIONS = {
    "Lambda": (put(layer("Lambda", function={"class_name": "__lambda__"})), "Lambda.*runs Python code"),
    "TFOpLambda": (put(layer("TFOpLambda", function="math.abs")), "calls a function of TensorFlow"),
    "custom and registered": (set_in(2, "registered_name", "my>Dense"), r"3 \(dense_4\) is a custom object, my>Dense"),
    "custom of a module": (set_in(2, "module", "os"), "custom object, Dense"),
    "custom in an old file": (set_in(2, "class_name", "Custom>Dense"), "custom object, Custom>Dense"),
    "custom model": (set_root(class_name="MyModel", module="mine", registered_name="MyModel"), "model is a custom"),
    "unknown class": (put(layer("LSTM", units=3)), r"layer 3 \(lstm, LSTM\).*only these are: Conv2D"),
    "nested model": (put(layer("Sequential", layers=[])), "a model inside the model"),
    "custom activation": (set_in_dense(activation="my_activation"), "activation is my_activation; imported are elu"),
    "activation with code": (
        set_in_dense(activation={"class_name": "__lambda__", "config": {"value": ["marshal"]}, "module": "builtins"}),
        "its activation is a custom object, __lambda__",
    ),
    "function of a module": (
        set_in_dense(activation={"class_name": "function", "config": "os.system", "module": "builtins"}),
        "activation is {'class_name': 'function'",
    ),
    "no chain": (
        set_root(class_name="Functional", config={"layers": [layer("Dense"), layer("Add")], "input_layers": []}),
        "not a chain",
    ),
    "no Sequential": (set_root(class_name="Bidirectional"), "The model is a Bidirectional"),
    "no layers": (set_root(config={"layers": []}), "no list of layers"),
    "layers that are none": (set_root(config={"layers": [3]}), "layer 1 has no name"),
    "class that is no text": (set_in(2, "class_name", ["Dense"]), "has no class name"),
    "channels first": (put(layer("Flatten", data_format="channels_first"), at=1), "channels_first; imported is"),
    "four channels": (set_in(0, "config", {"name": "i", "batch_shape": [None, 6, 6, 4]}), "6×6×4; imported are"),
    "a video": (set_in(0, "config", {"name": "i", "batch_shape": [None, 6, 6, 6, 1]}), "input has 4 axes"),
    "no sides": (set_in(0, "config", {"name": "i", "batch_shape": [None, -6, "x"]}), "which is not an image's"),
    "quantized": (set_in_dense(dtype={"config": {"name": "int8_from_float32"}}), "computes in int8_from_float32"),
    "unknown setting": (set_in_dense(lora_rank=4), "setting lora_rank = 4 is not known"),
    "units of a wrong kind": (set_in_dense(units="3"), "units are 3, of"),
    "enormous units": (set_in_dense(units=10**9), "units are 1000000000, of 1 to 1,048,576"),
    "enormous network": (set_in_dense(units=2**20), "has 1,048,576 classes, of at most 10,000"),
    "relu at the end": (set_in_dense(activation="relu"), "ends with relu"),
    "relu before Flatten": (
        lambda document: layers_of(document).extend([layer("ReLU"), layer("Flatten", name="flat")]), "ends with relu"
    ),
    "one output": (set_in_dense(units=1), "one output that is not a Dense layer's sigmoid"),
    "softmax inside": (put(layer("Softmax"), layer("Dense", units=3)), "follows softmax"),
    "images at the end": (lambda document: layers_of(document).__delitem__(slice(1, 3)), "output has the shape 6×6"),
    "zeros before pooling": (
        put(layer("Reshape", target_shape=[6, 6, 1]), layer("MaxPooling2D"), layer("ZeroPadding2D"),
            layer("MaxPooling2D"), at=1),
        "zeros are added before it",
    ),
    "Rescaling inside": (put(layer("Rescaling", scale=2)), "at the beginning only"),
    "Rescaling to nothing": (put(layer("Rescaling", scale=0), at=1), "values from 0 to 0"),
    "dilated": (
        put(layer("Reshape", target_shape=[6, 6, 1]),
            layer("Conv2D", filters=2, kernel_size=[3, 3], dilation_rate=[2, 2]), at=1),
        "it is dilated",
    ),
    "a kernel with unequal sides": (
        put(layer("Reshape", target_shape=[6, 6, 1]), layer("Conv2D", filters=2, kernel_size=[3, 5]), at=1),
        r"kernel_size is \[3, 5\]; imported are equal ones",
    ),
    "a window larger than the image": (
        put(layer("Reshape", target_shape=[6, 6, 1]), layer("MaxPooling2D", pool_size=[9, 9]), at=1),
        "gets the shape 6×6×1: its 9×9 window",
    ),
    "batch normalisation of another axis": (put(layer("BatchNormalization", axis=2)), "its axis is 2"),
    "Dense before Flatten": (put(layer("Dense", units=3), at=1), "its input has no axis for channels"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_a_configuration_with_anything_else_is_refused_by_name(tmp_path, change, message):
    path = altered(tmp_path, config=change)
    with pytest.raises(ModelError, match=message) as refused:
        import_keras(path)
    assert str(refused.value).startswith(f"{path} is not imported. ")


def called_with_training(document):
    dropout = next(entry for entry in layers_of(document) if entry["class_name"] == "ELU")
    dropout["inbound_nodes"][0]["kwargs"] = {"training": True}


def branched(document):
    layers_of(document)[-1]["inbound_nodes"] *= 2


@pytest.mark.parametrize("change", [called_with_training, branched])
def test_a_functional_model_that_is_no_plain_chain_is_refused(tmp_path, change):
    with pytest.raises(ModelError, match="not a chain"):
        import_keras(altered(tmp_path, config=change, source=MODELS / "keras3-functional.keras"))


# Refused: what the arrays hold

KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"


def virtual(file):
    """An array that no layer has, of values in another file."""
    layout = h5py.VirtualLayout((4,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("layers/dense/v", layout)


ARRAYS = {
    "wrong shape": (replace_array(KERNEL, np.ones((3, 36), np.float32)), r"kernel should have the shape \(36, 3\)"),
    "NaN": (replace_array(BIAS, np.array([0, np.nan, 0], np.float32)), "bias holds values that are NaN"),
    "too large for float32": (replace_array(BIAS, np.array([0, 1e300, 0])), "too large for float32"),
    "objects": (replace_array(BIAS, np.array([pickle.dumps("x")] * 3)), "not of floats"),
    "missing": (lambda file: file.__delitem__(BIAS), "should be kernel, bias, but are 0"),
    "too many": (lambda file: file.update({"layers/dense/vars/2": np.ones(3, np.float32)}), "but are 0, 1, 2"),
    "external link": (
        lambda file: file["layers"].update({"x": h5py.ExternalLink("/etc/passwd", "/x")}), "external link, to another"
    ),
    "external storage": (
        lambda file: file.create_dataset("x", (4,), "<f4", external=[("/etc/passwd", 0, 16)]), "external storage"
    ),
    "soft-link loop": (lambda file: file.update({"layers/dense/loop": h5py.SoftLink("/layers")}), "has a soft link"),
    "hard-link loop": (lambda file: file.update({"layers/dense/loop": file["layers"]}), "loop of links"),
    "virtual": (virtual, r"keeps layers/dense/v in other arrays \(a virtual one\)"),
    "compressed": (lambda file: file.create_dataset("x", (99,), "<f4", compression="gzip"), "compresses or filters x"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        import_keras(altered(tmp_path, weights=change))


def test_a_variance_below_zero_is_refused(tmp_path):
    change = replace_array("layers/batch_normalization/vars/3", -np.ones(4, np.float32))
    with pytest.raises(ModelError, match="moving_variance has values below zero"):
        import_keras(altered(tmp_path, weights=change, source=MODELS / "keras3-chain.keras"))


# Refused: the file itself


def bomb(path):
    """A megabyte that claims a gigabyte of zeros."""
    return archive(path, read_members(ROWS) | {"model.weights.h5": bytes(2**24)}, compressed=("model.weights.h5",))


def large_configuration(path):
    return archive(path, read_members(ROWS) | {"config.json": " " * 2**22 + "{}"}, compressed=("config.json",))


def claiming_little(path):
    """Of 32 MiB of zeros, it claims ten bytes."""
    archive(path, read_members(ROWS) | {"config.json": bytes(2**25)}, compressed=("config.json",))
    content = bytearray(path.read_bytes())
    size = content.rindex(b"config.json") - 46 + 24  # in the directory at the end
    content[size : size + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def otherwise_compressed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        for name, content in read_members(ROWS).items():
            file.writestr(name, content)
    return path


def encrypted(path):
    content = bytearray(ROWS.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


def with_member(name):
    return lambda path: archive(path, read_members(ROWS) | {name: b"x"})


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as file:
        for name, content in [*read_members(ROWS).items(), ("config.json", b"{}")]:
            file.writestr(name, content)
    return path


def with_text(text):
    return lambda path: archive(path, read_members(ROWS) | {"config.json": text})


def truncated(path):
    path.write_bytes(ROWS.read_bytes()[:-2000])
    return path


def written(content):
    def write(path):
        path.write_bytes(content)
        return path

    return write


FILES = {
    "zip bomb": (bomb, "model.weights.h5 is compressed"),
    "claims ten bytes": (claiming_little, "Bad CRC-32 for file 'config.json'"),
    "another compression": (otherwise_compressed, "compressed by a method that Keras does not use"),
    "encrypted": (encrypted, "is encrypted, or compressed"),
    "large configuration": (large_configuration, "config.json has 4,194,306 bytes, of at most 4,194,304"),
    "path traversal": (with_member("../../evil.py"), r"holds '\.\./\.\./evil\.py'"),
    "absolute path": (with_member("/etc/cron.d/evil"), "holds '/etc/cron.d/evil'"),
    "assets": (with_member("assets/vocabulary.txt"), "holds 'assets/vocabulary.txt'"),
    "a member twice": (twice, "two members of one name"),
    "a member is missing": (
        lambda path: archive(path, {"config.json": "{}", "metadata.json": "{}"}), "lacks model.weights.h5"
    ),
    "JSON too deep": (with_text("[" * 200_000 + "]" * 200_000), "config.json is damaged"),
    "a number of 5,000 digits": (with_text('{"a": ' + "9" * 5000 + "}"), "config.json is damaged"),
    "no object": (with_text("[]"), "not an object"),
    "not UTF-8": (with_text(b"\xff\xfe{"), "config.json is damaged"),
    "truncated": (truncated, "archive is damaged"),
    "pickle": (written(pickle.dumps({"weights": [1.0]})), "is a pickle, and opening it would run code"),
    "something else": (written(b"GIF89a"), "neither a .keras nor an HDF5 file"),
    "empty": (written(b""), "neither a .keras nor an HDF5 file"),
    "truncated .h5": (written(ROWS_H5.read_bytes()[:3000]), "truncated|damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "message"), FILES.values(), ids=FILES.keys())
def test_hostile_and_damaged_files_are_refused_by_name(tmp_path, write, message):
    with pytest.raises(ModelError, match=message):
        import_keras(write(tmp_path / "model.keras"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]  # nothing is extracted


def test_no_more_is_inflated_than_a_member_claims(tmp_path):
    path = claiming_little(tmp_path / "model.keras")
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="Bad CRC"):
            import_keras(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


RECORDED = []
WATCHED = ("open", "os.", "exec", "import", "subprocess.", "socket.", "pickle.", "marshal.", "ctypes.", "shutil.")


@pytest.fixture
def audited():
    """Records what Python's audit events say; a hook stays until the process ends, so that there is one."""
    if not RECORDED:
        RECORDED.append(None)
        sys.addaudithook(
            lambda event, values: (
                RECORDED[0].append((event, values)) if RECORDED[0] is not None and event.startswith(WATCHED) else None
            )
        )
    yield lambda: RECORDED.__setitem__(0, [])
    RECORDED[0] = None


def test_no_file_makes_the_import_open_run_or_load_anything(tmp_path, audited):
    """But itself, and the checksums beside it."""
    paths = [path for name in NAMES for path in [MODELS / name] if "values" not in name]
    for number, (change, _) in enumerate([*CONFIGURATIONS.values(), *ARRAYS.values()]):
        (tmp_path / str(number)).mkdir()
        kind = "config" if number < len(CONFIGURATIONS) else "weights"
        paths.append(altered(tmp_path / str(number), **{kind: change}))
    for path in paths:
        with suppress(ModelError):
            import_keras(path)  # brings what is imported late
        audited()
        with suppress(ModelError):
            import_keras(path)
        events, RECORDED[0] = RECORDED[0], None
        assert [event for event, _ in events] == ["open"]
        assert str(events[0][1][0]) == str(path)


def test_an_old_file_without_its_layers_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds weights only"):
        import_keras(altered_h5(tmp_path, lambda file: file.attrs.__delitem__("model_config")))
    with pytest.raises(ModelError, match="model_config is damaged"):
        import_keras(altered_h5(tmp_path, lambda file: file.attrs.__setitem__("model_config", "{")))


def test_an_old_file_whose_first_layer_has_the_input_shape(tmp_path):
    """As Keras wrote them up to 2.2: a list of layers, and no InputLayer."""

    def change(file):
        layers = json.loads(file.attrs["model_config"])["config"]["layers"][1:]
        layers[0]["config"]["batch_input_shape"] = [None, 6, 6]
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})

    path = altered_h5(tmp_path, change)
    kernels = [import_keras(file).weights["dense_1.weight"] for file in (path, ROWS)]
    np.testing.assert_array_equal(*kernels)


def test_names_that_cannot_be_printed_are_refused(tmp_path):
    for name in ("a\x1b[2J", "\ud800", "a" * 1000):
        with pytest.raises(ModelError, match=r"layer 3 has no name of at most 200 printable"):
            import_keras(altered(tmp_path, config=lambda document, name=name: set_in_dense(name=name)(document)))


def test_an_old_file_with_a_lambda_is_refused(tmp_path):
    def change(file):
        document = json.loads(file.attrs["model_config"])
        document["config"]["layers"].insert(
            2, {"class_name": "Lambda", "config": {"name": "code", "function": ["4wA"]}}
        )
        file.attrs["model_config"] = json.dumps(document)

    with pytest.raises(ModelError, match=r"layer 3 \(code, Lambda\).*runs Python code"):
        import_keras(altered_h5(tmp_path, change))


@pytest.mark.parametrize(
    ("given", "message"),
    [(None, "vector of 48 values. Give height, width"), ((7, 8, 1), "takes 48 values of each image, but 7×8×1 has 56")],
)
def test_vectors_need_the_shape_of_the_images(given, message):
    with pytest.raises(ModelError, match=message):
        import_keras(VALUES, image_shape=given)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.keras", tmp_path):
        with pytest.raises(ModelError, match=r"Give a \.keras or \.h5 file"):
            import_keras(path)
