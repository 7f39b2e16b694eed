"""Predictions in a file: CSV, JSON lines or Parquet; all that is known of each image, or ids and classes only."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveola.datasets.table_images import row_ids
from foveola.errors import OutputError, UserError, require
from foveola.files import expanded
from foveola.inputs.prepare import Prediction, prediction_document
from foveola.models.metadata import Columns, ModelMetadata
from foveola.text import escape_all_surrogates
from foveola.workflow.predict import Refusal, is_table

COLUMNS = ("image", "class", "probability", "uncertain", "unfamiliar", "findings", "fixes", "refused")
LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
WORKBOOKS = (".xlsx", ".xls", ".ods", ".feather", ".arrow")

Answers = Sequence[Prediction | Refusal]


def check_format(out: Path) -> None:
    """Refuse before the work what cannot be written.

    Raises
    ------
    UserError
        If it is a workbook, which a CSV table of that name would not be.
    MissingExtra
        If it is a Parquet file, and pyarrow is not installed.
    """
    if out.suffix.lower() in WORKBOOKS:
        raise UserError(f"{out} would be a workbook, which is not written. End it in .csv, .jsonl or .parquet.")
    if out.suffix.lower() in PARQUET:
        require("pyarrow", "tables")


def image_ids(images: Sequence[str | Path], answers: Answers, id_column: str) -> list[Any]:
    """What names each image in a submission: the table's column; numbers from 1 without it; names of files elsewhere.

    Raises
    ------
    OutputError
        If the table has changed since it was predicted.
    """
    if len(images) != 1 or not is_table(images[0]):
        return [Path(answer.image).name for answer in answers]
    ids = row_ids(expanded(images[0]), id_column)
    if ids is None:
        return list(range(1, len(answers) + 1))
    if len(ids) != len(answers):
        raise OutputError(
            f"{images[0]} has changed while it was predicted: {len(answers)} rows, now {len(ids)}. Again."
        )
    return ids


def encode_predictions(answers: Answers, out: Path) -> bytes:
    """Everything that is known of each image: COLUMNS, or in JSON lines what `foveola predict --json` gives.

    Several findings or fixes are separated by semicolons.
    """
    if out.suffix.lower() in LINES:
        return _lines(
            {"image": one.image, "refused": one.reason}
            if isinstance(one, Refusal)
            else {"image": one.image, **prediction_document(one)}
            for one in answers
        )
    rows = [_row(answer) for answer in answers]
    if out.suffix.lower() in PARQUET:
        return _parquet(rows, {"probability": "float64", "uncertain": "bool_", "unfamiliar": "bool_"})
    for row in rows:
        if row["class"] is not None:
            row["probability"] = f"{row['probability']:.6f}"
            row |= {name: str(row[name]).lower() for name in ("uncertain", "unfamiliar") if row[name] is not None}
    return _csv(COLUMNS, rows)


def encode_submission(
    answers: Answers, ids: Sequence[Any], id_column: str, label_column: str | None, metadata: ModelMetadata, out: Path
) -> bytes:
    """A row for each image: its id, and what is predicted; nothing for an image that could not be used.

    That is its class. Several labels have a column of zeros and ones each; or they are one text, if `label_column` is
    given, or the model was trained on such texts, whose separator then divides them, or else a semicolon.

    Parameters
    ----------
    label_column : name of the column of classes or texts; None: label
    metadata : of the model

    Raises
    ------
    OutputError
        If two columns have the same name.
    """
    columns = Columns() if metadata.data is None or metadata.data.columns is None else metadata.data.columns
    by_label = metadata.task == "multilabel" and label_column is None and columns.separator is None
    names = metadata.class_names if by_label else (label_column or "label",)
    if id_column in names:
        raise OutputError(f"--id-column and --label-column are both {id_column!r}. Name the columns differently.")
    rows = []
    for number, answer in zip(ids, answers, strict=True):
        values: dict[str, Any] = dict.fromkeys(names)
        if by_label and not isinstance(answer, Refusal):
            values = {name: int(name in (answer.labels or ())) for name in names}
        elif not isinstance(answer, Refusal):
            labels = (answer.class_name,) if answer.labels is None else answer.labels
            values = {names[0]: (columns.separator or ";").join(labels)}
        rows.append({id_column: number, **values})
    if out.suffix.lower() in LINES:
        return _lines(rows)
    if out.suffix.lower() in PARQUET:
        return _parquet(rows, dict.fromkeys(names, "int64") if by_label else {})
    return _csv((id_column, *names), rows)


def _row(answer: Prediction | Refusal) -> dict[str, Any]:
    """The values of COLUMNS; None for what is not known."""
    if isinstance(answer, Refusal):
        return dict.fromkeys(COLUMNS) | {"image": answer.image, "refused": answer.reason}
    return {
        "image": answer.image,
        "class": answer.text,
        "probability": answer.probability,
        "uncertain": answer.uncertain,
        "unfamiliar": answer.unfamiliar,
        "findings": "; ".join(finding.text for finding in answer.findings),
        "fixes": "; ".join(answer.fixes),
        "refused": None,
    }


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(escape_all_surrogates(row) for row in rows)
    return text.getvalue().encode()


def _lines(rows: Any) -> bytes:
    return b"".join(json.dumps(escape_all_surrogates(row), ensure_ascii=False).encode() + b"\n" for row in rows)


def _parquet(rows: Sequence[dict[str, Any]], types: dict[str, str]) -> bytes:
    """Rows as a Parquet file; columns are texts, except ids that are numbers and those of other types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: escape_all_surrogates([row[name] for row in rows]) for name in rows[0]}
    arrays = {
        name: pa.array(
            values,
            None if all(isinstance(value, int) for value in values) else getattr(pa, types.get(name, "string"))(),
        )
        for name, values in columns.items()
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink)
    return sink.getvalue()
