"""Whether classes hang on colour, judged by images that are made so."""

import numpy as np
import pytest

import foveola
from foveola.images import Dataset, ImageSet
from foveola.recipe import load_recipe
from foveola.training.colour import colour_evidence, settle_augmentation

NAMES = ("ripe", "unripe", "none")


def pictures(kind, n=150, side=24, groups=None, seed=0):
    """Images of blurred noise, in which a square of a third of the side makes the class, by its colour or its place."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % 3)
    images = generator.normal(128, 40, (n, side // 4, side // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    colours = np.array([(220, 40, 40), (40, 200, 40), (60, 60, 220)])
    for image, label in zip(images, labels, strict=True):
        row = side // 3 * (label if kind == "place" else generator.integers(3))
        column, color = generator.integers(2 * side // 3), colours[label if kind == "colour" else generator.integers(3)]
        image[row : row + side // 3, column : column + side // 3] = color
    if kind == "grey":
        images = images.mean(axis=3, keepdims=True).repeat(3, axis=3)
    return ImageSet(images.clip(0, 255).astype(np.uint8), labels, NAMES, groups)


def test_classes_that_are_colours_are_found():
    evidence = colour_evidence(pictures("colour"))
    assert evidence.colour > 0.95
    assert evidence.tells_apart


def test_classes_that_are_places_do_not_hang_on_colour():
    evidence = colour_evidence(pictures("place", 300))
    assert evidence.colour < 0.7
    assert not evidence.tells_apart


def test_two_strong_colours_are_told_apart():
    """A red or an orange square of 4×4 pixels, of 24×24, under different light."""
    train, generator = pictures("place", 600), np.random.default_rng(1)
    images, labels = train.images.copy(), np.arange(600) % 2
    for image, label in zip(images, labels, strict=True):
        row, column = generator.integers(0, 20, 2)
        color = np.array([(220, 40, 40), (230, 120, 20)])[label] * generator.uniform(0.7, 1.1)
        image[row : row + 4, column : column + 4] = color
    assert colour_evidence(ImageSet(images, labels, NAMES[:2])).tells_apart


def test_one_pair_of_classes_is_enough():
    train = pictures("place", 300)
    images = train.images.copy()
    red = train.labels == 2
    images[red] = (images[red] * (1, 0.5, 0.5)).astype(np.uint8)
    evidence = colour_evidence(ImageSet(images, train.labels, NAMES))
    assert 2 in {evidence.first, evidence.second}
    assert evidence.tells_apart


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_have_no_colour(channels):
    grey = pictures("grey")
    assert colour_evidence(ImageSet(grey.images[..., :channels], grey.labels, NAMES)) is None


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 0), (1, 9, 0)])
def test_few_images_are_no_fault(sizes):
    train = pictures("colour")
    few = np.concatenate([np.flatnonzero(train.labels == label)[:count] for label, count in enumerate(sizes)])
    assert 0 <= colour_evidence(train.take(few)).colour <= 1


def test_images_of_one_colour_are_no_fault():
    same = np.zeros((20, 8, 8, 3), np.uint8) + np.array((9, 5, 1), np.uint8)
    assert colour_evidence(ImageSet(same, np.arange(20) % 2, NAMES[:2])).colour == 0.5


def test_images_of_a_single_group_say_nothing():
    """The other folds would be empty."""
    assert colour_evidence(pictures("colour", groups=np.zeros(150, np.int64))) is None


def test_images_of_a_group_do_not_testify_for_each_other():
    """Each group has a colour of its own, which says nothing about the class of other groups."""
    generator = np.random.default_rng(0)
    groups = np.arange(200) % 20
    colours = generator.integers(0, 256, (20, 3))
    images = np.broadcast_to(colours[groups][:, None, None], (200, 8, 8, 3)).astype(np.uint8)
    labels = (groups % 2).astype(np.int64)
    assert colour_evidence(ImageSet(images, labels, NAMES[:2])).tells_apart
    assert not colour_evidence(ImageSet(images, labels, NAMES[:2], groups)).tells_apart


def test_colour_follows_the_strength_only_where_it_is_safe():
    recipe = load_recipe("mlp", {"augment.strength": 0.5})
    settled, (sentence,) = settle_augmentation(recipe, pictures("place", 300))
    assert (settled.augment.crop, settled.augment.colour) == (0.54, 0.2)
    assert "at best" in sentence
    assert "--set augment.colour=0 " in sentence
    settled, (sentence,) = settle_augmentation(recipe, pictures("colour"))
    assert (settled.augment.crop, settled.augment.colour) == (0.54, 0.0)
    assert sentence.startswith("colour: alone, it tells ")
    assert "--set augment.colour=0.2 changes it" in sentence


def test_what_is_set_is_not_judged():
    chosen = load_recipe("mlp", {"augment.strength": 0.5, "augment.colour": 0.3})
    settled, said = settle_augmentation(chosen, pictures("colour"))
    assert (settled.augment.brightness, settled.augment.colour, said) == (0.2, 0.3, [])
    without = load_recipe("mlp")
    assert settle_augmentation(without, pictures("colour")) == (without, [])


def test_a_training_says_what_it_changes_and_records_it(tmp_path, capsys):
    overrides = {"augment.strength": 0.5, "augment.flip": True, "epochs": 1}
    run = foveola.train(
        Dataset("fruit", pictures("colour")), "mlp", overrides=overrides, out=tmp_path / "run", report=False
    )
    said = capsys.readouterr().err
    assert "augmentation: mirror images, crops to at least 54 % of the area, brightness" in said
    assert "so that it is not changed; --set augment.colour=0.2 changes it" in said
    augment = run.status.recipe.augment
    assert (augment.crop, augment.brightness, augment.contrast, augment.colour) == (0.54, 0.2, 0.2, 0.0)
    assert any(line.startswith("colour: alone, it tells") for line in run.status.data.summary)
