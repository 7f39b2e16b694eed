"""int8 export: ONNX in 8-bit integers, kept only if it is faster on this machine and as accurate.

Static quantisation (Jacob et al., 2018): ONNX Runtime's tool measures the range of each layer's output on calibration
images and puts QuantizeLinear and DequantizeLinear nodes around the layers. When the file is opened, the runtime
computes the nodes between such a pair in integers. Preprocessing stays in float32.

Weights have one scale per channel and use 7 of the 8 bits. With 8 bits, processors without VNNI instructions may
overflow the 16-bit sums of two products, and would give other logits than this machine.

Rounding the weights shifts the mean of each channel, which adds up over many layers. Biases take it back (bias
correction: Nagel et al., 2019, arXiv:1906.04721, section 4.2).
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveola.errors import ExportError, require
from foveola.exports import onnx
from foveola.exports.allowlist import INPUT, LayerOutput
from foveola.exports.parity import record_golden
from foveola.images import Images, ImageSet
from foveola.models.metadata import ModelMetadata
from foveola.models.unfamiliarity import MIN_VALIDATION_IMAGES, choose_threshold
from foveola.predictions import Predictor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


# Largest loss of accuracy, as a fraction of the images. Few images cannot tell so little: there it is one standard
# error of the difference, but never more than the second number
MAX_ACCURACY_LOSS = 0.002
MAX_UNCERTAIN_LOSS = 0.01
# Largest time relative to float32; a smaller gain could be noise
MAX_TIME_RATIO = 0.95
# A single image, and a full batch
BATCH_SIZES = (1, onnx.BATCH)
REPETITIONS = 31
# Networks that take long are timed less often: until their times add up to so many seconds, but five times
_MAX_SECONDS = 10.0
_MIN_REPETITIONS = 5
# Of large images, fewer are needed for ranges as sure: each has many places
CALIBRATION_IMAGES = 1000
_CALIBRATION_PIXELS, _MIN_CALIBRATION_IMAGES = 2**23, 200
# Relative to the largest golden logit. Integers are the same everywhere, but the float32 values before them are not: a
# value halfway between two of 256 levels may be rounded up on one machine and down on another, which changes logits by
# up to 0.2 %.
TOLERANCE = 0.01
# Of scores of unfamiliarity, which are logarithms of distances, on noise
SCORE_TOLERANCE = 0.2

# Operators that ONNX Runtime computes in integers, or that pass integers on; all others stay in float32. But
# of Add, which sums the branches of a residual layer, those between two of these are in integers, too.
_OPERATORS = ("Conv", "Gemm", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Transpose", "Flatten")


@dataclass(frozen=True)
class Gain:
    """Accuracy and time of 8-bit integers compared with float32, on this machine.

    Accuracies are measured on `images` validation images, of which `changed` are classified correctly by only one of
    both models; `seconds` are medians, one for each of `batch_sizes`.
    """

    images: int
    accuracy: float
    accuracy_float32: float
    batch_sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    seconds_float32: tuple[float, ...]
    changed: int = 0

    @property
    def allowed_loss(self) -> float:
        """Largest loss of accuracy; the standard error of a paired difference is √changed / images."""
        return max(MAX_ACCURACY_LOSS, min(math.sqrt(self.changed) / self.images, MAX_UNCERTAIN_LOSS))

    @property
    def is_worth_it(self) -> bool:
        """Whether it is as accurate as float32, and faster at every batch size."""
        times = zip(self.seconds, self.seconds_float32, strict=True)
        faster = all(quantized <= MAX_TIME_RATIO * float32 for quantized, float32 in times)
        return faster and self.accuracy >= self.accuracy_float32 - self.allowed_loss - 1e-9

    @property
    def accuracy_text(self) -> str:
        """Both accuracies, for messages."""
        accuracies = f"{self.accuracy:.2%} (float32: {self.accuracy_float32:.2%})"
        return f"{accuracies} of {self.images:,} images correct"

    @property
    def time_text(self) -> str:
        """Both times at each batch size, for messages."""
        times = zip(self.batch_sizes, self.seconds, self.seconds_float32, strict=True)
        return ", ".join(
            f"{1000 * quantized:.3g} ms (float32: {1000 * float32:.3g} ms) for {size if size > 1 else 'one image'}"
            for size, quantized, float32 in times
        )


def write(source: Path, live: Predictor, target: Path, validation: ImageSet) -> Gain:
    """Quantise a model file, and measure the accuracy and time of the result.

    Parameters
    ----------
    source : the model.safetensors of a run whose network is made of a recipe's layers
    live : the same model
    target : the file to write, atomically; `onnx.open` opens it
    validation : images of the model's shape for calibration and measurement, never test images

    Raises
    ------
    ExportError
        If it is less accurate, or not faster on this machine.
    ModelError
        If the model's outputs are not finite.
    MissingExtra
        If the onnx package is not installed.
    """
    require("onnx", "train")
    with TemporaryDirectory(prefix="foveola-") as folder:
        path = Path(folder) / "float32.onnx"
        onnx.write(source, live, path)
        exact = onnx.open(path)
        graph = _quantize(path, _calibration_images(validation), onnx.batch_size(exact.metadata))
    layers = tuple(layer for layer in (_update_tensor(layer, graph) for layer in exact.layers) if layer is not None)
    quantized = onnx.OnnxModel(
        onnx.as_model(graph).SerializeToString(), exact.metadata, exact.source, layers, exact.threads
    )
    gain = measure_gain(exact, quantized, validation)
    if not gain.is_worth_it:
        raise ExportError(
            f"8-bit integers are not worth it for this model on this machine: {gain.accuracy_text}, {gain.time_text}. "
            f"They must lose at most {100 * gain.allowed_loss:.2g} points of accuracy and take at least "
            f"{1 - MAX_TIME_RATIO:.0%} less time. Nothing was written. Use the export in float32."
        )
    golden = record_golden(quantized, exact.metadata)
    tolerance = TOLERANCE * max(abs(logit) for logits in golden.logits for logit in logits)
    golden = golden.model_copy(update={"tolerance": tolerance, "unfamiliarity_tolerance": SCORE_TOLERANCE})
    metadata = _with_own_threshold(exact.metadata, quantized, validation)
    onnx.save(graph, onnx.Description(metadata, exact.source, layers, golden), target)
    return gain


def _with_own_threshold(metadata: ModelMetadata, quantized: onnx.OnnxModel, validation: ImageSet) -> ModelMetadata:
    """The metadata with a threshold for the scores that the quantised features give."""
    scores = quantized.predict_outputs(validation.images).unfamiliarity
    if metadata.unfamiliarity is None or scores is None or len(scores) < MIN_VALIDATION_IMAGES:
        return metadata
    threshold, false_alarms = choose_threshold(scores)
    update = {"threshold": threshold, "false_alarms": false_alarms, "validation_images": len(scores)}
    return metadata.model_copy(update={"unfamiliarity": metadata.unfamiliarity.model_copy(update=update)})


def measure_gain(exact: Predictor, quantized: Predictor, validation: ImageSet) -> Gain:
    """Measure accuracy on all images, and time in alternation, so that other load affects both models alike."""
    right = [
        model.predict_logits(validation.images).argmax(axis=1) == validation.labels for model in (exact, quantized)
    ]
    accuracies = [float(images.mean()) for images in right]
    medians: list[NDArray[np.float64]] = []
    for size in BATCH_SIZES:
        images = validation.images[np.arange(size) % len(validation)]
        turns: list[tuple[float, float]] = []
        while len(turns) < REPETITIONS and (len(turns) < _MIN_REPETITIONS or np.sum(turns) < _MAX_SECONDS):
            turns.append((seconds(exact, images), seconds(quantized, images)))
        medians.append(np.median(turns, axis=0))
    exact_times, quantized_times = np.transpose(medians).tolist()
    changed = int((right[0] != right[1]).sum())
    return Gain(
        len(validation), accuracies[1], accuracies[0], BATCH_SIZES, tuple(quantized_times), tuple(exact_times), changed
    )


def seconds(model: Predictor, images: Images) -> float:
    """Time that a model takes for a batch."""
    start = time.perf_counter()
    model.predict_logits(images)
    return time.perf_counter() - start


def _quantize(path: Path, images: Images, batch: int) -> "GraphProto":
    """The quantised graph of an export, without anything that the allowlist would refuse.

    The images are computed in batches of `batch`; only the extremes of the layers' outputs are kept.
    """
    from onnx import load, numpy_helper
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = load(path)
    add_pre_process_metadata(model)  # otherwise the tool advises on standard error to fuse layers first
    for number, node in enumerate(model.graph.node):
        node.name = str(number)
    path.write_bytes(model.SerializeToString())
    result = path.with_name("int8.onnx")
    quantize_static(
        path,
        result,
        _Batches(images, batch),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_OPERATORS),
        nodes_to_exclude=_sensitive(model.graph),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},  # logits keep their precision
    )
    graph: GraphProto = load(result).graph
    _correct_biases(graph, model.graph, _channel_means(model, _Batches(images, batch)))
    graph.ClearField("value_info")
    for node in graph.node:
        node.ClearField("name")
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return graph


def _sensitive(graph: "GraphProto") -> list[str]:
    """The first convolution and a depthwise one after it, by the names of their nodes.

    Their few channels differ so much that rounding them cost EfficientNet-Lite0 a third of its error in all, and they
    take little time.
    """
    first = [node for node in graph.node if node.op_type == "Conv"][:2]
    depthwise = len(first) == 2 and _groups(first[1]) > 1
    return [node.name for node in first] if depthwise else []


def _groups(conv: "NodeProto") -> int:
    return next((attribute.i for attribute in conv.attribute if attribute.name == "group"), 1)


def _channel_means(model: "ModelProto", batches: "_Batches") -> dict[str, NDArray[np.float64]]:
    """The mean of each channel of what the convolutions of a model get, by tensor."""
    from onnx import ModelProto, TensorProto, helper, numpy_helper
    from onnxruntime import InferenceSession, SessionOptions

    measuring = ModelProto.FromString(model.SerializeToString())
    graph = measuring.graph
    tensors = sorted({node.input[0] for node in graph.node if node.op_type == "Conv"})
    if not tensors:
        return {}
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "all but channels"))
    for tensor in tensors:
        graph.node.append(helper.make_node("ReduceMean", [tensor, "all but channels"], [f"mean {tensor}"], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(f"mean {tensor}", TensorProto.FLOAT, [None]))
    options = SessionOptions()
    options.log_severity_level = 4
    session = InferenceSession(measuring.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names, count = [f"mean {tensor}" for tensor in tensors], 0
    sums = [np.zeros(()) for _ in tensors]
    while (inputs := batches.get_next()) is not None:
        size = len(inputs[INPUT])
        sums = [total + size * mean for total, mean in zip(sums, session.run(names, inputs), strict=True)]
        count += size
    return {tensor: total / count for tensor, total in zip(tensors, sums, strict=True)}


def _correct_biases(graph: "GraphProto", exact: "GraphProto", means: dict[str, NDArray[np.float64]]) -> None:
    """Add to the biases of quantised convolutions what rounding their weights takes from the means of their outputs."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in exact.initializer}
    stored = {node.output[0]: node.input for node in graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.name: node for node in graph.node if node.op_type == "Conv"}
    for conv in exact.node:
        if conv.op_type != "Conv" or len(conv.input) < 3 or quantized[conv.name].input[1] not in stored:
            continue
        _, weight, bias = (stored[name] for name in quantized[conv.name].input)
        integers, scale = (numpy_helper.to_array(tensors[name]) for name in weight[:2])
        lost = weights[conv.input[1]] - integers * scale.astype(np.float64)[:, None, None, None]
        # Of output channels, in groups that each get their own input channels
        lost = lost.sum(axis=(2, 3)).reshape(_groups(conv), -1, lost.shape[1])
        shift = np.einsum("goi,gi->go", lost, means[conv.input[0]].reshape(len(lost), -1)).ravel()
        value, step = (numpy_helper.to_array(tensors[name]) for name in bias[:2])
        corrected = np.round(value + shift / step).astype(np.int32)
        tensors[bias[0]].CopyFrom(numpy_helper.from_array(corrected, bias[0]))


def _update_tensor(layer: LayerOutput, graph: "GraphProto") -> LayerOutput | None:
    """The layer with its dequantised output, which includes a fused ReLU; None if the graph no longer computes it."""
    computed = {tensor for node in graph.node for tensor in node.output}
    if layer.tensor not in computed:
        return None
    integers = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    floats = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    tensor = floats.get(integers.get(layer.tensor, ""), layer.tensor)
    return layer.model_copy(update={"tensor": tensor})


class _Batches:
    """Calibration images in the form that the tool reads."""

    def __init__(self, images: Images, size: int) -> None:
        self._batches = iter([images[start : start + size] for start in range(0, len(images), size)])

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: np.ascontiguousarray(batch)}


def _calibration_images(validation: ImageSet) -> Images:
    """Evenly spread images of a validation split."""
    height, width, _ = validation.image_shape
    fewer = max(_CALIBRATION_PIXELS // (height * width), _MIN_CALIBRATION_IMAGES)
    count = min(fewer, CALIBRATION_IMAGES)
    return validation.images[:: max(len(validation) // count, 1)][:count]
