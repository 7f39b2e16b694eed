"""ONNX export: one self-contained file with network, preprocessing, temperature, class names and golden examples.

Writing needs the onnx package; opening needs only ONNX Runtime.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from foveola.arrays import shape_text
from foveola.errors import DataError, ModelError, require
from foveola.exports.allowlist import (
    INPUT,
    OUTPUT,
    UNFAMILIARITY,
    LayerOutput,
    UnsafeOnnx,
    add_outputs,
    inspect_onnx,
    keep_output,
)
from foveola.exports.bounds import check_bounds
from foveola.exports.parity import GoldenExamples, record_golden, verify_golden
from foveola.files import read_verified, write_atomically
from foveola.images import Images, check_images
from foveola.models.image_predictor import ImagePredictor
from foveola.models.metadata import METADATA_KEY, ModelMetadata, first_problem, parse_metadata
from foveola.models.model_file import read_model_file
from foveola.models.unfamiliarity import Outputs
from foveola.predictions import Predictor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from onnxruntime import InferenceSession, RunOptions


SUFFIX = ".onnx"
SOURCE_KEY = f"{METADATA_KEY}.source"
LAYERS_KEY = f"{METADATA_KEY}.layers"
GOLDEN_KEY = f"{METADATA_KEY}.golden"
DIGEST_KEY = f"{METADATA_KEY}.sha256"
# Beside a run's model.safetensors: the export of a network that a user has written, made while its code was at hand
OWN_GRAPH = f"model{SUFFIX}"
# Protocol Buffers have a limit of 2 GiB
MAX_BYTES = 2**30
# Images in a batch, and their pixels: few enough that activations stay in the processor's cache
BATCH, _BATCH_PIXELS = 64, 2**16
# Batches of more bytes are followed by the release of unused memory
_LARGE_BYTES = 2**20

# 20 is the first with Gelu, 18 the first with antialiasing
OPSET = 20
_IR_VERSION = 9  # belongs to OPSET
_PRODUCER = "foveola"
# What stands beside graph and metadata: fields of ModelProto; an operator set has its version in field 2
_HEAD = {(1, bytes([_IR_VERSION])), (2, _PRODUCER.encode()), (8, bytes([2 << 3, OPSET]))}
_LAYERS = TypeAdapter(tuple[LayerOutput, ...])


@dataclass(frozen=True)
class Description:
    """Everything in an export but its graph.

    `source` is the SHA-256, in hexadecimal, of the model.safetensors that was exported.
    """

    metadata: ModelMetadata
    source: str
    layers: tuple[LayerOutput, ...]
    golden: GoldenExamples


class OnnxModel(ImagePredictor):
    """A Predictor from an export, which needs neither torch nor onnx; thread-safe.

    Each batch is computed by one thread, and up to `threads` batches at once. Threads that share a batch wait for each
    other after every layer, which makes them a sixth slower on networks this small. Of large images, a batch has few:
    of 224×224 pixels, one, which takes half the time and a third of the memory of 64 together.

    Attributes
    ----------
    metadata : class names, preprocessing, training data
    source : the SHA-256, in hexadecimal, of the model.safetensors that was exported
    layers : the layers whose output `feature_maps` returns
    multiply_adds : of convolutions and dense layers, for an image
    """

    def __init__(
        self,
        data: bytes,
        metadata: ModelMetadata,
        source: str,
        layers: tuple[LayerOutput, ...],
        threads: int,
        multiply_adds: int = 0,
    ) -> None:
        # Logits alone are computed faster without the scores
        self._data = data if metadata.unfamiliarity is None else keep_output(data, OUTPUT)
        self.session = _session(self._data)
        self.scoring_session = None if metadata.unfamiliarity is None else _session(data)
        self.metadata = metadata
        self.source = source
        self.layers = layers
        self.threads = threads
        self.multiply_adds = multiply_adds
        self._feature_session: InferenceSession | None = None
        self._feature_session_lock = Lock()

    def predict_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C of any size, in batches.

        Raises
        ------
        DataError
            If the images are not uint8 N×H×W×C, or in colour although the model was trained on grey images.
        """
        return self._run(self.session, [OUTPUT], images)[0]

    def predict_outputs(self, images: Images) -> Outputs:
        """Logits as of `predict_logits`, with the scores of unfamiliarity if the model measures it."""
        if self.scoring_session is None:
            return Outputs(self.predict_logits(images))
        return Outputs(*self._run(self.scoring_session, [OUTPUT, UNFAMILIARITY], images))

    def feature_maps(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """The output of each of `layers` for images, uint8 N×H×W×C of any size: by name, float32 N×h×w×c or N×units.

        The first call opens the graph a second time, with these outputs. The first session lacks them, which lets
        ONNX Runtime fuse layers and run faster.

        Raises
        ------
        DataError
            If the images are not uint8 N×H×W×C, or in colour although the model was trained on grey images.
        ModelError
            If the file describes its layers wrongly.
        """
        return self._layer_outputs(images, self.layers)

    def penultimate_features(self, images: Images) -> NDArray[np.float32]:
        """The last vector before the logits, float32 N×D, for images, uint8 N×H×W×C; the logits if there is none.

        Raises as `feature_maps`.
        """
        *before, logits = self.layers
        last = next((layer for layer in reversed(before) if len(layer.shape) == 1), logits)
        return self._layer_outputs(images, [last])[last.name]

    def _layer_outputs(self, images: Images, layers: Sequence[LayerOutput]) -> dict[str, NDArray[np.float32]]:
        images = self._with_channels(images)
        tensors = list(dict.fromkeys(layer.tensor for layer in layers))
        try:
            session = self._session_with_layers()
            batches = [session.run(tensors, {INPUT: np.ascontiguousarray(batch)}) for batch in self._batches(images)]
            outputs = {tensor: np.concatenate(values) for tensor, *values in zip(tensors, *batches, strict=True)}
        except Exception as error:  # the runtime's exceptions have no common base class
            raise ModelError(f"The export's layers cannot be computed: {error}. Export the run again.") from None
        maps = {layer.name: _channels_last(outputs[layer.tensor]) for layer in layers}
        for layer in layers:
            shape = maps[layer.name].shape[1:]
            if shape != layer.shape:
                raise ModelError(
                    f"The output of {layer.name} is {shape_text(shape)}, but the export describes it as "
                    f"{shape_text(layer.shape)}. Export the run again."
                )
        return maps

    def _with_channels(self, images: Images) -> Images:
        """Checked images with as many channels as the graph accepts."""
        check_images(images)
        channels = self.metadata.image_shape[2]
        if images.shape[3] > channels and self.metadata.channels != "grey":
            raise DataError(
                "These are colour images (3 channels), but the model was trained on grey ones (1 channel). "
                'Convert them to grey first, or train with channels = "grey".'
            )
        if images.shape[3] < channels:
            images = np.broadcast_to(images, (*images.shape[:3], channels))
        return images

    def _run(self, session: "InferenceSession", outputs: Sequence[str], images: Images) -> list[NDArray[np.float32]]:
        """The outputs for images of any size, in batches; raises as `predict_logits`."""
        images = self._with_channels(images)
        if len(images) <= batch_size(self.metadata):
            return _run_batch(session, outputs, images[:])
        with ThreadPoolExecutor(self.threads) as pool:
            batches = list(pool.map(partial(_run_batch, session, outputs), self._batches(images)))
        return [np.concatenate(values) for values in zip(*batches, strict=True)]

    def _batches(self, images: Images) -> Iterator[Images]:
        size = batch_size(self.metadata)
        return (images[start : start + size] for start in range(0, len(images), size))

    def _session_with_layers(self) -> "InferenceSession":
        with self._feature_session_lock:
            if self._feature_session is None:
                tensors = dict.fromkeys(layer.tensor for layer in self.layers if layer.tensor != OUTPUT)
                self._feature_session = _session(add_outputs(self._data, tensors))
            return self._feature_session


def batch_size(metadata: ModelMetadata) -> int:
    """How many images to compute together, by the size that the network gets them in."""
    height, width, _ = metadata.image_shape
    return max(min(BATCH, _BATCH_PIXELS // (height * width)), 1)


def _run_batch(session: "InferenceSession", outputs: Sequence[str], images: Images) -> list[NDArray[np.float32]]:
    options = _giving_memory_back() if images.nbytes > _LARGE_BYTES else None
    values: list[NDArray[np.float32]] = session.run(outputs, {INPUT: np.ascontiguousarray(images)}, options)
    return values


@cache
def _giving_memory_back() -> "RunOptions":
    """Options of a run after which ONNX Runtime returns unused memory to the system, instead of keeping it."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _channels_last(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


def write(source: Path, live: Predictor, target: Path) -> None:
    """Export a model file.

    Parameters
    ----------
    source : the model.safetensors of a run; if its network is the user's own, its export lies beside, and is copied
    live : the same model, which computes the golden examples
    target : the file to write, atomically

    Raises
    ------
    ModelError
        If the model's outputs are not finite, or the export of the user's own network is missing or damaged.
    MissingExtra
        If the onnx package is not installed.
    """
    file = read_model_file(source)
    metadata = file.metadata
    if metadata.layers is None:
        write_atomically(target, read(own_graph(source)))
        return
    require("onnx", "train")
    from safetensors.numpy import load

    from foveola.exports.graph import build_graph

    graph, layers = build_graph(metadata, load(file.content))
    source_digest = hashlib.sha256(file.content).hexdigest()
    save(graph, Description(metadata, source_digest, layers, record_golden(live, metadata)), target)


def save(graph: "GraphProto", description: Description, target: Path) -> None:
    """Write graph and description as one file, atomically."""
    model = as_model(graph)
    properties = {
        METADATA_KEY: description.metadata.model_dump_json(exclude={"data": {"learnt"}}),
        SOURCE_KEY: description.source,
        LAYERS_KEY: _LAYERS.dump_json(description.layers).decode(),
        GOLDEN_KEY: description.golden.model_dump_json(),
    }
    properties[DIGEST_KEY] = digest(model.graph.SerializeToString(), properties)
    require("onnx", "train").helper.set_model_props(model, properties)
    write_atomically(target, model.SerializeToString())


def as_model(graph: "GraphProto") -> "ModelProto":
    """A checked ONNX model of a graph, with IR version and operator set."""
    onnx = require("onnx", "train")

    imports = [onnx.OperatorSetIdProto(version=OPSET)]
    model: ModelProto = onnx.helper.make_model(
        graph, ir_version=_IR_VERSION, producer_name=_PRODUCER, opset_imports=imports
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def open(path: Path, threads: int | None = None) -> OnnxModel:
    """Open an export, and verify that it reproduces its golden examples on this machine.

    Parameters
    ----------
    path : a file that `write` has written
    threads : how many batches to compute at once, by default one for each processor

    Raises
    ------
    ModelError
        If the file is missing, damaged, altered or not an export of Foveola, if it is not the file that SHA256SUMS
        beside it names, or if it does not reproduce its golden examples.
    """
    return open_bytes(read(path), path, threads)


def open_bytes(data: bytes, path: Path, threads: int | None = None) -> OnnxModel:
    """As `open`, but with the file's content, as returned by `read`; `path` is for messages."""
    try:
        contents = inspect_onnx(data)
        description = _read_description(path, contents.properties)
        multiply_adds = check_bounds(contents.graph)
    except UnsafeOnnx as reason:
        raise ModelError(f"{path} was not opened: the file {reason}. Export the run again.") from None
    if sorted(contents.head) != sorted(_HEAD) or contents.properties[DIGEST_KEY] != digest(
        contents.graph, contents.properties
    ):
        raise ModelError(f"{path} was altered or damaged after its export: its checksum differs. Export the run again.")
    try:
        threads = threads or os.cpu_count() or 1
        model = OnnxModel(data, description.metadata, description.source, description.layers, threads, multiply_adds)
        _check_interface(path, model)
    except ModelError:
        raise
    except Exception as error:  # the runtime's exceptions have no common base class
        raise ModelError(f"{path} is damaged and cannot be run: {error}. Export the run again.") from None
    verify_golden(description.golden, model, description.metadata, str(path))
    return model


def own_graph(source: Path) -> Path:
    """The export of a network that a user has written, beside its model file.

    Raises
    ------
    ModelError
        If there is none.
    """
    path = source.with_name(OWN_GRAPH)
    if not path.is_file():
        raise ModelError(
            f"{source} holds the weights of a network written in PyTorch, not its code, and there is no {path.name} "
            f"beside it. Open it from Python: foveola.open({str(source)!r}, network=YourModule())."
        )
    return path


def open_own(source: Path, threads: int | None = None) -> OnnxModel:
    """Open a model file whose network a user has written, by the export beside it; without PyTorch, or the code.

    Raises
    ------
    ModelError
        If the model file or its export is missing, damaged or altered, or the export is that of another model file.
    """
    file = read_model_file(source)
    path = own_graph(source)
    model = open(path, threads)
    if model.source != hashlib.sha256(file.content).hexdigest():
        raise ModelError(f"{path} is not the export of {source}, but of another model. Copy or train the run again.")
    model.metadata = file.metadata  # with the images that the model has learnt from
    return model


def digest(graph: bytes | memoryview, properties: Mapping[str, str]) -> str:
    """SHA-256 of graph and metadata, in hexadecimal.

    Detects accidental damage only: whoever edits a file on purpose can update its checksum.
    """
    sha256 = hashlib.sha256(graph)
    for key in sorted(properties.keys() - {DIGEST_KEY}):
        sha256.update(f"{key}={properties[key]}\n".encode())
    return sha256.hexdigest()


def read(path: Path) -> bytes:
    """The content of an export, after its checksum in SHA256SUMS, if there is one, was verified.

    Raises
    ------
    ModelError
        If the file is missing, too large or altered.
    """
    return read_verified(path, MAX_BYTES, "Export the run again, or correct the path")


def _read_description(path: Path, properties: dict[str, str]) -> Description:
    missing = {METADATA_KEY, SOURCE_KEY, LAYERS_KEY, GOLDEN_KEY, DIGEST_KEY} - properties.keys()
    if missing:
        raise ModelError(
            f"{path} is an ONNX file, but not an export of this version of Foveola: its metadata lacks "
            f"{', '.join(sorted(missing))}. Give a file that `foveola export` wrote, or export the run again."
        )
    try:
        return Description(
            parse_metadata(properties[METADATA_KEY], path),
            properties[SOURCE_KEY],
            _LAYERS.validate_json(properties[LAYERS_KEY]),
            GoldenExamples.model_validate_json(properties[GOLDEN_KEY]),
        )
    except ValidationError as error:
        raise ModelError(
            f"The metadata in {path} is damaged or from a newer Foveola: {first_problem(error)}. Export the run again."
        ) from None


def _session(data: bytes) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; they would be printed as well
    # Otherwise a file in the runtime's own format would be opened, which inspect_onnx has not checked
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _check_interface(path: Path, model: OnnxModel) -> None:
    def signature(values: Any) -> list[tuple[str, str, int]]:
        return [(value.name, value.type, len(value.shape)) for value in values]

    session = model.scoring_session or model.session
    inputs, outputs = signature(session.get_inputs()), signature(session.get_outputs())
    expected = [(INPUT, "tensor(uint8)", 4)], [(OUTPUT, "tensor(float)", 2)]
    if model.scoring_session is not None:
        expected[1].append((UNFAMILIARITY, "tensor(float)", 1))
    if (inputs, outputs) != expected or session.get_outputs()[0].shape[1] != len(model.class_names):
        raise ModelError(
            f"{path} is not an export: it has inputs {inputs} and outputs {outputs}. An export has the input {INPUT}, "
            f"uint8 N×H×W×C, and the output {OUTPUT}, float32 N×{len(model.class_names)}; if the model measures it, "
            f"also {UNFAMILIARITY}, float32 N. Export the run again."
        )
