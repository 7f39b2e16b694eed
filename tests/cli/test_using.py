"""`predict`: class and probability of a picture. `export`: a file that other commands take as a model."""

import json
from pathlib import Path

from PIL import Image, ImageOps


def test_predict_names_class_and_probability(foveola_command, arguments, picture):
    code, out, _ = foveola_command("predict", *arguments["predict"], "--top", 2, "--json")
    assert code == 0
    (answer,) = json.loads(out)["predictions"]
    assert answer["image"] == str(picture)
    assert answer["top"][0] == {"class": answer["class"], "probability": answer["probability"]}
    assert len(answer["top"]) == 2
    text = foveola_command("predict", *arguments["predict"]).out
    assert f"{answer['class']}" in text
    assert f"{answer['probability']:.3f}" in text


def test_predict_names_what_looks_wrong_and_what_would_help(foveola_command, arguments, toy_run, picture):
    ImageOps.invert(Image.open(picture)).save("dark.png")
    text = foveola_command("predict", toy_run, "dark.png").out
    assert "dark on light, where the training images are light on dark" in text
    assert "What may help: --fix invert" in text
    fixed = foveola_command("predict", toy_run, "dark.png", "--fix", "invert, center", "--show", "seen")
    assert fixed.code == 0
    assert "Fixed: invert, center" in fixed.out
    assert {path.name for path in Path("seen").iterdir()} == {"1-dark-before.png", "1-dark-after.png"}
    out = foveola_command("predict", toy_run, "dark.png", "--fix", "auto", "--json").out
    (answer,) = json.loads(out)["predictions"]
    assert "invert" in answer["fixes"]
    (polarity,) = (finding for finding in answer["findings"] if finding["code"] == "polarity")
    assert polarity["fix"] == "invert"


def test_predict_says_that_it_is_uncertain(foveola_command, toy_npz, tiny, picture):
    run = ["train", toy_npz, "--recipe", tiny, "--epochs", 1, "--reject", 0, "--set", "learning_rate=1e-6"]
    trained = json.loads(foveola_command(*run, "--out", "unsure", "--json").out)
    answer = foveola_command("predict", "unsure", picture, "--json")
    (answer,) = json.loads(answer.out)["predictions"]
    assert answer["uncertain"] is (answer["probability"] < (trained["reject"]["threshold"] or 2))
    assert answer["uncertain"]
    assert f"uncertain (most likely {answer['class']})" in foveola_command("predict", "unsure", picture).out


def test_an_export_is_a_model_with_the_runs_own_figures(foveola_command, arguments, toy_run, toy_npz):
    code, out, _ = foveola_command("export", *arguments["export"], "--json")
    document = json.loads(out)
    assert code == 0
    assert document["path"] == "model.onnx"
    assert document["parity"]["images"] == 1000
    assert document["parity"]["largest_difference"] < 1e-3
    run, export = (
        json.loads(foveola_command("evaluate", model, toy_npz, "--json").out) for model in (toy_run, "model.onnx")
    )
    assert export["confusion"] == run["confusion"]
    assert abs(export["log_loss"]["value"] - run["log_loss"]["value"]) < 1e-4


def test_an_unknown_format_is_named(foveola_command, toy_run):
    code, _, err = foveola_command("export", toy_run, "--format", "onx")
    assert code == 2
    assert "'onx'" in err and "onnx" in err
