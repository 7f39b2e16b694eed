"""Audit: duplicates, leaks between splits, placeholders, label suspects, outliers and class balance of a data set."""

import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveola.datasets import as_source
from foveola.datasets.columns import as_columns
from foveola.datasets.reload import image_paths
from foveola.datasets.series import missing_groups
from foveola.datasets.splits import Splits
from foveola.datasets.weights import find_weights
from foveola.documents import (
    Audit,
    AuditedData,
    AuditedOutlier,
    AuditSettings,
    Certainty,
    DuplicateInfo,
    ImagePlace,
    LabelSuspect,
    RandomSplit,
    Retrained,
    RetrainedRow,
)
from foveola.errors import DataError, require
from foveola.files import check_writable, write_atomically, writing
from foveola.images import Dataset, ImageSet, check_one_class
from foveola.lazy import as_lazy
from foveola.models.metadata import Columns
from foveola.predictions import Estimate, Predictions
from foveola.progress import console, show_progress
from foveola.recipe import Recipe, load_recipe
from foveola.workflow.choose_recipe import AUTO, choose_recipe
from foveola.workflow.open import Device, choose_device, choose_threads
from foveola.workflow.prepare_run import load_data

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from rich.console import Console

    from foveola.audits.label_errors import LabelErrors, Suspect
    from foveola.audits.outliers import Outlier
    from foveola.datasets.duplicates import DuplicateGroup

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Rounds of cross-fitting, each with new folds; their probabilities are averaged. On Fashion-MNIST with 1 % wrong
# labels, three rounds find a quarter of what one round misses.
ROUNDS = 3
# The held-out fraction of the split that most tutorials draw
RANDOM_SPLIT = 0.2
PAGE, TABLE, DOCUMENT = "audit.html", "findings.csv", "audit.json"
COLUMNS = ("finding", "group", "split", "index", "path", "label", "suggested", "score", "detail")


