"""`datasets` and `audit`; `recipes`, `summary` and `info`: tables and JSON."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

import foveola


def test_audit_prints_the_document_that_it_writes(foveola_command, arguments):
    code, out, _ = foveola_command("audit", *arguments["audit"], "--epochs", 1, "--folds", 2, "--json")
    document = json.loads(out)
    assert code == 0
    assert document == json.loads(Path("audits/toy/audit.json").read_text("utf-8"))
    assert document["settings"] == {
        "recipe": "tiny", "epochs": 1, "minimum_steps": 0, "folds": 2, "rounds": 3, "seed": 0
    }  # fmt: skip
    for suspect in document["label_suspects"]:
        assert suspect.keys() == {"split", "index", "path", "given", "suggested", "score"}


def test_the_table_shows_counts_suspects_and_their_cost(foveola_command, arguments):
    code, out, err = foveola_command("audit", *arguments["audit"], "--retrain", "--out", "findings")
    assert code == 0
    document = json.loads(Path("findings/audit.json").read_text("utf-8"))
    accuracy = document["cross_fitted_accuracy"]["value"]
    assert re.search(rf"cross-fitted accuracy +{accuracy:.4f} ", out)
    assert out.index("cross-fitted accuracy") < out.index("duplicates") < out.index("The networks contradict")
    assert "findings/audit.html" in out
    assert "without suspects" in out
    assert "network 9 of 9" in err


def test_quiet_prints_no_progress(foveola_command, arguments):
    assert foveola_command("audit", *arguments["audit"], "--quiet").err == ""


@pytest.mark.parametrize(
    ("option", "words"), [(("--recipe", "fist"), "fast"), (("--folds", 99), "60 different images cannot make 99 folds")]
)
def test_wrong_options_are_refused_and_nothing_is_written(foveola_command, arguments, option, words):
    code, _, err = foveola_command("audit", *arguments["audit"], *option)
    assert code == 2
    assert words in err
    assert not Path("audits").exists()


def test_datasets_lists_licence_and_path(foveola_command):
    rows = {row["name"]: row for row in json.loads(foveola_command("datasets", "--json").out)["datasets"]}
    assert rows["digits"]["path"] == "embedded"
    assert {"mnist", "fashion-mnist", "kmnist", "kuzushiji-49", "emnist-letters", "cifar-10"} <= rows.keys()
    assert rows["mnist"].keys() == {
        "name", "title", "train", "test", "image_shape", "classes", "licence", "citation", "path",
    }  # fmt: skip


def test_recipes_lists_every_recipe_with_its_layers(foveola_command):
    rows = {row["name"]: row for row in json.loads(foveola_command("recipes", "--json").out)["recipes"]}
    assert {"lenet5", "west", "eduonix", "kmnist", "mlp", "fast"} <= rows.keys()
    assert all(row["description"] and row["layers"] for row in rows.values())


def test_recipes_lists_licence_and_source_of_pretrained_weights(foveola_command):
    document = json.loads(foveola_command("recipes", "--json").out)
    listed = {row["name"]: row for row in document["pretrained"]}
    assert listed["resnet18"]["licence"] == "BSD-3-Clause"
    assert listed["efficientnet-lite0"].keys() == {"name", "licence", "source", "citation", "trained_on"}
    used = {row["name"]: row["pretrained"] for row in document["recipes"]}
    assert (used["efficientnet-lite0"], used["fast"]) == ("efficientnet-lite0", "none")
    text = foveola_command("recipes", "efficientnet-lite0").out
    assert "Apache-2.0" in text
    assert "https://huggingface.co/timm/tf_efficientnet_lite0.in1k" in text
    assert "Pretrained weights" not in foveola_command("recipes", "fast").out


def test_info_says_which_weights_are_on_this_machine(foveola_command, monkeypatch, tmp_path):
    path = tmp_path / "backbones" / "resnet18" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("FOVEOLA_DATA", str(tmp_path))
    monkeypatch.setenv("FOVEOLA_CACHE", str(tmp_path / "cache"))
    weights = json.loads(foveola_command("info", "--json").out)["pretrained_weights"]
    assert weights == {"efficientnet-lite0": None, "resnet18": str(path)}
    assert "not on this machine" in foveola_command("info").out


@pytest.mark.parametrize(("recipe", "parameters"), [("lenet5", 61_706), ("west", 693_962), ("eduonix", 47_090)])
def test_summary_totals_of_the_tutorials(foveola_command, recipe, parameters):
    document = json.loads(foveola_command("summary", recipe, "--json").out)
    assert document["parameters"] == parameters == sum(layer["parameters"] for layer in document["layers"])
    assert f"Total parameters: {parameters:,}" in foveola_command("summary", recipe).out


def test_summary_takes_image_classes_and_settings_and_draws_a_diagram(foveola_command):
    code, out, _ = foveola_command(
        "summary", "mlp", "--image", "8X8x1", "--classes", 3, "--set", "pad=1", "--diagram", "mlp.svg", "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["input_shape"] == [10, 10, 1]
    assert document["layers"][-1]["output_shape"] == [3]
    assert Path("mlp.svg").read_text().startswith("<?xml")


def test_info_lists_versions_and_folders(foveola_command):
    document = json.loads(foveola_command("info", "--json").out)
    assert document["versions"]["torch"] == importlib.metadata.version("torch")
    assert document["versions"]["foveola"] == foveola.__version__
    assert {"data_folder", "cache_folder", "processors", "device", "precision"} <= document.keys()
