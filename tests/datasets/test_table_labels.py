"""Several labels an image from tables: every way in gives the images of the .npz file; what is unclear is refused."""

import json
import re

import numpy as np
import pandas
import pytest
from PIL import Image

from foveola.cli.options import table_columns
from foveola.datasets import load
from foveola.datasets.reader import ReadOptions
from foveola.datasets.table import image_names, of_frame
from foveola.errors import DataError, UserError
from foveola.models.metadata import Columns

NAMES = ("beach", "people", "sun, set")
random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (16, 5, 5), dtype=np.uint8)
LABELS = random.random((16, 3)) < 0.5
LABELS[0], LABELS[1] = False, True
LISTS = [[NAMES[k] for k in np.flatnonzero(row)] for row in LABELS]
PIXELS = {f"pixel{number}": IMAGES.reshape(16, -1)[:, number] for number in range(25)}
FLAGS = {name: LABELS[:, k] for k, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "scenes.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, class_names=np.array(NAMES))
    return load(path).fingerprint


def write(path, columns):
    pandas.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(("no", "yes"), [(0, 1), ("False", "TRUE"), ("no", "Yes"), ("0.0", "1.0")])
def test_columns_of_zeros_and_ones_in_a_csv(tmp_path, expected, no, yes):
    flags = {name: np.where(values, yes, no) for name, values in FLAGS.items()}
    data = load(write(tmp_path / "a.csv", {**flags, **PIXELS}), label_column=list(NAMES))
    assert (data.fingerprint, data.class_names, data.task) == (expected, NAMES, "multilabel")


@pytest.mark.parametrize("separator", [";", "|", " ", " / "])
def test_texts_with_a_separator(tmp_path, separator):
    names = [name.replace(", ", "-") for name in NAMES]
    texts = [separator.join(name.replace(", ", "-") for name in row) for row in LISTS]
    table = write(tmp_path / "a.csv", {"tags": texts, **PIXELS})
    data = load(table, label_column="tags", label_separator=separator)
    np.testing.assert_array_equal(data.train.labels, LABELS)
    assert data.class_names == tuple(names)
    assert f"{texts.count('')} rows have an empty cell in column 'tags': images without labels" in data.notes
    frame = pandas.read_csv(table)  # whose empty cells are NaN
    assert of_frame(frame, label="tags", separator=separator).fingerprint == data.fingerprint


def test_lists_in_parquet_and_frames(tmp_path, expected):
    pa, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    import pyarrow.parquet as pq

    table = pa.table({"labels": LISTS, **PIXELS})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    data = load(tmp_path / "a.parquet")
    assert data.fingerprint == expected
    assert "column 'labels' holds lists: several labels an image" in data.notes
    frames = (table, table.to_pandas(), polars.from_arrow(table), pandas.DataFrame({"labels": LISTS, **PIXELS}))
    assert {of_frame(frame).fingerprint for frame in frames} == {expected}
    flags = pandas.DataFrame({**FLAGS, **PIXELS})
    for frame in (flags, polars.from_pandas(flags), pa.Table.from_pandas(flags)):
        assert of_frame(frame, label=NAMES).fingerprint == expected


@pytest.mark.parametrize("form", [lambda inner: {"feature": inner, "_type": "List"}, lambda inner: [inner]])
def test_lists_of_classes_whose_names_are_saved(tmp_path, expected, form):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    features = {"labels": form({"names": list(NAMES), "_type": "ClassLabel"})}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    numbers = [np.flatnonzero(row).tolist() for row in LABELS]
    pq.write_table(pa.table({"labels": numbers, **PIXELS}).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").fingerprint == expected
    numbers[3] = [7]
    pq.write_table(pa.table({"labels": numbers, **PIXELS}).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 4: 7 in a list of labels; classes are numbered from 0 to 2"):
        load(tmp_path / "a.parquet")


def test_lists_of_numbers_and_of_zeros_and_ones():
    frame = pandas.DataFrame({"labels": [[10, 2], [], [2.0], [10, 10]] * 4, **PIXELS})
    assert of_frame(frame).class_names == ("2", "10")
    for lists in (LABELS.tolist(), LABELS.astype(int).tolist()):
        data = of_frame(pandas.DataFrame({"labels": lists, **PIXELS}))
        np.testing.assert_array_equal(data.train.labels, LABELS)
        assert data.class_names == ("0", "1", "2")


class _Loaded:
    """A loaded data set of the library datasets, as far as it is used."""

    column_names = ("image", "tags")

    def __init__(self, lists, names):
        inner = type("ClassLabel", (), {"names": names})()
        self.features = {"image": type("Image", (), {})(), "tags": type("List", (), {"feature": inner})()}
        self.columns = {"image": [Image.fromarray(image) for image in IMAGES], "tags": lists}

    def __len__(self):
        return len(IMAGES)

    def select_columns(self, names):
        assert names == ["image"]
        return _Images(self.columns["image"])

    def __getitem__(self, name):
        return self.columns[name]


class _Images(list):
    def __getitem__(self, index):
        return {"image": super().__getitem__(index)}


def test_a_loaded_data_set_of_the_hub(expected):
    numbers = [np.flatnonzero(row).tolist() for row in LABELS]
    data = load(_Loaded(numbers, list(NAMES)))
    assert (data.fingerprint, data.class_names) == (expected, NAMES)
    with pytest.raises(DataError, match="row 0: no label in column 'tags'"):
        load(_Loaded([None, *numbers[1:]], list(NAMES)))


@pytest.mark.slow
def test_what_the_library_datasets_saves(tmp_path, expected):
    datasets = pytest.importorskip("datasets")
    labels = datasets.Sequence(datasets.ClassLabel(names=list(NAMES)))
    features = datasets.Features({"image": datasets.Image(), "labels": labels})
    numbers = [np.flatnonzero(row).tolist() for row in LABELS]
    made = datasets.Dataset.from_dict({"image": [Image.fromarray(one) for one in IMAGES], "labels": numbers}, features)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "a.parquet")
    assert {load(source).fingerprint for source in (tmp_path / "saved", tmp_path / "a.parquet", made)} == {expected}


def test_columns_of_labels_on_the_command_line():
    assert table_columns(label="a")["label"] == ["a"]
    assert table_columns(label='beach, people,"sun, set"', separator=";") == {"label": list(NAMES), "separator": ";"}
    with pytest.raises(UserError, match="not a list of names"):
        table_columns(label='a,"b')
    assert Columns(label=("a", "b")).model_dump(mode="json")["label"] == ["a", "b"]
    assert Columns.model_validate_json('{"label": "a"}').labels == ("a",)


def test_a_test_table_without_the_columns_of_labels_is_no_test_split(tmp_path, expected):
    write(tmp_path / "train.csv", {**{name: values.astype(int) for name, values in FLAGS.items()}, **PIXELS})
    write(tmp_path / "test.csv", {"id": range(16), **PIXELS})
    data = load(tmp_path, label_column=NAMES)
    assert (data.fingerprint, data.test) == (expected, None)
    assert any("test.csv has no labels, so that it is not a test split" in note for note in data.notes)
    with pytest.raises(DataError, match=r"train\.csv: Unknown column 'beech'\. Did you mean 'beach'"):
        load(tmp_path, label_column=("beech", "peple"))


def test_columns_of_zeros_and_ones_are_proposed_not_guessed(tmp_path):
    table = write(tmp_path / "a.csv", {**{name: values.astype(int) for name, values in FLAGS.items()}, **PIXELS})
    with pytest.raises(DataError, match=re.escape("""--label-column 'beach,people,"sun, set"'. A table""")):
        load(table)


def test_names_that_seem_to_be_several_are_said(tmp_path):
    texts = ["|".join(row) or "none" for row in LISTS]
    notes = "\n".join(load(write(tmp_path / "a.csv", {"tags": texts, **PIXELS}), label_column="tags").notes)
    assert "are taken for one class each; if they are several labels: --label-separator '|'" in notes
    single = {name: np.arange(16) % 3 == k for k, name in enumerate(NAMES)}
    notes = of_frame(pandas.DataFrame({**single, **PIXELS}), label=NAMES).notes
    assert any(note.startswith("every row has exactly one of the labels") for note in notes)


def test_rows_that_cannot_be_used_are_listed(tmp_path):
    (tmp_path / "images").mkdir()
    paths = [f"images/{number}.png" for number in range(16)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(tmp_path / path)
    cells = {name: values.astype(int).astype(object) for name, values in FLAGS.items()}
    cells["beach"][2], cells["people"][3] = "", "maybe"
    table = write(tmp_path / "a.csv", {"file": paths, **cells})
    with (tmp_path / "a.csv").open("a") as file:
        file.write(f"{paths[0]},1,0,0\n")
    with pytest.raises(DataError) as refused:
        load(table, label_column=NAMES)
    for fault in (
        "line 4: nothing in column 'beach', where 0 or 1 should be",
        "line 5: 'maybe' in column 'people', where 0 or 1 should be",
        f"line 18: {tmp_path}/images/0.png has the label 'beach' here, and 'no label' in line 2",
        "--skip-bad 3",
    ):
        assert fault in str(refused.value)
    data = load(table, label_column=NAMES, skip_bad=3)
    usable = [0, 1, *range(4, 16)]
    np.testing.assert_array_equal(data.train.labels, LABELS[usable])
    options = ReadOptions(columns=Columns(label=NAMES))
    assert [name.rpartition("/")[2] for name in image_names(table, options, data)["train"]] == [
        f"{number}.png" for number in usable
    ]


def test_splits_groups_and_weights_go_with_several_labels():
    columns = {
        "labels": LISTS, "split": ["train", "train", "val", "test"] * 4,
        "patient": list(range(8)) * 2, "weight": np.arange(16) / 4,
    }  # fmt: skip
    data = of_frame(pandas.DataFrame({**columns, **PIXELS}), group="patient")
    np.testing.assert_array_equal(data.test.labels, LABELS[3::4])
    assert data.train.class_counts.tolist() == LABELS[np.arange(16) % 4 < 2].sum(axis=0).tolist()
    assert data.test.weights.tolist() == [0.75, 1.75, 2.75, 3.75]
    assert data.test.groups.tolist()[:2] == data.test.groups.tolist()[2:]


def test_known_names_are_kept_where_few_occur():
    few = pandas.DataFrame({"labels": LISTS, **PIXELS}).iloc[:1]
    with pytest.raises(DataError, match=r"the only label is \(none\), and lists need two at least"):
        of_frame(few)
    assert load(few, label_names=NAMES).class_names == NAMES
    with pytest.raises(DataError, match="'people', 'sun, set' are not among the names"):
        load(pandas.DataFrame({"labels": LISTS, **PIXELS}), label_names=("beach", "cow"))


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        (LISTS, {"separator": ";"}, "holds lists, which need no --label-separator"),
        (LISTS, {"label": ("labels", "more")}, "holds lists, where zeros and ones should be"),
        (["a;b"] * 16, {"separator": ""}, "--label-separator is empty"),
        (["a;b"] * 16, {"label": ("labels", "more"), "separator": ";"}, "divides the texts of one column"),
        (["a;b"] * 16, {"label": ("labels", "labels")}, "must be different"),
        (["a;b"] * 16, {"label": ()}, "one at least"),
        (["a;b"] * 16, {"label": "x" * 2000}, "no names of columns"),
        ([*LISTS[:-1], "cat"], {}, "row 15: 'cat' in column 'labels', where a list should be"),
        ([*LISTS[:-1], [1.5]], {}, "row 15: '1.5' in a list of labels is neither a name nor a whole number"),
        ([*LISTS[:-1], [None]], {}, "row 15: 'None' in a list of labels is neither"),
        ([[f"{row}-{n}" for n in range(300)] for row in range(16)], {}, "4,800 different labels of 16 images"),
    ],
)
def test_what_cannot_be_several_labels_is_refused(labels, options, reason):
    frame = pandas.DataFrame({"labels": pandas.Series(labels, dtype=object), "more": 1, **PIXELS})
    with pytest.raises(DataError, match=re.escape(reason)):
        of_frame(frame, **{"label": "labels", **options})
