"""What the network of a run sees: its first filters, feature maps, and which pixels speak for a class."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveola.errors import ModelError
from foveola.evaluation.curves import worst_mistakes
from foveola.images import Images, Labels, shape_text
from foveola.report import tiles
from foveola.report.explanation_page import filter_tiles
from foveola.report.html import picture
from foveola.report.run_material import Material, answered
from foveola.report.shades import laid_over

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

# Finds which pixels speak for a class: float32 N×H×W in 0 to 1, of a classifier, N images and N classes
Heat = Callable[["Classifier", Images, Labels], NDArray[np.float32]]

# Right answers, and mistakes, that are looked into
LOOKS = 6


def sight(material: Material) -> dict[str, Any]:
    """First-layer filters, feature maps of one right and one wrong image, heat maps of right and wrong answers."""
    right, wrong = _looked_at(material)
    method, heat = _saliency_method(material.classifier, material.images.images[:1])
    return {
        "split": material.name,
        "filters": _filters(material.classifier),
        "maps": [looked for index in (*right[:1], *wrong[:1]) if (looked := _maps(material, index))["layers"]],
        "right": _saliency(material, right, heat),
        "wrong": _saliency(material, wrong, heat),
        "method": method,
    }


def _looked_at(material: Material) -> tuple[Labels, Labels]:
    """Images to look into: right answers of different classes, drawn by lot, and the worst mistakes."""
    predictions = material.predictions
    drawn = np.random.default_rng(0).permutation(len(predictions))
    right = drawn[predictions.predicted[drawn] == predictions.labels[drawn]]
    _, first_of_class = np.unique(predictions.labels[right], return_index=True)
    return right[np.sort(first_of_class)][:LOOKS], worst_mistakes(predictions)[:LOOKS]


def _filters(classifier: "Classifier") -> dict[str, Any] | None:
    from foveola.explanation.filters import first_filters

    try:
        kernels = first_filters(classifier)
    except ModelError:
        return None
    return {
        "count": len(kernels),
        "coloured": kernels.shape[3] == 3,
        "size": shape_text(kernels.shape[1:3]),
        "pictures": [picture(tile) for tile in filter_tiles(kernels)[:64]],
    }


def _maps(material: Material, index: int) -> dict[str, Any]:
    """Feature maps of one image, where the shape changes: the last layer of each shape, dropout apart."""
    from foveola.explanation.feature_maps import feature_maps

    image = material.images.images[index]
    every = feature_maps(material.classifier, image).items()
    found = [(name, maps) for name, maps in every if maps.ndim == 3 and not name.startswith("dropout")]
    shapes = [maps.shape for _, maps in found]
    last = [pair for pair, shape, after in zip(found, shapes, [*shapes[1:], ()], strict=False) if shape != after]
    return {
        "image": answered(material, index),
        "layers": [
            {
                "name": name,
                "shape": shape_text(maps.shape),
                "shown": min(maps.shape[2], 16),
                "count": maps.shape[2],
                "picture": picture(tiles.sheet(maps, count=16, across=8)),
            }
            for name, maps in last[:8]
        ],
    }


def _saliency_method(classifier: "Classifier", image: Images) -> tuple[str, Heat]:
    """How to find which pixels speak for a class: Grad-CAM, or occlusion where there are no maps to weigh."""
    from foveola.explanation.saliency import grad_cam

    try:
        grad_cam(classifier, image, np.zeros(1, np.int64))
    except ModelError:
        return "occlusion", _occlusion
    return "Grad-CAM", grad_cam


def _occlusion(classifier: "Classifier", images: Images, classes: Labels) -> NDArray[np.float32]:
    """What speaks for a class, float32 N×H×W, from 0 to 1 in each map."""
    from foveola.explanation.occlusion import occlusion

    drops = occlusion(classifier, classifier.card.polarity, images, classes).clip(0, None)
    highest = drops.max(axis=(1, 2), keepdims=True)
    return (drops / np.where(highest > 0, highest, 1)).astype(np.float32)


def _saliency(material: Material, indices: Labels, heat: Heat) -> list[dict[str, Any]]:
    """Each image, with heat for the class that the model gives, and, where that is wrong, for the true one."""
    if not len(indices):
        return []
    images, predictions = material.images.images[indices], material.predictions
    given, true = predictions.predicted[indices], predictions.labels[indices]
    for_given, for_true = (heat(material.classifier, images, classes) for classes in (given, true))
    looks = []
    for row, index in enumerate(indices):
        heats = [(predictions.class_names[given[row]], for_given[row])]
        if given[row] != true[row]:
            heats.append((predictions.class_names[true[row]], for_true[row]))
        pictures = [
            {"name": name, "empty": not hot.any(), "picture": picture(tiles.thumbnail(laid_over(images[row], hot)))}
            for name, hot in heats
        ]
        looks.append({"image": answered(material, index), "heats": pictures})
    return looks
