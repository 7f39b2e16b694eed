"""Tables that the commands print in a terminal."""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foveola.arrays import shape_text
from foveola.documents import (
    Audit,
    AuditedOutlier,
    Catalog,
    ComparedPair,
    ComparedRun,
    Comparison,
    Evaluation,
    ImportedRun,
    LearningRateCurve,
    Packed,
    TrainedRun,
    Tuning,
)
from foveola.evaluation.comparison import p_text
from foveola.evaluation.costs import ParametersByImageSize
from foveola.evaluation.metrics import METRICS, MULTILABEL_METRICS, metrics_of
from foveola.evaluation.multilabel import LabelMetrics
from foveola.evaluation.overfitting import guessing_text, is_guessing, is_undecided, undecided_text
from foveola.evaluation.rejection import RejectionResult, promise
from foveola.evaluation.unfamiliarity import UnfamiliarityResult
from foveola.inputs.checks import proposed_fixes
from foveola.inputs.prepare import UNFAMILIAR
from foveola.models.layers import Residual
from foveola.models.pretrained import ENTRIES
from foveola.models.shapes import LayerInfo, all_layers
from foveola.predictions import Estimate
from foveola.progress import duration_text
from foveola.recipe import Recipe
from foveola.reports import audit_text
from foveola.reports.run_alarms import alarms

if TYPE_CHECKING:
    from foveola.exports import ExportReport
    from foveola.inputs.prepare import Prediction


# More predictions than these are only counted, if a file holds every one
_LISTED_PREDICTIONS = 40


MAX_SHOWN = 10  # findings of a kind in the terminal; the page has more


def summary(title: str, infos: Sequence[LayerInfo]) -> RenderableType:
    """The layers of a network with settings, output shapes, parameters and multiply-adds, as in Keras."""
    table = _table("layer", "settings", "output shape", "parameters", "multiply-adds", right=3)
    for info in all_layers(infos):
        inside, _, name = info.name.rpartition(".")
        shape, layer = shape_text(info.output_shape), info.layer
        name = f"  {inside.rpartition('.')[2]}: {name}" if inside else name
        table.add_row(name, layer.settings_text(), shape, f"{info.parameters:,}", f"{info.multiply_adds:,}")
    parameters, state = sum(info.parameters for info in infos), sum(info.buffers for info in infos)
    totals = f"Total parameters: {parameters:,}"
    totals += f" (and {state:,} running statistics)" if state else ""
    return Group(title, table, totals, f"Multiply-adds for one image: {sum(info.multiply_adds for info in infos):,}")


def evaluation(document: Evaluation) -> RenderableType:
    """The metrics with their intervals, then a row for each class."""
    metrics = _table("metric", "value", "95 % interval", right=1)
    for key, estimate in document.metrics.items():
        value = f"{estimate.value:.4f}" if estimate.is_defined else "–"
        title = metrics_of(document.task)[key].title
        metrics.add_row(title, value, _interval(estimate) if estimate.is_defined else estimate.method)
    if document.without_copies is not None:
        others = document.without_copies.accuracy
        metrics.add_row(
            f"Accuracy of the {others.n:,} images it has not seen", f"{others.value:.4f}", _interval(others)
        )
    for title, estimate in (_rejection(document.rejection) | _unfamiliarity(document.unfamiliar)).items():
        metrics.add_row(title, f"{estimate.value:.4f}", _interval(estimate))
    classes = _classes(document) if document.labels is None else _labels(document.labels)
    name = document.split if document.split in ("all", "unseen") else f"{document.split} split"
    weighted = "" if document.weighted is None else f", weighted: they count as {document.weighted.effective:,.1f}"
    title = f"{document.n:,} images ({name}){weighted}{_seen(document)}"
    return Group(title, *_guessing(document), "", metrics, "", classes)


def _classes(document: Evaluation) -> Table:
    classes = _table("class", "precision", "recall", "95 % interval", "F1", "images", right=1)
    for row in document.per_class:
        interval = f"{row.recall_low:.4f} – {row.recall_high:.4f}"
        classes.add_row(
            row.name, f"{row.precision:.4f}", f"{row.recall:.4f}", interval, f"{row.f1:.4f}", f"{row.support:,}"
        )
    return classes