def audit(
    data: object,
    y: object = None,
    *,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "fast",
    epochs: int | None = None,
    folds: int = 3,
    seed: int = 0,
    retrain: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    groups: "str | ArrayLike | None" = None,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    skip_bad: int = 0,
    verbose: bool = True,
) -> Audit:
    """Look for faults in a data set; write the findings as a page, a table and a JSON document.

    Parameters
    ----------
    data, y : as for `foveola.load`: catalog name, path, or objects, such as images with their labels
    out : the folder for audit.html, findings.csv and audit.json, which replace earlier ones; by default audits/<name of
        the data>
    recipe, epochs : of the networks that predict the labels; by default the recipe's number of epochs. "auto" is
        "efficientnet-lite0", with pretrained weights, for colour photographs of more than 64 pixels. If a recipe fits
        its last layer first (`head_views`), only that layer is trained, unless epochs are given
    folds : number of folds; every image is predicted by networks that were trained on the training images of the other
        folds. Copies of an image are in the same fold, also those in other splits
    seed : of folds, initial weights, order of images, augmentation and dropout
    retrain : also train with and without the images that confident learning counts as label errors, and compare
    threads : number of threads, from now on in this process; by default one per core
    groups : keeps images of one patient, object or writer in one fold, as in `train`
    columns : of a table, as for `foveola.train`
    class_names, channels_first, name : as for `foveola.load`, if data is given as objects
    skip_bad : maximum number of unreadable images of a folder to skip
    verbose : report progress on standard error

    Returns
    -------
    The content of audit.json. An image is identified by its split, its index within the split as read, and its path
    (None for data that comes as arrays).

    Raises
    ------
    UserError
        If data, recipe, device or folder cannot be used; nothing is written then.
    NonFiniteLoss
        If a training diverges.

    Examples
    --------
    >>> audit = foveola.audit("digits", recipe="mlp", epochs=1, verbose=False)
    >>> audit.data.splits, len(audit.duplicates)
    ({'train': 1797}, 0)
    """
    started = time.perf_counter()
    source = as_source(data, y, class_names=class_names, channels_first=channels_first, name=name)
    for module in ("torch", "cleanlab", "jinja2"):
        require(module, "train")
    from foveola.audits.label_errors import find_label_errors
    from foveola.audits.outliers import find_outliers, rank
    from foveola.audits.placeholders import find_placeholders
    from foveola.audits.units import find_units
    from foveola.datasets.duplicates import find_duplicates
    from foveola.evaluation.intervals import grouped_wilson
    from foveola.training.colour import settle_augmentation

    own, overrides, screen = as_columns(columns), None if epochs is None else {"epochs": epochs}, console(verbose)
    if recipe == AUTO:
        loaded = choose_recipe(source, overrides, groups if isinstance(groups, str) else None, screen, own)
    else:
        loaded = load_recipe(recipe, overrides)
    head_only = loaded.head_views > 0 and epochs is None
    choose_threads(threads)
    trainer = _Trainer(loaded, seed, choose_device(device), screen, head_only)
    dataset = load_data(source, loaded, skip_bad, groups, trainer.screen, own)
    check_one_class(dataset, "Labels are audited")
    if np.count_nonzero(dataset.train.class_counts) < 2:
        raise DataError(
            f"Labels are audited by classifiers, and the training images of {dataset.name} have one class. Add images "
            f"of another class."
        )
    paths = image_paths(source, dataset, own)
    trainer = replace(trainer, recipe=settle_augmentation(loaded, dataset.train)[0])
    if as_lazy(dataset.train.images) is not None:
        raise DataError(
            f"The audit compares all images of {dataset.name} with each other, and they are too large to be in memory. "
            f"Audit a part of them, or pack them with a smaller --image-size."
        )
    folder = Path(out) if out is not None else Path("audits") / dataset.name
    check_writable(folder)
    pool = Pool.of(dataset, paths)
    trainer.say(f"{dataset.name}: looking for duplicates and outliers among {len(pool.everything):,} images")
    copies = find_duplicates(pool.everything.images)
    units = find_units(pool.everything, pool.learnt, copies, folds)
    predictions, judged = trainer.cross_fit(dataset, pool, units, folds)
    errors = find_label_errors(predictions, judged)
    probability = np.where(judged, predictions.probabilities[np.arange(len(judged)), predictions.labels], 1.0)
    placeholders = find_placeholders(pool.everything, copies, probability)
    outliers = rank([*placeholders, *find_outliers(pool.everything)])
    duplicates, group_infos = _duplicates(copies, pool)
    agreement = grouped_wilson(predictions.predicted == predictions.labels, units)
    class_counts = pool.everything.class_counts.tolist()
    document = Audit(
        data=AuditedData(
            name=dataset.name, fingerprint=dataset.fingerprint, splits=pool.sizes, groups=pool.group_count
        ),
        settings=AuditSettings(
            recipe=loaded.name,
            epochs=0 if head_only else loaded.epochs,
            minimum_steps=0 if head_only else loaded.minimum_steps,
            folds=folds,
            rounds=ROUNDS,
            seed=seed,
        ),
        cross_fitted_accuracy=agreement,
        guessing=max(class_counts) / len(judged),
        label_certainty=_certainty(agreement, class_counts, errors),
        unjudged=int((~judged).sum()),
        leaked_by_group=pool.leaked_by_group,
        near_copies_apart=any(len(set(units[list(group.members)])) > 1 for group in copies),
        series=missing_groups(dataset, paths),
        random_split=_random_split(dataset, copies),
        likely_label_errors=errors.likely,
        label_suspects=[_suspect(suspect, pool) for suspect in errors.suspects],
        duplicates=duplicates,
        duplicate_groups=group_infos,
        oddities=[_outlier(outlier, pool) for outlier in outliers],
        class_balance=pool.class_balance,
        retrained=trainer.retrain(dataset, pool, errors, units) if retrain else None,
        files=[str(folder / name) for name in (PAGE, TABLE, DOCUMENT)],
        seconds=time.perf_counter() - started,
    )
    _write(folder, document, pool)
    return document


