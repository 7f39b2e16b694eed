"""`tuning.json`, and the learning-rate range test."""

from typing import Any, Literal

from foveola.documents.document import Document, Part
from foveola.documents.evaluation import Evaluation


class LearningRateCurve(Document):
    """What `foveola train --find-rate --json` prints: training loss over learning rate, a value for each step.

    `smoothed` is the exponential moving average of `losses`, and `lowest` the learning rate where it is lowest.
    `settings` are the values of --set that use the suggestion; there is none if the loss hardly fell.
    """

    data: str
    recipe: str
    optimizer: str
    schedule: str
    recipe_learning_rate: float
    seed: int
    learning_rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool
    lowest: float | None
    suggestion: float | None
    settings: list[str]
    files: list[str]
    seconds: float


Objective = Literal["log_loss", "accuracy"]


class TunedTrial(Part):
    """One recipe that was tried. `start`: the recipe to start from. `scores`: one a fold; `value` is their mean."""

    number: int
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    value: float | None
    scores: list[float] = []
    seconds: float | None = None
    start: bool = False
    reason: str | None = None
    values: dict[str, str | int | float | bool]


class Tuning(Document):
    """`tuning.json`, and what `foveola tune --json` prints.

    The `value` of a trial is measured on validation images; that of the best one is optimistic, because it is the best
    of many. `evaluation` holds the metrics of the best recipe, trained on its own with `final_seed`, on the test split.
    It is null if the data has none, or while another process is still tuning.
    """

    data: str
    fingerprint: str
    recipe: str
    space: dict[str, Any]
    objective: Objective
    judged_by: str
    folds: int | None
    repeats: int
    seed: int
    final_seed: int
    study: str
    study_name: str
    trials: list[TunedTrial]
    start: TunedTrial | None
    best: TunedTrial
    importances: dict[str, float]
    run: str | None = None
    evaluation: Evaluation | None = None
    files: list[str]
    seconds: float
