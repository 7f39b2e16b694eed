"""Every command and every Python block of the documentation runs, or says why not (tutorials: test_tutorials.py)."""

import csv
import doctest
import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import page_blocks
import pytest
from page_blocks import ROOT, RUN, SHOWN, Reader, blocks, commands, pages
from PIL import Image

import foveola

TUTORIALS = ROOT / "docs" / "tutorials"
# Pages whose blocks need other data or programs than the small ones here, and their tests
OTHER_TESTS = {"docs/arrays.md": "test_arrays_page.py", "docs/own-network.md": "test_own_network_page.py"}
READ = [
    page
    for page in pages()
    if page.parent != TUTORIALS
    and str(page.relative_to(ROOT)) not in OTHER_TESTS
    and any(block.language in RUN and block.reason is None for block in blocks(page))
]
# Quick enough for every day; the others train or serve for longer
QUICK = ("CONTRIBUTING.md", "docs/how-to/gpu.md")
# Pages that begin from the published weights, which lie beside the real data
PRETRAINED = ("docs/photographs.md", "docs/how-to/few-images.md")
WEIGHTS = Path(os.environ.get("FOVEOLA_DATA") or ROOT.parent / "shared" / "data") / "backbones"
# Blocks of other languages do not begin with these
COMMANDS = ("$", "foveola", "pip", "python", "python3", "torchrun", "curl")
# Runs that a page takes for given, and the data that they were trained on
GIVEN_RUNS = {
    "README.md": {"runs/cnn": "my-images", "runs/dnn": "my-images"},
    "docs/how-to/exporting.md": {"runs/mine": "my-images"},
    "docs/serving.md": {"runs/mnist-fast": "mnist"},
}


def name_of(page):
    return str(page.relative_to(ROOT))


# What lies in the folder of a reader


@pytest.fixture(scope="session")
def belongings(tmp_path_factory):
    """A folder with everything that the pages name: small images, tables and files of models."""
    folder = tmp_path_factory.mktemp("belongings")
    draw_folders(folder)
    draw_single_images(folder)
    write_tables(folder)
    shutil.copy(ROOT / "tests" / "keras_models" / "keras3-binary.keras", folder / "model.keras")
    shutil.copy(ROOT / "tests" / "keras_models" / "keras3-binary.h5", folder / "pets.h5")
    (folder / "stopping.py").write_text(
        "import foveola\n\n\nclass StopAt(foveola.Callback):\n    def on_epoch_end(self, fit):\n        pass\n"
    )
    return folder


def picture(label, number, side=24, width=None, channels=3):
    """Noise with a bright bar, at a place for each label."""
    random = np.random.default_rng(1000 * label + number)
    pixels = random.integers(0, 90, (side, width or side, channels), dtype=np.uint8)
    pixels[2:-2, side * (label + 1) // 5 : side * (label + 1) // 5 + side // 6] += 150
    return Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])


def draw_folders(folder):
    """Image folders: name, classes, images a class, file of an image, size."""
    for name, classes, count, file, shape in (
        ("my-images", ("cat", "dog"), 30, "{}.png", {}),
        ("more-images", ("cat", "dog"), 10, "x{}.png", {}),
        ("photos", ("box", "can", "cup"), 12, "{}.jpg", {"side": 40, "width": 60}),
        ("my-photographs", ("box", "can"), 12, "{}.jpg", {"side": 72}),
        ("my-digits", ("0", "1"), 20, "{}.png", {"side": 8, "channels": 1}),
        ("scans", ("healthy", "ill"), 30, "patient{0[0]}/{0}.png", {}),
        ("signs", ("stop", "yield"), 30, "{0[0]}_{0}.png", {}),
        ("scans-to-predict", ("",), 3, "{}.png", {}),
    ):
        for label, class_name in enumerate(classes):
            for number in range(count):
                path = folder / name / class_name / file.format(f"{number:05d}"[::-1])
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(label, number, **shape).save(path)


def draw_single_images(folder):
    for name in ("new.jpg", "photo.jpg"):
        picture(1, 7, side=30).save(folder / name)
    for name in ("seven.png", "a.png", "b.jpg"):
        picture(0, 7, side=28, channels=1).save(folder / name)


