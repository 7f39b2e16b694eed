"""`explain` and `convolve`: options that reach the workflow, output, and refusals."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps


def test_explain_prints_the_class_and_the_page(foveola_command, arguments, image_file):
    code, out, _ = foveola_command("explain", *arguments["explain"], "--class", "right", "--out", "seen")
    assert code == 0
    assert Path("seen/explanation.html").is_file()
    assert "Open seen/explanation.html" in out
    assert "HiResCAM is not possible" in out
    document = json.loads(foveola_command("explain", *arguments["explain"], "--class", "right", "--json").out)
    (row,) = document["explanations"]
    assert row["image"] == str(image_file)
    assert {"class": "right", "probability": row["classes"][-1]["probability"]}.items() <= row["classes"][-1].items()
    assert document["page"] == "explanation/explanation.html"


def test_explain_compares_with_grad_cam(foveola_command, arguments):
    out = foveola_command("explain", *arguments["explain"], "--method", "grad-cam", "--json").out
    document = json.loads(out)
    assert document["method"] == "grad-cam"
    assert document["explanations"][0]["cam"].startswith("Grad-CAM is not possible")  # a dense network
    code, _, err = foveola_command("explain", *arguments["explain"], "--method", "gradcam")
    assert code == 2
    assert "Unknown --method 'gradcam'. Did you mean 'grad-cam'" in err


def test_explain_applies_fixes_first(foveola_command, toy_run, image_file):
    ImageOps.invert(Image.open(image_file)).save("dark.png")
    out = foveola_command("explain", toy_run, "dark.png", "--fix", "invert, center", "--json").out
    assert json.loads(out)["explanations"][0]["fixes"] == ["invert", "center"]


def test_convolve_prints_sum_and_output(foveola_command):
    code, out, _ = foveola_command("convolve", "letter:A", "--kernel", "diagonal", "--position", "0,2")
    assert code == 0
    assert "Convolution 3×3, stride 1, valid: 9×9 → 7×7" in out
    assert "Row 0, column 2: 0×(-1) + 0×(-1) + 1×2" in out
    assert ["-1", "-2", "6", "-3", "0", "-2", "2"] in [line.split() for line in out.splitlines()]
    assert Path("convolution.html").is_file()


def test_convolve_options_reach_the_lab(foveola_command):
    _, out, _ = foveola_command(
        "convolve", "letter:E", "--kernel", "[[1, -1], [1, -1]]", "--stride", 2, "--padding", "same",
        "--pool", "average", "--size", 3, "--out", "lab.png", "--json",
    )  # fmt: skip
    first, second = json.loads(out)["stages"]
    assert (first["kernel"], first["stride"], first["padding"]) == ([[1, -1], [1, -1]], 2, "same")
    assert (second["operation"], second["window"], second["output_size"]) == ("average", [3, 3], [1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["letter:Z"], "Unknown letter 'Z'"),
        (["letter:A", "--kernel", "[[1], [2, 3]]"], "different lengths: 1, 2"),
        (["letter:A", "--padding", "full"], "Unknown --padding 'full'"),
        (["letter:A", "--pool", "min"], "Unknown --pool 'min'"),
        (["letter:A", "--position", "1;2"], "--position is '1;2'"),
        (["letter:A", "--position", "-1,2"], "--position is '-1,2'"),
        (["letter:A", "--out", "lab.mp4"], "does not end in a format"),
    ],
)
def test_convolve_refuses_and_writes_nothing(foveola_command, arguments, message):
    code, out, err = foveola_command("convolve", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(Path().glob("*.html")) == []


def test_explain_names_a_file_that_is_not_utf_8(foveola_command, toy_run, image_file):
    image = image_file.rename(os.fsdecode(b"caf\xe9.png"))
    document = json.loads(foveola_command("explain", toy_run, image, "--json").out)
    assert document["explanations"][0]["image"] == "caf\\xe9.png"
    code, out, _ = foveola_command("explain", toy_run, image)
    assert code == 0
    assert "caf\\xe9.png" in out


def test_convolve_reads_standard_input_and_takes_one_image_only(foveola_command, image_file, monkeypatch):
    named = foveola_command("convolve", image_file, "--json")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(image_file.read_bytes())))
    piped = foveola_command("convolve", "-", "--json")
    assert piped.code == named.code == 0
    documents = [json.loads(answer.out) for answer in (named, piped)]
    assert {**documents[1], "image": documents[0]["image"]} == documents[0]
    shutil.copy(image_file, "second.png")
    code, _, err = foveola_command("convolve", "*.png")
    assert (code, "stands for 2 images, but one is shown" in err) == (2, True)
