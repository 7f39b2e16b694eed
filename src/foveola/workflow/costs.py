"""What networks cost that are compared: seconds, multiply-adds, and parameters as images grow."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveola.architecture import trace
from foveola.datasets import Progress
from foveola.errors import RecipeError
from foveola.images import Images
from foveola.recipe import Recipe

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

# From a thumbnail to a 4K frame
IMAGE_SHAPES = (
    (28, 28, 1), (32, 32, 3), (64, 64, 3), (224, 224, 3), (640, 480, 3), (1920, 1080, 3), (4096, 2160, 3),
)  # fmt: skip
TIMED_IMAGES = 1024
TIMED_ROUNDS = 3
TIMED_SINGLES = 20


def speeds(
    classifiers: Mapping[Path, "Classifier"], images: Images, progress: Progress
) -> dict[Path, dict[str, float]]:
    """Latency of one image and images a second: medians, measured in turns, so that other work here hits all alike."""
    several = images[:TIMED_IMAGES]
    singles: dict[Path, list[float]] = {path: [] for path in classifiers}
    batches: dict[Path, list[float]] = {path: [] for path in classifiers}
    for done in range(TIMED_ROUNDS):
        for path, model in classifiers.items():
            model.predict_logits(several[:1])
            singles[path] += [_seconds(model, several[:1]) for _ in range(TIMED_SINGLES)]
            batches[path].append(_seconds(model, several))
        progress(done + 1, TIMED_ROUNDS, "measuring speed")
    return {
        path: {
            "latency_ms": 1000 * statistics.median(singles[path]),
            "images_per_second": len(several) / statistics.median(batches[path]),
        }
        for path in classifiers
    }


def _seconds(model: "Classifier", images: Images) -> float:
    started = time.perf_counter()
    model.predict_logits(images)
    return time.perf_counter() - started


def multiply_adds(model: "Classifier") -> int:
    """Of the network, for one image."""
    assert model.card.layers is not None, "open_model refuses others"
    steps = trace(model.card.layers, model.card.network_shape, len(model.class_names))
    return sum(step.multiply_adds for step in steps)


def scaling(recipes: Mapping[str, Recipe], classes: int) -> list[dict[str, Any]]:
    """Parameters of each recipe's network by image shape, if one is dense from the start; only counted."""
    if not any(recipe.layers[0].type == "Flatten" for recipe in recipes.values()):
        return []
    rows = []
    for height, width, channels in IMAGE_SHAPES:
        networks: list[dict[str, Any]] = []
        for name, recipe in recipes.items():
            padded = (height + 2 * recipe.pad, width + 2 * recipe.pad, channels)
            try:
                steps = trace(recipe.layers, padded, classes)
            except RecipeError:  # too small for all its poolings
                networks.append({"name": name, "parameters": None, "before_dense": None})
                continue
            # What gives an image has a size that does not depend on the image's
            convolutions = sum(step.parameters for step in steps if len(step.output_shape) == 3)
            total = sum(step.parameters for step in steps)
            networks.append({"name": name, "parameters": total, "before_dense": convolutions})
        rows.append({"image_shape": [height, width, channels], "networks": networks})
    return rows


def device_name(device: Any) -> str:
    """Where the seconds were measured, in words."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"
