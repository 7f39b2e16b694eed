"""The HTML report of a run: data, training, metrics, mistakes, explanations, and how to repeat it.

Each function fills in one part of `templates/report.html`, in the order of the page.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import shape_text
from foveola.documents import RunStatus
from foveola.evaluation.curves import (
    confused_pairs,
    least_certain,
    neighbour_map,
    neighbours,
    principal_plane,
)
from foveola.evaluation.metrics import metrics_of
from foveola.evaluation.rejection import promise
from foveola.images import Images
from foveola.models.shapes import infer_shapes
from foveola.progress import duration_text
from foveola.reports import pixels, plots
from foveola.reports.html import image_uri, render, svg
from foveola.reports.run_alarms import alarms, repeat_command
from foveola.reports.run_data import FAILURES, ReportData, metric_rows, predicted_image, worst_images
from foveola.reports.run_explanation import explanation_section
from foveola.reports.run_labels import labels_section
from foveola.tasks import label_text

SAMPLES, PAIRS, EXAMPLES = 25, 4, 4
MIN_MAP_IMAGES, MAX_MAP_IMAGES = 10, 1000
# With more classes, the confusion matrix shows those with most mistakes
MATRIX_CLASSES = 30
# Probabilities are called well calibrated if the interval of their error ends below this, badly if it starts above
CALIBRATED = 0.03


def run_page(data: ReportData) -> str:
    """The page as self-contained HTML."""
    status = data.run.status
    colours = _colours(data)
    return render(
        "report.html",
        title=f"{status.data.name} · {status.recipe.name}",
        summary=_summary(data),
        alarms=alarms(status, data.evaluation, data.run.path),
        warnings=_warnings(data, status),
        cards=_cards(data, status),
        data=_data(data, status),
        training=_training(data, status),
        quality=_quality(data, colours),
        failures=_failures(data),
        labels=labels_section(data),
        explanation=explanation_section(data),
        plane=_plane(data, colours),
        repeat=_repeat(data, status),
        evaluation=data.evaluation,
    )


def _colours(data: ReportData) -> dict[int, str]:
    """A colour for each class, or, if there are too many to tell apart, for those with the lowest F1."""
    most = len(plots.CLASS_COLOURS)
    chosen = list(range(len(data.class_names)))
    if len(chosen) > most and data.evaluation is not None and data.evaluation.labels is None:
        scores = np.array([row.f1 for row in data.evaluation.per_class])
        chosen = sorted(scores.argsort(kind="stable")[:most].tolist())
    return dict(zip(chosen, plots.CLASS_COLOURS, strict=False))


def _summary(data: ReportData) -> dict[str, Any]:
    """The values of the sentences at the top."""
    evaluation = data.evaluation
    if evaluation is not None and evaluation.labels is not None:
        return {
            "measured": True,
            "labels": True,
            "accuracy": evaluation.accuracy,
            "n": evaluation.n,
            **evaluation.metrics,
        }
    if evaluation is None or evaluation.curves is None:
        return {"measured": False, "labels": False}
    curves = evaluation.curves
    ece = evaluation.metrics["ece"]
    confused = curves.confused_pairs[:1]
    supports = [row.support for row in evaluation.per_class]
    return {
        "measured": True,
        "labels": False,
        "accuracy": evaluation.accuracy,
        "n": evaluation.n,
        "baseline": max(supports) / sum(supports),
        "without_copies": evaluation.without_copies,
        "mistakes": evaluation.n - round(evaluation.accuracy.value * evaluation.n),
        "ece": ece,
        "calibrated": "well" if ece.high <= CALIBRATED else "badly" if ece.low > CALIBRATED else "perhaps",
        "confused": {"classes": confused[0].classes, "count": sum(confused[0].taken_for_the_other)}
        if confused
        else None,
    }


def _warnings(data: ReportData, status: RunStatus) -> list[str]:
    """What to know before trusting the metrics."""
    found = []
    if status.status != "done":
        found.append(f"The training did not end as planned: its status is “{status.status}”.")
    if skipped := status.data.skipped:
        found.append(f"{_count(len(skipped), 'image')} could not be read and were skipped; the first is {skipped[0]}.")
    if data.evaluation is None:
        reason = "this run has no test images" if "test" not in data.splits else "the run has no evaluation"
        found.append(f"The model has not been measured: {reason}.")
    elif data.evaluation.accuracy.high - data.evaluation.accuracy.low > 0.05:
        found.append(f"There are only {data.evaluation.n:,} test images, so the intervals are wide.")
    counts = data.splits["train"].class_counts
    if counts.max() > 10 * counts.min():
        few, many = data.class_names[counts.argmin()], data.class_names[counts.argmax()]
        kind = "classes" if data.predictions.task == "multiclass" else "labels"
        found.append(
            f"The {kind} are imbalanced: {counts.min():,} training images of {few}, {counts.max():,} of {many}."
        )
    if "validation" not in data.splits:
        found.append("Without validation images, no temperature was fitted: probabilities are the network's own.")
    return found


def _cards(data: ReportData, status: RunStatus) -> list[tuple[str, str, str]]:
    """The facts at a glance: value, name, remark."""
    cards = []
    if data.evaluation is not None:
        keys, several = metrics_of(data.evaluation.task), data.evaluation.labels is not None
        accuracy = data.evaluation.accuracy
        second = data.evaluation.metrics["mean_average_precision" if several else "auc_macro_ovr"]
        cards.append((f"{100 * accuracy.value:.1f} %", keys["accuracy"].title, f"of {data.evaluation.n:,} test images"))
        name, remark = ("mAP", "mean average precision") if several else ("AUC", "one-vs-rest, macro")
        cards.append((f"{second.value:.4f}" if second.is_defined else "–", name, remark))
    kind = "classes" if data.predictions.task == "multiclass" else "labels"
    cards.append((f"{status.data.train:,}", "training images", f"of {len(data.class_names)} {kind}"))
    cards.append((f"{status.model.parameters:,}", "parameters", status.recipe.name))
    cards.append((duration_text(status.seconds.training), "of training", f"{status.steps:,} steps"))
    return cards


def _data(data: ReportData, status: RunStatus) -> dict[str, Any]:
    train = data.splits["train"]
    origin = data.classifier.metadata.data
    chosen = _random_indices(len(train), SAMPLES)
    counts = {name: images.class_counts for name, images in data.splits.items()}
    return {
        "name": status.data.name,
        "licence": origin.licence if origin else None,
        "fingerprint": status.data.fingerprint,
        "summary": status.data.summary[1:],
        "shape": shape_text(train.image_shape),
        "splits": {name: len(images) for name, images in data.splits.items()},
        "samples": [_captioned(train.images[i], label_text(train.labels[i], train.class_names)) for i in chosen],
        "balance": [
            {"name": name, "counts": [int(counts[part][label]) for part in counts], "share": share}
            for label, (name, share) in enumerate(
                zip(data.class_names, counts["train"] / counts["train"].max(), strict=True)
            )
        ],
    }


def _training(data: ReportData, status: RunStatus) -> dict[str, Any]:
    run, metadata = data.run, data.classifier.metadata
    recipe = run.recipe
    history = run.history if run.history_path.is_file() else []
    steps = (
        []
        if metadata.layers is None
        else infer_shapes(metadata.layers, metadata.network_shape, len(metadata.class_names))
    )
    panels = plots.curve_figures(history, "epoch" if recipe.batches == "epoch" else "step") if history else {}
    return {
        "facts": {
            "Recipe": f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
            "Initial weights": _initial_weights(status),
            "Length": f"{_count(status.epochs, 'epoch')}, {status.steps:,} steps of {recipe.batch_size} images",
            "Optimizer": f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, {recipe.schedule} schedule",
            "Weights kept": _kept(recipe.keep, status),
            "Temperature": f"{metadata.temperature:.3f}" if "validation" in data.splits else "not fitted",
            "Computed on": f"{status.device}, {status.precision}",
        },
        "layers": [
            {
                "name": step.name,
                "settings": step.layer.settings_text(),
                "shape": shape_text(step.output_shape),
                "parameters": step.parameters,
                "multiply_adds": step.multiply_adds,
            }
            for step in steps
        ],
        "network": "your network" if status.graph is None else status.graph.network,
        "panels": [svg(figure, f"{title} over the training") for title, figure in panels.items()],
        "toml": recipe.to_toml(),
    }


def _initial_weights(status: RunStatus) -> str:
    if status.init is None:
        return f"pretrained: {status.pretrained}" if status.pretrained is not None else "random"
    earlier = f", which began with {status.pretrained}" if status.pretrained is not None else ""
    return f"copied from {status.init}{earlier}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _kept(keep: str, status: RunStatus) -> str:
    return f"those of epoch {status.chosen_epoch}, the best one" if keep == "best" else "those of the last step"


def _quality(data: ReportData, colours: Mapping[int, str]) -> dict[str, Any] | None:
    evaluation = data.evaluation
    if evaluation is None or evaluation.curves is None:
        return None
    curves = evaluation.curves
    training_counts = data.splits["train"].class_counts
    calibration, risk = curves.reliability, curves.risk_coverage
    scaled = calibration.temperature != 1
    return {
        "metrics": metric_rows(evaluation),
        "classes": [
            {**row.model_dump(), "auc": roc.auc, "training": int(training_counts[label]), "colour": colours.get(label)}
            for label, (row, roc) in enumerate(zip(evaluation.per_class, curves.roc, strict=True))
        ],
        "matrix": _matrix(np.array(evaluation.confusion), data.class_names),
        "roc": [
            svg(plots.roc_figure(curves.roc, colours), "ROC curve of each class against the rest"),
            svg(plots.roc_figure(curves.roc, colours, reach=0.1), "Upper left corner of the ROC curves"),
        ],
        "reliability": svg(
            plots.reliability_figure(calibration.before.bins, calibration.after.bins, scaled),
            "Accuracy over confidence",
        ),
        "risk": svg(plots.risk_coverage_figure(risk.coverage, risk.risk), "Error rate over coverage"),
        "scaled": scaled,
        "calibration": calibration,
        "risk_coverage": risk,
        "rejection": evaluation.rejection,
        "unfamiliar": evaluation.unfamiliar,
        "promise": None if (reject := data.classifier.metadata.reject) is None else promise(reject),
        "others": len(data.class_names) - len(colours),
    }


def _matrix(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Confusion matrix of all classes, or of those confused most; its orders; each cell's share of its row."""
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    worst_first = np.argsort(-errors, kind="stable")
    shown = np.sort(worst_first[:MATRIX_CLASSES])
    part = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return {
        "names": [names[label] for label in shown],
        "rows": [[(int(counts[i, j]), round(float(np.sqrt(shares[i, j])), 3)) for j in shown] for i in shown],
        "left_out": len(names) - len(shown),
        "orders": {
            "as in the data": list(range(len(shown))),
            "most mistakes first": np.argsort(-errors[shown], kind="stable").tolist(),
            "confused classes side by side": neighbours(part).tolist(),
        },
    }


