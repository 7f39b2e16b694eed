"""A model measured on data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foveola.errors import DataError
from foveola.images import Dataset, ImageSet, Labels
from foveola.models.card import ModelCard
from foveola.predictions import Predictions, Predictor
from foveola.workflow.opening import card_of, open_model
from foveola.workflow.origin import load_for
from foveola.workflow.progress import console, reading
from foveola.workflow.splits import Split, choose_split


def evaluate(
    model: str | Path | Predictor,
    data: str | Path | Dataset,
    *,
    split: Split = "test",
    skip_bad: int = 0,
    verbose: bool = True,
) -> dict[str, Any]:
    """Measure a model on data: the document of `evaluation.json`.

    Parameters
    ----------
    model : run directory, model file or predictor
    data : catalog name, path or Dataset; classes are matched by name
    split : without a test split of its own, data that the model was trained on is split again as it was then, and
        other data is used whole
    skip_bad : how many unreadable images of a folder may be left out
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If model or data cannot be used, or do not fit together.
    """
    predictor = model if not isinstance(model, str | Path) else open_model(model)
    card = card_of(predictor)
    if not isinstance(data, Dataset):
        with reading(console(verbose)) as progress:
            data = load_for(card, data, skip_bad, progress)
    images, name, held_out = choose_split(data, card, split)
    labels = _match_classes(images, predictor.class_names, data.name)
    logits = predictor.predict_logits(images.images)
    return measure(Predictions(logits, labels, tuple(predictor.class_names), held_out), name, card)


def measure(predictions: Predictions, split: str, card: ModelCard) -> dict[str, Any]:
    """The document of `evaluation.json`: what `metrics.evaluate` gives, what depends on the model, and `curves`.

    The second is calibration before the temperature, which is part of the model's logits, as `ece_uncalibrated` and
    `log_loss_uncalibrated`, and `rejection`, None where the model has no threshold; the third is what a report's plots
    show.
    """
    from foveola.evaluation import metrics, rejection
    from foveola.evaluation.curves import curves

    document = metrics.evaluate(predictions, split)
    before = replace(predictions, logits=predictions.logits * np.float32(card.temperature))
    for name in ("ece", "log_loss"):
        document[f"{name}_uncalibrated"] = metrics.METRICS[name](before).as_json()
    chosen = card.reject
    document["rejection"] = None if chosen is None else rejection.judge(predictions, chosen.error, chosen.threshold)
    return document | curves(predictions, card.temperature)


def _match_classes(images: ImageSet, class_names: Sequence[str], data_name: str) -> Labels:
    """The images' labels as indices into the model's classes, matched by name."""
    strange = [name for name in images.class_names if name not in class_names]
    if strange:
        raise DataError(
            f"{data_name} has classes that the model does not know: {', '.join(strange[:10])}. "
            f"The model knows: {', '.join(class_names[:20])}. Evaluate on data with these class names."
        )
    to_model = np.array([list(class_names).index(name) for name in images.class_names], dtype=np.int64)
    return to_model[images.labels]
