"""int8: an ONNX export that computes in 8-bit integers, kept only where that is faster on this machine and as accurate.

Static quantisation (Jacob et al., 2018): ONNX Runtime's tool measures what each layer gives on calibration images and
puts QuantizeLinear and DequantizeLinear around the layers; when the file is opened, the runtime computes what lies
between such a pair in integers. Preprocessing stays in float32.

Weights get a scale for each channel, and 7 of the 8 bits: with 8, processors without VNNI instructions may exceed the
16 bits in which they add up pairs of products, and would answer otherwise than this machine.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveola.errors import ExportError, require
from foveola.export import onnx
from foveola.export.contents import INPUT, LayerOutput
from foveola.export.golden import record
from foveola.images import Images, ImageSet
from foveola.predictions import Predictor

if TYPE_CHECKING:
    from onnx import GraphProto

# Accuracy that may be lost, as a share of the images
MOST_LOST = 0.002
# Of the time that float32 takes; what is saved beyond is noise
MOST_TIME = 0.95
# A single picture, and as many as the server answers at once
BATCH_SIZES = (1, onnx.BATCH)
REPETITIONS = 31
CALIBRATION_IMAGES = 1000
# Of the largest golden logit. The integers are the same everywhere, but what comes before them is not: a value halfway
# between two of 256 levels may go up on one machine and down on another, which moves logits by up to 0.2 %.
TOLERANCE = 0.01

# Those that ONNX Runtime has in integers and that carry them from one layer to the next; the others stay in float32
_OPERATORS = ("Conv", "Gemm", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Transpose", "Flatten")


@dataclass(frozen=True)
class Gain:
    """What 8-bit integers cost in accuracy and save in time against float32, on this machine.

    Accuracies are those on `images` validation images; `seconds` are medians, one for each of `batch_sizes`.
    """

    images: int
    accuracy: float
    accuracy_float32: float
    batch_sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    seconds_float32: tuple[float, ...]

    @property
    def is_worth_it(self) -> bool:
        """As accurate, and faster in every size of batch."""
        faster = all(
            ours <= MOST_TIME * theirs for ours, theirs in zip(self.seconds, self.seconds_float32, strict=True)
        )
        return faster and self.accuracy >= self.accuracy_float32 - MOST_LOST - 1e-9

    @property
    def accuracy_text(self) -> str:
        """Both accuracies, for messages."""
        accuracies = f"{self.accuracy:.2%} (float32: {self.accuracy_float32:.2%})"
        return f"{accuracies} of {self.images:,} validation images right"

    @property
    def time_text(self) -> str:
        """Both times of each size of batch, for messages."""
        times = zip(self.batch_sizes, self.seconds, self.seconds_float32, strict=True)
        return ", ".join(
            f"{1000 * ours:.3g} ms (float32: {1000 * theirs:.3g} ms) for {size if size > 1 else 'one image'}"
            for size, ours, theirs in times
        )


def write(source: Path, live: Predictor, target: Path, validation: ImageSet) -> Gain:
    """Quantise a model file, and measure what that costs and saves.

    Parameters
    ----------
    source : the model.safetensors of a run whose network is made of layers
    live : the same model
    target : the file to write, whole or not at all; `onnx.open` opens it
    validation : images of the model's shape to calibrate and judge with, never test images

    Raises
    ------
    ExportError
        If it is no gain on this machine.
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
        graph = _quantize(path, _evenly(validation.images, CALIBRATION_IMAGES))
    layers = tuple(layer for layer in (_relocated(layer, graph) for layer in exact.layers) if layer is not None)
    quantized = onnx.OnnxModel(
        onnx.as_model(graph).SerializeToString(), exact.card, exact.source, layers, exact.threads
    )
    gain = measure(exact, quantized, validation)
    if not gain.is_worth_it:
        raise ExportError(
            f"Computing in 8-bit integers is no gain with this model on this machine: {gain.accuracy_text}, "
            f"{gain.time_text}. Asked for are at most {100 * MOST_LOST:g} points less accuracy and at least "
            f"{1 - MOST_TIME:.0%} less time. Nothing was written. Use the export in float32."
        )
    golden = record(quantized, exact.card)
    tolerance = TOLERANCE * max(abs(logit) for logits in golden.logits for logit in logits)
    golden = golden.model_copy(update={"tolerance": tolerance})
    onnx.save(graph, onnx.Description(exact.card, exact.source, layers, golden), target)
    return gain


def measure(exact: Predictor, quantized: Predictor, validation: ImageSet) -> Gain:
    """Accuracy on all images; time in turns, so that what else the machine does meets both."""
    accuracies = [
        float((model.predict_logits(validation.images).argmax(axis=1) == validation.labels).mean())
        for model in (exact, quantized)
    ]
    medians: list[NDArray[np.float64]] = []
    for size in BATCH_SIZES:
        images = validation.images[np.arange(size) % len(validation)]
        turns = [(seconds(exact, images), seconds(quantized, images)) for _ in range(REPETITIONS)]
        medians.append(np.median(turns, axis=0))
    exact_times, quantized_times = np.transpose(medians).tolist()
    return Gain(len(validation), accuracies[1], accuracies[0], BATCH_SIZES, tuple(quantized_times), tuple(exact_times))


def seconds(model: Predictor, images: Images) -> float:
    """How long a model takes to answer a batch."""
    start = time.perf_counter()
    model.predict_logits(images)
    return time.perf_counter() - start


def _quantize(path: Path, images: Images) -> "GraphProto":
    """The graph of an export with integers in it, without anything that `contents` would refuse."""
    from onnx import load, numpy_helper
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = load(path)
    add_pre_process_metadata(model)  # otherwise the tool advises, on standard error, to fuse what is fused already
    path.write_bytes(model.SerializeToString())
    result = path.with_name("int8.onnx")
    quantize_static(
        path,
        result,
        _Batches(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_OPERATORS),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},  # logits keep their precision
    )
    graph: GraphProto = load(result).graph
    graph.ClearField("value_info")
    for node in graph.node:
        node.ClearField("name")
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return graph


def _relocated(layer: LayerOutput, graph: "GraphProto") -> LayerOutput | None:
    """A layer as the next ones see it, after integers, which also stand for ReLU; None where the graph lost it."""
    computed = {tensor for node in graph.node for tensor in node.output}
    if layer.tensor not in computed:
        return None
    integers = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    floats = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    tensor = floats.get(integers.get(layer.tensor, ""), layer.tensor)
    return layer.model_copy(update={"tensor": tensor})


class _Batches:
    """Calibration images as the tool asks for them."""

    def __init__(self, images: Images) -> None:
        starts = range(0, len(images), onnx.BATCH)
        self._batches = iter([images[start : start + onnx.BATCH] for start in starts])

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _evenly(images: Images, count: int) -> Images:
    return images[:: max(len(images) // count, 1)][:count]