def _failures(data: ReportData) -> dict[str, Any] | None:
    if data.evaluation is None or data.evaluation.labels is not None:
        return None
    predictions = data.predictions
    pairs = confused_pairs(np.array(data.evaluation.confusion))
    return {
        "wrong": int((predictions.predicted != predictions.labels).sum()),
        "worst": worst_images(data),
        "uncertain": [predicted_image(data, index) for index in least_certain(predictions)[:FAILURES]],
        "pairs": [_side_by_side(data, pair.first, pair.second) for pair in pairs[:PAIRS]],
    }


def _side_by_side(data: ReportData, first: int, second: int) -> list[dict[str, Any]]:
    """Two classes: images that are classified correctly, and images taken for the other, most confident first."""
    predictions, names = data.predictions, data.class_names
    columns = []
    for true, given in ((first, first), (first, second), (second, first), (second, second)):
        members = np.flatnonzero((predictions.labels == true) & (predictions.predicted == given))
        confident = members[np.argsort(-predictions.probabilities[members, given], kind="stable")]
        columns.append(
            {
                "true": names[true],
                "given": names[given],
                "count": len(members),
                "images": [predicted_image(data, index) for index in confident[:EXAMPLES]],
            }
        )
    return columns


def _plane(data: ReportData, colours: Mapping[int, str]) -> dict[str, Any] | None:
    """Maps of the images: by their pixels, and by the network's penultimate features."""
    from foveola.explanation.activations import penultimate_features

    chosen = _random_indices(len(data.images), MAX_MAP_IMAGES)
    if len(chosen) < MIN_MAP_IMAGES or data.predictions.task == "multilabel":  # several labels have no one colour
        return None
    images, labels = data.images.images[chosen], data.predictions.labels[chosen]
    stride = -(-max(images.shape[1:3]) // pixels.MAX_SIDE)
    by_pixels, share = principal_plane(images[:, ::stride, ::stride].reshape(len(images), -1).astype(np.float32))
    by_features = neighbour_map(penultimate_features(data.classifier, images))
    return {
        "n": len(chosen),
        "split": data.name,
        "share": share,
        "panels": [
            svg(
                plots.embedding_figure(by_pixels, labels, colours, "By their pixels"),
                "Map of the images by their pixels",
            ),
            svg(
                plots.embedding_figure(by_features, labels, colours, "By the network"),
                "Map of the images by the network",
            ),
        ],
        "legend": [(data.class_names[label], colour) for label, colour in colours.items()],
        "others": len(data.class_names) - len(colours),
    }


def _repeat(data: ReportData, status: RunStatus) -> dict[str, Any]:
    source = status.data.path or status.data.name
    own = data.classifier.metadata.layers is None
    python = f"foveola.train({source!r}, {str(data.run.path / 'recipe.toml')!r}, "
    return {
        "command": repeat_command(status, data.run.path),
        "python": f"{python}seed={status.seed}, network=YourModule())" if own else None,
        "seed": status.seed,
        "versions": status.versions,
    }


def _captioned(image: Images, name: str) -> dict[str, str]:
    return {"source": image_uri(pixels.thumbnail(image)), "name": name}


def _random_indices(n: int, count: int) -> NDArray[np.int64]:
    """Sorted indices of `count` of n images, chosen at random; of all if there are no more."""
    return np.sort(np.random.default_rng(0).permutation(n)[:count])