def _labels(rows: Sequence[LabelMetrics]) -> Table:
    labels = _table(
        "label", "average precision", "95 % interval", "precision", "recall", "F1", "threshold", "images", right=1
    )
    for row in rows:
        interval = _interval(row.average_precision) if row.average_precision.is_defined else "–"
        ratios = (_optional(one.value) for one in (row.precision, row.recall, row.f1))
        labels.add_row(
            row.name, _optional(row.average_precision.value), interval, *ratios, f"{row.threshold:.3f}",
            f"{row.support:,}",
        )  # fmt: skip
    return labels


def _seen(document: Evaluation) -> str:
    """What the model has seen of the images, after their number."""
    seen = document.seen
    if seen is None:
        return "; the model does not know whether it has learnt from them"
    if seen.left_out:
        return f", held out; left out: {seen.left_out:,} that the model has learnt from, or was selected by"
    if document.held_out:
        return ", held out"
    parts = {"learnt from": seen.training, "used to select the model": seen.validation}
    counts = [kind if count == document.n else f"{count:,} {kind}" for kind, count in parts.items() if count]
    return f", {', '.join(counts)}: not a held-out figure"


def _without_copies(document: Evaluation) -> dict[str, str]:
    """The accuracy of the images that the model has not seen, by the row's title."""
    others = document.without_copies
    return {} if others is None else {"without images it has seen": f"{others.accuracy}, {others.n:,} images"}


def _guessing(document: Evaluation) -> list[Text]:
    supports = [row.support for row in document.per_class]
    if is_guessing(document.accuracy, supports):
        return [_red(guessing_text(supports, "DATA"))]
    return [Text(undecided_text(document.accuracy, supports))] if is_undecided(document.accuracy, supports) else []


def _red(text: str) -> Text:
    return Text(text, style="bold red")


def comparison(document: Comparison) -> RenderableType:
    """Each pair's verdict, accuracy and costs of each run, and the differences of all metrics."""
    runs = list({run.name: run for run in document.runs}.values())
    several = len(document.pairs) > 1
    verdicts = [(f"{pair.first} and {pair.second}: " if several else "") + pair.verdict for pair in document.pairs]
    costs = _table("", *(run.name for run in runs), right=1)
    for title, cell in _RUN_ROWS.items():
        if document.seeds > 1 or "seeds" not in title:
            costs.add_row(title, *map(cell, runs))
    parts: list[RenderableType] = [*verdicts, document.scope, "", costs]
    parts.append(f"Speed was measured here ({document.measured_on}); training seconds are the runs' own.")
    for pair in document.pairs:
        differences = _table(f"{pair.first} − {pair.second}", "difference", "95 % interval", "better is", right=1)
        for key, estimate in {"accuracy": pair.accuracy_difference, **pair.differences}.items():
            if estimate.is_defined:
                interval = f"{estimate.low:+.4f} to {estimate.high:+.4f}"
                differences.add_row(METRICS[key].title, f"{estimate.value:+.4f}", interval, METRICS[key].better)
        parts += ["", differences, *_tests(pair, len(document.pairs), document.n)]
    if document.scaling:
        parts += ["", "Parameters by image size: why a dense layer does not scale", _scaling(document.scaling)]
    return Group(*parts)


def _rejection(result: RejectionResult | None) -> dict[str, Estimate]:
    """The rows of a model that reports uncertain predictions."""
    if result is None:
        return {}
    kept = "on average" if result.confidence is None else f"with {100 * result.confidence:.4g} % confidence"
    rows = {f"coverage (target error {result.error:.2%}, {kept})": result.coverage}
    return rows if result.accepted_error is None else rows | {"error of confident predictions": result.accepted_error}


def _unfamiliarity(result: UnfamiliarityResult | None) -> dict[str, Estimate]:
    """The row of a model that reports unfamiliar images."""
    return {} if result is None else {f"called unfamiliar (target {result.promised:.2%})": result.false_alarms}


