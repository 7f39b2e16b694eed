"""What the commands print: tables for the terminal."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foveola.architecture import Step
from foveola.doctor import proposed
from foveola.evaluation.comparison import p_text
from foveola.images import shape_text
from foveola.predictions import Estimate

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
    for text, estimate in _rejection(document.get("rejection")).items():
        figures.add_row(text, f"{estimate['value']:.4f}", f"{estimate['low']:.4f} – {estimate['high']:.4f}")
    classes = _table("class", "precision", "recall", "F1", "images", right=1)
    for row in document["per_class"]:
        values = (f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        classes.add_row(row["name"], *values, f"{row['support']:,}")
    seen = "" if document["held_out"] else "; the model has learnt from them"
    title = f"{document['n']:,} images ({document['split']} split{seen})"
    return Group(title, "", figures, "", classes)


def comparison(document: Mapping[str, Any]) -> RenderableType:
    """Each pair's verdict, what each run is worth and costs, how figures differ, and what a dense layer costs."""
    runs = list({run["name"]: run for run in document["runs"]}.values())
    several = len(document["pairs"]) > 1
    verdicts = [
        (f"{pair['first']} and {pair['second']}: " if several else "") + pair["verdict"] for pair in document["pairs"]
    ]
    parts: list[RenderableType] = [*verdicts, ""]
    worth = _table("", *(run["name"] for run in runs), right=1)
    for name, cell in _WORTH.items():
        if document["seeds"] > 1 or "seeds" not in name:
            worth.add_row(name, *map(cell, runs))
    parts += [worth, f"Speed was measured here ({document['measured_on']}); training seconds are the runs' own."]
    for pair in document["pairs"]:
        title = f"{pair['first']} less {pair['second']}"
        differences = _table(title, "difference", "95 % interval", "better is", right=1)
        estimates = {"accuracy": pair["accuracy_difference"], **pair["differences"]}
        for name, text in _FIGURES.items():
            estimate = estimates[name]
            if estimate["value"] is not None:
                interval = f"{estimate['low']:+.4f} to {estimate['high']:+.4f}"
                better = "lower" if name in _LOWER_IS_BETTER else "higher"
                differences.add_row(text, f"{estimate['value']:+.4f}", interval, better)
        parts += ["", differences, *_tests(pair, len(document["pairs"]), document["n"])]
    if document["scaling"]:
        parts += ["", "Parameters by image size: why a dense layer does not scale", _scaling(document["scaling"])]
    return Group(*parts)


