"""ONNX: one self-contained file with network, preprocessing, temperature, class names and examples.

Writing needs the onnx package, opening ONNX Runtime alone.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from foveola import checksums
from foveola.errors import DataError, ModelError, require
from foveola.export.contents import INPUT, OUTPUT, LayerOutput, Refused, inspect, with_outputs
from foveola.export.golden import Golden, record, verify
from foveola.files import write_atomically
from foveola.images import Images, check_images, shape_text
from foveola.models.card import METADATA_KEY, ModelCard, read_card
from foveola.predictions import Predictor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from onnxruntime import InferenceSession

SUFFIX = ".onnx"
SOURCE_KEY = f"{METADATA_KEY}.source"
LAYERS_KEY = f"{METADATA_KEY}.layers"
GOLDEN_KEY = f"{METADATA_KEY}.golden"
DIGEST_KEY = f"{METADATA_KEY}.sha256"
# Protocol Buffers themselves end at 2 GiB
MAX_BYTES = 2**30
# Few enough images that activations stay in the processor's cache
BATCH = 64

_IR_VERSION = 9  # goes with the operators of graph.OPSET
_LAYERS = TypeAdapter(tuple[LayerOutput, ...])


@dataclass(frozen=True)
class Description:
    """What an export says of itself.

    `source` is the SHA-256, in hexadecimal, of the model.safetensors that it was made from.
    """

    card: ModelCard
    source: str
    layers: tuple[LayerOutput, ...]
    golden: Golden


class OnnxModel:
    """A reopened export: the Predictor that needs neither torch nor onnx.

    Each batch is computed by one thread, and `threads` batches at once: threads that share a batch wait for each other
    after every layer, which makes them a sixth slower on networks this small. Several threads may use one model.

    Attributes
    ----------
    card : class names, preprocessing, origin
    source : the SHA-256, in hexadecimal, of the model.safetensors that the export was made from
    layers : what `feature_maps` gives
    """

    def __init__(
        self, data: bytes, card: ModelCard, source: str, layers: tuple[LayerOutput, ...], threads: int
    ) -> None:
        self.session = _session(data)
        self.card = card
        self.source = source
        self.layers = layers
        self.threads = threads
        self._data = data
        self._looking: InferenceSession | None = None
        self._opening = Lock()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.card.class_names

    def predict_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C of any size, in batches.

        Raises
        ------
        DataError
            If the images are no uint8 N×H×W×C, or colour ones where the model has learnt from grey ones.
        """
        images = self._accepted(images)
        if len(images) <= BATCH:
            return self._run(images)
        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(self._run, _batches(images))))

    def feature_maps(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """What each of `layers` gives for images, uint8 N×H×W×C of any size: by its name, float32 N×h×w×c or N×units.

        The first call opens the graph a second time: where nobody looks into it, ONNX Runtime computes several layers
        as one, which is faster.

        Raises
        ------
        DataError
            If the images are no uint8 N×H×W×C, or colour ones where the model has learnt from grey ones.
        ModelError
            If the file says of its layers what is not so.
        """
        images = self._accepted(images)
        tensors = list(dict.fromkeys(layer.tensor for layer in self.layers))
        try:
            session = self._session_that_shows(tensors)
            batches = [session.run(tensors, {INPUT: np.ascontiguousarray(batch)}) for batch in _batches(images)]
            found = {tensor: np.concatenate(parts) for tensor, *parts in zip(tensors, *batches, strict=True)}
        except Exception as error:  # the runtime's own exceptions share no other base
            raise ModelError(f"The export's layers cannot be looked at: {error}. Export the run again.") from None
        maps = {layer.name: _channels_last(found[layer.tensor]) for layer in self.layers}
        for layer in self.layers:
            found_shape = maps[layer.name].shape[1:]
            if found_shape != layer.shape:
                raise ModelError(
                    f"The export says that {layer.name} gives {shape_text(layer.shape)}, but it gives "
                    f"{shape_text(found_shape)}. Export the run again."
                )
        return maps

    def _accepted(self, images: Images) -> Images:
        """Images that the graph takes."""
        check_images(images)
        channels = self.card.image_shape[2]
        if images.shape[3] > channels and self.card.channels != "grey":
            raise DataError(
                "These are colour images (3 channels), but the model has learnt from grey ones (1 channel). "
                'Convert them to grey first, or train with channels = "grey".'
            )
        if images.shape[3] < channels:
            images = np.broadcast_to(images, (*images.shape[:3], channels))
        return images

    def _run(self, images: Images) -> NDArray[np.float32]:
        logits: NDArray[np.float32]
        (logits,) = self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})
        return logits

    def _session_that_shows(self, tensors: list[str]) -> "InferenceSession":
        with self._opening:
            if self._looking is None:
                self._looking = _session(with_outputs(self._data, (name for name in tensors if name != OUTPUT)))
            return self._looking


def _batches(images: Images) -> Iterator[Images]:
    """Parts of the images, few enough for a batch."""
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))