@dataclass(frozen=True)
class Pool:
    """The splits of a data set, and all of their images as one set."""

    splits: dict[str, ImageSet]
    paths: dict[str, list[str]]
    everything: ImageSet

    @classmethod
    def of(cls, dataset: Dataset, paths: dict[str, list[str]]) -> "Pool":
        splits = Splits.of(dataset)
        return cls(splits.by_name, paths, splits.together)

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split) for name, split in self.splits.items()}

    @property
    def learnt(self) -> Mask:
        """Which images of `everything` are training images, N."""
        mask: Mask = np.arange(len(self.everything)) < len(self.splits["train"])
        return mask

    @property
    def group_count(self) -> int | None:
        groups = self.everything.groups
        return None if groups is None else len(np.unique(groups))

    @property
    def leaked_by_group(self) -> int:
        """Number of validation and test images whose group is also in training."""
        groups = self.everything.groups
        return 0 if groups is None else int(np.isin(groups[~self.learnt], groups[self.learnt]).sum())

    @property
    def class_balance(self) -> dict[str, dict[str, int]]:
        """How many images each class has in each split."""
        return {
            name: dict(zip(split.class_names, map(int, split.class_counts), strict=True))
            for name, split in self.splits.items()
        }

    def place(self, position: int) -> ImagePlace:
        """Split and index within it of an image of `everything`."""
        index = position
        for name, split in self.splits.items():
            if index < len(split):
                return ImagePlace(split=name, index=index)
            index -= len(split)
        raise IndexError(position)

    def path(self, place: ImagePlace) -> str | None:
        return self.paths[place.split][place.index] if self.paths else None

    def label(self, position: int) -> str:
        name: str = self.everything.class_names[self.everything.labels[position]]
        return name


@dataclass(frozen=True)
class _Trainer:
    """Trains the networks of an audit; `head_only`: those that predict labels, in their last layer only."""

    recipe: Recipe
    seed: int
    device: "torch.device"
    screen: "Console"
    head_only: bool

    def say(self, text: str) -> None:
        self.screen.print(text, soft_wrap=True)

    def cross_fit(self, dataset: Dataset, pool: Pool, units: Indices, folds: int) -> tuple[Predictions, Mask]:
        """Predictions of all images of the pool, each by networks that have seen no image of its unit."""
        from foveola.training.augment import uses_flips
        from foveola.training.cross_fit import cross_fit
        from foveola.training.cross_fit_head import cross_fit_head

        if self.head_only:
            with show_progress(self.screen) as progress:
                return cross_fit_head(
                    pool.everything, pool.learnt, self.recipe, folds=folds, rounds=ROUNDS, units=units,
                    seed=self.seed, device=self.device,
                    flip=uses_flips(self.recipe, dataset.flip_safe, len(dataset.train)),
                    announce=lambda done, total: progress(done, total, "features"),
                )  # fmt: skip
        return cross_fit(
            pool.everything, pool.learnt, self.recipe, folds=folds, rounds=ROUNDS, units=units,
            seed=self.seed, device=self.device, flip=uses_flips(self.recipe, dataset.flip_safe, len(dataset.train)),
            announce=lambda number: self.say(f"predicting labels: network {number + 1} of {ROUNDS * folds}"),
        )  # fmt: skip

    def retrain(self, dataset: Dataset, pool: Pool, errors: "LabelErrors", units: Indices) -> Retrained:
        """Accuracy of a network trained on all training images, and of one trained without the first suspects.

        These are as many as confident learning counts. Both networks are measured on all test images, and on the test
        images without those suspects. Of data without a test split, units are held out.
        """
        from foveola.evaluation.metrics import accuracy
        from foveola.training.augment import uses_flips
        from foveola.training.build import build_classifier
        from foveola.training.cross_fit import assign_folds
        from foveola.training.loop import choose_precision, fit

        sound = np.ones(len(pool.everything), dtype=bool)
        sound[[suspect.index for suspect in errors.suspects[: errors.likely]]] = False
        part = np.concatenate([np.full(size, name) for name, size in pool.sizes.items()])
        if dataset.test is None:
            train = np.flatnonzero(part == "train")
            folds = round(1 / (self.recipe.test or 0.2))
            held_out = assign_folds(pool.everything.labels[train], folds, 0, units[train]) == 0
            part[train[held_out]] = "test"
        test = pool.everything.take(np.flatnonzero(part == "test"))
        test_sound = sound[part == "test"]
        rows = []
        for name, learnt in {"all images": part == "train", "without suspects": (part == "train") & sound}.items():
            self.say(f"cost of the suspects: training on {name}")
            images = pool.everything.take(np.flatnonzero(learnt))
            classifier = build_classifier(self.recipe, images, self.seed, pretrained=find_weights(self.recipe))
            fit(
                classifier, images, None, self.recipe, seed=self.seed, device=self.device,
                precision=choose_precision(self.recipe.precision, self.device),
                flip=uses_flips(self.recipe, dataset.flip_safe, len(images)),
            )  # fmt: skip
            logits = classifier.predict_logits(test.images)
            measured = Predictions(logits, test.labels, test.class_names, held_out=True)
            cleaned = Predictions(logits[test_sound], test.labels[test_sound], test.class_names, held_out=True)
            rows.append(
                RetrainedRow(
                    trained_on=name,
                    images=len(images),
                    accuracy=accuracy(measured),
                    accuracy_without_suspects=accuracy(cleaned),
                )
            )
        return Retrained(test_split="test" if dataset.test is not None else "held out of train", rows=rows)


