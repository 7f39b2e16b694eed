"""Trainings on tables, their columns found again, and predictions in files."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets.reload import reload_data
from foveola.errors import DataError
from foveola.models.metadata import Columns
from foveola.models.model_file import read_metadata
from foveola.progress import no_progress
from foveola.workflow.open import model_path
from foveola.workflow.predict import find_readable


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read(path):
    return list(csv.reader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def tables(toy, tmp_path_factory):
    """Images as files; a table with two columns that could hold labels; tables of pixels, with and without labels."""
    folder = tmp_path_factory.mktemp("tables")
    names = [toy.class_names[label] for label in toy.train.labels]
    (folder / "images").mkdir()
    for number, image in enumerate(toy.train.images):
        Image.fromarray(image[..., 0]).save(folder / "images" / f"{number}.png")
    rows = [[f"images/{number}.png", name, f"writer {number % 20}"] for number, name in enumerate(names)]
    write(folder / "labels.csv", [["file", "position", "person"], *rows])
    pixels = toy.train.images.reshape(len(names), -1).tolist()
    header = [f"pixel{number}" for number in range(64)]
    write(folder / "train.csv", [["label", *header], *([name, *row] for name, row in zip(names, pixels, strict=True))])
    write(folder / "test.csv", [["Id", *header], *([f"n{n}", *row] for n, row in enumerate(pixels))])
    return folder


COLUMNS = {"image": "file", "label": "position", "group": "person"}


@pytest.fixture(scope="module")
def run(tables, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tables"
    overrides = {"epochs": 60}
    return foveola.train(
        tables / "labels.csv", tiny, columns=COLUMNS, overrides=overrides, out=out, report=False, verbose=False
    )


def reloaded(run):
    """The data as a report or an export loads it again."""
    return reload_data(run.status.data, run.path, read_metadata(model_path(run.path)), None, "Test", no_progress)


def test_columns_are_recorded_and_used_again(run, tables):
    recorded = run.status.data
    assert recorded.columns.given == COLUMNS
    assert recorded.path == str(tables / "labels.csv")
    assert read_metadata(model_path(run.path)).data.columns.given == COLUMNS
    evaluation = foveola.evaluate(run.path, tables / "labels.csv", verbose=False)
    assert (evaluation.split, evaluation.accuracy) == ("test", run.evaluation.accuracy)
    assert reloaded(run).fingerprint == recorded.fingerprint
    with pytest.raises(DataError, match="no column that seems to hold labels"):
        foveola.load(tables / "labels.csv")


def test_the_folder_of_the_images_is_recorded_for_this_machine_only(tables, tiny, tmp_path):
    table = write(tmp_path / "a.csv", read(tables / "labels.csv"))
    columns = {**COLUMNS, "root": tables}
    run = foveola.train(table, tiny, columns=columns, out=tmp_path / "run", report=False, verbose=False)
    assert run.status.data.columns.root == str(tables)
    assert read_metadata(model_path(run.path)).data.columns.root is None
    assert reloaded(run).fingerprint == run.status.data.fingerprint
    with pytest.raises(DataError, match=r"Unknown key of columns 'labels'. Did you mean 'label'"):
        foveola.train(table, tiny, columns={"labels": "position"}, out=tmp_path / "none", verbose=False)
    assert not (tmp_path / "none").exists()


def test_fixes_find_the_images_of_a_table(run, tables):
    evaluation = foveola.evaluate(run.path, tables / "labels.csv", fix=["auto"], verbose=False)
    assert evaluation.n == run.evaluation.n


def test_the_audit_names_the_files_of_a_table(tables, tiny, tmp_path):
    found = foveola.audit(
        tables / "labels.csv", columns=COLUMNS, recipe=tiny, epochs=1, out=tmp_path / "audit", verbose=False
    )
    paths = {suspect.path for suspect in found.label_suspects}
    assert paths
    assert all(path.startswith(str(tables / "images")) for path in paths)


@pytest.mark.parametrize("kind", ["paths", "pixels"])
def test_a_table_is_predicted_as_its_images_are(run, tables, toy, kind):
    table = tables / ("labels.csv" if kind == "paths" else "test.csv")
    files = [str(tables / "images" / f"{number}.png") for number in range(len(toy.train))]
    expected = foveola.predict(run.path, files, verbose=False)
    found = foveola.predict(run.path, [table], verbose=False)
    assert [one.top for one in found] == [one.top for one in expected]
    assert found[0].image == (files[0] if kind == "paths" else f"{table}, line 2")


def test_pixels_without_header_may_follow_a_column(run, tables, toy, tmp_path):
    rows = [[n, *row] for n, row in enumerate(toy.train.images.reshape(len(toy.train), -1).tolist())]
    found = find_readable([write(tmp_path / "a.csv", rows)], read_metadata(model_path(run.path)), Columns())
    np.testing.assert_array_equal([image.read().pixels for image in found], toy.train.images)


def test_the_column_of_images_is_known_where_there_are_no_labels(run, tables):
    rows = [[row[0], row[0].replace("images/1.png", "images/2.png")] for row in read(tables / "labels.csv")[1:3]]
    table = write(tables / "two.csv", [["image", "file"], *rows])
    found = foveola.predict(run.path, [table], verbose=False)
    assert [one.image for one in found] == [str(tables / name) for _, name in rows]


def test_a_submission(run, tables, tmp_path, foveola_command):
    expected = [one.class_name for one in foveola.predict(run.path, [tables / "test.csv"], verbose=False)]
    for id_column, ids in (
        ("Id", [f"n{number}" for number in range(60)]),
        ("ImageId", [str(n + 1) for n in range(60)]),
    ):
        out = tmp_path / "submission.csv"
        code, _, _ = foveola_command(
            "predict", run.path, tables / "test.csv", "--id-column", id_column, "--label-column", "Class", "--out", out
        )
        assert code == 0
        rows = read(out)
        assert rows == [[id_column, "Class"], *([number, name] for number, name in zip(ids, expected, strict=True))]
    code, _, error = foveola_command("predict", run.path, tables / "test.csv", "--id-column", "Id")
    assert (code, "there is no --out" in error) == (2, True)
    code, _, error = foveola_command(
        "predict", run.path, tables / "test.csv", "--id-column", "label", "--out", tmp_path / "none.csv"
    )
    assert (code, "Name the columns differently" in error, (tmp_path / "none.csv").exists()) == (2, True, False)


def test_a_submission_of_image_files_has_their_names(run, tables, tmp_path, foveola_command):
    out = tmp_path / "submission.csv"
    foveola_command("predict", run.path, tables / "images" / "7.png", "--id-column", "id", "--out", out)
    assert [row[0] for row in read(out)] == ["id", "7.png"]


def test_a_workbook_is_refused_before_the_work(run, tables, tmp_path, foveola_command):
    out = tmp_path / "answers.xlsx"
    refused = foveola_command("predict", run.path, tables / "images" / "1.png", "--out", out)
    assert (refused.code, out.exists()) == (2, False)
    assert "would be a workbook" in refused.err


def test_predictions_as_json_lines_and_parquet(run, tables, tmp_path, foveola_command):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = write(tmp_path / "few.csv", [["file"], [str(tables / "images" / "1.png")], ["none.png"]])
    arguments = ("predict", run.path, table, "--image-root", "/", "--out")
    codes = [foveola_command(*arguments, tmp_path / name).code for name in ("a.jsonl", "a.parquet", "a.csv")]
    assert codes == [2, 2, 2]  # one image is missing, and said so
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    (expected,) = foveola.predict(run.path, [tables / "images" / "1.png"], verbose=False)
    assert (first["class"], first["probability"]) == (expected.class_name, pytest.approx(expected.probability))
    assert "does not exist" in second["refused"]
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert (rows[0]["class"], rows[0]["uncertain"], rows[0]["refused"]) == (expected.class_name, False, None)
    assert (rows[1]["class"], rows[1]["probability"]) == (None, None)
    assert "does not exist" in rows[1]["refused"]
    texts = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["image"] for row in texts] == [row["image"] for row in rows]


def test_columns_on_the_command_line(tables, tiny, tmp_path, foveola_command):
    options = ("--image-column", "file", "--label-column", "position", "--group-column", "person", "--json")
    table = tables / "labels.csv"
    code, out, error = foveola_command(
        "train", table, "--recipe", tiny, "--out", tmp_path / "run", "--no-report", *options
    )
    assert code == 0, error
    assert json.loads(out)["data"]["columns"] == {
        **COLUMNS,
        "split": None,
        "weight": None,
        "separator": None,
        "root": None,
    }
    code, out, error = foveola_command("pack", table, "--out", tmp_path / "packed", *options)
    assert code == 0, error
    assert json.loads(out)["splits"] == {"train": 60}
    code, _, error = foveola_command("evaluate", tmp_path / "run", table, "--label-column", "postion", "--json")
    assert code == 2
    assert "Did you mean 'position'" in error
    code, _, error = foveola_command("train", "digits", "--label-column", "x")
    assert code == 2
    assert "is for tables" in error
