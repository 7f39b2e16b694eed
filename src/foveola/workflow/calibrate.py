"""What is chosen on the validation images once a network is trained: temperature, thresholds; put into the model."""

from typing import TYPE_CHECKING

import numpy as np

from foveola.datasets.splits import Splits
from foveola.errors import NonFiniteLoss
from foveola.predictions import Predictions
from foveola.recipe import Recipe

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier


def calibrate(classifier: "Classifier", splits: Splits, recipe: Recipe) -> None:
    """Choose temperature, rejection threshold and unfamiliarity threshold; without validation images, nothing.

    Raises
    ------
    NonFiniteLoss
        If the network's outputs are not finite.
    """
    from foveola.evaluation.calibration import fit_temperature
    from foveola.evaluation.rejection import choose_threshold

    if splits.validation is None:
        return
    validation = splits.validation
    logits, labels = classifier.predict_logits(validation.images), validation.labels
    if not np.isfinite(logits).all():  # the last step's weights are finite, but overflow
        raise NonFiniteLoss(
            "After the last step, the network's outputs are not finite. Training has diverged; "
            "lower the learning rate with --set learning_rate=…"
        )
    temperature = fit_temperature(logits, labels, validation.weights)
    reject = None
    if recipe.reject is not None:
        calibrated = Predictions(logits / np.float32(temperature), labels, classifier.class_names, held_out=True)
        confidence = recipe.reject_confidence if recipe.reject_mode == "guaranteed" else None
        reject = choose_threshold(calibrated, recipe.reject, confidence)
    classifier.metadata = classifier.metadata.model_copy(update={"temperature": temperature, "reject": reject})
    _measure_unfamiliarity(classifier, splits)


def _measure_unfamiliarity(classifier: "Classifier", splits: Splits) -> None:
    """Measure the training images' features, choose a threshold on the validation images; put both into the model."""
    from foveola.models.unfamiliarity import (
        MIN_VALIDATION_IMAGES,
        FeatureStatistics,
        calibrate_distances,
        count_training_images,
        feature_layers,
    )

    layers = [info.name for info in feature_layers(classifier.metadata)]
    if not layers or splits.validation is None or len(splits.validation) < MIN_VALIDATION_IMAGES:
        return
    metadata, total = classifier.metadata, len(splits.train)
    assert metadata.layers is not None, "otherwise no layer gives features"
    count = count_training_images(metadata.layers, metadata.network_shape, len(metadata.class_names), total)
    evenly = np.linspace(0, total - 1, count).astype(np.int64)
    train = splits.train.take(evenly)
    statistics = FeatureStatistics.of(classifier.predict_features(train.images, layers)[1], train.labels)
    parts = [
        (logits, statistics.log_distances(features))
        for logits, features in classifier.predict_features_in_parts(splits.validation.images, layers)
    ]
    logits, distances = map(np.concatenate, zip(*parts, strict=True))
    measure = calibrate_distances(distances, logits, layers)
    classifier.feature_statistics = statistics
    classifier.metadata = classifier.metadata.model_copy(update={"unfamiliarity": measure})
