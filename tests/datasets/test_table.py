"""Tables: every way in gives the images of the IDX files; columns are guessed and said; bad tables are refused."""

import csv
import io
import json
import os
import re
import struct
import sys
import tarfile
import types

import numpy as np
import pandas
import pytest
from PIL import Image

from foveola.datasets import delimited, load, shards, webdataset
from foveola.datasets.reader import ReadOptions
from foveola.datasets.table import image_names, of_frame
from foveola.errors import DataError, MissingExtra
from foveola.models.metadata import Columns
from foveola.workflow.pack import pack

COUNT, SIDE = 12, 5
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE), dtype=np.uint8)
LABELS = np.arange(COUNT) % 3
FLAT = PIXELS.reshape(COUNT, -1)


def write_csv(path, rows, header=(), delimiter=",", encoding="utf-8", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter, **options).writerows([header] * bool(header) + list(rows))
    return path


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def pixel_columns(first=0):
    return [f"pixel{number + first}" for number in range(SIDE * SIDE)]


def pixel_rows(values=FLAT):
    return [[label, *row.tolist()] for label, row in zip(LABELS, values, strict=True)]


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples():
    for number, (image, label) in enumerate(zip(PIXELS, LABELS.tolist(), strict=True)):
        yield number, png(image), label


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The IDX files of the same images."""
    folder = tmp_path_factory.mktemp("idx")
    for name, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS.astype(np.uint8))):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(head + array.tobytes())
    return load(folder).fingerprint


@pytest.fixture
def folder(tmp_path):
    """Image files, in a folder of their own."""
    (tmp_path / "scans").mkdir()
    for number, content, _ in samples():
        (tmp_path / "scans" / f"s{number}.png").write_bytes(content)
    return tmp_path


def paths(start="scans/", end=".png"):
    return [f"{start}s{number}{end}" for number in range(COUNT)]


def path_table(folder, rows=None, header=("file", "class"), name="labels.csv", **options):
    rows = list(zip(paths(), LABELS.tolist(), strict=True)) if rows is None else rows
    return write_csv(folder / name, rows, header, **options)


# Ways in

CSV_FORMS = {
    "kaggle-mnist": {"header": ["label", *pixel_columns()]},
    "kaggle-fashion-mnist": {"header": ["label", *pixel_columns(1)]},
    "rows-and-columns": {"header": ["label", *(f"{row}x{column}" for row in range(1, 6) for column in range(1, 6))]},
    "without-header": {},
    "numbers-as-header": {"header": list(range(SIDE * SIDE + 1))},
    "semicolons-and-bom": {"header": ["label", *pixel_columns()], "delimiter": ";", "encoding": "utf-8-sig"},
    "tabs": {"header": ["label", *pixel_columns()], "delimiter": "\t"},
    "utf-16": {"header": ["label", *pixel_columns()], "delimiter": "\t", "encoding": "utf-16"},
    "quoted": {"header": ["label", *pixel_columns()], "quoting": csv.QUOTE_ALL},
}


@pytest.mark.parametrize("form", CSV_FORMS.values(), ids=CSV_FORMS)
def test_a_csv_of_pixels(tmp_path, expected, form):
    assert load(write_csv(tmp_path / "digits.csv", pixel_rows(), **form)).fingerprint == expected


def test_a_header_may_be_longer_than_a_cell(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 128 * 128 * 3))
    header = ["label", *(f"pixel{number}" for number in range(128 * 128 * 3))]
    data = load(write_csv(tmp_path / "a.csv", [[n % 2, *row.tolist()] for n, row in enumerate(images)], header))
    np.testing.assert_array_equal(data.train.images, images.reshape(4, 128, 128, 3))


@pytest.mark.parametrize("scaled", [False, True])
def test_pixels_may_be_floats(tmp_path, expected, scaled):
    values = FLAT / 255 if scaled else FLAT.astype(float)
    table = write_csv(tmp_path / "a.csv", pixel_rows(values), ["label", *pixel_columns()])
    assert load(table).fingerprint == expected


def test_columns_of_pixels_are_ordered_by_their_numbers(tmp_path, expected):
    order = np.random.default_rng(1).permutation(SIDE * SIDE)
    header = ["row", "split", *np.array(pixel_columns())[order], "label"]
    rows = [[n, "train", *pixels[order], label] for n, (pixels, label) in enumerate(zip(FLAT, LABELS, strict=True))]
    assert load(write_csv(tmp_path / "a.csv", rows, header)).fingerprint == expected


@pytest.mark.parametrize(
    "form", [{}, {"delimiter": ";", "encoding": "utf-8-sig"}, {"delimiter": "\t", "name": "labels.tsv"}]
)
def test_a_csv_of_paths(folder, expected, form):
    assert load(path_table(folder, **form)).fingerprint == expected


@pytest.mark.parametrize("start", ["", "scans/", "s"])
def test_folder_and_extension_may_be_left_out(folder, expected, start):
    rows = [
        (path.removeprefix("ss"), label)
        for path, label in zip(paths("scans/" if start == "scans/" else "", ""), LABELS, strict=True)
    ]
    data = load(path_table(folder, rows, ("id_code", "diagnosis"), "train.csv"))
    assert data.fingerprint == expected
    assert any(note.startswith("image files are those in") for note in data.notes)


def test_numbers_may_name_files(tmp_path, expected):
    for number, content, _ in samples():
        (tmp_path / f"{number}.png").write_bytes(content)
    assert load(path_table(tmp_path, list(enumerate(LABELS)), ("id", "label"))).fingerprint == expected


def test_windows_paths(folder, expected):
    rows = list(zip(paths("scans\\"), LABELS, strict=True))
    assert load(path_table(folder, rows)).fingerprint == expected


def column_of(form):
    contents = [content for _, content, _ in samples()]
    return {
        "paths": paths(),
        "bytes": contents,
        "datasets": [{"bytes": content, "path": "x.png"} for content in contents],
        "rows": [row.tolist() for row in FLAT],
        "arrays": [image.tolist() for image in PIXELS],
        "texts": [" ".join(map(str, row)) for row in FLAT],
    }[form]


FORMS = ("paths", "bytes", "datasets", "rows", "arrays", "texts")


@pytest.mark.parametrize("form", FORMS)
def test_parquet_and_frames(folder, expected, form):
    pa, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    import pyarrow.parquet as pq

    table = pa.table({"image": column_of(form), "label": LABELS})
    pq.write_table(table, folder / "a.parquet", row_group_size=5)
    assert load(folder / "a.parquet").fingerprint == expected
    for frame in (table, table.to_pandas(), polars.from_arrow(table)):
        assert of_frame(frame, root=folder).fingerprint == expected


def test_frames_of_pixel_columns(tmp_path, expected):
    pa, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    import pyarrow.parquet as pq

    columns = {"label": LABELS, **dict(zip(pixel_columns(), FLAT.T, strict=True))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    frames = [
        load(tmp_path / "a.parquet"),
        *map(of_frame, (pandas.DataFrame(columns), polars.DataFrame(columns), pa.table(columns))),
    ]
    assert {frame.fingerprint for frame in frames} == {expected}
    assert of_frame(pandas.DataFrame(np.column_stack([LABELS, FLAT]))).fingerprint == expected


def test_a_frame_of_pillow_images_and_of_absolute_paths(folder, expected):
    images = [Image.fromarray(image) for image in PIXELS]
    assert of_frame(pandas.DataFrame({"picture": images, "y": LABELS})).fingerprint == expected
    absolute = [str(folder / path) for path in paths()]
    assert of_frame(pandas.DataFrame({"picture": absolute, "y": LABELS})).fingerprint == expected
    assert of_frame(pandas.DataFrame({"a": absolute, "b": LABELS}), image="a", label="b").fingerprint == expected


def test_a_frame_with_two_columns_of_a_name_is_refused(folder):
    frame = pandas.DataFrame({"a": paths(), "label": LABELS})
    with pytest.raises(DataError, match="several columns called 'label'"):
        of_frame(pandas.concat([frame, frame[["label"]]], axis=1), root=folder)


def test_pixels_in_a_frame_without_their_labels_are_refused_with_a_cure():
    with pytest.raises(DataError, match=r"the frame with its column of labels; or .*images.to_numpy\(\).reshape"):
        load(pandas.DataFrame(FLAT), LABELS)


@pytest.mark.parametrize("form", ["cls", "txt", "json"])
def test_an_archive_of_samples(tmp_path, expected, form):
    def members():
        for number, content, label in samples():
            text = json.dumps({"label": label, "caption": "a digit"}) if form == "json" else str(label)
            yield from ((f"a.b/{number:03}.png", content), (f"a.b/{number:03}.{form}", text.encode()))

    write_tar(tmp_path / "a.tar", members())
    before = set(tmp_path.iterdir())
    assert load(tmp_path / "a.tar").fingerprint == expected
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_datasets_has_saved(tmp_path, expected):
    pa = pytest.importorskip("pyarrow")
    folder = tmp_path / "digits" / "train"
    folder.mkdir(parents=True)
    images = [{"bytes": content, "path": None} for _, content, _ in samples()]
    table = pa.table({"image": images, "label": LABELS})
    with pa.ipc.new_stream(str(folder / "data-0.arrow"), table.schema) as stream:
        stream.write_table(table)
    names = {"names": ["zero", "one", "two"], "_type": "ClassLabel"}
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"label": names, "image": {"_type": "Image"}}}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    data = load(folder)
    assert data.class_names == ("zero", "one", "two")
    np.testing.assert_array_equal(data.train.images[..., 0], PIXELS)
    (folder.parent / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert load(folder.parent).fingerprint == data.fingerprint
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../data-0.arrow"}]}))
    with pytest.raises(DataError, match="files that are not in it"):
        load(folder)


def test_a_data_set_of_the_hub_is_loaded_by_the_library(monkeypatch, expected):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"image": [{"bytes": content, "path": None} for _, content, _ in samples()], "label": LABELS})
    part = types.SimpleNamespace(
        with_format=lambda name: {"arrow": _Whole(table)}[name],
        features=types.SimpleNamespace(to_dict=dict),
    )
    asked = []
    library = types.ModuleType("datasets")
    library.load_dataset = lambda name: asked.append(name) or {"train": part}
    monkeypatch.setitem(sys.modules, "datasets", library)
    data = load("hf:owner/digits")
    assert (data.fingerprint, data.name, asked) == (expected, "digits", ["owner/digits"])
    library.load_dataset = lambda name: 1 / 0
    with pytest.raises(DataError, match="hf:owner/none cannot be read by the library datasets: division"):
        load("hf:owner/none")


class _Whole:
    """What gives all of a table for [:], as data sets of the library do."""

    def __init__(self, table):
        self.table = table

    def __getitem__(self, _):
        return self.table


@pytest.mark.slow
def test_what_the_library_datasets_saves(tmp_path, expected):
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(image) for image in PIXELS]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["0", "1", "2"])})
    made = datasets.Dataset.from_dict({"image": images, "label": LABELS}, features)
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "dict")
    made.to_parquet(tmp_path / "a.parquet")
    for name in ("one", "dict", "a.parquet"):
        assert load(tmp_path / name).fingerprint == expected


def test_a_table_of_paths_is_packed_as_it_is_loaded(folder, expected, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_A_SHARD", 5)
    for source in (path_table(folder), write_tar(folder / "a.tar", _members())):
        packed = pack(source, folder / f"packed-{source.suffix[1:]}", processes=1, verbose=False)
        assert packed.fingerprint == expected


def _members():
    for number, content, label in samples():
        yield from ((f"{number:03}.png", content), (f"{number:03}.cls", str(label).encode()))


# Columns


def test_what_is_guessed_is_said_and_can_be_given(folder):
    rows = [(path, label, "x", path) for path, label in zip(paths(), LABELS, strict=True)]
    table = path_table(folder, rows, ("image", "label", "site", "mask"))
    assert "images from column 'image', labels from column 'label'" in load(table).notes[0]
    data = load(table, image_column="mask", label_column="label", group_column="site")
    assert data.notes == ()
    assert len(np.unique(data.train.groups)) == 1
    with pytest.raises(DataError, match=r"Unknown column 'lable'\. Did you mean 'label'"):
        load(table, label_column="lable")


@pytest.mark.parametrize(
    ("header", "cure"),
    [
        (("a", "b", "c"), "several columns with images (a, b). Name one with --image-column"),
        (("image", "b", "c"), None),
        (("image", "image", "c"), "2 columns with the name 'image'"),
    ],
)
def test_what_is_not_clear_is_asked(folder, header, cure):
    rows = [(path, path, label) for path, label in zip(paths(), LABELS, strict=True)]
    table = path_table(folder, rows, header)
    if cure is None:
        load(table)
        return
    with pytest.raises(DataError, match=re.escape(cure)):
        load(table)


def test_a_table_without_labels_says_how_to_predict_it(tmp_path):
    table = write_csv(tmp_path / "test.csv", FLAT.tolist(), pixel_columns())
    with pytest.raises(DataError, match=r"no column that seems to hold labels.*--label-column.*foveola predict RUN"):
        load(table)


def test_options_of_tables_are_refused_elsewhere(tmp_path):
    with pytest.raises(DataError, match="--label-column is for tables"):
        load("digits", label_column="class")


# Splits and groups


@pytest.mark.parametrize("values", [("train", "val", "test"), ("Training", "PublicTest", "PrivateTest")])
def test_a_column_says_the_split(folder, values):
    rows = [
        (*row, values[number % 4 // 2 + number % 2 * (number % 4 == 3)])
        for number, row in enumerate(zip(paths(), LABELS, strict=True))
    ]
    data = load(path_table(folder, rows, ("file", "class", "Usage")))
    counts = [sum(row[2] == value for row in rows) for value in values]
    assert [len(split) for split in (data.train, data.validation, data.test)] == counts


def test_unknown_splits_are_refused_by_line(folder):
    rows = [(*row, "train" if number else "fold 1") for number, row in enumerate(zip(paths(), LABELS, strict=True))]
    with pytest.raises(DataError, match=r"labels.csv, line 2: the split is 'fold 1', not train"):
        load(path_table(folder, rows, ("file", "class", "part")), split_column="part")


def test_a_folder_of_tables(tmp_path):
    for name in ("mnist_train.csv", "mnist_test.csv"):
        write_csv(tmp_path / name, pixel_rows(), ["label", *pixel_columns()])
    write_csv(tmp_path / "sample_submission.csv", [[1, 0]], ["id", "label"])
    data = load(tmp_path)
    assert (data.name, len(data.train), len(data.test)) == (tmp_path.name, COUNT, COUNT)
    write_csv(tmp_path / "mnist_test.csv", FLAT.tolist(), pixel_columns())
    data = load(tmp_path)
    assert data.test is None
    assert any("mnist_test.csv has no labels, so that it is not a test split" in note for note in data.notes)


def test_a_test_table_beside_a_training_table_is_mentioned(tmp_path):
    table = write_csv(tmp_path / "kaggle" / "train.csv", pixel_rows(), ["label", *pixel_columns()])
    test = write_csv(tmp_path / "kaggle" / "test.csv", FLAT.tolist(), pixel_columns())
    data = load(table)
    assert (data.name, data.test) == ("kaggle", None)
    assert "test.csv has no labels, so that it is not a test split" in data.notes[0]
    write_csv(test, pixel_rows(), ["label", *pixel_columns()])
    assert "test.csv beside it is not read" in load(table).notes[0]


def test_groups_come_from_a_column_or_from_names(folder):
    rows = [(path, label, "p1" if n < 4 else "") for n, (path, label) in enumerate(zip(paths(), LABELS, strict=True))]
    table = path_table(folder, rows, ("file", "class", "patient_id"))
    groups = load(table).train.groups
    assert len(np.unique(groups)) == 1 + COUNT - 4
    assert len(set(groups[:4])) == 1
    assert len(np.unique(load(table, groups="folder").train.groups)) == 1
    with pytest.raises(DataError, match="--groups and --group-column both"):
        load(table, groups="folder", group_column="patient_id")


def test_weights_come_from_a_column(folder):
    rows = [(path, label, n % 3) for n, (path, label) in enumerate(zip(paths(), LABELS, strict=True))]
    data = load(path_table(folder, rows, ("file", "class", "sample_weight")))
    assert data.train.weights.tolist() == [0.0, 1.0, 2.0] * 4
    rows[1] = (*rows[1][:2], "much")
    with pytest.raises(DataError, match=r"line 3: the weight is 'much', not a number"):
        load(path_table(folder, rows, ("file", "class", "w")), weight_column="w")


# Rows that cannot be used


def test_rows_that_cannot_be_used_are_listed_by_line(folder):
    rows = [list(row) for row in zip(paths(), LABELS.tolist(), strict=True)]
    rows[1][1] = ""
    rows[2][0] = "scans/missing.png"
    rows[3][0] = ""
    rows.append((rows[0][0], 2))
    (folder / "scans" / "s9.png").write_bytes(b"rubbish")
    table = path_table(folder, rows)
    with pytest.raises(DataError) as refused:
        load(table, skip_bad=4)
    message = str(refused.value)
    for fault in (
        "line 3: no label in column 'class'",
        "line 4: ",
        "missing.png does not exist",
        "line 5: no image",
        "line 11: ",
        "is not an image",
        f"line {COUNT + 2}: {folder}/scans/s0.png has the label '2' here, and '0' in line 2",
        "--skip-bad 5",
    ):
        assert fault in message
    data = load(table, skip_bad=5)
    assert (len(data.train), len(data.skipped)) == (COUNT + 1 - 5, 5)
    names = image_names(table, ReadOptions(), data)["train"]
    assert [name.rpartition("/")[2] for name in names] == [f"s{n}.png" for n in (0, 4, 5, 6, 7, 8, 10, 11)]


def test_oversights_are_said(folder):
    rows = [(path, "Cat" if n == 3 else ("cat", "dog")[n % 2]) for n, path in enumerate(paths())]
    notes = "\n".join(load(path_table(folder, [*rows, rows[0]])).notes)
    assert (
        "labels differ only in their letters' case, and are different classes: 'Cat' (1 rows) and 'cat' (7 rows)"
        in notes
    )
    assert "1 rows name a file that an earlier row names, such as" in notes
    assert "line 14 and line 2" in notes


def test_labels_keep_their_kind(folder):
    names = ["01", "1", "1.5", "ö"] * 3
    assert load(path_table(folder, list(zip(paths(), names, strict=True)))).class_names == ("01", "1", "1.5", "ö")
    numbers = ["2.0", "10.0", "9"] * 4
    assert load(path_table(folder, list(zip(paths(), numbers, strict=True)))).class_names == ("2", "9", "10")


# Paths stay inside


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.png", "leads out of"),
        ("scans/../../secret.png", "leads out of"),
        ("/etc/secret.png", "leads out of"),
        ("..\\secret.png", "leads out of"),
        ("file:///etc/secret.png", "is an address"),
        ("https://example.org/1.png", "is an address"),
        ("scans", "is a folder"),
        ("labels.csv", "file extension"),
        ("scans/nul\tl.png", "does not exist"),
        ("s" * 3000 + ".png", "too long for the name of a file"),
        ("s/" * 3000 + "1.png", "too long for the name of a file"),
    ],
)
def test_a_table_names_only_image_files_inside_its_folder(folder, path, reason):
    (folder.parent / "secret.png").write_bytes(png(PIXELS[0]))
    rows = [(path, 0), *zip(paths(), LABELS, strict=True)]
    with pytest.raises(DataError, match=rf"(?s)line 2: .*{reason}.*--skip-bad 1"):
        load(path_table(folder, rows))


def test_another_root_can_be_given(folder, expected):
    (folder / "tables").mkdir()
    rows = list(zip(paths("../scans/"), LABELS, strict=True))
    table = path_table(folder, rows, name="tables/labels.csv")
    with pytest.raises(DataError, match=r"leads out of .*--image-root"):
        load(table)
    rows = [(str(folder / path), label) for path, label in zip(paths(), LABELS, strict=True)]
    table = path_table(folder, rows, name="tables/labels.csv")
    assert load(table, image_root=folder).fingerprint == expected
    with pytest.raises(DataError, match="is not a folder"):
        load(table, image_root=folder / "none")


def test_links_inside_the_folder_are_followed_as_in_image_folders(folder, expected):
    (folder / "linked").symlink_to(folder / "scans")
    assert load(path_table(folder, list(zip(paths("linked/"), LABELS, strict=True)))).fingerprint == expected


# Bad files

PIXEL_TABLE = b"label,%s\n" % ",".join(pixel_columns()).encode() + b"".join(
    b"%d,%s\n" % (label, ",".join(map(str, row)).encode())
    for label, row in zip(LABELS.tolist(), FLAT.tolist(), strict=True)
)
PATH_TABLE = b"file,class\n" + b"".join(b"scans/s%d.png,%d\n" % (n, n % 3) for n in range(COUNT))
BAD = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \r\n,,\n", "is empty"),
    "header only": (PATH_TABLE.split(b"\n")[0], "no rows"),
    "pixels, header only": (PIXEL_TABLE.split(b"\n")[0], "no rows"),
    "nul": (PATH_TABLE[:40] + b"\0" + PATH_TABLE[40:], "NUL bytes"),
    "pixels, nul": (PIXEL_TABLE[:-40] + b"\0" + PIXEL_TABLE[-40:], "NUL bytes"),
    "open quote": (PATH_TABLE + b'"scans/s1.png,2\n', "unexpected end of data"),
    "pixels, open quote": (PIXEL_TABLE.replace(b"\n1,", b'\n"1,', 1), "columns, where the first line has"),
    "ragged": (PATH_TABLE + b"scans/s1.png,1,2\n", r"line 14: 3 columns, where the first line has 2"),
    "pixels, ragged": (PIXEL_TABLE + b"1,2,3\n", r"line 14: 3 columns, where the first line has 26"),
    "pixels, text": (PIXEL_TABLE.replace(b"\n1,", b"\n1,x", 1), r"line 3: 'x\d+' stands where a pixel should be"),
    "pixels, empty": (re.sub(rb"\n1,\d+,", b"\n1,,", PIXEL_TABLE, count=1), r"line 3: '' stands where a pixel"),
    "pixels, too large": (PIXEL_TABLE.replace(b"\n1,", b"\n1,9", 1), "values from 0 to 255"),
    "pixels, negative": (PIXEL_TABLE.replace(b"\n1,", b"\n1,-", 1), "values from 0 to 255"),
    "pixels, nan": (re.sub(rb"\n1,\d+,", b"\n1,nan,", PIXEL_TABLE, count=1), "not finite"),
    "not square": (("label," + ",".join(pixel_columns()[:17])).encode() + b"\n" + b"1," * 17 + b"1\n", "square"),
    "a million columns": (b",".join(b"%d" % n for n in range(10**6)) + b"\n", "characters|columns"),
    "many other columns": (",".join(f"{n}a" for n in range(10**5)).encode() + b"\n", "columns that hold no pixels"),
    "many columns of images": (b",".join([b"1.png"] * 10**5) + b"\n", "no column that seems"),
    "a long line": (b"file,class\n" + b"a" * (delimited.MAX_LINE + 10), "characters"),
    "a huge cell": (b"file,class\n" + b"a" * 200_000 + b".png,1\n", "field larger than field limit"),
    "bytes": (bytes(range(256)) * 9, "NUL bytes|no column"),
    "utf-16 cut off": (PATH_TABLE.decode().encode("utf-16")[:-1], "truncated data"),
    "several series of columns": (
        ",".join(f"{colour}{n}" for colour in "rgb" for n in range(25)).encode() + b"\n" + b"1," * 74 + b"1\n",
        "several series",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_bad_text_is_refused_in_one_message(folder, content, reason):
    (folder / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"labels.csv.*({reason})"):
        load(folder / "labels.csv")


def test_bytes_that_are_not_utf_8_are_shown_escaped(folder):
    (folder / "labels.csv").write_bytes(PATH_TABLE.replace(b",1\n", b",caf\xe9\n"))
    assert load(folder / "labels.csv").class_names == ("0", "2", r"caf\xe9")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.tar"])
def test_a_fifo_is_refused_without_being_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="not a file"):
        load(tmp_path / name)


def test_damaged_text_is_read_or_refused(folder):
    chance = np.random.default_rng(0)
    pieces = [b'"', b"\n", b",", b"\0", b"\xff", b";", b"..", b"9" * 30, b"\r", b"", b"scans/", b"-1", b"1e999"]
    for number in range(150):
        content = (PATH_TABLE, PIXEL_TABLE)[number % 2]
        for _ in range(chance.integers(1, 5)):
            at, length = int(chance.integers(len(content))), int(chance.integers(0, 9))
            content = content[:at] + pieces[chance.integers(len(pieces))] + content[at + length :]
        (folder / "labels.csv").write_bytes(content)
        try:
            load(folder / "labels.csv", skip_bad=3)
        except DataError as error:
            assert len(str(error)) < 5000


# Loads a file that must be refused for a reason
REFUSED = """
import sys
from foveola.datasets import load
from foveola.errors import DataError
try:
    load(sys.argv[1])
