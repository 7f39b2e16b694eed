"""Keras model files, .keras and .h5: the layers of a model and their arrays, read without running anything.

A .keras file is a zip archive of config.json, metadata.json and model.weights.h5; an .h5 file is the older form, with
the configuration as an attribute. Both are read in memory: nothing is extracted, and no name in them is a path.
"""

import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.files import read_verified
from foveola.models.hdf5 import Hdf5File, UnsafeHdf5

MAX_BYTES = 2**31
_MAX_CONFIG_BYTES, _MAX_LAYERS, _MAX_NAME = 2**22, 1000, 200
_ENCRYPTED = 0x1
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LIMITS = {_CONFIG: _MAX_CONFIG_BYTES, _METADATA: 2**16, _WEIGHTS: MAX_BYTES}
_ARCHIVE_ERRORS = (
    OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_MODELS = ("Sequential", "Functional", "Model")
# What these do, they do in training only
TRAINING_ONLY = (
    "ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D",
    "RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom",
)  # fmt: skip
_CURE = "Save the whole model again with Keras: model.save('model.keras')"


class NotImportable(Exception):
    """A file, or something in it, cannot be imported; the message is one or two sentences."""


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """A layer of a model as its file describes it.

    Parameters
    ----------
    kind : the name of its class in Keras
    name : its own name
    settings : its configuration
    arrays : its arrays in `weights`, their paths by position or by name, as the file has them
    """

    kind: str
    name: str
    settings: dict[str, Any]
    arrays: dict[str, str]
    weights: Hdf5File

    def array(self, names: Sequence[str], position: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The array at a position among all those that the layer should have.

        Raises
        ------
        NotImportable
            If the layer has others, or this one has another shape, or values that are NaN or infinite.
        """
        by_position = list(map(str, range(len(names))))
        keys = by_position if set(self.arrays) <= set(by_position) else names
        if set(self.arrays) != set(keys):
            found = ", ".join(sorted(self.arrays)) or "none"
            raise NotImportable(f"The arrays of its layer {self.name} should be {', '.join(names)}, but are {found}.")
        values, what = self.weights.array(self.arrays[keys[position]]), f"Of its layer {self.name}, {names[position]}"
        if values.shape != shape:
            raise NotImportable(f"{what} should have the shape {shape}, but has {values.shape}.")
        with np.errstate(over="ignore"):
            converted = values.astype(np.float32)
        if not np.isfinite(converted).all():
            raise NotImportable(f"{what} holds values that are NaN, infinite or too large for float32.")
        return converted


@dataclass(frozen=True, eq=False)
class KerasFile:
    """A model that Keras has saved: its layers in the order of computation.

    `input_shape` is the shape of one image, None where the model takes any size; None if the file does not say it.
    """

    version: str
    sha256: str
    input_shape: tuple[int | None, ...] | None
    layers: tuple[KerasLayer, ...]


def read_keras_file(path: Path) -> KerasFile:
    """Read a .keras or .h5 file; which of both it is, its content says.

    Raises
    ------
    NotImportable
        If it is damaged, no whole model, no chain of layers, or holds anything that Keras does not write.
    ModelError
        If there is no such file.
    """
    content = read_verified(path, MAX_BYTES, "Give a .keras or .h5 file that Keras has saved")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        if content.startswith(b"PK\x03\x04"):
            version, config, weights = _open_archive(content)
        elif content.startswith(b"\x89HDF"):
            version, config, weights = _open_legacy(content)
        elif content[:1] == b"\x80" and content[1:2] <= b"\x05":
            raise NotImportable("It is a pickle, and opening it would run code. " + _CURE + ".")
        else:
            raise NotImportable("It is neither a .keras nor an HDF5 file. " + _CURE + ".")
    except UnsafeHdf5 as reason:
        raise NotImportable(f"It {reason}. {_CURE}.") from None
    layers, input_shape = _layers(config, weights)
    return KerasFile(version, sha256, input_shape, layers)


# The two forms


def _open_archive(content: bytes) -> tuple[str, dict[str, Any], Hdf5File]:
    """Keras' version, the model's configuration and the arrays of a .keras file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = _check_members(archive)
            texts = {name: _read_member(archive, member) for name, member in members.items()}
    except _ARCHIVE_ERRORS as error:
        raise NotImportable(f"The archive is damaged: {error}. Copy it again.") from None
    metadata, config = (_parse(texts[name], name) for name in (_METADATA, _CONFIG))
    return _version(metadata.get("keras_version")), config, Hdf5File(texts[_WEIGHTS])


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, of which no more are inflated than it claims to have."""
    with archive.open(member) as stream:
        return stream.read(member.file_size)


def _version(text: Any) -> str:
    return text if isinstance(text, str) and re.fullmatch(r"[\w.+-]{1,40}", text) else "of unknown version"


def _check_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The three members of a .keras file, whose sizes are within bounds."""
    members = {member.filename: member for member in archive.infolist()}
    if others := sorted(members.keys() - _LIMITS.keys()):
        raise NotImportable(f"It holds {others[0]!r}, beside what is imported: {', '.join(_LIMITS)}. {_CURE}.")
    if len(members) != len(archive.infolist()):
        raise NotImportable(f"It holds two members of one name. {_CURE}.")
    if missing := _LIMITS.keys() - members.keys():
        raise NotImportable(f"It lacks {', '.join(sorted(missing))}, so that it is not a whole .keras file. {_CURE}.")
    for name, member in members.items():
        if member.file_size > _LIMITS[name]:
            raise NotImportable(
                f"Its {name} has {member.file_size:,} bytes, of at most {_LIMITS[name]:,}; it is not read."
            )
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImportable(f"Its {name} is encrypted, or compressed by a method that Keras does not use. {_CURE}.")
    if members[_WEIGHTS].compress_type != zipfile.ZIP_STORED:
        raise NotImportable(f"Its {_WEIGHTS} is compressed, which Keras does not do; it is not read. {_CURE}.")
    return members


def _open_legacy(content: bytes) -> tuple[str, dict[str, Any], Hdf5File]:
    """The same of an .h5 file."""
    weights = Hdf5File(content)
    config = weights.text("", "model_config")
    if config is None:
        raise NotImportable(f"It holds weights only, not the layers that they belong to. {_CURE}.")
    return _version(weights.text("", "keras_version")), _parse(config.encode(), "model_config"), weights


def _parse(text: bytes, name: str) -> dict[str, Any]:
    if len(text) > _MAX_CONFIG_BYTES:
        raise NotImportable(f"Its {name} has {len(text):,} bytes, of at most {_MAX_CONFIG_BYTES:,}; it is not read.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers with too many digits, and of too many brackets
        raise NotImportable(f"Its {name} is damaged: {error}. Copy the file again.") from None
    if not isinstance(document, dict):
        raise NotImportable(f"Its {name} is damaged: it is not an object. Copy the file again.")
    return document


# The layers


def _layers(model: dict[str, Any], weights: Hdf5File) -> tuple[tuple[KerasLayer, ...], tuple[int | None, ...] | None]:
    """The layers of a model in the order of computation, and the shape of what the first one takes."""
    kind = check_own(model, "The model")
    if kind not in _MODELS:
        raise NotImportable(f"The model is a {kind}; only Sequential models and functional chains are imported.")
    config = model.get("config")
    entries = config if isinstance(config, list) else config.get("layers") if isinstance(config, dict) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= _MAX_LAYERS:
        raise NotImportable(
            f"Its configuration has no list of layers, of at most {_MAX_LAYERS:,}. Copy the file again."
        )
    if unnamed := [number for number, entry in enumerate(entries, 1) if not _is_layer(entry)]:
        raise NotImportable(
            f"Its layer {unnamed[0]} has no name of at most {_MAX_NAME} printable characters. Rename it in Keras, or "
            f"copy the file again if it is damaged."
        )
    layers = _with_arrays(entries, weights)
    order = range(len(entries)) if kind == "Sequential" else _chain(entries, layers, config)
    ordered = [layers[position] for position in order]
    built = [config, entries[order[0]].get("build_config")]
    shapes = [
        source.get(key)
        for source in (ordered[0].settings, *built)
        for key in ("batch_shape", "batch_input_shape", "build_input_shape", "input_shape")
        if isinstance(source, dict)
    ]
    return tuple(ordered), _input_shape(shapes)


def _is_layer(entry: Any) -> bool:
    """Whether an entry of the configuration has settings, among them a name that can be printed."""
    config = entry.get("config") if isinstance(entry, dict) else None
    name = config.get("name") if isinstance(config, dict) else None
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= _MAX_NAME


def check_own(entry: dict[str, Any], what: str) -> str:
    """The name of a class of Keras' own; a class of the user's is refused, whatever it is called."""
    name, registered, module = (entry.get(key) for key in ("class_name", "registered_name", "module"))
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        raise NotImportable(f"{what} has no class name: the configuration is damaged. Copy the file again.")
    own = module is None or (isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras"))
    if not own or registered not in (None, name) or ">" in name:
        raise NotImportable(
            f"{what} is a custom object, {str(registered or name)[:_MAX_NAME]}, which only its own code can compute. "
            f"Only layers of Keras' own are imported."
        )
    return name


def _with_arrays(entries: Sequence[dict[str, Any]], weights: Hdf5File) -> list[KerasLayer]:
    """The layers as they are listed, each with its arrays."""
    layers, counts, paths = [], Counter[str](), sorted(weights.arrays)
    for number, entry in enumerate(entries, 1):
        name = entry["config"]["name"]
        kind = check_own(entry, f"Its layer {number} ({name})")
        folder = _snake_case(kind)
        counts[folder] += 1
        if counts[folder] > 1:
            folder += f"_{counts[folder] - 1}"
        arrays: dict[str, str] = {}
        for prefix in (f"layers/{folder}/vars/", f"model_weights/{name}/"):
            for path in takewhile(partial(_begins_with, prefix), paths[bisect_left(paths, prefix) :]):
                key = path.rpartition("/")[2].removesuffix(":0")
                if key in arrays:
                    raise NotImportable(f"Its layer {number} ({name}) has several arrays called {key}.")
                arrays[key] = path
        layers.append(KerasLayer(kind, name, entry["config"], arrays, weights))
    return layers


def _begins_with(prefix: str, path: str) -> bool:
    return path.startswith(prefix)


def _snake_case(name: str) -> str:
    """The name of a layer's group, as Keras makes it of the name of its class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _chain(entries: Sequence[dict[str, Any]], layers: Sequence[KerasLayer], config: Any) -> list[int]:
    """Positions of the layers of a functional model from its input to its output, if each feeds only the next."""
    sources = [
        _sources(entry.get("inbound_nodes"), any_arguments=layer.kind in TRAINING_ONLY)
        for entry, layer in zip(entries, layers, strict=True)
    ]
    following = {source[0]: position for position, source in enumerate(sources) if source}
    first = [position for position, source in enumerate(sources) if not source]
    order = first[:1]
    while order and len(order) < len(entries) and (position := following.get(layers[order[-1]].name)) is not None:
        order.append(position)
    ends = [_sources(config.get(key)) for key in ("input_layers", "output_layers")]
    if (
        len(first) != 1
        or any(source is None or len(source) > 1 for source in sources)
        or sorted(order) != list(range(len(entries)))
        or ends != [[layers[order[0]].name], [layers[order[-1]].name]]
    ):
        raise NotImportable(
            "It is not a chain: its layers have branches, several inputs or outputs, or are called with arguments "
            "(training=True)."
        )
    return order


def _sources(nodes: Any, *, any_arguments: bool = False) -> list[str] | None:
    """The layers that feed a layer, in the form of Keras 2 or 3: [] for none, None for what is not understood.

    Arguments of the call that may change what the layer computes, such as training=True, are not understood.
    """
    match nodes:
        case []:
            return []
        case [str(name), 0, 0] | [[str(name), 0, 0]] | [[[str(name), 0, 0]]]:
            return [name]
        case [[[str(name), 0, 0, dict(arguments)]]]:
            return [name] if any_arguments or _is_plain(arguments) else None
        case [{"args": [{"config": {"keras_history": [str(name), 0, 0]}}], "kwargs": dict(arguments)}]:
            return [name] if any_arguments or _is_plain(arguments) else None
    return None


def _is_plain(arguments: dict[str, Any]) -> bool:
    return set(arguments) <= {"training", "mask"} and not any(arguments.values())


def _input_shape(shapes: Sequence[Any]) -> tuple[int | None, ...] | None:
    """The shape of one image: the first that there is, from the places where versions of Keras have it."""
    shape = next((shape for shape in shapes if isinstance(shape, list)), None)
    if shape is None:
        return None
    sides = shape[1:]
    if not sides or not all(side is None or (type(side) is int and 0 < side < 2**20) for side in sides):
        raise NotImportable(f"It takes an input of the shape {str(shape)[:100]}, which is not an image's.")
    return tuple(sides)
