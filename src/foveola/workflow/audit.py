"""A data set looked through: duplicates, leaks, likely label errors, odd images, class balance."""

import csv
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.datasets import load
from foveola.datasets.paths import image_paths
from foveola.errors import OutputError, require
from foveola.files import write_atomically
from foveola.images import Dataset, ImageSet
from foveola.predictions import Predictions
from foveola.recipe import Recipe, load_recipe
from foveola.workflow.opening import Device, choose_device
from foveola.workflow.progress import console, reading

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from foveola.evaluation.duplicates import Group
    from foveola.evaluation.label_errors import LabelErrors
    from foveola.evaluation.oddities import Oddity

# So often are the folds dealt anew and the probabilities averaged: on Fashion-MNIST with 1 % of the labels wrong, this
# finds a quarter of what one round misses
ROUNDS = 3
PAGE, TABLE, DOCUMENT = "audit.html", "findings.csv", "audit.json"
COLUMNS = ("finding", "group", "split", "index", "path", "label", "suggested", "score", "detail")


def audit(
    data: str | Path | Dataset,
    *,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "fast",
    epochs: int | None = None,
    folds: int = 3,
    seed: int = 0,
    retrain: bool = False,
    device: Device = "auto",
    skip_bad: int = 0,
    verbose: bool = True,
) -> dict[str, Any]:
    """Look for what is wrong with a data set; write the findings as a page, a table and a document.

    Parameters
    ----------
    data : catalog name, path, or a loaded Dataset
    out : the folder for audit.html, findings.csv and audit.json, which are replaced there; by default
        audits/<name of the data>
    recipe, epochs : of the networks that judge the labels; by default so many epochs as the recipe says
    folds : training images are judged by networks that have learnt from the other folds, other splits by all networks
    seed : of folds, initial weights, order of images, augmentation and dropout
    retrain : measure what the likely label errors cost: a network trained with them against one without
    skip_bad : how many unreadable images of a folder may be left out
    verbose : report progress on standard error

    Returns
    -------
    What audit.json holds. An image is named by its split, its index within the split as read, and its path (None for
    data that comes as arrays).

    Raises
    ------
    UserError
        If data, recipe, device or folder cannot be used; nothing is written then.
    NonFiniteLoss
        If a training diverges.
    """
    started = time.perf_counter()
    for module in ("torch", "cleanlab", "jinja2"):
        require(module, "train")
    from foveola.evaluation.duplicates import find_duplicates
    from foveola.evaluation.label_errors import find_label_errors
    from foveola.evaluation.metrics import accuracy
    from foveola.evaluation.oddities import find_oddities

    loaded = load_recipe(recipe, None if epochs is None else {"epochs": epochs})
    training = _Training(loaded, seed, choose_device(device), console(verbose))
    dataset, paths = _read(data, loaded, skip_bad, training.screen)
    folder = _check(Path(out) if out is not None else Path("audits") / dataset.name)
    pool = Pool.of(dataset, paths)
    training.say(f"{dataset.name}: looking for duplicates and odd images among {len(pool.everything):,} images")
    groups = find_duplicates(pool.everything.images)
    oddities = find_oddities(pool.everything)
    predictions = training.cross_fit(dataset, pool, groups, folds)
    errors = find_label_errors(predictions)
    document: dict[str, Any] = {
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint, "splits": pool.sizes},
        "settings": {
            "recipe": loaded.name,
            "epochs": loaded.epochs,
            "minimum_steps": loaded.minimum_steps,
            "folds": folds,
            "rounds": ROUNDS,
            "seed": seed,
        },
        "cross_fitted_accuracy": accuracy(predictions).as_json(),
        "likely_label_errors": errors.likely,
        "label_suspects": _suspects(errors, pool),
        **_duplicates(groups, pool),
        "oddities": _oddities(oddities, pool),
        "class_balance": pool.class_balance,
        "retrained": training.retrain(dataset, pool, errors) if retrain else None,
        "files": [str(folder / name) for name in (PAGE, TABLE, DOCUMENT)],
    }
    document["seconds"] = time.perf_counter() - started
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
        every = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        splits = {name: split for name, split in every.items() if split is not None}
        images, labels = (
            np.concatenate([getattr(split, part) for split in splits.values()]) for part in ("images", "labels")
        )
        return cls(splits, paths, ImageSet(images, labels, dataset.class_names))

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split) for name, split in self.splits.items()}

    @property
    def class_balance(self) -> dict[str, dict[str, int]]:
        """How many images each class has in each split."""
        return {
            name: dict(zip(split.class_names, map(int, split.class_counts), strict=True))
            for name, split in self.splits.items()
        }

    def place(self, position: int) -> dict[str, Any]:
        """Split and index within it of an image of `everything`."""
        index = position
        for name, split in self.splits.items():
            if index < len(split):
                return {"split": name, "index": index}
            index -= len(split)
        raise IndexError(position)

    def name(self, position: int) -> dict[str, Any]:
        """Split, index and path."""
        place = self.place(position)
        return place | {"path": self.paths[place["split"]][place["index"]] if self.paths else None}

    def label(self, position: int) -> str:
        name: str = self.everything.class_names[self.everything.labels[position]]
        return name


