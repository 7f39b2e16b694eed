"""Recipes: round trips, error messages in the terms of the file, overrides."""

import json
import math
import os

import numpy as np
import pytest
from pydantic import ValidationError

from foveola.errors import RecipeError
from foveola.models.layers import LAYERS
from foveola.models.shapes import infer_shapes
from foveola.recipe import Recipe, load_recipe, parse_override, parse_recipe, recipe_names
from foveola.recipe_parts import Augment

MINIMAL = {"name": "mine", "layers": [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]}


def error_message(document):
    with pytest.raises(RecipeError) as error:
        parse_recipe(document)
    return str(error.value)


def test_the_documented_recipes_are_built_in():
    assert {"lenet5", "west", "eduonix", "kmnist", "mlp", "fast"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_built_in_recipe_has_the_name_of_its_file_and_a_description(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize("name", recipe_names())
def test_toml_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "other-name.toml"
    path.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(path) == recipe
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_json_round_trip(name):
    recipe = load_recipe(name)
    document = json.loads(json.dumps(recipe.model_dump(mode="json", exclude_none=True), allow_nan=False))
    assert parse_recipe(document) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_all_settings_and_layers_round_trip_through_toml(tmp_path):
    recipe = parse_recipe(
        {
            **MINIMAL,
            "image_size": 12,
            "channels": "grey",
            "patience": 4,
            "keep": "best",
            "monitor": "val_auc",
            "epoch_auc": True,
            "reject": 0.01,
            "batches": "random",
            "steps_per_epoch": 7,
            "augment": {"shift": 2, "rotation": 7.5, "zoom": 0.1, "flip": True, "cutout": 3, "mixup": 0.2},
            "layers": [
                {"type": "Conv2D", "filters": 3, "stride": 2, "padding": "same", "activation": "gelu", "bias": False},
                {"type": "BatchNorm", "momentum": 0.99, "epsilon": 1e-5},
                {"type": "MaxPool2D", "stride": 1},
                {"type": "AveragePool2D", "size": 3, "padding": "same"},
                {"type": "Activation", "function": "silu"},
                {"type": "Dropout", "rate": 0.25},
                {"type": "GlobalMaxPool2D"},
                {"type": "Dense", "units": "classes"},
            ],
        }
    )
    path = tmp_path / "mine.toml"
    path.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(path) == recipe


def test_a_recipe_without_a_name_has_the_name_of_its_file(tmp_path):
    path = tmp_path / "my-net.toml"
    path.write_text('layers = [{type = "Flatten"}, {type = "Dense", units = "classes"}]')
    assert load_recipe(path).name == "my-net"


@pytest.mark.parametrize("model", [Recipe, Augment])
def test_every_setting_has_a_description_of_one_line(model):
    for name, field in model.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("west").epochs = 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimiser": "adam"}, "Unknown key 'optimiser'. Did you mean 'optimizer'?"),
        ({"learningrate": 1}, "Unknown key 'learningrate'. Did you mean 'learning_rate'?"),
        ({"lr": 0.1}, "Unknown key 'lr'. Did you mean 'learning_rate'?"),
        ({"bs": 32}, "Unknown key 'bs'. Did you mean 'batch_size'?"),
        ({"augment": {"rotaton": 5}}, "Unknown key 'rotaton'. Did you mean 'rotation'?"),
        ({"layers": [{"type": "Conv2d", "filters": 3}]}, "Layer 1: Unknown layer 'Conv2d'. Did you mean 'Conv2D'?"),
        (
            {"layers": [{"type": "Flatten"}, {"type": "Dense", "unit": 3, "units": 3}]},
            "Layer 2: Unknown Dense setting 'unit'. Did you mean 'units'?",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(change, expected):
    message = error_message({**MINIMAL, **change})
    assert expected in message
    assert "Known: " in message


def test_an_unknown_recipe_is_refused_with_the_nearest_known_one():
    with pytest.raises(RecipeError, match=r"Unknown recipe 'lenet'\. Did you mean 'lenet5'\?.*path of a TOML file"):
        load_recipe("lenet")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": -1}, "epochs is -1; it should be greater than or equal to 0."),
        ({"epochs": 0}, "Nothing would be trained: with epochs = 0, the last layer is fitted as head_views says"),
        ({"epochs": True}, "epochs is True; it should be a valid integer."),
        ({"epochs": "3"}, "epochs is '3'; it should be a valid integer."),
        ({"epochs": 2.5}, "epochs is 2.5; it should be a valid integer."),
        ({"learning_rate": 0}, "learning_rate is 0; it should be greater than 0."),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; it should be a valid number."),
        ({"learning_rate": math.nan}, "learning_rate is nan; it should be a finite number."),
        ({"weight_decay": math.inf}, "weight_decay is inf; it should be a finite number."),
        ({"augment": {"rotation": math.inf}}, "augment.rotation is inf; it should be a finite number."),
        ({"augment": {"flip": "maybe"}}, "augment.flip is 'maybe'; it should be a valid boolean or 'auto'."),
        ({"augment": {"zoom": 1}}, "augment.zoom is 1; it should be less than 1."),
        ({"validation": 1.0}, "validation is 1.0; it should be less than 1."),
        ({"validation": -0.1}, "validation is -0.1; it should be greater than or equal to 0."),
        ({"label_smoothing": 1}, "label_smoothing is 1; it should be less than 1."),
        ({"image_size": 2}, "image_size is 2; it should be greater than or equal to 4."),
        ({"image_size": "2x48"}, "image_size is '2x48'; it should be greater than or equal to 4."),
        ({"image_size": [48, 513]}, "image_size is [48, 513]; it should be less than or equal to 512."),
        (
            {"image_size": "48 by 96"},
            "image_size is '48 by 96'; it should be a side from 4 to 512 pixels, or height x width such as 48x96.",
        ),
        (
            {"image_size": True},
            "image_size is True; it should be a side from 4 to 512 pixels, or height x width such as 48x96.",
        ),
        (
            {"image_size": [48]},
            "image_size is [48]; it should be a side from 4 to 512 pixels, or height x width such as 48x96.",
        ),
        ({"resize": "squash"}, "resize is 'squash'; it should be 'auto', 'stretch' or 'letterbox'."),
        ({"schedule": "cosin"}, "schedule is 'cosin'; it should be 'constant', 'cosine', 'one-cycle' or 'step'."),
        ({"layers": "none"}, "layers is 'none'; it should be a valid tuple."),
        ({"layers": [7]}, "layer 1 is 7; it should be"),
        ({"layers": [{"type": "Conv2D"}]}, "layer 1 (Conv2D) filters is missing."),
        (
            {"layers": [{"type": "Dense", "units": "clases"}]},
            "layer 1 (Dense) units is 'clases'; it should be a valid integer or 'classes'.",
        ),
        (
            {"layers": [{"type": "Conv2D", "filters": 1, "padding": "full"}]},
            "layer 1 (Conv2D) padding is 'full'; it should be 'valid', 'same' or 'symmetric'.",
        ),
        (
            {"layers": [{"type": "BatchNorm", "epsilon": math.inf}]},
            "layer 1 (BatchNorm) epsilon is inf; it should be a finite number.",
        ),
        ({"layers": [{"type": "Dropout", "rate": math.nan}]}, "layer 1 (Dropout) rate is nan; it should be"),
    ],
)
def test_an_invalid_value_is_refused_with_what_it_should_be(change, expected):
    assert expected in error_message({**MINIMAL, **change})


def test_a_missing_key_is_named():
    assert error_message({"name": "mine"}) == "recipe: layers is missing."


def test_several_errors_are_reported_together():
    message = error_message({**MINIMAL, "epochs": -1, "batch_sise": 3})
    assert "epochs is -1" in message
    assert "Did you mean 'batch_size'?" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"batches": "random"}, "needs steps_per_epoch"),
        ({"steps_per_epoch": 5}, 'recipe: steps_per_epoch is only used with batches = "random"'),
        ({"validation": 0, "keep": "best"}, "set validation above 0"),
        ({"validation": 0, "patience": 3}, "set validation above 0"),
        ({"validation": 0, "epoch_auc": True}, "set validation above 0"),
        ({"validation": 0, "reject": 0.01}, "set validation above 0"),
        ({"reject": 1.5}, "reject is 1.5; it should be less than 1"),
        ({"monitor": "val_auc"}, "needs epoch_auc = true"),
    ],
)
def test_inconsistent_settings_are_refused(change, expected):
    assert expected in error_message({**MINIMAL, **change})


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"mine\.toml is not valid TOML"):
        load_recipe(path)
    path.write_text("epochs = 3")
    with pytest.raises(RecipeError, match=r"mine\.toml: layers is missing"):
        load_recipe(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"mine\.toml cannot be read"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "absent.toml")


