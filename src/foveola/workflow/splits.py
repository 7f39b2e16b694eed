"""Which images a model may learn from, select by, and be measured on."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from foveola.errors import DataError
from foveola.images import Dataset, ImageSet
from foveola.models.card import DataOrigin, ModelCard

Split = Literal["test", "validation", "train", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)

# The held-out test part depends on the data alone, so that runs with different seeds are measured on the same images.
_TEST_SEED = 0


@dataclass(frozen=True)
class Parts:
    """What a training may learn from, select by, and is measured on once."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet | None


def split(dataset: Dataset, validation: float, test: float, seed: int) -> Parts:
    """Complete the splits that the data brings along.

    Parameters
    ----------
    validation : share of the training images, where the data brings no validation split; 0 for none
    test : share of all images, where the data brings no test split; 0 for none
    seed : of the validation split; the test split depends on the data alone
    """
    rest, held_out = dataset.train, dataset.test
    if held_out is None and test:
        rest, held_out = rest.split(test, _TEST_SEED)
    if dataset.validation is not None or not validation:
        return Parts(rest, dataset.validation, held_out)
    return Parts(*rest.split(validation, seed), held_out)


def split_again(dataset: Dataset, origin: DataOrigin) -> Parts:
    """The data that a model has learnt from, split as it was then."""
    return split(dataset, origin.validation, origin.test or 0.0, origin.seed)


def choose_split(dataset: Dataset, card: ModelCard, wanted: Split) -> tuple[ImageSet, str, bool]:
    """The images to judge by, the name of the split, and whether the model has never learnt from them."""
    origin = card.data
    own = origin is not None and origin.fingerprint == dataset.fingerprint
    if own and origin is not None:
        parts = split_again(dataset, origin)
    else:
        parts = Parts(dataset.train, dataset.validation, dataset.test)
    if wanted == "all" or (wanted == "test" and parts.test is None and not own):
        return _all_of(parts), "all", not own
    chosen = {"train": parts.train, "validation": parts.validation, "test": parts.test}[wanted]
    if chosen is None:
        raise DataError(f"{dataset.name} has no {wanted} split for this model. Choose another with --split.")
    return chosen, wanted, not (own and wanted == "train")


def _all_of(parts: Parts) -> ImageSet:
    every = [part for part in (parts.train, parts.validation, parts.test) if part is not None]
    images, labels = (np.concatenate([getattr(part, name) for part in every]) for name in ("images", "labels"))
    return ImageSet(images, labels, parts.train.class_names)