@dataclass(frozen=True)
class _Training:
    """How networks are trained for an audit."""

    recipe: Recipe
    seed: int
    device: "torch.device"
    screen: "Console"

    def say(self, text: str) -> None:
        self.screen.print(text, highlight=False, soft_wrap=True)

    def cross_fit(self, dataset: Dataset, pool: Pool, groups: "Sequence[Group]", folds: int) -> Predictions:
        """Held-out predictions of all images of the pool."""
        from foveola.training.cross_fit import cross_fit

        first, *others = pool.splits.values()
        representatives = np.arange(len(first))
        for group in groups:
            own = [member for member in group.members if member < len(first)]
            representatives[own] = own[:1]
        parts = cross_fit(
            first, others, self.recipe, folds=folds, rounds=ROUNDS, representatives=representatives,
            seed=self.seed, device=self.device, flip=self._flips(dataset),
            announce=lambda number: self.say(f"judging labels: network {number + 1} of {ROUNDS * folds}"),
        )  # fmt: skip
        logits, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "labels"))
        return Predictions(logits, labels, dataset.class_names, held_out=True)

    def retrain(self, dataset: Dataset, pool: Pool, errors: "LabelErrors") -> dict[str, Any]:
        """Accuracy of a network trained on all training images, and of one trained without the likely errors.

        Both are measured on the test images, on all of them and without the likely errors. Data without a test split
        is split as `foveola train` would.
        """
        from foveola.evaluation.metrics import accuracy
        from foveola.models.classifier import new_classifier
        from foveola.training.cross_fit import deal
        from foveola.training.loop import choose_precision, fit

        sound = np.ones(len(pool.everything), dtype=bool)
        sound[[suspect.index for suspect in errors.suspects[: errors.likely]]] = False
        part = np.concatenate([np.full(size, name) for name, size in pool.sizes.items()])
        if dataset.test is None:
            train = np.flatnonzero(part == "train")
            folds = round(1 / (self.recipe.test or 0.2))
            held_out = deal(pool.everything.labels[train], folds, 0, np.arange(len(train))) == 0
            part[train[held_out]] = "test"
        test = pool.everything.take(np.flatnonzero(part == "test"))
        test_sound = sound[part == "test"]
        rows = []
        for name, learnt in {"all images": part == "train", "without suspects": (part == "train") & sound}.items():
            self.say(f"what the suspects cost: training on {name}")
            images = pool.everything.take(np.flatnonzero(learnt))
            classifier = new_classifier(self.recipe, images, self.seed)
            fit(
                classifier, images, None, self.recipe, seed=self.seed, device=self.device,
                precision=choose_precision(self.recipe.precision, self.device), flip=self._flips(dataset),
            )  # fmt: skip
            logits = classifier.predict_logits(test.images)
            measured = Predictions(logits, test.labels, test.class_names, held_out=True)
            cleaned = Predictions(logits[test_sound], test.labels[test_sound], test.class_names, held_out=True)
            rows.append(
                {
                    "trained_on": name,
                    "images": len(images),
                    "accuracy": accuracy(measured).as_json(),
                    "accuracy_without_suspects": accuracy(cleaned).as_json(),
                }
            )
        return {"test_split": "test" if dataset.test is not None else "held out of train", "rows": rows}

    def _flips(self, dataset: Dataset) -> bool:
        return self.recipe.augment.flip is True or (self.recipe.augment.flip == "auto" and dataset.flip_safe)