def _rejection(found: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Estimates by their names for people, of a model that can be uncertain."""
    if found is None:
        return {}
    asked = f"asked for: at most {found['error']:.2%} wrong"
    rows = {f"share answered ({asked})": found["coverage"], "wrong among those answered": found["accepted_error"]}
    return {text: estimate for text, estimate in rows.items() if estimate is not None}


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
        rows |= {text: str(Estimate(**estimate)) for text, estimate in _rejection(figures.get("rejection")).items()}
    if document.get("reject") and document["reject"]["threshold"] is None:
        rows["uncertain"] = f"always: no threshold keeps {document['reject']['error']:.2%} wrong on validation images"
    epochs = document["epochs"]
    trained = f"{epochs} epoch{'s' if epochs != 1 else ''}, {document['steps']:,} steps in {seconds['training']:.1f} s"
    page = path / "report.html"
    report = page if page.is_file() else f"foveola report {path} writes it"
    return facts(rows | {"trained": trained, "run": path, "report": report})


def exported(report: "ExportReport") -> RenderableType:
    """What was written, how near it is to the model, and what 8-bit integers save."""
    parity, gain = report.parity, report.gain
    sizes = ", ".join(map(str, parity.batch_sizes))
    rows = {
        "written": f"{report.path} ({report.size_bytes:,} bytes)",
        "compared with the model": f"{parity.images:,} images, in batches of {sizes}",
    }
    difference = f"{parity.largest_difference:.2g} in a logit"
    if gain is None:
        return facts(rows | {"largest difference": f"{difference}; the same classes, ties apart"})
    return facts(rows | {"largest difference": difference, "8-bit integers": gain.accuracy_text, "": gain.time_text})


def answers(found: Sequence["Answer"]) -> RenderableType:
    """Class and probability of each picture, then what looks odd about it."""
    table = _table("image", "class", "probability", "next best")
    for answer in found:
        others = ", ".join(f"{name} {probability:.3f}" for name, probability in answer.top[1:])
        name = f"uncertain (most likely {answer.class_name})" if answer.uncertain else answer.class_name
        table.add_row(answer.image, name, f"{answer.probability:.3f}", others)
    return Group(table, *(_notes(answer) for answer in found if answer.findings or answer.fixes))


def _notes(answer: "Answer") -> str:
    """What is unlike the training images, what was done about it, and what could be."""
    lines = [f"{answer.image} is", *(f"  {finding.text}" for finding in answer.findings)]
    if not answer.findings:
        lines = [f"{answer.image} looks like the training images."]
    if answer.fixes:
        lines.append(f"  Fixed: {', '.join(answer.fixes)}")
    helpful = [fix for fix in proposed(answer.findings) if fix not in answer.fixes]
    if helpful:
        lines.append(f"  What may help: --fix {','.join(helpful)}")
    return "\n".join(["", *lines])


def explained(document: Mapping[str, Any]) -> RenderableType:
    """Class and probability of each picture, what looks odd about it, and where the page lies."""
    table = _table("image", "class", "probability", "explained")
    for row in document["explanations"]:
        names = ", ".join(found["class"] for found in row["classes"])
        table.add_row(row["image"], row["class"], f"{row['probability']:.3f}", names)
    notes = [f"{row['image']} is {found['text']}." for row in document["explanations"] for found in row["findings"]]
    notes += dict.fromkeys(row["grad_cam"] for row in document["explanations"] if row["grad_cam"] != "done")
    return Group(table, *notes, f"Open {document['page']}; the pictures lie beside it.")


def convolved(document: Mapping[str, Any]) -> RenderableType:
    """Of each stage its sizes, the sum at the chosen position, and the output."""
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


def audited(document: Mapping[str, Any]) -> RenderableType:
    """How much was found of each kind, the first label suspects, and where the rest lies."""
    groups, likely = document["duplicate_groups"], document["likely_label_errors"]
    kinds = Counter(row["kind"] for row in document["oddities"])
    counts: dict[str, Any] = {
        "images": ", ".join(f"{count:,} {split}" for split, count in document["data"]["splits"].items()),
        "likely label errors": f"{likely:,}",
        "duplicates": f"{len(groups):,} groups, {sum(group['kind'] == 'exact' for group in groups):,} of them exact",
        "across splits": f"{sum(group['across_splits'] for group in groups):,} groups",
        "conflicting labels": f"{sum(group['conflicting'] for group in groups):,} groups",
        "odd images": ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) or "none",
        "written": ", ".join(document["files"]),
    }
    suspects = _table("split", "index", "given", "suggested", "probability of given", "path")
    for row in document["label_suspects"][: min(likely, 10)]:
        score = f"{row['score']:.4f}"
        suspects.add_row(row["split"], str(row["index"]), row["given"], row["suggested"], score, row["path"] or "–")
    parts: list[RenderableType] = [facts(counts)]
    if likely:
        parts += ["", suspects]
    if document["retrained"]:
        retrained = _table("trained on", "images", "accuracy", "on sound labels", right=1)
        for row in document["retrained"]["rows"]:
            figures = (f"{row[name]['value']:.4f}" for name in ("accuracy", "accuracy_without_suspects"))
            retrained.add_row(row["trained_on"], f"{row['images']:,}", *figures)
        parts += ["", retrained]
    return Group(*parts)


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
_LOWER_IS_BETTER = ("log_loss", "brier", "ece")

_WORTH: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "test accuracy": lambda run: f"{run['accuracy']['value']:.4f}",
    "95 % interval": lambda run: f"{run['accuracy']['low']:.4f} – {run['accuracy']['high']:.4f}",
    "mean over seeds": lambda run: _plain(run["accuracy_mean"]),
    "standard deviation over seeds": lambda run: _plain(run["accuracy_standard_deviation"]),
    "parameters": lambda run: f"{run['parameters']:,}",
    "multiply-adds": lambda run: f"{run['multiply_adds']:,}",
    "seconds of training": lambda run: f"{run['seconds_training']:.1f}",
    "latency of one image, ms": lambda run: f"{run['latency_ms']:.2f}",
    "images a second": lambda run: f"{run['images_per_second']:,.0f}",
}


def _tests(pair: Mapping[str, Any], pairs: int, images: int) -> list[str]:
    """What the verdict rests on, in words."""
    mcnemar, test = pair["mcnemar"], pair["test"]
    corrected = f", corrected for {pairs} comparisons (Holm): {p_text(test['p_corrected'])}" if pairs > 1 else ""
    return [
        f"Only {pair['first']} is right on {mcnemar['only_first']:,} images, only {pair['second']} on "
        f"{mcnemar['only_second']:,} (McNemar's exact test: {p_text(mcnemar['p'])}).",
        f"They disagree on {pair['disagreements']:,} of {images:,} images; --json and --out FILE.html show which.",
        f"The verdict rests on {test['name']}: {p_text(test['p'])}{corrected}.",
    ]


def _scaling(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns, keys = ["image"], []
    for position, network in enumerate(rows[-1]["networks"]):
        columns.append(network["name"])
        keys.append((position, "parameters"))
        if network["before_dense"]:
            columns.append("its convolutions alone")
            keys.append((position, "before_dense"))
    table = _table(*columns, right=1)
    for row in rows:
        cells = [row["networks"][position][key] for position, key in keys]
        table.add_row(shape_text(row["image_shape"]), *("–" if cell is None else f"{cell:,}" for cell in cells))
    return table


def _plain(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _table(*columns: str, right: int | None = None) -> Table:
    """A plain table; columns from `right` on are numbers."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if right is not None and number >= right else "left", overflow="fold")
    return table
