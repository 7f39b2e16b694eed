"""What the commands print: tables for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from foveola.architecture import Step
from foveola.images import shape_text

if TYPE_CHECKING:
    from foveola.export import ExportReport
    from foveola.predictions import Answer


def summary(title: str, steps: Sequence[Step]) -> RenderableType:
    """Layer, settings, output shape, parameters, multiply-adds: the table that people know from Keras."""
    table = _table("layer", "settings", "output shape", "parameters", "multiply-adds", right=3)
    for step in steps:
        shape, layer = shape_text(step.output_shape), step.layer
        table.add_row(step.name, layer.describe(), shape, f"{step.parameters:,}", f"{step.multiply_adds:,}")
    parameters, state = sum(step.parameters for step in steps), sum(step.state for step in steps)
    totals = f"Total parameters: {parameters:,}"
    totals += f" (and {state:,} running statistics)" if state else ""
    return Group(title, table, totals, f"Multiply-adds for one image: {sum(step.multiply_adds for step in steps):,}")


def evaluation(document: Mapping[str, Any]) -> RenderableType:
    """The figures with their intervals, then a row a class."""
    figures = _table("figure", "value", "95 % interval", right=1)
    for name, text in _FIGURES.items():
        estimate = document[name]
        if estimate["value"] is not None:
            figures.add_row(text, f"{estimate['value']:.4f}", f"{estimate['low']:.4f} – {estimate['high']:.4f}")
    classes = _table("class", "precision", "recall", "F1", "images", right=1)
    for row in document["per_class"]:
        values = (f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        classes.add_row(row["name"], *values, f"{row['support']:,}")
    seen = "" if document["held_out"] else "; the model has learnt from them"
    title = f"{document['n']:,} images ({document['split']} split{seen})"
    return Group(title, "", figures, "", classes)


def trained(path: Path, document: Mapping[str, Any]) -> RenderableType:
    """The figures that matter most, and where the run lies."""
    figures, seconds = document["evaluation"], document["seconds"]
    rows: dict[str, Any] = {"test accuracy": "not measured: the recipe holds no test images out"}
    if figures is not None:
        accuracy = figures["accuracy"]
        rows = {
            "test accuracy": f"{accuracy['value']:.4f} (95 % CI {accuracy['low']:.4f}–{accuracy['high']:.4f})",
            "test images": f"{figures['n']:,}, looked at once",
            "AUC (one-vs-rest, macro)": _plain(figures["auc_macro_ovr"]["value"]),
            "log loss": _plain(figures["log_loss"]["value"]),
        }
    trained = f"{document['epochs']} epochs, {document['steps']:,} steps in {seconds['training']:.1f} s"
    return facts(rows | {"trained": trained, "run": path})


def exported(report: "ExportReport") -> RenderableType:
    """What was written, and how near it is to the model."""
    parity = report.parity
    sizes = ", ".join(map(str, parity.batch_sizes))
    return facts(
        {
            "written": f"{report.path} ({report.size_bytes:,} bytes)",
            "compared with the model": f"{parity.images:,} images, in batches of {sizes}",
            "largest difference": f"{parity.largest_difference:.2g} in a logit; the same classes, ties apart",
        }
    )


def answers(found: Sequence["Answer"]) -> RenderableType:
    """Class and probability of each picture, then what looks odd about it."""
    table = _table("image", "class", "probability", "next best")
    for answer in found:
        others = ", ".join(f"{name} {probability:.3f}" for name, probability in answer.top[1:])
        table.add_row(answer.image, answer.class_name, f"{answer.probability:.3f}", others)
    notes = [f"{answer.image} is {finding}." for answer in found for finding in answer.findings]
    return Group(table, *notes)


def data_sets(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A row a data set of the catalog."""
    table = _table("name", "train", "test", "shape", "classes", "licence", "here")
    table.columns[0].no_wrap = True
    for row in rows:
        test = f"{row['test']:,}" if row["test"] else "–"
        shape, licence = shape_text(row["image_shape"]), row["licence"].partition(";")[0]
        here = row["path"] or "no"
        table.add_row(row["name"], f"{row['train']:,}", test, shape, str(len(row["classes"])), licence, here)
    notes = ("What is not here is downloaded when first used.", "Credits and class names: foveola datasets --json")
    return Group(table, "", *notes)


def recipes(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A row a recipe."""
    table = _table("name", "what it is")
    for row in rows:
        table.add_row(row["name"], row["description"])
    return table


def facts(rows: Mapping[str, Any]) -> RenderableType:
    """A name and a value a row; of a table of values, every value in a row of its own."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in rows.items():
        if isinstance(value, Mapping):
            for inner, text in value.items():
                table.add_row(inner, str(text))
        else:
            table.add_row(name.replace("_", " "), "not set" if value is None else str(value))
    return table


_FIGURES = {
    "accuracy": "accuracy",
    "auc_macro_ovr": "AUC (one-vs-rest, macro)",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
}


def _plain(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _table(*columns: str, right: int | None = None) -> Table:
    """A plain table; columns from `right` on are numbers."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if right is not None and number >= right else "left", overflow="fold")
    return table
