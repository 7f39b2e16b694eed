"""What speaks against a run altogether, and the command that repeats its training."""

import shlex
from pathlib import Path

from foveola.datasets.reload import GIVEN_GROUPS
from foveola.documents import Evaluation, RunStatus
from foveola.evaluation.overfitting import (
    guessing_text,
    has_memorised,
    is_guessing,
    is_undecided,
    memorised_text,
    undecided_text,
)


def repeat_command(status: RunStatus, run: Path) -> str:
    """The command that repeats a training."""
    command = ["foveola", "train", status.data.path or status.data.name]
    command += ["--recipe", str(run / "recipe.toml"), "--seed", str(status.seed)]
    if status.weights is not None:
        command += ["--weights", status.weights]
    if status.data.groups not in (None, GIVEN_GROUPS):
        command += ["--groups", str(status.data.groups)]
    return shlex.join(command)


def alarms(status: RunStatus, evaluation: Evaluation | None, run: Path) -> list[str]:
    """Sentences about a model that only guesses or only knows its training images, or a test that is too small."""
    if evaluation is None:
        return []
    found = []
    if evaluation.seen is not None and evaluation.seen.training + evaluation.seen.validation == evaluation.n:
        found.append(
            "All test images are also training or validation images: this is not a held-out figure. Give test images "
            "that are not among them, or leave them out, and test images are drawn from the training images."
        )
    supports = [row.support for row in evaluation.per_class]
    if is_guessing(evaluation.accuracy, supports):
        found.append(guessing_text(supports, shlex.quote(status.data.path or status.data.name)))
    elif is_undecided(evaluation.accuracy, supports):
        found.append(undecided_text(evaluation.accuracy, supports))
    accuracy = evaluation.accuracy if evaluation.without_copies is None else evaluation.without_copies.accuracy
    if has_memorised(status.training_accuracy, accuracy) and status.training_accuracy is not None:
        side = min(status.data.image_shape[:2])
        command = repeat_command(status, run)
        found.append(memorised_text(status.training_accuracy, accuracy, status.recipe, side, command))
    return found
