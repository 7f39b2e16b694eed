"""Names from data that contain what a terminal would obey, or rich's markup, in every command."""

import json
import re

import pytest
from PIL import Image

# Sets a window's title, moves the cursor by a single-character CSI, looks like markup of rich
CLASSES = ["\x1b]0;owned\x07", "\x9b2J[bold]b", "\r[red]c"]
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what rich itself writes to a terminal


def control_characters(text):
    return [letter for letter in text if letter not in "\n\t" and (ord(letter) < 32 or 127 <= ord(letter) < 160)]


@pytest.fixture
def folder(tmp_path, toy):
    for label, name in enumerate(CLASSES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(label * 20, label * 20 + 20):
            Image.fromarray(toy.train.images[index, ..., 0]).save(tmp_path / "data" / name / f"{index}\x1b[2J.png")
    return tmp_path / "data"


@pytest.fixture(params=["a pipe", "a terminal"])
def foveola(foveola_command, monkeypatch, request):
    """Run a command that must not print control characters, except rich's own to a terminal."""
    if request.param == "a terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")

    def run(*arguments, code=0):
        outcome = foveola_command(*arguments)
        assert outcome.code == code, outcome.err
        for text in (outcome.out, outcome.err):
            rest = COLOURS.sub("", text).replace("\r", "") if request.param == "a terminal" else text
            assert control_characters(rest) == [], ascii(text)
        return outcome.out

    return run


def test_no_command_prints_control_characters_from_names(foveola, folder, tiny, tmp_path):
    image = next(folder.glob("*/*.png"))
    foveola("train", folder, "--recipe", tiny, "--out", "run")
    for command, more in {
        "evaluate": ["run", folder],
        "report": ["run", "--data", folder],
        "compare": ["run", "run", "--data", folder],
        "audit": [folder, "--recipe", tiny],
        "predict": ["run", image],
        "explain": ["run", image],
        "export": ["run", "--data", folder],
        "convolve": [image],
    }.items():
        foveola(command, *more)
        json.loads(foveola(command, *more, "--json"))


def test_errors_show_no_control_characters(foveola, tmp_path):
    foveola("evaluate", "no\x1b]0;run\x07", "digits", code=2)
    foveola("predict", "no\x9brun", "x.png", code=2)
    foveola("train", "\x1b[2J", code=2)
