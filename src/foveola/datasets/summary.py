"""What a training says of its data first: splits, classes, images, copies and groups, in plain sentences."""

import numpy as np

from foveola.arrays import shape_text
from foveola.datasets.splits import Overlap, Splits
from foveola.images import Dataset, Originals
from foveola.text import printable

MAX_CLASSES = 10


def summarize(dataset: Dataset, splits: Splits, overlap: Overlap) -> list[str]:
    """The sentences, each a line."""
    lines = [
        _sizes(dataset, splits, overlap),
        _classes(dataset),
        *_images(dataset),
        _origin_of_splits(dataset, splits),
        *_copies(dataset, splits, overlap),
        *_groups(dataset, splits, overlap),
        *_weights(splits),
        *_leaks(splits, overlap),
        *([f"{len(dataset.skipped):,} unreadable files were skipped"] if dataset.skipped else []),
        *dataset.notes,
    ]
    return [printable(line) for line in lines]


def _sizes(dataset: Dataset, splits: Splits, overlap: Overlap) -> str:
    held_out = "" if overlap.test is not None and overlap.test.any.any() else " (held out)"
    train, validation, test = (0 if part is None else len(part) for part in vars(splits).values())
    return (
        f"{dataset.name}: {train:,} training, {validation:,} validation, {test:,} test{held_out}; "
        f"{len(dataset.class_names)} {'classes' if dataset.task == 'multiclass' else 'labels'}"
    )


def _classes(dataset: Dataset) -> str:
    names = dataset.class_names
    shown = ", ".join(name.replace("\n", " ") for name in names[:MAX_CLASSES])
    shown += f", … and {len(names) - MAX_CLASSES:,} more" if len(names) > MAX_CLASSES else ""
    if dataset.task == "multiclass":
        return f"classes: {shown}"
    return f"labels: {shown}; {dataset.train.labels.sum(axis=1).mean():.2g} an image on average"


def _images(dataset: Dataset) -> list[str]:
    """Original and learnt size, and what was converted; `notes` say what was stretched."""
    height, width, channels = dataset.image_shape
    learnt = f"{height}×{width} pixels, {'grey' if channels == 1 else 'in colour'}"
    found = dataset.originals
    if found is None or ((found.heights == height) & (found.widths == width)).all():
        lines = [f"images: {learnt}"]
    else:
        lines = [f"images: {_size_text(found)}, learnt as {learnt}"]
    if found is not None and found.colour and channels == 1:
        lines.append(f"        {found.colour:,} of {len(found.heights):,} were in colour and were converted to grey")
    return lines


def _size_text(found: Originals) -> str:
    sizes = np.stack([found.heights, found.widths], axis=1)
    areas = sizes.prod(axis=1)
    least, most = sizes[areas.argmin()], sizes[areas.argmax()]
    return shape_text(least) if (least == most).all() else f"{shape_text(least)} to {shape_text(most)}"


def _origin_of_splits(dataset: Dataset, splits: Splits) -> str:
    drawn = f"drawn at random, every {'class' if dataset.task == 'multiclass' else 'label'} in proportion"
    origins = {
        name: "none" if used is None else drawn if given is None else "as given"
        for name, given, used in (
            ("test", dataset.test, splits.test),
            ("validation", dataset.validation, splits.validation),
        )
    }
    if len(set(origins.values())) == 1:
        return f"splits: test and validation images {origins['test']}"
    return f"splits: test images {origins['test']}; validation images {origins['validation']}"


def _is_drawn(dataset: Dataset, splits: Splits) -> bool:
    pairs = ((dataset.test, splits.test), (dataset.validation, splits.validation))
    return any(given is None and used is not None for given, used in pairs)


def _copies(dataset: Dataset, splits: Splits, overlap: Overlap) -> list[str]:
    total = sum(map(len, splits.by_name.values()))
    kind = "copies and near copies" if overlap.together == "near copies" else "copies"
    if overlap.different == total:
        none = "none, not even near ones," if overlap.together == "near copies" else "none"
        lines = [f"copies: {none} among {total:,} images"]
    else:
        stay = f": {kind} stay on one side of every split that is drawn" if _is_drawn(dataset, splits) else ""
        lines = [f"copies: {total:,} images, {overlap.different:,} of them different{stay}"]
    if overlap.conflicting:
        lines.append(f"        {overlap.conflicting:,} images have copies of another class; `foveola audit` shows them")
    if overlap.scattered:
        lines.append(
            f"        {overlap.scattered:,} images are nearly the same as others, too many to keep together; if they "
            f"are series of one object, keep each together with --groups"
        )
    elif overlap.together == "copies":
        lines[0] += "; near ones are not looked for among so many"
    return lines


def _groups(dataset: Dataset, splits: Splits, overlap: Overlap) -> list[str]:
    groups = dataset.train.groups
    if groups is None:
        return []
    count = len(np.unique(groups))
    stay = "; each stays on one side of every split that is drawn" if _is_drawn(dataset, splits) else ""
    return [f"groups: {count:,} among {len(groups):,} images{stay}"]


def _weights(splits: Splits) -> list[str]:
    weights = splits.train.weights
    if weights is None:
        return []
    return [
        f"weights: {weights.min():g} to {weights.max():g} a training image; they count in loss, calibration and "
        f"metrics, not in the confusion matrix and in what a rejection threshold promises"
    ]


def _leaks(splits: Splits, overlap: Overlap) -> list[str]:
    """What is on both sides of splits that were given."""
    copies = "copies or near copies" if overlap.together == "near copies" else "copies"
    lines = []
    if overlap.test is not None and splits.test is not None and overlap.test.any.any():
        counts = {"training": int(overlap.test.training.sum()), "validation": int(overlap.test.validation.sum())}
        also = " and ".join(
            f"{count:,} {'have' if count > 1 else 'has'} {copies} among the {kind} images"
            for kind, count in counts.items()
            if count
        )
        rest = "none is left to measure on" if overlap.test.any.all() else "accuracy is also given without them"
        lines.append(f"leaks: of {len(splits.test):,} test images, {also}; {rest}")
    if overlap.validation is not None and splits.validation is not None and overlap.validation.any():
        lines.append(
            f"leaks: {int(overlap.validation.sum()):,} of {len(splits.validation):,} validation images have {copies} "
            f"among the training images, so that what is chosen by them is too confident"
        )
    for count, part, kind in (
        (overlap.test_groups, splits.test, "test"),
        (overlap.validation_groups, splits.validation, "validation"),
    ):
        if count and part is not None:
            lines.append(f"leaks: {count:,} of {len(part):,} {kind} images are of groups that are also in training")
    return lines