def test_overrides_replace_values_and_reach_into_tables():
    recipe = load_recipe("west", {"learning_rate": 0.5, "augment.shift": 2, "augment.flip": True})
    assert (recipe.learning_rate, recipe.augment.shift, recipe.augment.flip) == (0.5, 2, True)
    assert recipe.model_copy(update={"learning_rate": 1e-3, "augment": load_recipe("west").augment}) == load_recipe(
        "west"
    )


def test_overrides_do_not_change_the_original_recipe():
    first = load_recipe("west", {"augment.shift": 1})
    second = load_recipe(first, {"augment.rotation": 5.0})
    assert (first.augment.shift, first.augment.rotation) == (1, 0.0)
    assert (second.augment.shift, second.augment.rotation) == (1, 5.0)


def test_explicit_epochs_override_the_minimum_number_of_steps():
    assert load_recipe("fast").minimum_steps > 0
    explicit = load_recipe("fast", {"epochs": 2})
    assert (explicit.epochs, explicit.minimum_steps) == (2, 0)
    both = load_recipe("fast", {"epochs": 2, "minimum_steps": 50})
    assert (both.epochs, both.minimum_steps) == (2, 50)
    assert load_recipe("fast", {"learning_rate": 1e-3}).minimum_steps == load_recipe("fast").minimum_steps


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"epocs": 3}, "Did you mean 'epochs'"),
        ({"augment.shfit": 3}, "Did you mean 'shift'"),
        ({"agument.shift": 3}, "Did you mean 'augment'"),
        ({"epochs.a": 3}, "'epochs' is a value, not a table"),
        ({"layers.0.filters": 3}, "'layers' is a value, not a table"),
        ({"learning_rate": math.inf}, "finite number"),
        ({"augment": 3}, "augment is 3; it should be"),
    ],
)
def test_invalid_overrides_are_refused(overrides, expected):
    with pytest.raises(RecipeError, match=expected):
        load_recipe("west", overrides)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("epochs=3", ("epochs", 3)),
        (" learning_rate = 2e-3 ", ("learning_rate", 0.002)),
        ("keep=best", ("keep", "best")),
        ('keep="best"', ("keep", "best")),
        ("augment.flip=true", ("augment.flip", True)),
        ("description=a=b", ("description", "a=b")),
        ("description=", ("description", "")),
    ],
)
def test_parse_override(text, parsed):
    assert parse_override(text) == parsed
    assert type(parse_override(text)[1]) is type(parsed[1])


