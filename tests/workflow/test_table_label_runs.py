"""Trainings on tables with several labels an image: labels found again, measured, predicted, and written as a table."""

import csv
import json

import pandas
import pytest
from PIL import Image

import foveola
from foveola.datasets.reload import known_columns, reload_data
from foveola.errors import DataError
from foveola.models.metadata import Columns
from foveola.models.model_file import read_metadata
from foveola.progress import no_progress
from foveola.workflow.open import model_path

NAMES = ("left", "middle", "right")


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def tables(make_bars, tmp_path_factory):
    """Image files, and their labels as texts and as columns of zeros and ones."""
    folder = tmp_path_factory.mktemp("tables")
    bars = make_bars(80, 0)
    (folder / "images").mkdir()
    for number, image in enumerate(bars.images):
        Image.fromarray(image[..., 0]).save(folder / "images" / f"{number}.png")
    files = [f"images/{number}.png" for number in range(len(bars))]
    texts = ["|".join(name for name, has in zip(NAMES, row, strict=True) if has) for row in bars.labels]
    write(folder / "texts.csv", [["file", "what", "day"], *zip(files, texts, ["monday"] * 80, strict=True)])
    flags = bars.labels.astype(int).tolist()
    write(folder / "columns.csv", [["file", *NAMES], *([file, *row] for file, row in zip(files, flags, strict=True))])
    return folder


TEXTS = ("--label-column", "what", "--label-separator", "|")


@pytest.fixture(scope="module")
def run(tables, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "texts"
    columns = {"label": "what", "separator": "|"}
    return foveola.train(
        tables / "texts.csv", tiny, columns=columns, overrides={"epochs": 2}, out=out, report=False, verbose=False
    )


def test_the_data_is_the_same_in_every_form(run, tables, make_bars):
    expected = foveola.Dataset("bars", make_bars(80, 0)).fingerprint
    assert run.status.data.fingerprint == expected
    assert foveola.load(tables / "columns.csv", label_column=NAMES).fingerprint == expected


def test_columns_and_separator_are_recorded_and_used_again(run, tables, foveola_command):
    metadata = read_metadata(model_path(run.path))
    assert (metadata.task, metadata.class_names) == ("multilabel", NAMES)
    assert run.status.data.columns.given == metadata.data.columns.given == {"label": "what", "separator": "|"}
    again = reload_data(run.status.data, run.path, metadata, None, "Test", no_progress)
    assert again.fingerprint == run.status.data.fingerprint
    code, out, error = foveola_command("evaluate", run.path, tables / "texts.csv", "--json")
    assert code == 0, error
    document = json.loads(out)
    assert document["macro_f1"] == json.loads((run.path / "evaluation.json").read_text())["macro_f1"]
    in_columns = foveola.evaluate(run.path, tables / "columns.csv", columns={"label": list(NAMES)}, verbose=False)
    assert in_columns.metrics == run.evaluation.metrics


def test_the_separator_alone_is_used_again_for_a_frame(run, tables):
    frame = pandas.read_csv(tables / "texts.csv").rename(columns={"what": "label", "day": "group"})
    frame["file"] = [str(tables / name) for name in frame["file"]]
    own = read_metadata(model_path(run.path))
    own = own.model_copy(update={"data": own.data.model_copy(update={"columns": Columns(separator="|")})})
    assert known_columns(own, foveola.datasets.as_source(frame)) == Columns(separator="|")
    assert known_columns(own, foveola.Dataset("a", foveola.load("digits").train)) == Columns()


def test_a_few_images_with_few_labels_are_measured(run, tables, tmp_path):
    rows = [["file", "what", "day"], *(row.values() for row in read(tables / "texts.csv") if row["what"] == "left")]
    few = write(tmp_path / "few.csv", rows)
    columns = {"label": "what", "separator": "|", "root": tables}
    assert foveola.evaluate(run.path, few, split="all", columns=columns, verbose=False).n == len(rows) - 1
    write(few, [rows[0], ["images/1.png", "left|below", "friday"]])
    with pytest.raises(DataError, match="'below' are not among"):
        foveola.evaluate(run.path, few, split="all", columns=columns, verbose=False)


def test_a_submission_has_the_form_of_the_training(run, bars_run, tables, tmp_path, foveola_command):
    for model, options, columns in (
        (run, (), ["id", "label"]),
        (bars_run, ("--label-column", "found"), ["id", "found"]),
        (bars_run, (), ["id", *NAMES]),
    ):
        out = tmp_path / "submission.csv"
        code, _, error = foveola_command(
            "predict", model.path, tables / "columns.csv", "--id-column", "id", *options, "--out", out
        )
        assert code == 0, error
        expected = [set(one.labels) for one in foveola.predict(model.path, [tables / "columns.csv"], verbose=False)]
        rows = read(out)
        assert list(rows[0]) == columns
        separator = "|" if model is run else ";"
        found = [
            {name for name in NAMES if row[name] == "1"}
            if len(columns) > 2
            else set(filter(None, row[columns[1]].split(separator)))
            for row in rows
        ]
        assert found == expected
    code, _, error = foveola_command(
        "predict", bars_run.path, tables / "columns.csv", "--id-column", "left", "--out", tmp_path / "none.csv"
    )
    assert (code, "Name the columns differently" in error) == (2, True)


def test_columns_on_the_command_line(tables, tiny, tmp_path, foveola_command):
    options = ("--label-column", "left,middle,right", "--json")
    arguments = ("train", tables / "columns.csv", "--recipe", tiny, "--epochs", "1", "--out", tmp_path / "run")
    code, out, error = foveola_command(*arguments, *options)
    assert code == 0, error
    assert json.loads(out)["data"]["columns"]["label"] == list(NAMES)
    assert (tmp_path / "run" / "report.html").is_file()
    code, out, error = foveola_command("pack", tables / "texts.csv", "--out", tmp_path / "packed", *TEXTS, "--json")
    assert code == 0, error
    assert foveola.load(tmp_path / "packed").train.labels.shape == (80, 3)
    code, _, error = foveola_command("train", "digits", "--label-separator", ";")
    assert (code, "--label-separator is for tables" in error) == (2, True)
    code, _, error = foveola_command("audit", tables / "columns.csv", "--label-column", "left,middle,right")
    assert (code, "but those of columns have several labels" in error) == (2, True)


def test_a_training_on_several_columns_is_resumed(tables, tiny, tmp_path, make_bars):
    class Interrupt(foveola.Callback):
        def on_epoch_end(self, fit):
            if interrupting:
                raise KeyboardInterrupt

    interrupting = True
    with pytest.raises(KeyboardInterrupt):
        foveola.train(
            tables / "columns.csv", tiny, columns={"label": list(NAMES)}, overrides={"epochs": 2}, report=False,
            out=tmp_path / "run", callbacks=[Interrupt()], checkpoint_every=1e-9, verbose=False,
        )  # fmt: skip
    interrupting = False
    run = foveola.resume(tmp_path / "run", callbacks=[Interrupt()], verbose=False)
    assert run.status.data.columns.labels == NAMES
    assert run.status.data.fingerprint == foveola.Dataset("bars", make_bars(80, 0)).fingerprint
    assert run.evaluation.task == "multilabel"