def training(document: TrainedRun) -> RenderableType:
    """The most important metrics, where the run is, and what speaks against trusting it."""
    evaluation, path = document.evaluation, Path(document.run)
    rows: dict[str, Any] = {"test accuracy": "not measured: the recipe has no test images"}
    if evaluation is not None:
        second = METRICS["auc_macro_ovr"] if evaluation.labels is None else MULTILABEL_METRICS["mean_average_precision"]
        rows = {
            "test accuracy" if evaluation.labels is None else "test accuracy, all labels": str(evaluation.accuracy),
            **_without_copies(evaluation),
            "test images": f"{evaluation.n:,}, evaluated once",
            second.title: _optional(evaluation.metrics[second.key].value),
            "log loss": _optional(evaluation.metrics["log_loss"].value),
        }
        rows |= {title: str(estimate) for title, estimate in _rejection(evaluation.rejection).items()}
    if document.reject is not None:
        rows["promised"] = promise(document.reject)
    epochs = f"{document.epochs} epoch{'s' if document.epochs != 1 else ''}"
    trained = f"{epochs}, {document.steps:,} steps in {duration_text(document.seconds.training)}"
    page = path / "report.html"
    report = page if page.is_file() else f"foveola report {path} writes it"
    return Group(
        *map(_red, alarms(document, evaluation, path)),
        facts(rows | {"trained": trained, "run": path, "report": report}),
    )


def tuning(document: Tuning) -> RenderableType:
    """The settings found beside those of the recipe to start from, and the metrics that may be quoted."""
    table = _table("setting", document.recipe, "best", right=1)
    for key, value in document.best.values.items():
        start = document.start.values[key] if document.start is not None else "–"
        table.add_row(key, *(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in (start, value)))
    title = document.objective.replace("_", " ")
    before = "" if document.start is None else f"; {document.recipe}: {document.start.value:.4f}"
    rows: dict[str, Any] = {
        f"validation {title}": f"{document.best.value:.4f}, trial {document.best.number}; optimistic, because it is "
        f"the best of {sum(trial.state in ('complete', 'pruned') for trial in document.trials)} trials{before}"
    }
    if document.evaluation is not None:
        rows["test accuracy"] = f"{document.evaluation.accuracy}, of the best recipe trained once: the figure to quote"
    if document.run is not None:
        rows["run"] = document.run
    return Group(table, facts(rows | {"recipe": document.files[0], "report": document.files[2]}))


def learning_rate(curve: LearningRateCurve) -> RenderableType:
    """The suggested learning rate, and how to train with it."""
    suggestion = "none: the training loss fell by less than a tenth at every rate"
    rows = {
        "suggested learning rate": suggestion if curve.suggestion is None else f"{curve.suggestion:g}",
        "the recipe's": f"{curve.recipe_learning_rate:g}",
        "lowest loss at": "not known" if curve.lowest is None else f"{curve.lowest:.2g}",
    }
    if curve.settings:
        rows["to train with it, add"] = " ".join(f"--set {setting}" for setting in curve.settings)
    return facts(rows | {"page": curve.files[0], "plot": curve.files[1]})


def export(report: "ExportReport") -> RenderableType:
    """What was written, its difference from the model, and what 8-bit integers save."""
    parity, gain = report.parity, report.gain
    sizes = ", ".join(map(str, parity.batch_sizes))
    rows = {
        "written": f"{report.path} ({report.size_bytes:,} bytes)",
        "compared with the model": f"{parity.images:,} images, in batches of {sizes}",
    }
    difference = f"{parity.largest_difference:.2g} in a logit"
    if gain is None:
        return facts(rows | {"largest difference": f"{difference}; the same classes, ties excepted"})
    return facts(rows | {"largest difference": difference, "8-bit integers": gain.accuracy_text, "": gain.time_text})


def imported(document: ImportedRun) -> RenderableType:
    """What was imported from where, what was assumed, and where the run is."""
    return facts(
        {
            "imported": f"{document.pretrained}; Keras {document.versions['keras']}",
            "network": f"{document.model.parameters:,} parameters, images of {shape_text(document.data.image_shape)}",
            "classes": _first(document.data.classes),
            "assumed": " ".join(document.data.summary),
            "run": document.run,
        }
    )


def _first(names: Sequence[str]) -> str:
    more = f", … ({len(names):,})" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more


