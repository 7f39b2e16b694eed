"""What there is: data sets, recipes, layers, this machine."""

import importlib.metadata
import json
from pathlib import Path

import pytest

import foveola


def test_datasets_names_licence_and_place(foveola_command):
    rows = {row["name"]: row for row in json.loads(foveola_command("datasets", "--json").out)["datasets"]}
    assert rows["digits"]["path"] == "embedded"
    assert {"mnist", "fashion-mnist", "kmnist", "kuzushiji-49", "emnist-letters", "cifar-10"} <= rows.keys()
    assert rows["mnist"].keys() == {
        "name", "title", "train", "test", "image_shape", "classes", "licence", "citation", "path",
    }  # fmt: skip


def test_recipes_are_complete(foveola_command):
    rows = {row["name"]: row for row in json.loads(foveola_command("recipes", "--json").out)["recipes"]}
    assert {"lenet5", "west", "eduonix", "kmnist", "mlp", "fast"} <= rows.keys()
    assert all(row["description"] and row["layers"] for row in rows.values())


@pytest.mark.parametrize(("recipe", "parameters"), [("lenet5", 61_706), ("west", 693_962), ("eduonix", 47_090)])
def test_summary_totals_of_the_tutorials(foveola_command, recipe, parameters):
    document = json.loads(foveola_command("summary", recipe, "--json").out)
    assert document["parameters"] == parameters == sum(layer["parameters"] for layer in document["layers"])
    assert f"Total parameters: {parameters:,}" in foveola_command("summary", recipe).out


def test_summary_takes_image_classes_and_settings_and_draws(foveola_command):
    code, out, _ = foveola_command(
        "summary", "mlp", "--image", "8X8x1", "--classes", 3, "--set", "pad=1", "--diagram", "mlp.svg", "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["input_shape"] == [10, 10, 1]
    assert document["layers"][-1]["output_shape"] == [3]
    assert Path("mlp.svg").read_text().startswith("<?xml")


def test_info_names_versions_and_folders(foveola_command):
    document = json.loads(foveola_command("info", "--json").out)
    assert document["versions"]["torch"] == importlib.metadata.version("torch")
    assert document["versions"]["foveola"] == foveola.__version__
    assert {"data_folder", "cache_folder", "processors", "device", "precision"} <= document.keys()
