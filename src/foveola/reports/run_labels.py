"""The part of a run's page for several labels an image: metrics, a row for each label, mistakes."""

from typing import Any

import numpy as np

from foveola.reports.run_data import ReportData, metric_rows, worst_images


def labels_section(data: ReportData) -> dict[str, Any] | None:
    """None if images have one class each, or nothing was measured."""
    evaluation, predictions = data.evaluation, data.predictions
    if evaluation is None or evaluation.labels is None:
        return None
    metadata = data.classifier.metadata
    return {
        "metrics": metric_rows(evaluation),
        "rows": [
            {"metrics": row, "training": int(count)}
            for row, count in zip(evaluation.labels, data.splits["train"].class_counts, strict=True)
        ],
        "temperature": metadata.temperature,
        "chosen": metadata.thresholds is not None,
        "wrong": int((~predictions.right).sum()),
        "worst": worst_images(data),
        "per_image": float(np.mean(predictions.labels.sum(axis=1))),
    }