def predictions(found: Sequence["Prediction"], out: Path | None = None) -> RenderableType:
    """Class and probability of each image, then its findings; of many images only counts, if a file has the rest."""
    if out is not None and len(found) > _LISTED_PREDICTIONS:
        return Group(_prediction_counts(found), "", f"Every answer is in {out}.")
    table = _table("image", "class", "probability", "next best")
    for prediction in found:
        others = ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.top[1:])
        table.add_row(prediction.image, _shown_class(prediction), f"{prediction.probability:.3f}", others)
    notes = [_notes(one) for one in found if one.findings or one.fixes or one.unfamiliar]
    return Group(table, *notes, *([] if out is None else ["", f"Also written to {out}."]))


def _shown_class(prediction: "Prediction") -> str:
    doubts = ["uncertain"] * prediction.uncertain + ["unfamiliar"] * bool(prediction.unfamiliar)
    name = prediction.text or "no label"
    return f"{', '.join(doubts)} (most likely {name})" if doubts else name


def _prediction_counts(found: Sequence["Prediction"]) -> Table:
    table = _table("class", "images", right=1)
    for name, count in Counter(prediction.text or "no label" for prediction in found).most_common():
        table.add_row(name, f"{count:,}")
    table.add_row("in all", f"{len(found):,}")
    table.add_row("of these uncertain", f"{sum(prediction.uncertain for prediction in found):,}")
    if any(one.unfamiliar is not None for one in found):
        unfamiliar = sum(bool(one.unfamiliar) for one in found)
        table.add_row("of these unlike anything the model was trained on", f"{unfamiliar:,}")
    table.add_row("of these with findings", f"{sum(bool(one.findings) for one in found):,}")
    return table


def _notes(prediction: "Prediction") -> str:
    """How the image differs from the training images, what was fixed, and what could be."""
    unfamiliar = [f"  {UNFAMILIAR}"] if prediction.unfamiliar else []
    lines = [f"{prediction.image} is", *unfamiliar, *(f"  {finding.text}" for finding in prediction.findings)]
    if not prediction.findings and not prediction.unfamiliar:
        lines = [f"{prediction.image} looks like the training images."]
    if prediction.fixes:
        lines.append(f"  Fixed: {', '.join(prediction.fixes)}")
    helpful = [fix for fix in proposed_fixes(prediction.findings) if fix not in prediction.fixes]
    if helpful:
        lines.append(f"  This may help: --fix {','.join(helpful)}")
    return "\n".join(["", *lines])


def explanation(document: Mapping[str, Any]) -> RenderableType:
    """Class and probability of each image, its findings, and where the page is."""
    table = _table("image", "class", "probability", "explained")
    for row in document["explanations"]:
        names = ", ".join(explained["class"] for explained in row["classes"])
        table.add_row(row["image"], row["class"], f"{row['probability']:.3f}", names)
    notes = [f"{row['image']} is {finding['text']}." for row in document["explanations"] for finding in row["findings"]]
    notes += dict.fromkeys(row["cam"] for row in document["explanations"] if row["cam"] != "done")
    return Group(table, *notes, f"Open {document['page']}; the PNG files are beside it.")


def convolution(document: Mapping[str, Any]) -> RenderableType:
    """Sizes, the sum at the chosen position, and the output of each stage."""
    lines: list[RenderableType] = [document["image"], *document["notes"]]
    for stage in document["stages"]:
        row, column = stage["position"]
        lines += ["", stage["title"], f"Row {row}, column {column}: {stage['sum']}"]
        if stage["output_size"][1] <= 16:
            output = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
            for values in stage["output_text"]:
                output.add_row(*(Text(value, justify="right") for value in values))
            lines.append(output)
    return Group(*lines, "", f"Written: {document['out']}")


