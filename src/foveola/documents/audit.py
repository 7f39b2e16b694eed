"""`audit.json`: what is doubtful about a data set."""

from typing import Literal

from foveola.display import Displayed
from foveola.documents.document import Document, Part
from foveola.predictions import Estimate

# What can be said of label suspects
Certainty = Literal["likely errors", "hard or mislabelled", "no better than guessing"]


class AuditedData(Part):
    """Which data set, by content; the number of images in each split; the number of groups, None without any."""

    name: str
    fingerprint: str
    splits: dict[str, int]
    groups: int | None = None


class AuditSettings(Part):
    """How the networks of an audit were trained.

    With 0 epochs, only their last layer was fitted, to the features of the others.
    """

    recipe: str
    epochs: int
    minimum_steps: int
    folds: int
    rounds: int
    seed: int


class ImagePlace(Part):
    """An image by its split and its index within the split."""

    split: str
    index: int


class LabelSuspect(ImagePlace):
    """An image whose label is doubted: given class, suggested class, and the probability of the given one."""

    path: str | None
    given: str
    suggested: str
    score: float


class DuplicateInfo(Part):
    """What is said of a group of duplicates: their labels, whether these differ, and whether they cross splits."""

    kind: Literal["exact", "near"]
    labels: list[str]
    conflicting: bool
    across_splits: bool


class AuditedOutlier(ImagePlace):
    """An image unlike the rest of its class."""

    path: str | None
    kind: str
    label: str
    detail: str
    score: float


class RandomSplit(Part):
    """Expected numbers of duplicate groups that a random split divides, and of their held-out images."""

    held_out: float
    groups: float
    images: float


class RetrainedRow(Part):
    """Accuracy of a network trained on these images, on all test images and without the suspects among them."""

    trained_on: str
    images: int
    accuracy: Estimate
    accuracy_without_suspects: Estimate


class Retrained(Part):
    """What the label suspects cost."""

    test_split: str
    rows: list[RetrainedRow]


class Audit(Displayed, Document):
    """`audit.json`, and what `foveola audit --json` prints. `duplicate_groups` describes `duplicates`, row by row.

    `likely_label_errors` is what confident learning estimates; `label_certainty` says whether it can be relied on.
    `guessing` is the accuracy of always naming the most frequent class. `unjudged` counts images that no network could
    judge, because all other images of their class are copies of them, or there are none. `near_copies_apart` says that
    near copies connect so many images of a class that only exact copies shared a fold. `leaked_by_group` counts
    validation and test images whose group is also in training. `series` is a pattern for `--groups` where file names
    look like series.
    """

    data: AuditedData
    settings: AuditSettings
    cross_fitted_accuracy: Estimate
    guessing: float | None = None
    label_certainty: Certainty = "likely errors"
    unjudged: int = 0
    near_copies_apart: bool = False
    leaked_by_group: int = 0
    series: str | None = None
    random_split: RandomSplit | None = None
    likely_label_errors: int
    label_suspects: list[LabelSuspect]
    duplicates: list[list[ImagePlace]]
    duplicate_groups: list[DuplicateInfo]
    oddities: list[AuditedOutlier]
    class_balance: dict[str, dict[str, int]]
    retrained: Retrained | None
    files: list[str]
    seconds: float

    def __repr__(self) -> str:
        images = f"{sum(self.data.splits.values()):,} images"
        if self.label_certainty == "likely errors":
            suspects = f"{self.likely_label_errors:,} likely label errors"
        else:
            suspects = f"{len(self.label_suspects):,} label suspects ({self.label_certainty})"
        found = f"{suspects}, {len(self.duplicates):,} groups of duplicates, {len(self.oddities):,} outliers"
        return f"Audit({self.data.name!r}, {images}: {found})"
