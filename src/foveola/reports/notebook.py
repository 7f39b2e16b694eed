"""What notebooks show of runs, data sets, estimates and documents: small HTML, complete in itself, without scripts."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import shape_text
from foveola.documents import Audit, Catalog, Comparison, Evaluation, LayerRow, RunStatus, Summary
from foveola.evaluation.metrics import METRICS, metrics_of
from foveola.images import Dataset, ImageSet
from foveola.predictions import Estimate
from foveola.progress import duration_text
from foveola.reports import pixels
from foveola.reports.html import image_uri, render, svg
from foveola.runs import Run

if TYPE_CHECKING:
    from markupsafe import Markup

# What a notebook keeps of an object shall be small
MAX_ROWS, MAX_CLASSES, MAX_TILES, MAX_PICTURE_BYTES = 20, 20, 20, 2**19


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix; `shade`, 0 to 1, is the strength of its colour."""

    text: str
    shade: float


@dataclass(frozen=True)
class Table:
    """Cells by row; the first columns are text, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with what stands below it."""

    source: str
    label: str


@dataclass(frozen=True)
class Card:
    """Everything that is shown of an object; every text is escaped by the template."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: "Sequence[Markup]" = ()
    tiles: Sequence[Picture] = ()
    pictures: Sequence[Picture] = ()


def notebook_html(shown: object) -> str | None:
    """HTML of an object; None for a class that has none."""
    card = card_of(shown)
    return None if card is None else render("notebook.html", card=card)


@singledispatch
def card_of(shown: object) -> Card | None:
    """What is shown of an object, by its class."""
    return None


@card_of.register
def _(shown: Run) -> Card:
    status = shown.status
    evaluation = shown.evaluation if shown.evaluation_path.is_file() else None
    several = evaluation is not None and evaluation.task == "multilabel"
    lines = [f"{shown.path}: {_trained(status, 'labels' if several else 'classes')}"]
    pictures = _mistakes(shown)
    if evaluation is None:
        lines.append("Not measured: there is no evaluation of test images.")
    elif evaluation.accuracy.value == 1:
        lines.append(f"None of the {evaluation.n:,} test images is classified wrongly.")
        pictures = []
    return Card(
        title=f"{status.data.name} · {status.recipe.name}",
        lines=lines,
        tables=() if evaluation is None else [_metrics(evaluation), *_labels(evaluation), *_confusion(evaluation)],
        figures=_curves(shown),
        pictures=pictures,
    )


def _trained(status: RunStatus, what: str) -> str:
    ended = "trained" if status.status == "done" else status.status
    counts = {"training": status.data.train, "validation": status.data.validation, "test": status.data.test}
    images = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    epochs = f"{status.epochs:,} epoch{'' if status.epochs == 1 else 's'}"
    return (
        f"{ended} for {epochs}, {status.steps:,} steps in {duration_text(status.seconds.training)}, on {images} images "
        f"of {len(status.data.classes):,} {what}; {status.model.parameters:,} parameters"
    )


def _metrics(evaluation: Evaluation) -> Table:
    known = metrics_of(evaluation.task)
    rows = [(known[key].title, *_texts(estimate)) for key, estimate in evaluation.metrics.items()]
    return Table(("metric", "value", "95 % interval"), rows, f"{evaluation.n:,} images ({evaluation.split})")


def _texts(estimate: Estimate) -> tuple[str, str]:
    """The value, and its interval, or why there is none."""
    if not estimate.is_defined:
        return "–", estimate.method
    return f"{estimate.value:.4f}", f"{estimate.low:.4f} – {estimate.high:.4f}"


def _confusion(evaluation: Evaluation) -> list[Table]:
    """The confusion matrix, unless there are too many classes to show; colour grows as the fraction of the row."""
    names = [row.name for row in evaluation.per_class]
    if not names or len(names) > MAX_CLASSES:
        return []
    counts: NDArray[np.int64] = np.array(evaluation.confusion)
    shades = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)) * 0.8
    rows: list[list[str | Cell]] = [
        [names[i], *(_cell(int(counts[i, j]), float(shades[i, j])) for j in range(len(names)))]
        for i in range(len(names))
    ]
    return [Table(("true, predicted", *names), rows, "Confusion matrix")]


def _cell(count: int, shade: float) -> Cell:
    return Cell(f"{count:,}" if count else "", round(shade, 3))


def _curves(run: Run) -> "list[Markup]":
    """Loss and accuracy over the training, where matplotlib is installed."""
    if not run.history_path.is_file() or find_spec("matplotlib") is None:
        return []
    from foveola.reports.plots import curve_figures

    panels = curve_figures(run.history, "epoch" if run.recipe.batches == "epoch" else "step")
    return [svg(panels[title], f"{title} over the training") for title in ("Loss", "Accuracy") if title in panels]


def _mistakes(run: Run) -> list[Picture]:
    """The plot of the first mistakes that the training has drawn."""
    path = run.path / "mistakes.png"
    if not path.is_file() or path.stat().st_size > MAX_PICTURE_BYTES:
        return []
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return [Picture(source, "The first mistakes: true → predicted")]


@card_of.register
def _(shown: Evaluation) -> Card:
    rows = [
        (row.name, f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}", f"{row.support:,}")
        for row in shown.per_class[:MAX_ROWS]
    ]
    columns = ("class", "precision", "recall", "F1", "images")
    classes = [Table(columns, rows, _first_of(shown.per_class, "classes"))] if rows else _labels(shown)
    held_out = "" if shown.held_out else "; not known to be held out"
    title = metrics_of(shown.task)["accuracy"].title.capitalize()
    return Card(f"{title} {shown.accuracy}{held_out}", tables=[_metrics(shown), *classes, *_confusion(shown)])


def _labels(evaluation: Evaluation) -> list[Table]:
    """A row for each label, of several labels an image."""
    if evaluation.labels is None:
        return []
    rows = [
        (row.name, *(_texts(value)[0] for value in (row.precision, row.recall, row.f1)), f"{row.support:,}")
        for row in evaluation.labels[:MAX_ROWS]
    ]
    return [Table(("label", "precision", "recall", "F1", "images"), rows, _first_of(evaluation.labels, "labels"))]


def _first_of(rows: Sequence[object], what: str) -> str:
    return f"The first {MAX_ROWS} of {len(rows):,} {what}" if len(rows) > MAX_ROWS else ""


@card_of.register
def _(shown: Estimate) -> Card:
    if not shown.is_defined:
        return Card("–", lines=[f"Not defined: {shown.method}"])
    interval = f"95 % interval {shown.low:.4f} – {shown.high:.4f}, of {shown.n:,} images ({shown.method})"
    return Card(f"{shown.value:.4f}", lines=[interval])


@card_of.register
def _(shown: Dataset) -> Card:
    splits = {"training": shown.train, "validation": shown.validation, "test": shown.test}
    notes = list(shown.notes)
    if shown.skipped:
        notes.append(f"{len(shown.skipped):,} unreadable files were left out.")
    present = {name: images for name, images in splits.items() if images is not None}
    return Card(shown.name, [_size(present), *notes], [_class_counts(present)], tiles=_samples(shown.train))


@card_of.register
def _(shown: ImageSet) -> Card:
    return Card("Images", [_size({"": shown})], [_class_counts({"images": shown})], tiles=_samples(shown))


def _size(splits: Mapping[str, ImageSet]) -> str:
    counts = ", ".join(f"{len(images):,} {name}".strip() for name, images in splits.items())
    first = next(iter(splits.values()))
    return f"{counts} images of {shape_text(first.image_shape)}, {len(first.class_names):,} {_classes(first)}"


def _classes(images: ImageSet) -> str:
    return "labels" if images.task == "multilabel" else "classes"


def _class_counts(splits: Mapping[str, ImageSet]) -> Table:
    first = next(iter(splits.values()))
    names, what = first.class_names, _classes(first)
    columns = [images.class_counts[:MAX_ROWS].tolist() for images in splits.values()]
    rows = [
        (name, *(f"{count:,}" for count in counts)) for name, *counts in zip(names[:MAX_ROWS], *columns, strict=True)
    ]
    return Table(("label" if what == "labels" else "class", *splits), rows, _first_of(names, what))


def _samples(images: ImageSet) -> list[Picture]:
    """The first image of each class or, of several labels an image, of each label."""
    if images.task == "multilabel":
        labels = np.flatnonzero(images.labels.any(axis=0))
        first = images.labels[:, labels].argmax(axis=0)
    else:
        labels, first = np.unique(images.labels, return_index=True)
    chosen = list(zip(labels.tolist(), first.tolist(), strict=True))[:MAX_TILES]
    return [
        Picture(image_uri(pixels.thumbnail(images.images[index])), images.class_names[label]) for label, index in chosen
    ]


@card_of.register
def _(shown: Comparison) -> Card:
    runs = list({run.name: run for run in shown.runs}.values())
    rows = [(run.name, *_texts(run.accuracy), f"{run.parameters:,}", f"{run.latency_ms:.2f}") for run in runs]
    tables = [Table(("run", "accuracy", "95 % interval", "parameters", "ms an image"), rows)]
    for pair in shown.pairs:
        differences = {"accuracy": pair.accuracy_difference, **pair.differences}
        cells = [
            (METRICS[key].title, f"{one.value:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}", METRICS[key].better)
            for key, one in differences.items()
            if one.is_defined
        ]
        columns = ("metric", "difference", "95 % interval", "better is")
        tables.append(Table(columns, cells, f"{pair.first} − {pair.second}"))
    verdicts = [f"{pair.first} and {pair.second}: {pair.verdict}" for pair in shown.pairs]
    title = f"{len(runs)} runs on {shown.n:,} {shown.split} images of {shown.data.name}"
    return Card(title, [*verdicts, shown.scope], tables)


@card_of.register
def _(shown: Audit) -> Card:
    found = {
        f"label suspects ({shown.label_certainty})": len(shown.label_suspects),
        "likely label errors": shown.likely_label_errors,
        "groups of duplicates": len(shown.duplicates),
        "of these with different labels": sum(group.conflicting for group in shown.duplicate_groups),
        "of these across splits": sum(group.across_splits for group in shown.duplicate_groups),
        "outliers": len(shown.oddities),
    }
    if shown.label_certainty != "likely errors":
        del found["likely label errors"]
    suspects = [
        (row.path or f"{row.split}[{row.index}]", row.given, row.suggested, f"{row.score:.3f}")
        for row in shown.label_suspects[:MAX_ROWS]
    ]
    tables = [Table(("found", "number"), [(name, f"{count:,}") for name, count in found.items()])]
    if suspects and shown.label_certainty != "no better than guessing":
        columns = ("image", "given class", "suggested class", "probability of the given one")
        tables.append(Table(columns, suspects, _first_of(shown.label_suspects, "label suspects"), text_columns=3))
    images = f"{sum(shown.data.splits.values()):,} images"
    lines = [f"Accuracy of the networks that judged: {shown.cross_fitted_accuracy}", *_pages(shown.files)]
    return Card(f"Audit of {shown.data.name}, {images}", lines, tables)


def _pages(files: Sequence[str]) -> list[str]:
    return [f"All findings with their images: {file}" for file in files if file.endswith(".html")]


@card_of.register
def _(shown: Summary) -> Card:
    totals = f"{shown.parameters:,} parameters, {shown.multiply_adds:,} multiply-adds for one image"
    if shown.non_trainable:
        totals += f", {shown.non_trainable:,} running statistics"
    columns = ("layer", "type", "output shape", "parameters", "multiply-adds")
    title = f"{shown.recipe} on {shape_text(shown.input_shape)}"
    return Card(title, [totals], [Table(columns, _layers(shown.layers), text_columns=2)])


def _layers(rows: Sequence[LayerRow], depth: int = 0) -> list[tuple[str, ...]]:
    """A row for each layer, those inside another one below it."""
    found: list[tuple[str, ...]] = []
    for row in rows:
        numbers = (f"{row.parameters:,}", f"{row.multiply_adds:,}")
        found.append(("\u2003" * depth + row.name, row.type, shape_text(row.output_shape), *numbers))
        found += _layers(row.layers, depth + 1)
    return found


@card_of.register
def _(shown: Catalog) -> Card:
    rows = [
        (row.name, row.title, f"{row.train:,}", f"{row.test:,}", shape_text(row.image_shape), f"{len(row.classes):,}")
        for row in shown.datasets
    ]
    columns = ("name", "title", "training", "test", "image", "classes")
    return Card(
        "Data sets known by name", ["Load one with foveola.load(name)."], [Table(columns, rows, text_columns=2)]
    )
