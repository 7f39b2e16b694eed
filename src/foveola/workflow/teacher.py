"""A teacher for a training: opened, checked for images that it must not have seen, and asked about the others."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foveola.datasets import Source
from foveola.datasets.reload import load_for_model
from foveola.datasets.splits import Overlap, Splits
from foveola.documents import TeacherModel
from foveola.errors import UserError
from foveola.images import Dataset, ImageSet
from foveola.models.classifier import Classifier, open_classifier
from foveola.models.learnt import LearntImages, hash_images
from foveola.models.metadata import Columns, ModelMetadata
from foveola.progress import show_progress
from foveola.training.distill import teacher_logits

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Teaching:
    """What a training has from its teacher.

    Parameters
    ----------
    logits : of the training images, float16 N×K, on the device
    record : for the student's run
    learnt : the images that the teacher has learnt from, and the student with it; None: unknown
    """

    logits: Tensor
    record: TeacherModel
    learnt: LearntImages | None

    @property
    def summary(self) -> str:
        """What the training says of it."""
        text = f"teacher: {self.record.path} ({self.record.recipe})"
        if self.record.unseen:
            return f"{text}, which has learnt from no validation or test image"
        return (
            f"{text}; whether it has learnt from validation or test images is not known, because its file has no "
            f"hashes of images of this size. If it has, all figures are too high: train both with the same --seed"
        )


def teach(
    path: Path,
    source: Source,
    dataset: Dataset,
    splits: Splits,
    overlap: Overlap,
    *,
    skip_bad: int,
    columns: Columns,
    device: torch.device,
    precision: torch.dtype,
    screen: "Console",
) -> Teaching:
    """Ask a teacher about the training images.

    The teacher gets the images in its own size, read anew. Of data given as objects, which may differ from what the
    teacher had of the same images, it is then unknown what it has seen, unless the whole data is the teacher's.

    Parameters
    ----------
    path : the teacher's model file
    source, dataset : the data as it was given, and as it was loaded for the student
    splits, overlap : of the student
    skip_bad : how many unreadable images may be skipped
    columns : of a table, as they were given

    Raises
    ------
    ModelError
        If the file cannot be opened.
    UserError
        If the teacher has other classes, or has learnt from images that the student is measured by.
    """
    teacher = open_teacher(path, splits.train.class_names)
    comparable, origin = True, teacher.metadata.data
    if teacher.metadata.image_shape != dataset.image_shape:
        with show_progress(screen) as progress:
            loaded = load_for_model(teacher.metadata, source, skip_bad, progress, columns=columns)
        splits = divide_alike(splits, dataset, loaded)
        own = origin is not None and origin.fingerprint == loaded.fingerprint
        comparable = own or isinstance(source, str | Path)
    unseen = check_unseen(teacher.metadata, path, splits, overlap)
    screen.print(f"Asking the teacher about {len(splits.train):,} training images", soft_wrap=True)
    logits = teacher_logits(teacher, splits.train.images, device, precision)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = TeacherModel(
        path=str(path), recipe=teacher.metadata.recipe, sha256=digest, unseen=unseen if comparable else None
    )
    return Teaching(logits, record, None if origin is None else origin.learnt)


def open_teacher(path: Path, class_names: Sequence[str]) -> Classifier:
    """Open a teacher's model file, and check that it knows the classes of the data.

    Raises
    ------
    ModelError
        If the file cannot be opened.
    UserError
        If its classes are others, or in another order.
    """
    teacher = open_classifier(path)
    if tuple(teacher.class_names) != tuple(class_names):
        raise UserError(
            f"The teacher {path} knows the classes {_short(teacher.class_names)}, and the data has "
            f"{_short(class_names)}: a teacher needs the same classes in the same order. Train it on this data."
        )
    return teacher


def _short(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def divide_alike(splits: Splits, dataset: Dataset, loaded: Dataset) -> Splits:
    """The splits of a data set with the images as they were loaded in another size, in the same order.

    If another number of images was loaded, the splits as they are.
    """
    before, after = Splits.of(dataset).together, Splits.of(loaded).together
    if not np.array_equal(before.labels, after.labels):
        return splits
    places = {key: place for place, key in enumerate(hash_images(before.images).tolist())}

    def found(part: ImageSet | None) -> ImageSet | None:
        if part is None:
            return None
        return after.take(np.array([places[key] for key in hash_images(part.images).tolist()]))

    train = found(splits.train)
    assert train is not None, "there are training images"
    return Splits(train, found(splits.validation), found(splits.test))


def check_unseen(metadata: ModelMetadata, path: Path, splits: Splits, overlap: Overlap) -> bool | None:
    """Whether the teacher has learnt from none of the images that the student is measured by; None: unknown.

    It is known where the teacher's file holds hashes of its images, and these images are of the size that it takes.
    Copies of the student's own training images are not counted: they are reported as leaks anyway.

    Raises
    ------
    UserError
        If it has learnt from some of them: the student would be measured on images of which it was told the answer.
    """
    origin = metadata.data
    if origin is None or origin.learnt is None or metadata.image_shape != splits.train.image_shape:
        return None
    for name, images, copies in (
        ("test", splits.test, None if overlap.test is None else overlap.test.any),
        ("validation", splits.validation, overlap.validation),
    ):
        if images is None:
            continue
        seen = origin.learnt.seen(images.images)
        told = seen.any if name == "test" else seen.training
        count = int((told if copies is None else told & ~copies).sum())
        if count:
            raise UserError(
                f"The teacher {path} has learnt from {count:,} of the {len(images):,} {name} images, so that the "
                f"student's figures would be too high. Give both the same splits: train the student with --seed "
                f"{origin.seed}, as the teacher, or train another teacher on this data with the student's seed."
            )
    return True