def _read(
    data: str | Path | Dataset, recipe: Recipe, skip_bad: int, screen: "Console"
) -> tuple[Dataset, dict[str, list[str]]]:
    """The data in the shape that the recipe takes, and the files of its images."""
    if isinstance(data, Dataset):
        return data, {}
    channels = {"data": None, "grey": 1, "rgb": 3}[recipe.channels]
    with reading(screen) as progress:
        dataset = load(data, image_size=recipe.image_size, channels=channels, skip_bad=skip_bad, progress=progress)
    return dataset, image_paths(data, dataset)


def _check(folder: Path) -> Path:
    """Refuse, before the work of minutes and without changing anything, a folder that cannot be written."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder} cannot be written: {existing} is no folder that you may write to. Choose another with --out."
        )
    return folder


def _suspects(errors: "LabelErrors", pool: Pool) -> list[dict[str, Any]]:
    names = pool.everything.class_names
    return [
        pool.name(suspect.index)
        | {"given": names[suspect.given], "suggested": names[suspect.suggested], "score": suspect.score}
        for suspect in errors.suspects
    ]


def _duplicates(groups: "Sequence[Group]", pool: Pool) -> dict[str, Any]:
    """Groups that disagree on the label first, then those that leak from one split into another."""
    rows = []
    for group in groups:
        places = [pool.place(member) for member in group.members]
        labels = [pool.label(member) for member in group.members]
        about = {
            "kind": "exact" if group.exact else "near",
            "labels": labels,
            "conflicting": len(set(labels)) > 1,
            "across_splits": len({place["split"] for place in places}) > 1,
        }
        rows.append((places, about))
    rows.sort(key=lambda row: (not row[1]["conflicting"], not row[1]["across_splits"]))
    return {"duplicates": [places for places, _ in rows], "duplicate_groups": [about for _, about in rows]}


def _oddities(oddities: "Sequence[Oddity]", pool: Pool) -> list[dict[str, Any]]:
    return [
        pool.name(odd.index)
        | {"kind": odd.kind, "label": pool.label(odd.index), "detail": odd.detail, "score": odd.score}
        for odd in oddities
    ]


def _write(folder: Path, document: dict[str, Any], pool: Pool) -> None:
    from foveola.report.audit_page import page

    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_findings(document, pool))
    contents = {
        PAGE: page(document, pool.splits),
        TABLE: text.getvalue(),
        DOCUMENT: json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}. Choose another folder with --out.") from None


def _findings(document: dict[str, Any], pool: Pool) -> Iterator[dict[str, Any]]:
    """A row an image and finding."""
    for row in document["label_suspects"]:
        yield {"finding": "label", "label": row["given"]} | {key: row[key] for key in row.keys() & set(COLUMNS)}
    for number, (group, about) in enumerate(zip(document["duplicates"], document["duplicate_groups"], strict=True)):
        detail = ", ".join(flag.replace("_", " ") for flag in ("conflicting", "across_splits") if about[flag])
        for place, label in zip(group, about["labels"], strict=True):
            path = pool.paths[place["split"]][place["index"]] if pool.paths else None
            kind = f"{about['kind']} duplicate"
            yield {"finding": kind, "group": number, **place, "path": path, "label": label, "detail": detail}
    for row in document["oddities"]:
        yield {"finding": row["kind"]} | {key: row[key] for key in row.keys() & set(COLUMNS)}
