"""Fashion-MNIST in Kaggle's form: the images of the IDX files; training and submission."""

import csv
import time

import numpy as np
import pytest

import foveola
from foveola.cli import main

pytestmark = pytest.mark.slow


def write_table(path, images, labels=None):
    """Kaggle's form: label,pixel1,…,pixel784; without labels, id,pixel1,…"""
    first = range(1, len(images) + 1) if labels is None else labels.tolist()
    header = ",".join(["id" if labels is None else "label", *(f"pixel{number}" for number in range(1, 785))])
    with path.open("w") as file:
        file.write(f"{header}\n")
        for value, image in zip(first, images.reshape(len(images), -1).tolist(), strict=True):
            file.write(f"{value},{','.join(map(str, image))}\n")


@pytest.fixture(scope="module")
def kaggle(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kaggle")
    data = foveola.load(real_data / "fashion-mnist")
    write_table(folder / "train.csv", data.train.images, data.train.labels)
    write_table(folder / "test.csv", data.test.images)
    return folder, data


def test_60_000_rows_are_the_images_of_the_idx_files(kaggle, capsys):
    folder, data = kaggle
    started, used = time.perf_counter(), time.process_time()
    read = foveola.load(folder / "train.csv").train
    wall, processor = time.perf_counter() - started, time.process_time() - used
    np.testing.assert_array_equal(read.images, data.train.images)
    np.testing.assert_array_equal(read.labels, data.train.labels)
    with capsys.disabled():
        size = (folder / "train.csv").stat().st_size / 1e6
        print(f"\n60,000 rows, {size:.0f} MB: read in {wall:.1f} s, {processor:.1f} s of processor time")


def test_a_submission(kaggle, tmp_path):
    folder, data = kaggle
    run, out = tmp_path / "run", tmp_path / "submission.csv"
    assert (
        main(
            [
                "train",
                str(folder / "train.csv"),
                "--recipe",
                "mlp",
                "--epochs",
                "1",
                "--no-report",
                "--out",
                str(run),
                "--quiet",
            ]
        )
        == 0
    )
    assert main(["predict", str(run), str(folder / "test.csv"), "--id-column", "id", "--out", str(out), "--quiet"]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["id"] for row in rows] == [str(number + 1) for number in range(10_000)]
    accuracy = np.mean([int(row["label"]) == label for row, label in zip(rows, data.test.labels, strict=True)])
    assert accuracy > 0.8
