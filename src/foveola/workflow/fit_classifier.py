"""Fit a classifier to images without a run: validation images → training → temperature. Nothing is written."""

from typing import TYPE_CHECKING, Any

from foveola.datasets.reload import load_for_recipe
from foveola.datasets.splits import Overlap, Splits, divide, unit_numbers
from foveola.datasets.weights import find_weights
from foveola.images import Dataset
from foveola.progress import no_progress
from foveola.recipe import Recipe
from foveola.workflow.calibrate import calibrate

if TYPE_CHECKING:
    import torch

    from foveola.models.classifier import Classifier


def fit_classifier(dataset: Dataset, recipe: Recipe, *, seed: int, device: "torch.device") -> "Classifier":
    """Train as `foveola.train` does, with the same result, on all images but those that the recipe has for validation.

    Parameters
    ----------
    dataset : images of another size than the recipe's are brought to it; a test split is not used
    recipe : its `test` is not used
    seed : of the validation split, the initial weights, the order of images, augmentation and dropout

    Raises
    ------
    UserError
        If recipe or data cannot be used.
    NonFiniteLoss
        If training diverges.
    """
    from foveola.training.augment import uses_flips
    from foveola.training.build import build_classifier
    from foveola.training.callbacks import selection
    from foveola.training.colour import settle_augmentation
    from foveola.training.head import fit_head
    from foveola.training.loop import choose_precision, fit

    dataset = load_for_recipe(recipe, dataset, None, 0, no_progress)
    dataset.check_trainable()
    splits, overlap = _divide(dataset, recipe, seed)
    if recipe.resize == "auto":
        recipe = recipe.model_copy(update={"resize": dataset.resize})
    recipe, _ = settle_augmentation(recipe, splits.train)
    classifier = build_classifier(
        recipe, splits.train, seed, picture_polarity=dataset.picture_polarity, pretrained=find_weights(recipe)
    )
    options: dict[str, Any] = {
        "seed": seed,
        "device": device,
        "precision": choose_precision(recipe.precision, device),
        "flip": uses_flips(recipe, dataset.flip_safe, len(splits.train)),
    }

    def fit_last_layer() -> None:
        units = unit_numbers(Splits(splits.train, None, None), overlap.together)
        fit_head(classifier, splits.train, recipe, units, **options)

    before, callbacks = fit_last_layer if recipe.head_views else None, selection(recipe)
    fit(classifier, splits.train, splits.validation, recipe, callbacks=callbacks, before=before, **options)
    calibrate(classifier, splits, recipe)
    return classifier


def _divide(dataset: Dataset, recipe: Recipe, seed: int) -> tuple[Splits, Overlap]:
    """Training and validation images; without the latter, copies need not be looked for."""
    if not recipe.validation and not recipe.head_views:
        return Splits(dataset.train, None, None), Overlap("nothing", len(dataset.train), None, None)
    return divide(dataset, recipe.validation, 0.0, seed)
