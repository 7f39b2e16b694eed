"""Costs of networks: latency, multiply-adds, and parameters by image size."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from foveola.errors import RecipeError
from foveola.images import Images
from foveola.models.shapes import infer_shapes
from foveola.predictions import Predictor
from foveola.progress import Progress
from foveola.recipe import Recipe

if TYPE_CHECKING:
    import torch


# From a thumbnail to a 4K frame
IMAGE_SHAPES = (
    (28, 28, 1), (32, 32, 3), (64, 64, 3), (224, 224, 3), (640, 480, 3), (1920, 1080, 3), (4096, 2160, 3),
)  # fmt: skip
TIMED_IMAGES = 1024
TIMED_ROUNDS = 3
TIMED_SINGLES = 20


@dataclass(frozen=True)
class Speed:
    """Milliseconds for one image, and images per second in a batch; medians."""

    latency_ms: float
    images_per_second: float


def measure_speeds(classifiers: Mapping[Path, Predictor], images: Images, progress: Progress) -> dict[Path, Speed]:
    """The speed of each classifier, measured in turns, so that other work on the machine slows all of them alike."""
    batch = images[:TIMED_IMAGES]
    singles: dict[Path, list[float]] = {path: [] for path in classifiers}
    batches: dict[Path, list[float]] = {path: [] for path in classifiers}
    for done in range(TIMED_ROUNDS):
        for path, model in classifiers.items():
            model.predict_logits(batch[:1])
            singles[path] += [_seconds(model, batch[:1]) for _ in range(TIMED_SINGLES)]
            batches[path].append(_seconds(model, batch))
        progress(done + 1, TIMED_ROUNDS, "measuring speed")
    return {
        path: Speed(1000 * statistics.median(singles[path]), len(batch) / statistics.median(batches[path]))
        for path in classifiers
    }


def _seconds(model: Predictor, images: Images) -> float:
    started = time.perf_counter()
    model.predict_logits(images)
    return time.perf_counter() - started


def multiply_adds(model: Predictor) -> int:
    """Multiply-adds of the network for one image."""
    if model.metadata.layers is None:  # of its ONNX graph
        return int(getattr(model, "multiply_adds", 0))
    infos = infer_shapes(model.metadata.layers, model.metadata.network_shape, len(model.class_names))
    return sum(info.multiply_adds for info in infos)


class NetworkSize(BaseModel):
    """Parameters of a network, and of its layers before the first dense one; None where it cannot take the images."""

    name: str
    parameters: int | None
    before_dense: int | None


class ParametersByImageSize(BaseModel):
    """Sizes of several networks on images of one shape, height × width × channels."""

    image_shape: tuple[int, int, int]
    networks: list[NetworkSize]


def parameters_by_image_size(recipes: Mapping[str, Recipe], classes: int) -> list[ParametersByImageSize]:
    """Parameters of each recipe's network by image shape, if one is dense from the start; only counted."""
    if not any(recipe.layers[0].type == "Flatten" for recipe in recipes.values()):
        return []
    return [
        ParametersByImageSize(
            image_shape=shape,
            networks=[_network_size(name, recipe, shape, classes) for name, recipe in recipes.items()],
        )
        for shape in IMAGE_SHAPES
    ]


def _network_size(name: str, recipe: Recipe, shape: tuple[int, int, int], classes: int) -> NetworkSize:
    height, width, channels = shape
    try:
        infos = infer_shapes(recipe.layers, (height + 2 * recipe.pad, width + 2 * recipe.pad, channels), classes)
    except RecipeError:  # too small for all its poolings
        return NetworkSize(name=name, parameters=None, before_dense=None)
    # The parameters of a layer that gives an image do not depend on the image's size
    before_dense = sum(info.parameters for info in infos if len(info.output_shape) == 3)
    return NetworkSize(name=name, parameters=sum(info.parameters for info in infos), before_dense=before_dense)


def device_name(device: "torch.device") -> str:
    """The device on which seconds were measured, in words."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return "the GPU of an Apple machine"
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"
