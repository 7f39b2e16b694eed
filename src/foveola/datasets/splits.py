"""Division of a data set into training, validation and test images."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from foveola.errors import DataError
from foveola.images import Dataset, ImageSet
from foveola.models.metadata import DataOrigin, ModelMetadata

Split = Literal["test", "validation", "train", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)

# The test split depends only on the data, so that runs with different seeds are compared on the same images.
_TEST_SEED = 0


@dataclass(frozen=True)
class Splits:
    """Training, validation and test images of one training."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet | None


def split_dataset(dataset: Dataset, validation: float, test: float, seed: int) -> Splits:
    """The splits of a data set; a missing validation or test split is drawn from the training images.

    Parameters
    ----------
    validation : fraction of the training images, if the data has no validation split; 0 for none
    test : fraction of the images, if the data has no test split; 0 for none
    seed : of the validation split; the test split depends only on the data
    """
    training_images, test_images = dataset.train, dataset.test
    if test_images is None and test:
        training_images, test_images = training_images.split(test, _TEST_SEED)
    if dataset.validation is not None or not validation:
        return Splits(training_images, dataset.validation, test_images)
    return Splits(*training_images.split(validation, seed), test_images)


def restore_splits(dataset: Dataset, origin: DataOrigin) -> Splits:
    """The data that a model was trained on, split as it was for the training."""
    return split_dataset(dataset, origin.validation, origin.test or 0.0, origin.seed)


def select_split(dataset: Dataset, metadata: ModelMetadata, split: Split) -> tuple[ImageSet, str, bool]:
    """The images of a split, its name, and whether they are held out: the model was not trained on any of them.

    Data that the model was not trained on needs no test split: without one, all of it is used.
    """
    origin = metadata.data
    trained_on = origin is not None and origin.fingerprint == dataset.fingerprint
    if trained_on and origin is not None:
        splits = restore_splits(dataset, origin)
    else:
        splits = Splits(dataset.train, dataset.validation, dataset.test)
    if split == "all" or (split == "test" and splits.test is None and not trained_on):
        return _all_images(splits), "all", not trained_on
    selected = {"train": splits.train, "validation": splits.validation, "test": splits.test}[split]
    if selected is None:
        raise DataError(f"{dataset.name} has no {split} split for this model. Choose another with --split.")
    return selected, split, not (trained_on and split == "train")


def _all_images(splits: Splits) -> ImageSet:
    present = [split for split in (splits.train, splits.validation, splits.test) if split is not None]
    images, labels = (np.concatenate([getattr(split, name) for split in present]) for name in ("images", "labels"))
    return ImageSet(images, labels, splits.train.class_names)
