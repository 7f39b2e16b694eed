"""Parity: checks that an export gives the logits of its model.

An export is compared with its model on real images when it is written (`check_parity`). It also carries golden
examples, synthetic images with the model's logits, and reproduces them whenever it is opened (`verify_golden`).
"""

import base64
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from foveola.errors import ExportError, ModelError
from foveola.images import Images
from foveola.models.metadata import ModelMetadata
from foveola.models.shapes import count_multiply_adds
from foveola.predictions import Predictor, predict_outputs

Logits = NDArray[np.float32]
Scores = NDArray[np.float32]

# Largest difference allowed between two logits in float32
TOLERANCE = 1e-3
# Largest difference allowed between two scores of unfamiliarity; images of one kind spread over about 1
UNFAMILIARITY_TOLERANCE = 0.01
# Runtimes compute a single image, a pair, an odd number and full registers in different ways
BATCH_SIZES = (1, 2, 7, 64)
# As many images, but of a large network no more than so many multiply-adds take, and at least a full batch
IMAGES = 1000
MULTIPLY_ADDS = 2**36

# Golden images are noise: grains of one pixel excite the filters, coarser grains the layers after pooling
_GRAINS = (1, 2, 4, 8)


# On real images, when an export is written


@dataclass(frozen=True)
class Parity:
    """The largest difference between the logits of a model and its export."""

    largest_difference: float
    images: int
    batch_sizes: tuple[int, ...]