def audit(document: Audit) -> RenderableType:
    """The accuracy of the networks, duplicates and outliers, ranked suspects, and where the rest is."""
    images = ", ".join(f"{count:,} {split}" for split, count in document.data.splits.items())
    if document.data.groups is not None:
        images += f", in {document.data.groups:,} groups"
    head = {"images": images, "cross-fitted accuracy": str(document.cross_fitted_accuracy)}
    parts: list[RenderableType] = [facts(head), audit_text.accuracy_sentence(document)]
    parts += filter(None, (audit_text.series_sentence(document), audit_text.unjudged_sentence(document)))
    parts += ["", Text("Duplicates and outliers", style="bold"), facts(_findings(document))]
    parts += filter(None, (audit_text.group_leak_sentence(document), audit_text.random_split_sentence(document)))
    pictures = [outlier for outlier in document.oddities if outlier.kind in ("blank", "placeholder")]
    if pictures:
        parts.append(_missing_images(pictures))
    parts += ["", Text(audit_text.suspects_title(document), style="bold"), audit_text.suspects_sentence(document)]
    if document.label_suspects and document.label_certainty != "no better than guessing":
        parts.append(_suspects(document))
    if document.retrained is not None:
        retrained = _table("trained on", "images", "accuracy", "without suspects", right=1)
        for trained in document.retrained.rows:
            accuracies = (trained.accuracy, trained.accuracy_without_suspects)
            retrained.add_row(trained.trained_on, f"{trained.images:,}", *(f"{one.value:.4f}" for one in accuracies))
        parts += ["", retrained]
    page, *others = document.files
    return Group(*parts, "", f"Look at the images: {page}", f"Also written: {', '.join(others)}")


def _findings(document: Audit) -> dict[str, str]:
    """Numbers of duplicates and outliers."""
    groups = document.duplicate_groups
    kinds = Counter(outlier.kind for outlier in document.oddities)
    exact = sum(group.kind == "exact" for group in groups)
    return {
        "duplicates": f"{_groups(len(groups))}, {exact:,} of them exact" if groups else "none",
        "across splits": _groups(sum(group.across_splits for group in groups)),
        "conflicting labels": _groups(sum(group.conflicting for group in groups)),
        "outliers": ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) or "none",
    }


def _groups(count: int) -> str:
    return f"{count:,} group{'' if count == 1 else 's'}" if count else "none"


def _missing_images(outliers: Sequence[AuditedOutlier]) -> Table:
    """The first blank images and placeholders."""
    table = _table("finding", "split", "index", "class", "detail", "path")
    for row in outliers[:MAX_SHOWN]:
        table.add_row(row.kind, row.split, str(row.index), row.label, row.detail, row.path or "–")
    return table


def _suspects(document: Audit) -> Table:
    """The first suspects; where their number is an estimate, not more than that."""
    countable = document.label_certainty == "likely errors"
    shown = min(document.likely_label_errors, MAX_SHOWN) if countable else MAX_SHOWN
    suspects = _table("split", "index", "given", "suggested", "probability of given", "path")
    for row in document.label_suspects[: shown or MAX_SHOWN]:
        suspects.add_row(row.split, str(row.index), row.given, row.suggested, f"{row.score:.4f}", row.path or "–")
    return suspects


def datasets(document: Catalog) -> RenderableType:
    """A row for each data set of the catalog."""
    table = _table("name", "train", "test", "shape", "classes", "licence", "on this machine")
    table.columns[0].no_wrap = True
    for row in document.datasets:
        test = f"{row.test:,}" if row.test else "–"
        shape, licence = shape_text(row.image_shape), row.licence.partition(";")[0]
        table.add_row(row.name, f"{row.train:,}", test, shape, str(len(row.classes)), licence, row.path or "no")
    notes = ("A missing data set is downloaded when it is first used.", "Credits, class names: foveola datasets --json")
    return Group(table, "", *notes)


def packed(document: Packed) -> RenderableType:
    """What was packed, and where it is."""
    counts = ", ".join(f"{count:,} {name}" for name, count in document.splits.items())
    shape = shape_text(document.image_shape)
    reading = "read into memory" if document.in_memory else "read as they are needed, because memory is too small"
    lines = [
        f"{document.path}: {counts} images of {shape}, {len(document.classes)} classes",
        f"{document.bytes / 1e6:,.1f} MB of pixels, {reading}",
    ]
    if document.skipped:
        lines.append(f"{len(document.skipped):,} unreadable files were left out")
    if document.series is not None:
        lines.append(
            f"The file names look like several images of one object, which the packed data set does not show. To keep "
            f"each object on one side of a split, pack again with --groups {shlex.quote(document.series)}"
        )
    return Group(*lines, f"Train on it: foveola train {shlex.quote(document.path)}")