@pytest.mark.parametrize("text", ["epochs", "=3", "  =3", ""])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(RecipeError, match="--set takes key=value"):
        parse_override(text)


@pytest.mark.parametrize("text", ["learning_rate=inf", "learning_rate=nan", "learning_rate=-inf"])
def test_values_that_are_not_finite_are_refused(text):
    with pytest.raises(RecipeError, match="learning_rate is"):
        load_recipe("west", dict([parse_override(text)]))


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_takes_28_by_28_grey_images(name):
    recipe = load_recipe(name)
    side = 28 + 2 * recipe.pad
    assert infer_shapes(recipe.layers, (side, side, 1), 10)[-1].output_shape == (10,)


def test_the_table_of_layers_uses_the_names_in_recipes():
    for name, layer in LAYERS.items():
        assert layer.model_fields["type"].default == name
    assert len(set(LAYERS.values())) == len(LAYERS)
    assert np.all([layer.__doc__ for layer in LAYERS.values()])


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, 'name = "\\uD800"'])
def test_what_the_parser_of_toml_cannot_hold_is_refused(tmp_path, text):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"own.toml is not valid TOML"):
        load_recipe(tmp_path / "own.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "own.toml")
    with pytest.raises(RecipeError, match=r"own.toml is not a file"):
        load_recipe(tmp_path / "own.toml")


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (48, 48),
        ("48x96", (48, 96)),
        ("48×96", (48, 96)),
        (" 48 X 96 ", (48, 96)),
        ([48, 96], (48, 96)),
        ("64x64", 64),
        ([64, 64], 64),
    ],
)
def test_image_size_is_a_side_or_height_and_width(tmp_path, given, size):
    recipe = load_recipe("fast", {"image_size": given})
    assert recipe.image_size == size
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    (tmp_path / "mine.toml").write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(tmp_path / "mine.toml") == recipe
    shown = next(setting.value for setting in recipe.settings() if setting.key == "image_size")
    assert shown == ("x".join(map(str, size)) if isinstance(size, tuple) else str(size))
    assert load_recipe("fast", dict([parse_override(f"image_size={shown}")])).image_size == size
