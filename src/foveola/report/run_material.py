"""What the page of a run is made from, and how one of its images stands there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.report import tiles
from foveola.report.html import picture
from foveola.run import Run

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier


@dataclass(frozen=True)
class Material:
    """All that a page is made from.

    `splits` are the run's training, validation and test images by name, without those that it does not have. The page
    looks into `images`, which `name` says the split of: the test images, all of them, where the run has an evaluation;
    otherwise some others. `predictions` are of `images`.
    """

    run: Run
    classifier: "Classifier"
    splits: Mapping[str, ImageSet]
    name: str
    images: ImageSet
    predictions: Predictions
    evaluation: Mapping[str, Any] | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.predictions.class_names


def answered(material: Material, index: int) -> dict[str, Any]:
    """An image with its true class, the class that the model gives, and its probability."""
    predictions, names = material.predictions, material.class_names
    true, given = int(predictions.labels[index]), int(predictions.predicted[index])
    return {
        "picture": picture(tiles.thumbnail(material.images.images[index])),
        "true": names[true],
        "given": names[given],
        "right": true == given,
        "probability": float(predictions.probabilities[index, given]),
    }