def write_tables(folder):
    """Tables of paths, of pixels in Kaggle's form, and of several labels an image."""
    files = sorted((folder / "my-images").glob("*/*.png"))
    named = [(path.relative_to(folder), path.parent.name) for path in files]
    write_table(folder / "labels.csv", ("file", "class"), named)
    visits = [(file, label, f"patient{number % 10}") for number, (file, label) in enumerate(named)]
    write_table(folder / "visits.csv", ("file", "class", "patient"), visits)
    pixels = [f"pixel{number}" for number in range(64)]
    rows = [(k % 3, *np.asarray(picture(k % 3, k, 8, channels=1)).ravel()) for k in range(90)]
    write_table(folder / "train.csv", ("label", *pixels), rows)
    write_table(folder / "test.csv", pixels, [row[1:] for row in rows[:10]])
    (folder / "kaggle").mkdir()
    for name in ("train.csv", "test.csv"):
        write_table(folder / "kaggle" / name, ("label", *pixels), rows if name == "train.csv" else rows[:10])
    scenes = [(file, *(int(k % n == 0) for n in (2, 3, 5)), "") for k, (file, _) in enumerate(named)]
    names = ("beach", "people", "sunset")
    scenes = [(*row[:4], ";".join(name for name, has in zip(names, row[1:4], strict=True) if has)) for row in scenes]
    write_table(folder / "scenes.csv", ("file", *names, "tags"), scenes)
    write_table(folder / "new.csv", ("id", "file"), [(k, row[0]) for k, row in enumerate(scenes[:5])])
    write_parquet(folder / "scenes.parquet", scenes, names)


def write_table(path, head, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def write_parquet(path, scenes, names):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = [[name for name, has in zip(names, row[1:4], strict=True) if has] for row in scenes]
    parquet.write_table(pyarrow.table({"file": [str(row[0]) for row in scenes], "labels": labels}), path)


@pytest.fixture
def reader(belongings, small_catalog, tmp_path, monkeypatch, capsys, make_bars):
    """Reads pages in a folder with these belongings; data sets by name are small ones."""
    working = tmp_path / "work"
    shutil.copytree(belongings, working)
    monkeypatch.chdir(working)
    monkeypatch.syspath_prepend(str(working))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    several = make_bars(120, 0)
    return Reader(capsys, {"images": several.images, "labels": several.labels})


# The tests


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) not in QUICK)) for page in READ],
)
def test_a_page_runs_as_written(page, reader, tiny, monkeypatch):
    """Every command ends with exit code 0 and prints lines as those shown; every Python block runs."""
    if name_of(page) in PRETRAINED:
        if not WEIGHTS.is_dir():
            pytest.skip(f"no pretrained weights: {WEIGHTS} is missing")
        monkeypatch.setenv("FOVEOLA_DATA", str(WEIGHTS.parent))
        shutil.copy(WEIGHTS / "efficientnet-lite0" / "model.safetensors", "my-weights.safetensors")
    for out, data in GIVEN_RUNS.get(name_of(page), {}).items():
        foveola.train(data, tiny, out=out, report=False, verbose=False)
    expected = sum(block.language in RUN and block.reason is None for block in blocks(page))
    assert reader.read(page) == expected


def test_every_block_is_run_or_says_why_not():
    for page in pages():
        text = page.read_text("utf-8")
        for block in blocks(page):
            where = f"{name_of(page)}, line {block.line}"
            assert block.language in (*RUN, *SHOWN), f"{where}: what is a block of {block.language!r}?"
            assert block.language in RUN or block.reason is None, f"{where}: such a block is never run"
            if block.language == "console":
                assert list(commands(block)), where
            elif block.language not in RUN:
                assert block.text.split(maxsplit=1)[0] not in COMMANDS, f"{where}: write it as console"
        fences = re.findall(r"^ *```", text, re.MULTILINE)
        assert 2 * len(blocks(page)) == len(fences), f"{name_of(page)}: a block that is not at a line's beginning"


def test_few_blocks_are_left_out():
    counted = page_blocks.count()
    assert counted["not run"] < counted["run"] / 5, counted


def test_pages_with_tests_of_their_own_have_them():
    for page, test in OTHER_TESTS.items():
        assert (ROOT / page).name in (ROOT / "tests" / "docs" / test).read_text("utf-8")


def test_blocks_of_json_and_toml_can_be_parsed():
    for page in pages():
        for block in blocks(page):
            if block.language == "json":
                json.loads(block.text)
            elif block.language == "toml":
                tomllib.loads(block.text)


def test_the_examples_of_the_reader_run():
    assert doctest.testmod(page_blocks).failed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```console\n$ foveola frobnicate\n```\n", "ended with 2"),
        ("```console\n$ foveola summary lenet5\nTotal parameters of 3: x\n```\n", "was printed in its place"),
        ("```console\nfoveola summary lenet5\n```\n", "begins with a command"),
        ("```console\n$ make coffee\n```\n", "make coffee"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```python\nassert 1 > 2, 'no'\n```\n", "no"),
    ],
)
def test_a_wrong_page_fails(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = Path("page.md")
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=message):
        Reader(capsys, {}).read(page)


def test_a_right_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = Path("page.md")
    page.write_text(
        "<!-- not run: it would fail -->\n```console\n$ false\n```\n"
        "```toml\n# a.toml\nx = 1\n```\n```python\nfrom pathlib import Path\nread = Path('a.toml').read_text()\n```\n"
        "```python\nassert 'x = 1' in read\n```\n"
        "```console\n$ foveola summary lenet5\n…\nTotal parameters: 99,999\n"
        "$ cat a.toml | tail -n 1  # shows\nx = 2\n```\n",
        encoding="utf-8",
    )
    assert Reader(capsys, {}).read(page) == 3
