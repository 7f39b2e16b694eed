"""A time budget turned into a recipe: what comes after training is rehearsed, the rest of the time is for training."""

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.errors import UserError
from foveola.predictions import Predictions
from foveola.recipe import Recipe, load_recipe
from foveola.workflow.splits import Parts

if TYPE_CHECKING:
    import torch
    from torch import nn

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
# From how many epochs on a recipe is preferred to the one before it. At 3, `strong` was about level with `fast` in
# about the same time, on two seeds (docs/ablations.md); 10 is a guess, until `best` has been measured.
_NETWORKS = (("fast", 0.0), ("strong", 3.0), ("best", 10.0))
# Kept back, because a machine is never equally fast for long
_RESERVE = 0.02


def parse_duration(text: str) -> float:
    """Seconds of "60", "60s", "1.5m" or "2h".

    Raises
    ------
    UserError
        If the text is no duration above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise UserError(f"{text!r} is no duration. Give seconds, minutes or hours, such as 60s, 5m or 1h.")
    return float(match[1]) * _UNITS[match[2]]


def networks(overrides: Mapping[str, Any] | None) -> list[tuple[Recipe, float]]:
    """The recipes that a budget chooses from where none is named, each with the fewest epochs that pay."""
    return [(load_recipe(name, overrides), epochs) for name, epochs in _NETWORKS]


def within_budget(
    candidates: Sequence[tuple[Recipe, float]],
    parts: Parts,
    deadline: float,
    *,
    device: "torch.device",
    flip: bool,
    network: "nn.Module | None" = None,
) -> Recipe:
    """A recipe with as many steps as end by the deadline (of `time.perf_counter`), everything after them included.

    `candidates` are as `choose_length` takes them.
    """
    from foveola.training.speed import choose_length

    reserve = _RESERVE * (deadline - time.perf_counter())
    ending = _rehearse(parts)
    validated = 0 if parts.validation is None else len(parts.validation)
    tested = 0 if parts.test is None else len(parts.test)
    return choose_length(
        candidates,
        parts.train,
        (validated, validated + tested),
        deadline - reserve - ending,
        device=device,
        flip=flip,
        network=network,
    )


def _rehearse(parts: Parts) -> float:
    """Seconds for figures and pictures, tried on made-up predictions; the test images stay unseen.

    The first attempt, on a few images, imports what the second and the real one find imported.
    """
    from foveola.evaluation.metrics import evaluate
    from foveola.report.pictures import draw_pictures

    history = [{"epoch": n, "step": n, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1} for n in (1.0, 2.0)]
    size = 0 if parts.test is None else len(parts.test)
    for count in (min(size, 100), size):
        start = time.perf_counter()
        stand_in = predictions = None
        if count:
            stand_in = parts.train.take(np.arange(count) % len(parts.train))
            logits = np.random.default_rng(0).normal(size=(count, len(stand_in.class_names))).astype(np.float32)
            predictions = Predictions(logits, stand_in.labels, stand_in.class_names, held_out=False)
            evaluate(predictions, "test")
        with tempfile.TemporaryDirectory() as folder:
            draw_pictures(Path(folder), history, parts.train, stand_in, predictions)
    return time.perf_counter() - start