except DataError as error:
    assert sys.argv[2] in str(error), error
else:
    sys.exit("it was read")
"""


def parquet(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path.read_bytes()


def test_damaged_parquet_files_are_read_or_refused(folder):
    pytest.importorskip("pyarrow")
    whole = parquet(folder / "a.parquet", image=paths(), label=LABELS)
    chance = np.random.default_rng(0)
    for number in range(100):
        content = bytearray(whole[: chance.integers(len(whole))] if number % 4 == 0 else whole)
        for at in chance.integers(max(len(content), 1), size=3 * (len(content) > 0)):
            content[at] = chance.integers(256)
        (folder / "a.parquet").write_bytes(content)
        try:
            load(folder / "a.parquet", skip_bad=3)
        except DataError as error:
            assert "Traceback" not in str(error)


def test_a_parquet_file_with_more_than_fits_is_refused_before_it_is_read(folder, peak_memory):
    pa = pytest.importorskip("pyarrow")
    rows = 11_000_000
    parquet(folder / "rows.parquet", image=pa.repeat("scans/s1.png", rows), label=pa.repeat(1, rows))
    assert (folder / "rows.parquet").stat().st_size < 10**6
    assert peak_memory(REFUSED, folder / "rows.parquet", "11,000,000 rows") < 2**29


def test_copies_of_a_large_value_take_no_memory(folder, peak_memory):
    pa = pytest.importorskip("pyarrow")
    text = pa.array(["x" * 2**20 + ".png"]).dictionary_encode()
    many = pa.DictionaryArray.from_arrays(pa.repeat(0, 20_000).cast("int32"), text.dictionary)  # 20 GB
    parquet(folder / "a.parquet", image=many, label=pa.repeat(1, 20_000))
    assert peak_memory(REFUSED, folder / "a.parquet", "too long for the name of a file") < 2**29


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"foveola\[tables\]"):
        load(tmp_path / "a.parquet")


# Archives


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(tmp_path, kind):
    write_tar(tmp_path / "a.tar", [*_members(), (special("1000.png", kind, "/etc/passwd"), b"")])
    with pytest.raises(DataError, match=r"'1000\.png' in it is a link, a device or no plain file"):
        load(tmp_path / "a.tar")


def test_names_in_an_archive_are_never_paths(tmp_path, expected):
    def members():
        for number, content, label in samples():
            yield from ((f"/../{number:03}.png", content), (f"/../{number:03}.cls", str(label).encode()))

    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", members())
    assert load(tmp_path / "in" / "a.tar").fingerprint == expected
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_members_that_are_too_large_or_cut_off_are_refused(tmp_path):
    long = [*_members(), ("x.png", png(PIXELS[0])), ("x.cls", b"1" * (webdataset.MAX_TEXT + 1))]
    write_tar(tmp_path / "a.tar", long)
    with pytest.raises(DataError, match=r"x.cls has 65,537 bytes, and a label may have 65,536"):
        load(tmp_path / "a.tar")
    content = write_tar(tmp_path / "a.tar", [("x.png", bytes(5000)), ("x.cls", b"1")]).read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:2000])
    with pytest.raises(DataError, match=r"ends inside 'x\.png'"):
        load(tmp_path / "a.tar")
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=r"damaged: a head of 8,589,934,592 bytes"):
        load(tmp_path / "a.tar")


def test_damaged_archives_are_read_or_refused(tmp_path):
    whole = write_tar(tmp_path / "a.tar", _members()).read_bytes()
    chance = np.random.default_rng(0)
    for _ in range(100):
        content = bytearray(whole)
        for at in chance.integers(len(content), size=4):
            content[int(at) // 512 * 512 + int(chance.integers(512)) if at % 2 else at] = chance.integers(256)
        (tmp_path / "a.tar").write_bytes(content)
        try:
            load(tmp_path / "a.tar", skip_bad=5)
        except DataError as error:
            assert len(str(error)) < 5000


def test_columns_have_bounds():
    with pytest.raises(ValueError, match="at most 1000"):
        Columns(image="x" * 1001)
