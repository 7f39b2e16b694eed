"""The explanation part of a run's page: first filters, feature maps, and heat maps of correct and wrong predictions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import shape_text
from foveola.errors import ModelError
from foveola.evaluation.curves import worst_mistakes
from foveola.images import Images, Labels
from foveola.predictions import Exported, Predictions
from foveola.reports import pixels
from foveola.reports.explanation import filter_tiles
from foveola.reports.html import image_uri
from foveola.reports.pixels import overlay
from foveola.reports.run_data import ReportData, predicted_image
from foveola.tasks import label_numbers

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier


# Heat maps, float32 N×H×W from -1 to 1, of a classifier, N images and N classes
HeatmapMethod = Callable[["Classifier | Exported", Images, Labels], NDArray[np.float32]]

# Correct predictions, and mistakes, that are explained
MAX_EXPLAINED = 6


def explanation_section(data: ReportData) -> dict[str, Any]:
    """First filters, feature maps of one correct and one wrong prediction, heat maps of several of both."""
    right, wrong = _images_to_explain(data)
    method, heat = _heatmap_method(data.classifier, data.images.images[:1])
    return {
        "split": data.name,
        "filters": _filters(data.classifier),
        "maps": [maps for index in (*right[:1], *wrong[:1]) if (maps := _maps(data, index))["layers"]],
        "right": _heatmaps(data, right, heat),
        "wrong": _heatmaps(data, wrong, heat),
        "method": method,
    }


def _images_to_explain(data: ReportData) -> tuple[Labels, Labels]:
    """Images to explain: random correct predictions of different classes, and the worst mistakes."""
    predictions = data.predictions
    shuffled = np.random.default_rng(0).permutation(len(predictions))
    right = shuffled[predictions.right[shuffled]]
    _, first_of_class = np.unique(label_numbers(predictions.labels[right]), return_index=True)
    return right[np.sort(first_of_class)][:MAX_EXPLAINED], worst_mistakes(predictions)[:MAX_EXPLAINED]


def _filters(classifier: "Classifier | Exported") -> dict[str, Any] | None:
    from foveola.explanation.activations import first_filters

    try:
        kernels = first_filters(classifier)
    except ModelError:
        return None
    return {
        "count": len(kernels),
        "coloured": kernels.shape[3] == 3,
        "size": shape_text(kernels.shape[1:3]),
        "sources": [image_uri(tile) for tile in filter_tiles(kernels)[:64]],
    }


def _maps(data: ReportData, index: int) -> dict[str, Any]:
    """Feature maps of one image: the last layer of each shape, except dropout."""
    from foveola.explanation.activations import feature_maps

    image = data.images.images[index]
    every = feature_maps(data.classifier, image).items()
    found = [(name, maps) for name, maps in every if maps.ndim == 3 and not name.startswith("dropout")]
    shapes = [maps.shape for _, maps in found]
    last = [pair for pair, shape, after in zip(found, shapes, [*shapes[1:], ()], strict=False) if shape != after]
    return {
        "image": predicted_image(data, index),
        "layers": [
            {
                "name": name,
                "shape": shape_text(maps.shape),
                "shown": min(maps.shape[2], 16),
                "count": maps.shape[2],
                "source": image_uri(pixels.map_sheet(maps, count=16, across=8)),
            }
            for name, maps in last[:8]
        ],
    }


def _heatmap_method(classifier: "Classifier | Exported", image: Images) -> tuple[str, HeatmapMethod]:
    """HiResCAM, or occlusion for a network without feature maps."""
    from foveola.explanation.cam import class_activation_maps

    try:
        class_activation_maps(classifier, image, np.zeros(1, np.int64))
    except ModelError:
        return "occlusion", _occlusion
    return "HiResCAM", _hires_cam


def _hires_cam(classifier: "Classifier | Exported", images: Images, classes: Labels) -> NDArray[np.float32]:
    from foveola.explanation.cam import class_activation_maps, enlarge_maps

    return enlarge_maps(classifier, class_activation_maps(classifier, images, classes), images.shape[1:3])


def _occlusion(classifier: "Classifier | Exported", images: Images, classes: Labels) -> NDArray[np.float32]:
    """Occlusion maps, float32 N×H×W, the largest magnitude of each 1."""
    from foveola.explanation.occlusion import occlusion

    drops = occlusion(classifier, classifier.metadata.polarity, images, classes)
    largest = np.abs(drops).max(axis=(1, 2), keepdims=True)
    return (drops / np.where(largest > 0, largest, 1)).astype(np.float32)


def _heatmaps(data: ReportData, indices: Labels, heat: HeatmapMethod) -> list[dict[str, Any]]:
    """Each image with a heat map for its predicted class, and, if that is wrong, for the true one."""
    if not len(indices):
        return []
    images, predictions = data.images.images[indices], data.predictions
    predicted, true = _explained_classes(predictions, indices)
    for_predicted, for_true = (heat(data.classifier, images, classes) for classes in (predicted, true))
    rows = []
    for row, index in enumerate(indices):
        heats = [(predictions.class_names[predicted[row]], for_predicted[row])]
        if predicted[row] != true[row]:
            heats.append((predictions.class_names[true[row]], for_true[row]))
        heatmaps = [_heatmap(name, images[row], hot) for name, hot in heats]
        rows.append({"image": predicted_image(data, index), "heatmaps": heatmaps})
    return rows


def _explained_classes(predictions: Predictions, indices: Labels) -> tuple[Labels, Labels]:
    """The predicted and the true class; of several labels, the most probable one, and the one that is most wrong."""
    if predictions.task == "multiclass":
        return predictions.predicted[indices], predictions.labels[indices]
    probabilities, labels = predictions.probabilities[indices], predictions.labels[indices]
    best = probabilities.argmax(axis=1)
    wrong = np.where(predictions.predicted[indices] != labels, np.abs(probabilities - labels), 0).argmax(axis=1)
    return best, np.where(predictions.right[indices], best, wrong)


def _heatmap(name: str, image: Images, heat: NDArray[np.float32]) -> dict[str, Any]:
    """The heat map, H×W, of the class of this name, over its image."""
    source = image_uri(pixels.thumbnail(overlay(image, heat)))
    return {"name": name, "without_evidence": not (heat > 0).any(), "source": source}
