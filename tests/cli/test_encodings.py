"""Consoles that cannot encode the output, and names of files that are not UTF-8: never the end of a command."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from foveola.cli import main
from foveola.cli.output import show
from foveola.documents import Catalog, CatalogRow

ENCODINGS = ["cp1252", "cp932", "cp437", "ascii"]


class Console(io.TextIOWrapper):
    """A standard output of another encoding, strict as Python's own; `written` is what it has received."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")

    @property
    def written(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding, "replace")  # Click takes ASCII for UTF-8


@pytest.fixture(params=ENCODINGS)
def output(request, monkeypatch):
    """Opens a standard output of each encoding; pytest's own would take its place between fixture and test."""

    def output():
        console = Console(request.param)
        monkeypatch.setattr(sys, "stdout", console)
        return console

    return output


@pytest.mark.parametrize(
    "arguments", [["datasets"], ["recipes", "fast"], ["summary", "lenet5"], ["--help"], ["train", "-h"]]
)
def test_tables_and_help_are_printed_anywhere(output, arguments):
    console = output()
    assert main(arguments) == 0
    assert len(console.written) > 100


def test_json_is_the_same_everywhere(output):
    console = output()
    assert main(["datasets", "--json"]) == 0
    found = {row["name"]: row["classes"] for row in json.loads(console.written)["datasets"]}
    assert "".join(found["kmnist"]) == "おきすつなはまやれを"


def test_json_escapes_letters_outside_the_basic_plane_and_lone_surrogates(output):
    row = CatalogRow(
        name="\U0001d538é", title="caf\udce9", train=1, test=0, image_shape=[1], classes=["ü"], licence="", citation="",
        path=None,
    )  # fmt: skip
    console = output()
    show(Catalog(datasets=[row]), True, lambda tables: tables)
    found = json.loads(console.written)["datasets"][0]
    assert (found["name"], found["title"], found["classes"]) == ("\U0001d538é", r"caf\xe9", ["ü"])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_are_printed_anywhere(encoding):
    result = subprocess.run(
        [sys.executable, "-m", "foveola", "train", "nowhere-おé"], capture_output=True, check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "explain", "audit"])
@pytest.mark.parametrize("as_json", [False, True])
def test_commands_print_anywhere(arguments, monkeypatch, command, as_json):
    console = Console("ascii")
    monkeypatch.setattr(sys, "stdout", console)
    assert main([command, *map(str, arguments[command]), "--quiet", *["--json"] * as_json]) == 0
    assert console.written


LATIN_1 = os.fsdecode(b"caf\xe9")


@pytest.fixture
def pictures(tmp_path):
    """Two classes, the first one not UTF-8 as its folder and one of its files are."""
    for label, name in enumerate((LATIN_1, "b")):
        folder = tmp_path / LATIN_1 / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[2:6, 1 + 3 * label : 3 + 3 * label] = 250
            Image.fromarray(pixels).save(folder / os.fsdecode(b"\xfe%d.png" % number))
    return tmp_path / LATIN_1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_are_not_utf_8_end_no_command(foveola_command, pictures, tiny, tmp_path):
    (pictures / "b" / os.fsdecode(b"\xff.png")).write_bytes(b"broken")
    assert r"\xff.png" in foveola_command("train", pictures, "--recipe", tiny).err
    trained = foveola_command("train", pictures, "--recipe", tiny, "--out", "run", "--skip-bad", 1, "--json")
    document = json.loads(trained.out)
    assert document["data"]["classes"] == ["b", r"caf\xe9"]
    assert document["data"]["name"] == r"caf\xe9"
    assert document["data"]["skipped"][0].endswith(r"caf\xe9/b/\xff.png")
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["data"] == document["data"]
    assert r"caf\xe9" in (tmp_path / "run" / "report.html").read_text("utf-8")

    image = pictures / "b" / os.fsdecode(b"\xfe1.png")
    predicted = foveola_command("predict", "run", image, "--json")
    assert json.loads(predicted.out)["predictions"][0]["image"].endswith(r"caf\xe9/b/\xfe1.png")
    assert foveola_command("predict", "run", image, "--out", "answers.csv").code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text("utf-8"))))
    assert r"\xfe1.png" in rows[0]["image"]
    for command in (
        ["predict", "run", image],
        ["evaluate", "run", pictures, "--skip-bad", 1],
        ["evaluate", "run", pictures, "--skip-bad", 1, "--json"],
        ["explain", "run", image, "--out", "explained"],
        ["report", "run"],  # finds the data again by its escaped path
        ["audit", pictures, "--recipe", tiny, "--skip-bad", 1, "--out", "findings"],
    ):
        assert foveola_command(*command).code == 0, command
    findings = json.loads((tmp_path / "findings" / "audit.json").read_bytes())
    assert findings["data"]["name"] == r"caf\xe9"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_run_is_not_written_where_it_could_not_be_opened(foveola_command, toy_npz, tiny):
    outcome = foveola_command("train", toy_npz, "--recipe", tiny, "--out", LATIN_1)
    assert outcome.code == 2
    assert r"caf\xe9 is not UTF-8" in outcome.err