def _certainty(agreement: Estimate, class_counts: Sequence[int], errors: "LabelErrors") -> Certainty:
    """What can be said of the label suspects."""
    from foveola.evaluation.overfitting import is_guessing

    if is_guessing(agreement, class_counts):
        return "no better than guessing"
    return "likely errors" if errors.countable else "hard or mislabelled"


def _random_split(dataset: Dataset, copies: "Sequence[DuplicateGroup]") -> RandomSplit | None:
    """What a random split would do to the copies; None for data that has a test split."""
    from foveola.audits.random_split import expected_leaks

    if dataset.test is not None or not copies:
        return None
    training = [copy for copy in copies if copy.members[-1] < len(dataset.train)]
    both_sides, images = expected_leaks(dataset.train.labels, training, RANDOM_SPLIT)
    return RandomSplit(held_out=RANDOM_SPLIT, groups=both_sides, images=images)


def _suspect(suspect: "Suspect", pool: Pool) -> LabelSuspect:
    place, names = pool.place(suspect.index), pool.everything.class_names
    return LabelSuspect(
        split=place.split,
        index=place.index,
        path=pool.path(place),
        given=names[suspect.given],
        suggested=names[suspect.suggested],
        score=suspect.score,
    )


def _outlier(outlier: "Outlier", pool: Pool) -> AuditedOutlier:
    place = pool.place(outlier.index)
    return AuditedOutlier(
        split=place.split,
        index=place.index,
        path=pool.path(place),
        kind=outlier.kind,
        label=pool.label(outlier.index),
        detail=outlier.detail,
        score=outlier.score,
    )


def _duplicates(groups: "Sequence[DuplicateGroup]", pool: Pool) -> tuple[list[list[ImagePlace]], list[DuplicateInfo]]:
    """Groups with conflicting labels first, then those that leak from one split into another."""
    rows = []
    for group in groups:
        places = [pool.place(member) for member in group.members]
        labels = [pool.label(member) for member in group.members]
        info = DuplicateInfo(
            kind="exact" if group.exact else "near",
            labels=labels,
            conflicting=len(set(labels)) > 1,
            across_splits=len({place.split for place in places}) > 1,
        )
        rows.append((places, info))
    rows.sort(key=lambda row: (not row[1].conflicting, not row[1].across_splits))
    return [places for places, _ in rows], [info for _, info in rows]


def _write(folder: Path, document: Audit, pool: Pool) -> None:
    from foveola.reports.audit import audit_page

    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_findings(document, pool))
    contents = {
        PAGE: audit_page(document, pool.splits),
        TABLE: text.getvalue(),
        DOCUMENT: document.to_json() + "\n",
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)


def _findings(document: Audit, pool: Pool) -> Iterator[dict[str, Any]]:
    """The rows of findings.csv, one for each image and finding."""
    for suspect in document.label_suspects:
        yield {"finding": "label", "label": suspect.given} | suspect.model_dump(exclude={"given"})
    for number, (places, info) in enumerate(zip(document.duplicates, document.duplicate_groups, strict=True)):
        flags = {"conflicting": info.conflicting, "across splits": info.across_splits}
        detail = ", ".join(flag for flag, is_set in flags.items() if is_set)
        for place, label in zip(places, info.labels, strict=True):
            row = {"finding": f"{info.kind} duplicate", "group": number, "path": pool.path(place)}
            yield row | place.model_dump() | {"label": label, "detail": detail}
    for outlier in document.oddities:
        yield {"finding": outlier.kind} | outlier.model_dump(exclude={"kind"})