def _channels_last(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


def write(source: Path, live: Predictor, target: Path) -> None:
    """Translate a model file.

    Parameters
    ----------
    source : the model.safetensors of a run whose network is made of layers
    live : the same model, which answers the examples inside the export
    target : the file to write, whole or not at all

    Raises
    ------
    ModelError
        If the model's outputs are not finite.
    MissingExtra
        If the onnx package is not installed.
    """
    require("onnx", "train")
    from safetensors.numpy import load

    from foveola.export.graph import build_graph

    card, content = read_card(source), source.read_bytes()
    graph, layers = build_graph(card, load(content))
    digest_of_source = hashlib.sha256(content).hexdigest()
    save(graph, Description(card, digest_of_source, layers, record(live, card)), target)


def save(graph: "GraphProto", description: Description, target: Path) -> None:
    """Write graph and description as one file, whole or not at all."""
    model = as_model(graph)
    metadata = {
        METADATA_KEY: description.card.model_dump_json(),
        SOURCE_KEY: description.source,
        LAYERS_KEY: _LAYERS.dump_json(description.layers).decode(),
        GOLDEN_KEY: description.golden.model_dump_json(),
    }
    metadata[DIGEST_KEY] = digest(model.graph.SerializeToString(), metadata)
    require("onnx", "train").helper.set_model_props(model, metadata)
    write_atomically(target, model.SerializeToString())


def as_model(graph: "GraphProto") -> "ModelProto":
    """A graph with what says how to read it, checked."""
    onnx = require("onnx", "train")
    from foveola.export.graph import OPSET

    imports = [onnx.OperatorSetIdProto(version=OPSET)]
    model: ModelProto = onnx.helper.make_model(
        graph, ir_version=_IR_VERSION, producer_name="foveola", opset_imports=imports
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def open(path: Path, threads: int | None = None) -> OnnxModel:
    """Open an export, and check on this machine that it answers as it did where it was written.

    Parameters
    ----------
    path : a file that `write` has written
    threads : how many batches are computed at once; by default one for each processor

    Raises
    ------
    ModelError
        If the file is missing, damaged, altered, not the one that SHA256SUMS beside it names, or no export of
        Foveola's, or if it answers otherwise.
    """
    data = _read(path)
    checksums.check(path, data)
    try:
        contents = inspect(data)
    except Refused as reason:
        raise ModelError(f"{path} {reason}, so that it is not opened. Export the run again.") from None
    described = _described(path, contents.metadata)
    if contents.metadata[DIGEST_KEY] != digest(contents.graph, contents.metadata):
        raise ModelError(f"{path} was altered or damaged after its export: its checksum differs. Export the run again.")
    try:
        model = OnnxModel(data, described.card, described.source, described.layers, threads or os.cpu_count() or 1)
    except Exception as error:  # the runtime's own exceptions share no other base
        raise ModelError(f"{path} cannot be run: {error}. The file is damaged; export the run again.") from None
    _check_interface(path, model)
    verify(described.golden, model, described.card, str(path))
    return model


def digest(graph: bytes | memoryview, metadata: Mapping[str, str]) -> str:
    """SHA-256 of all that matters: it finds accidents, but who alters a file on purpose can alter its checksum too."""
    found = hashlib.sha256(graph)
    for key in sorted(metadata.keys() - {DIGEST_KEY}):
        found.update(f"{key}={metadata[key]}\n".encode())
    return found.hexdigest()


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no file. Give the path of an export.")
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes; an export has at most {MAX_BYTES:,}.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The export {path} cannot be read: {error}. Export the run again, or correct the path."
        ) from None


def _described(path: Path, metadata: dict[str, str]) -> Description:
    missing = {METADATA_KEY, SOURCE_KEY, LAYERS_KEY, GOLDEN_KEY, DIGEST_KEY} - metadata.keys()
    if missing:
        raise ModelError(
            f"{path} is an ONNX file, but no export of Foveola's, or one of an older version: its metadata lacks "
            f"{', '.join(sorted(missing))}. Give a file that `foveola export` wrote, or export the run again."
        )
    try:
        return Description(
            ModelCard.model_validate_json(metadata[METADATA_KEY]),
            metadata[SOURCE_KEY],
            _LAYERS.validate_json(metadata[LAYERS_KEY]),
            Golden.model_validate_json(metadata[GOLDEN_KEY]),
        )
    except ValidationError as error:
        raise ModelError(
            f"The description in {path} is damaged or from a newer Foveola: {error}. Export the run again."
        ) from None


def _session(data: bytes) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; printed as well, they would say so twice
    # The runtime has a second format of its own, which nobody has looked through
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _check_interface(path: Path, model: OnnxModel) -> None:
    def described(values: Any) -> list[tuple[str, str, int]]:
        return [(value.name, value.type, len(value.shape)) for value in values]

    found = described(model.session.get_inputs()), described(model.session.get_outputs())
    wanted = [(INPUT, "tensor(uint8)", 4)], [(OUTPUT, "tensor(float)", 2)]
    if found != wanted or model.session.get_outputs()[0].shape[1] != len(model.class_names):
        raise ModelError(
            f"{path} has inputs {found[0]} and outputs {found[1]}; an export takes {INPUT}, uint8 N×H×W×C, and gives "
            f"{OUTPUT}, float32 N×{len(model.class_names)}. Export the run again."
        )
