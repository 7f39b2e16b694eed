"""The data of a run's page: run, model, images, predictions and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foveola.documents import Evaluation
from foveola.evaluation.curves import worst_mistakes
from foveola.evaluation.metrics import metrics_of
from foveola.images import ImageSet
from foveola.predictions import Exported, Predictions
from foveola.reports import pixels
from foveola.reports.html import image_uri
from foveola.runs import Run
from foveola.tasks import label_text

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

# Images that are shown of each kind of mistake
FAILURES = 12


@dataclass(frozen=True)
class ReportData:
    """The data of a run's page.

    `splits` are the run's training, validation and test images by name, as far as it has them. `images` are those that
    the page shows predictions of, from the split called `name`: all test images if the run has an evaluation, otherwise
    some validation or training images.
    """

    run: Run
    classifier: "Classifier | Exported"
    splits: Mapping[str, ImageSet]
    name: str
    images: ImageSet
    predictions: Predictions
    evaluation: Evaluation | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.predictions.class_names


def metric_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Each metric with what is said of it, and its estimate."""
    rows = metrics_of(evaluation.task)
    return [{"metric": rows[key], "estimate": one} for key, one in evaluation.metrics.items()]


def worst_images(data: ReportData) -> list[dict[str, Any]]:
    """The mistakes that the model was most certain of."""
    return [predicted_image(data, index) for index in worst_mistakes(data.predictions)[:FAILURES]]


def predicted_image(data: ReportData, index: int) -> dict[str, Any]:
    """An image with its true class, its predicted class, and the probability of that one; or only with its labels."""
    predictions, names = data.predictions, data.class_names
    return {
        "source": image_uri(pixels.thumbnail(data.images.images[index])),
        "true": label_text(predictions.labels[index], names),
        "given": label_text(predictions.predicted[index], names),
        "right": bool(predictions.right[index]),
        "probability": float(predictions.probabilities[index].max()) if predictions.task == "multiclass" else None,
    }