def check_parity(live: Predictor, export: Predictor, images: Images, tolerance: float = TOLERANCE) -> Parity:
    """Compare the logits of 1,000 images, evenly spread, in batches of several sizes; of a large network fewer.

    Parameters
    ----------
    live : the model that was evaluated
    export : the same model, reopened from its export
    images : uint8 N×H×W×C; too few are repeated, with other neighbours in their batch
    tolerance : largest difference allowed between two logits of an image

    Raises
    ------
    ExportError
        Naming the worst image, if a logit differs by more than the tolerance, or if the predicted class differs where
        the model's logits of the two classes are further apart than the tolerance; or if a score of unfamiliarity
        differs by more than UNFAMILIARITY_TOLERANCE, unless the tolerance is infinite.
    """
    count = _count_images(export, live.metadata)
    indices = np.arange(count) * max(len(images) // count, 1) % len(images)
    outputs = predict_outputs(live, images[indices])
    expected, scores = outputs.logits, outputs.unfamiliarity
    largest = 0.0
    for size in BATCH_SIZES:
        batches = (images[indices[start : start + size]] for start in range(0, count, size))
        actual = np.concatenate([export.predict_logits(batch) for batch in batches])
        largest = max(largest, _largest_difference(expected, actual, indices, size, tolerance))
    if scores is not None and tolerance < math.inf:
        _check_unfamiliarity(scores, predict_outputs(export, images[indices]).unfamiliarity)
    return Parity(largest, count, BATCH_SIZES)


def _count_images(export: Predictor, metadata: ModelMetadata) -> int:
    """On how many images a model and its export are compared."""
    if metadata.layers is None:  # an own network's graph says what it computes
        cost = int(getattr(export, "multiply_adds", 0))
    else:
        cost = count_multiply_adds(metadata.layers, metadata.network_shape, len(metadata.class_names))
    return min(IMAGES, max(MULTIPLY_ADDS // max(cost, 1), max(BATCH_SIZES)))


def _check_unfamiliarity(expected: Scores, actual: Scores | None) -> None:
    difference = _largest_score_difference(expected, actual)
    if not difference <= UNFAMILIARITY_TOLERANCE:
        raise ExportError(
            f"The export was not kept: its scores of unfamiliarity differ from the model's by up to {difference:.3g}. "
            f"This is a bug in Foveola or ONNX Runtime, not a mistake of yours: please report it."
        )


def _largest_score_difference(expected: Scores | None, actual: Scores | None) -> float:
    """The largest difference of two models' scores; infinite if only one of them has any."""
    if expected is None or actual is None:
        return 0.0 if expected is actual else math.inf
    return float(np.abs(expected - actual).max()) if expected.shape == actual.shape else math.inf


def _largest_difference(
    expected: Logits, actual: Logits, indices: NDArray[np.int64], batch_size: int, tolerance: float
) -> float:
    expected_classes, actual_classes = expected.argmax(axis=1), actual.argmax(axis=1)
    rows = np.arange(len(expected))
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = np.abs(expected - actual).max(axis=1)
        margin = expected[rows, expected_classes] - expected[rows, actual_classes]
    wrong = ~(difference <= tolerance) | (margin > tolerance)  # not difference > tolerance: NaN is wrong too
    if wrong.any():
        worst = int(np.where(wrong, np.nan_to_num(difference, nan=np.inf), -1).argmax())
        raise ExportError(
            f"The export was not kept: in batches of {batch_size}, its logits differ from the model's by more than the "
            f"tolerance of {tolerance}, or it predicts another class. The worst case is image {indices[worst]}: the "
            f"model's logits are {_text(expected[worst])}, the export's {_text(actual[worst])}. This is a bug in "
            f"Foveola or ONNX Runtime, not a mistake of yours: please report it."
        )
    return float(difference.max())


def _text(logits: Logits) -> str:
    return "[" + ", ".join(f"{logit:.4f}" for logit in logits) + "]"


# On golden examples, whenever an export is opened


class GoldenExamples(BaseModel):
    """Synthetic images, uint8 N×H×W×C as base64, the model's logits for them, N×K, and the tolerance of the logits.

    `unfamiliarity` are the model's scores, N, with a tolerance of their own; None if it does not measure them.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    images: str
    logits: tuple[tuple[float, ...], ...]
    tolerance: Annotated[float, Field(ge=0)] = TOLERANCE
    unfamiliarity: tuple[float, ...] | None = None
    unfamiliarity_tolerance: Annotated[float, Field(ge=0)] = UNFAMILIARITY_TOLERANCE


def record_golden(live: Predictor, metadata: ModelMetadata) -> GoldenExamples:
    """A model's logits for synthetic images; real images could be private.

    Raises
    ------
    ModelError
        If the logits are not finite.
    """
    images = synthetic_images(metadata.image_shape)
    outputs = predict_outputs(live, images)
    logits, scores = outputs.logits, outputs.unfamiliarity
    if not np.isfinite(logits).all():
        raise ModelError(
            "The model's outputs are not finite, because its training has diverged; it cannot be used. "
            "Train it again with a lower learning rate."
        )
    return GoldenExamples(
        images=base64.b64encode(images.tobytes()).decode(),
        logits=logits.tolist(),
        unfamiliarity=None if scores is None else scores.tolist(),
    )


def verify_golden(golden: GoldenExamples, model: Predictor, metadata: ModelMetadata, name: str) -> None:
    """Compare a model's logits with those of its golden examples; `name` stands for the model in messages.

    Raises
    ------
    ModelError
        If the examples are damaged, or a logit differs by more than their tolerance.
    """
    try:
        expected = np.array(golden.logits, np.float32)
        pixels = np.frombuffer(base64.b64decode(golden.images, validate=True), np.uint8)
        images = pixels.reshape(len(expected), *metadata.image_shape)
        actual, scores = model.predict_logits(images), predict_outputs(model, images).unfamiliarity
    except Exception as error:  # examples or graph are damaged; the runtime's exceptions have no common base class
        raise ModelError(f"The golden examples in {name} cannot be run: {error}. Export the run again.") from None
    golden_scores = None if golden.unfamiliarity is None else np.array(golden.unfamiliarity, np.float32)
    difference = _largest_score_difference(golden_scores, scores)
    # Not largest > tolerance: so NaN is refused too
    if (
        actual.shape != expected.shape
        or not np.abs(actual - expected).max() <= golden.tolerance
        or not difference <= golden.unfamiliarity_tolerance
    ):
        raise ModelError(
            f"{name} does not reproduce its golden examples: it gives other logits than where it was exported. The "
            f"file was altered, or ONNX Runtime computes wrongly on this machine. Export the run again here."
        )


def synthetic_images(shape: tuple[int, int, int], seed: int = 0) -> Images:
    """The images of the golden examples, uint8 N×H×W×C, the same for every model of a shape; others by `seed`."""
    height, width, channels = shape
    random = np.random.default_rng(seed)
    images = []
    for grain in _GRAINS:
        size = (-(-height // grain), -(-width // grain), channels)
        coarse = random.integers(0, 256, size, dtype=np.uint8)
        images.append(coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width])
    return np.stack(images)
