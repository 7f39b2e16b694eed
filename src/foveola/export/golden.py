"""Examples inside an export, with the logits that they should give: the check of the machine that opens it."""

import base64
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foveola.errors import ModelError
from foveola.export.parity import TOLERANCE
from foveola.images import Images
from foveola.models.card import ModelCard
from foveola.predictions import Predictor

# Noise as fine as a pixel excites the filters, coarser noise what comes after pooling
_GRAINS = (1, 2, 4, 8)


class Golden(BaseModel):
    """Images, uint8 N×H×W×C as base64, their logits, N×K, and how far from these the answers of a machine may lie."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    images: str
    logits: tuple[tuple[float, ...], ...]
    tolerance: Annotated[float, Field(ge=0)] = TOLERANCE


def record(live: Predictor, card: ModelCard) -> Golden:
    """What a model answers to synthetic images; real ones could be private.

    Raises
    ------
    ModelError
        If the answers are not finite.
    """
    images = noise(card.image_shape)
    logits = live.predict_logits(images)
    if not np.isfinite(logits).all():
        raise ModelError(
            "The model's outputs are not finite, so that it cannot be used anywhere: its training has diverged. "
            "Train it again with a lower learning rate."
        )
    return Golden(images=base64.b64encode(images.tobytes()).decode(), logits=logits.tolist())


def verify(golden: Golden, model: Predictor, card: ModelCard, name: str) -> None:
    """Compare a model's answers with the recorded ones; `name` is what messages call it.

    Raises
    ------
    ModelError
        If the examples are damaged, or an answer differs by more than the tolerance.
    """
    try:
        expected = np.array(golden.logits, np.float32)
        pixels = np.frombuffer(base64.b64decode(golden.images, validate=True), np.uint8)
        found = model.predict_logits(pixels.reshape(len(expected), *card.image_shape))
    except Exception as error:  # examples or graph are damaged; the runtime's exceptions share no base of their own
        raise ModelError(f"The examples in {name} cannot be run: {error}. Export the run again.") from None
    # Not largest > tolerance: so NaN is refused too
    if found.shape != expected.shape or not np.abs(found - expected).max() <= golden.tolerance:
        raise ModelError(
            f"{name} answers otherwise here than where it was exported: its own examples give other logits. The file "
            f"was altered, or ONNX Runtime computes wrongly on this machine. Export the run again, here."
        )


def noise(shape: tuple[int, int, int]) -> Images:
    """The synthetic images, uint8 N×H×W×C: the same for every model of a shape."""
    height, width, channels = shape
    random = np.random.default_rng(0)
    pictures = []
    for grain in _GRAINS:
        size = (-(-height // grain), -(-width // grain), channels)
        coarse = random.integers(0, 256, size, dtype=np.uint8)
        pictures.append(coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width])
    return np.stack(pictures)