def recipes(found: Sequence[Recipe]) -> RenderableType:
    """A row for each recipe."""
    table = _table("name", "description", "pretrained weights")
    for recipe in found:
        entry = ENTRIES.get(recipe.pretrained)
        pretrained = "" if entry is None else f"{entry.licence}, {entry.source.removeprefix('https://')}"
        table.add_row(recipe.name, recipe.description, pretrained)
    return Group(table, "", "foveola recipes NAME shows every setting; foveola summary NAME the layers.")


def settings(recipe: Recipe) -> RenderableType:
    """Every setting of a recipe with its value and meaning."""
    table = _table("setting", "value", "meaning")
    for setting in recipe.settings():
        table.add_row(setting.key, setting.value, setting.meaning)
    layers = _table("layer", "settings")
    for layer in recipe.layers:
        layers.add_row(layer.type, layer.settings_text())
        for branch, held in (layer.branches if isinstance(layer, Residual) else {}).items():
            for inner in held:
                layers.add_row(f"  {branch}: {inner.type}", inner.settings_text())
    entry = ENTRIES.get(recipe.pretrained)
    pretrained = [] if entry is None else ["Pretrained weights:", facts(entry.description()), ""]
    return Group(f"{recipe.name}: {recipe.description}", "", *pretrained, table, "", layers)


def facts(rows: Mapping[str, Any]) -> RenderableType:
    """A row for each name and value; a nested table has its values in rows of their own."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in rows.items():
        if isinstance(value, Mapping):
            for inner, text in value.items():
                table.add_row(inner, str(text))
        else:
            table.add_row(name.replace("_", " "), "not set" if value is None else str(value))
    return table


_RUN_ROWS: dict[str, Callable[[ComparedRun], str]] = {
    "test accuracy": lambda run: f"{run.accuracy.value:.4f}",
    "95 % interval": lambda run: _interval(run.accuracy),
    "mean over seeds": lambda run: _optional(run.accuracy_mean),
    "standard deviation over seeds": lambda run: _optional(run.accuracy_standard_deviation),
    "parameters": lambda run: f"{run.parameters:,}",
    "multiply-adds": lambda run: f"{run.multiply_adds:,}",
    "seconds of training": lambda run: f"{run.seconds_training:.1f}",
    "latency of one image, ms": lambda run: f"{run.latency_ms:.2f}",
    "images per second": lambda run: f"{run.images_per_second:,.0f}",
}


def _tests(pair: ComparedPair, pairs: int, images: int) -> list[str]:
    """The tests behind a verdict."""
    mcnemar, test = pair.mcnemar, pair.test
    corrected = f"; corrected for {pairs} comparisons (Holm): {p_text(test.p_corrected)}" if pairs > 1 else ""
    return [
        f"Only {pair.first} is right on {mcnemar.only_first:,} images, only {pair.second} on "
        f"{mcnemar.only_second:,} (McNemar's exact test: {p_text(mcnemar.p)}).",
        f"They disagree on {pair.disagreements:,} of {images:,} images; --json and --out FILE.html show which.",
        f"The verdict is based on {test.name}: {p_text(test.p)}{corrected}.",
    ]


def _scaling(rows: Sequence[ParametersByImageSize]) -> Table:
    columns, cells = ["image"], [[shape_text(row.image_shape)] for row in rows]
    for position, network in enumerate(rows[-1].networks):
        columns.append(network.name)
        for row, cell in zip(rows, cells, strict=True):
            cell.append(_count(row.networks[position].parameters))
        if network.before_dense:
            columns.append("its convolutions alone")
            for row, cell in zip(rows, cells, strict=True):
                cell.append(_count(row.networks[position].before_dense))
    table = _table(*columns, right=1)
    for cell in cells:
        table.add_row(*cell)
    return table


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.4f} – {estimate.high:.4f}"


def _optional(value: float | None) -> str:
    return "not defined" if value is None or math.isnan(value) else f"{value:.4f}"


def _table(*columns: str, right: int | None = None) -> Table:
    """A plain table; columns from `right` on are numbers."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if right is not None and number >= right else "left", overflow="fold")
    return table
