"""Search spaces: TOML read and written, keys and bounds checked, the start inside."""

import pytest

from foveola.errors import RecipeError
from foveola.recipe import load_recipe, recipe_names
from foveola.training.search_space import TUNABLE, Choices, Range, default_space, parse_space, read_space

DOCUMENT = {
    "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "batch_size": {"choices": [64, 128]},
    "augment": {"shift": {"low": 0, "high": 4, "step": 2}, "zoom": {"low": 0, "high": 1}},
}


def test_a_space_is_read_with_nested_keys_and_the_types_of_the_recipe(tmp_path):
    space = parse_space(DOCUMENT)
    assert space.dimensions == {
        "learning_rate": Range(0.001, 0.1, log=True),
        "batch_size": Choices((64, 128)),
        "augment.shift": Range(0, 4, step=2),
        "augment.zoom": Range(0.0, 1.0),
    }
    assert isinstance(space.dimensions["augment.shift"].low, int)
    assert isinstance(space.dimensions["augment.zoom"].low, float)
    (tmp_path / "space.toml").write_text(space.to_toml())
    assert read_space(tmp_path / "space.toml") == space


@pytest.mark.parametrize("name", recipe_names())
def test_the_default_space_holds_its_recipe_and_every_bound_is_a_recipe(name, tmp_path):
    recipe = load_recipe(name)
    space = default_space(recipe)
    space.check(recipe, "default")
    assert space.apply(recipe, space.start(recipe)) == recipe
    (tmp_path / "space.toml").write_text(space.to_toml())
    assert read_space(tmp_path / "space.toml") == space


def test_the_strength_is_searched_only_where_a_recipe_has_one():
    assert "augment.strength" not in default_space(load_recipe("fast")).dimensions
    space = default_space(load_recipe("fast", {"augment.strength": 0.5}))
    assert space.dimensions["augment.strength"] == Range(0.0, 1.0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "is empty"),
        ({"learning_rat": {"low": 1, "high": 2}}, "Did you mean 'learning_rate'"),
        ({"augment": {"shfit": {"low": 1, "high": 2}}}, "Did you mean 'augment.shift'"),
        ({"layers": {"choices": [1, 2]}}, "layers cannot be tuned: .*foveola compare"),
        ({"validation": {"low": 0.1, "high": 0.2}}, "validation cannot be tuned"),
        ({"distill": {"weight": {"low": 0.0, "high": 1.0}}}, "distill cannot be tuned: trials have no teacher"),
        ({"epochs": 5}, "epochs is 5; it should be a range"),
        ({"augment": 5}, "Unknown key 'augment'"),
        ({"epochs": {"low": 1}}, "epochs needs low and high"),
        ({"epochs": {"low": 1, "high": 2, "choices": [1, 2]}}, "epochs needs low and high"),
        ({"epochs": {"low": 1, "hihg": 2}}, "Did you mean 'high'"),
        ({"epochs": {"low": 2, "high": 2}}, "from 2 to 2; low should be less"),
        ({"epochs": {"low": "1", "high": 2}}, "low of epochs is '1'; it should be a number"),
        ({"epochs": {"low": 1, "high": float("inf")}}, "high of epochs is inf"),
        ({"epochs": {"low": True, "high": 2}}, "low of epochs is True"),
        ({"epochs": {"low": 1, "high": 4, "step": 2}}, "not a multiple of step"),
        ({"epochs": {"low": 1, "high": 4, "log": "yes"}}, "log of epochs is 'yes'"),
        ({"weight_decay": {"low": 0.0, "high": 0.1, "log": True}}, "needs low above 0"),
        ({"optimizer": {"low": 1, "high": 2}}, "optimizer is not a number"),
        ({"optimizer": {"choices": ["adam"]}}, "two or more"),
        ({"optimizer": {"choices": ["adam", "adam"]}}, "each once"),
        ({"optimizer": {"choices": [["adam"], ["sgd"]]}}, "list of texts or numbers"),
    ],
)
def test_what_cannot_be_a_space_is_refused_by_name(document, message):
    with pytest.raises(RecipeError, match=message):
        parse_space(document, "space.toml")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"learning_rate": {"low": -1.0, "high": 0.1}}, "learning_rate is -1.0; it should be greater than 0"),
        ({"augment": {"zoom": {"low": 0.0, "high": 1.0}}}, "augment.zoom is 1.0; it should be less than 1"),
        ({"batch_size": {"choices": [1, 128]}}, "Batch normalisation needs more than one image"),
        ({"optimizer": {"choices": ["muon", "lion"]}}, "optimizer is 'lion'"),
        ({"learning_rate": {"low": 1, "high": 2.5}, "epochs": {"low": 1.5, "high": 2}}, "epochs is 1.5"),
    ],
)
def test_bounds_are_checked_by_the_recipe(document, message):
    with pytest.raises(RecipeError, match=message):
        parse_space(document).check(load_recipe("fast"), "space.toml")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"learning_rate": {"low": 0.1, "high": 0.2}}, "learning_rate of recipe fast is 0.015, which is not in"),
        ({"patience": {"low": 1, "high": 3}}, "patience of recipe fast is not set"),
        ({"batch_size": {"choices": [32, 64]}}, "batch_size of recipe fast is 128.*32, 64"),
        ({"batch_size": {"low": 100, "high": 140, "step": 20}}, "100 to 140 in steps of 20"),
    ],
)
def test_the_recipe_to_start_from_must_be_in_the_space(document, message):
    with pytest.raises(RecipeError, match=message):
        parse_space(document).start(load_recipe("fast"))


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        read_space(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = {")
    with pytest.raises(RecipeError, match="not valid TOML"):
        read_space(tmp_path / "bad.toml")


def test_every_tunable_key_is_a_setting_of_the_recipe():
    known = {setting.key for setting in load_recipe("fast").settings()}
    assert set(TUNABLE) <= known
