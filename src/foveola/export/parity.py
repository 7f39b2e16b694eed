"""An export compared with the model that it was made from, on real images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveola.errors import ExportError
from foveola.images import Images
from foveola.predictions import Predictor

# Of logits in float32
TOLERANCE = 1e-3
# A single image, a pair, an odd number, and as many as fill wide registers: runtimes compute each in another way
BATCH_SIZES = (1, 2, 7, 64)
IMAGES = 1000


@dataclass(frozen=True)
class Parity:
    """How far two models that should be one lie apart."""

    largest_difference: float
    images: int
    batch_sizes: tuple[int, ...]


def compare(live: Predictor, export: Predictor, images: Images, tolerance: float = TOLERANCE) -> Parity:
    """Compare the logits of 1,000 images, evenly spread, in batches of different sizes.

    Parameters
    ----------
    live : the model that was measured
    export : the same, reopened
    images : uint8 N×H×W×C; where there are fewer than 1,000, they come again between other neighbours
    tolerance : how far two logits of an image may lie apart

    Raises
    ------
    ExportError
        Naming the worst image, if a logit differs by more than the tolerance, or the most probable class differs where
        the two most probable ones do not lie within it.
    """
    chosen = np.arange(IMAGES) * max(len(images) // IMAGES, 1) % len(images)
    expected = live.predict_logits(images[chosen])
    largest = 0.0
    for size in BATCH_SIZES:
        batches = (images[chosen[start : start + size]] for start in range(0, IMAGES, size))
        found = np.concatenate([export.predict_logits(batch) for batch in batches])
        largest = max(largest, _largest_difference(expected, found, chosen, size, tolerance))
    return Parity(largest, IMAGES, BATCH_SIZES)


def _largest_difference(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    chosen: NDArray[np.int64],
    batch_size: int,
    tolerance: float,
) -> float:
    before, after = expected.argmax(axis=1), found.argmax(axis=1)
    rows = np.arange(len(expected))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = np.abs(expected - found).max(axis=1)
        lead = expected[rows, before] - expected[rows, after]
    wrong = ~(difference <= tolerance) | (lead > tolerance)  # not difference > tolerance: NaN is wrong too
    if wrong.any():
        worst = int(np.where(wrong, np.nan_to_num(difference, nan=np.inf), -1).argmax())
        raise ExportError(
            f"In batches of {batch_size}, the export disagrees with the model. At worst on image {chosen[worst]}: the "
            f"model's logits are {_text(expected[worst])}, the export's {_text(found[worst])}; at most {tolerance} may "
            f"lie between them. The export was not kept. This is a fault of Foveola or ONNX Runtime, not yours."
        )
    return float(difference.max())


def _text(logits: NDArray[np.float32]) -> str:
    return "[" + ", ".join(f"{logit:.4f}" for logit in logits) + "]"
