"""The trials of a tuning: recipes drawn from a search space, judged on validation images, and pruned."""

import math
import statistics
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from foveola.datasets.splits import Splits, divide, unit_numbers
from foveola.documents import Objective
from foveola.errors import NonFiniteLoss, RecipeError
from foveola.evaluation.auc import auc_macro_ovr
from foveola.evaluation.calibration import fit_temperature
from foveola.images import Dataset, ImageSet, Polarity
from foveola.predictions import Predictions
from foveola.recipe import Recipe
from foveola.tasks import log_losses
from foveola.training.augment import uses_flips
from foveola.training.callbacks import Callback, ValidationMetric
from foveola.training.colour import settle_augmentation
from foveola.training.cross_validation import Fold, cross_validate, held_out_fold, k_folds, one_fold
from foveola.training.loop import Fit
from foveola.training.search_space import SearchSpace
from foveola.training.stopping import StopSignals
from foveola.workflow.study import (
    REASON,
    SCORES,
    SECONDS,
    START,
    Direction,
    ask,
    beat,
    enqueue_start,
    give_up,
    retry_dead,
)

if TYPE_CHECKING:
    from rich.console import Console

DIRECTIONS: dict[Objective, Direction] = {"log_loss": "minimize", "accuracy": "maximize"}
TITLES: dict[Objective, str] = {"log_loss": "log loss", "accuracy": "accuracy"}

# Data without validation images: this part of the training images is held out, unless that would be fewer images than
# MIN_HELD_OUT. With 1,000 images, an accuracy of 95 % has a 95 % interval of ±1.4 points; with fewer, folds are better
HELD_OUT, MIN_HELD_OUT = 0.2, 1000
FOLDS = 5
SECONDS_BETWEEN_BEATS = 20.0
# What is kept back of a budget: the last training, as a multiple of the best trial's, and seconds for pages and tables
_LAST_TRAINING, _LAST_PAGES = 1.3, 10.0
# As PyTorch and the system word it
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Judge:
    """Judges recipes by images of training and validation splits; the test images are not in here."""

    images: ImageSet
    folds: list[Fold]
    description: str
    objective: Objective
    seed: int
    device: torch.device
    dataset_flips: bool
    picture_polarity: Polarity | None
    fold_count: int | None
    repeats: int

    @classmethod
    def of(
        cls, dataset: Dataset, recipe: Recipe, folds: int | None, repeats: int, objective: Objective, seed: int,
        device: torch.device,
    ) -> "Judge":  # fmt: skip
        splits, overlap = divide(dataset, recipe.validation, recipe.test, seed)
        seen = Splits(splits.train, splits.validation, None)
        images = seen.together
        units = unit_numbers(seen, overlap.together)
        given = dataset.validation is not None
        size = len(dataset.validation) if dataset.validation is not None else round(HELD_OUT * len(images))
        count = folds or (FOLDS if size < MIN_HELD_OUT else None)
        if count is not None:
            parts = k_folds(images, units, count, repeats, seed)
            times = f", {repeats} times" if repeats > 1 else ""
            why = "" if folds else f"; held-out images alone would be {size:,}, fewer than {MIN_HELD_OUT:,}"
            text = f"Judged by {count}-fold cross-validation of {len(images):,} images{times}{why}"
        elif given:
            parts = [one_fold(np.arange(len(images)) >= len(splits.train))]
            text = f"Judged by the {size:,} validation images of the data"
        else:
            parts = [held_out_fold(images, units, HELD_OUT, seed)]
            text = f"Judged by {len(parts[0].held_out):,} of {len(images):,} training images, which are held out"
        return cls(
            images, parts, text, objective, seed, device, dataset.flip_safe, dataset.picture_polarity, count, repeats
        )

    def score(self, predictions: Predictions) -> float:
        """Accuracy, or the log loss after temperature scaling, as the run's model has it."""
        if self.objective == "accuracy":
            return predictions.mean(predictions.predicted == predictions.labels)
        if not np.isfinite(predictions.logits).all():
            raise NonFiniteLoss("The network's outputs are not finite. Training has diverged.")
        temperature = fit_temperature(predictions.logits, predictions.labels, predictions.weights)
        return predictions.mean(log_losses(predictions.logits / temperature, predictions.labels))

    def scores(self, recipe: Recipe, watch: "_Watch") -> list[float]:
        """The score of each fold."""
        recipe, _ = settle_augmentation(recipe, self.images)
        flip = uses_flips(recipe, self.dataset_flips, len(self.folds[0].train))
        return cross_validate(
            self.images, self.folds, recipe, self.score, seed=self.seed, device=self.device, flip=flip,
            picture_polarity=self.picture_polarity, callbacks=watch.callbacks, after_fold=watch.after_fold,
        )  # fmt: skip


class _Pruned(Exception):
    """The trial is worse than the median of those before, at the same share of its training."""


class _OutOfTime(Exception):
    """The budget is used up."""


@dataclass
class Search:
    """The trials of this process."""

    study: Study
    start: Recipe
    space: SearchSpace
    judge: Judge
    trials: int | None
    deadline: float
    signals: StopSignals
    screen: "Console"
    tried: int = 0

    def run(self) -> None:
        """Try recipes until there are as many as asked for, or the time is up."""
        enqueue_start(self.study, self.space.start(self.start))
        while True:
            self.signals.end()
            for number in retry_dead(self.study):
                self.say(f"trial {number}: its process has died; it is tried again")
            if self.is_enough() or (self.tried and self.time_left() <= 0):
                return
            try:
                self.attempt(ask(self.study, self.space))
            except _OutOfTime:
                self.say("the time is up: the trial that was begun is the first one of the next call")
                return
            self.tried += 1

    def say(self, text: str) -> None:
        self.screen.print(text, soft_wrap=True)

    def is_enough(self) -> bool:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return self.trials is not None and len(self.study.get_trials(deepcopy=False, states=states)) >= self.trials

    def time_left(self) -> float:
        """Seconds for trials, before the last training must begin."""
        if math.isinf(self.deadline):
            return math.inf
        return self.deadline - time.perf_counter() - self.seconds_at_end()

    def seconds_at_end(self) -> float:
        """What the last training and its page will take: it learns from more images than a fold's."""
        best = self.best()
        if best is None:
            return 0.0
        ratio = len(self.judge.images) / len(self.judge.folds[0].train)
        fold_seconds = best.user_attrs.get(SECONDS, 0.0) / len(self.judge.folds)
        return float(_LAST_TRAINING * ratio * fold_seconds + _LAST_PAGES)

    def best(self) -> FrozenTrial | None:
        """The best trial so far; of equals, the recipe to start from, or else the first one."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = 1 if DIRECTIONS[self.judge.objective] == "minimize" else -1
        return min(
            complete,
            key=lambda trial: (sign * (trial.value or 0.0), not trial.user_attrs.get(START, False), trial.number),
            default=None,
        )

    def attempt(self, trial: Trial) -> None:
        """Judge one recipe, and tell the study what came of it."""
        watch = _Watch(self, trial)
        try:
            scores = self.judge.scores(self.space.apply(self.start, trial.params), watch)
            self.complete(trial, scores, watch.seconds)
        except _Pruned:
            self.prune(trial, f"pruned at {watch.share:.0%}", watch.seconds)
        except (NonFiniteLoss, RecipeError) as error:
            self.prune(trial, str(error), watch.seconds)
        except UpdateFinishedTrialError:
            self.say(f"trial {trial.number}: another process has given it up meanwhile")
        except (_OutOfTime, KeyboardInterrupt, SystemExit):
            give_up(self.study, trial, again=True)
            raise
        except BaseException as error:
            if not _is_out_of_memory(error):
                give_up(self.study, trial, again=False)
                raise
            self.prune(trial, "out of memory", watch.seconds)

    def complete(self, trial: Trial, scores: list[float], seconds: float) -> None:
        value = statistics.fmean(scores)
        trial.set_user_attr(SECONDS, seconds)
        trial.set_user_attr(SCORES, scores)
        self.study.tell(trial, value, skip_if_finished=True)
        best = self.best()
        assert best is not None, "this trial is complete"
        record = "the best so far" if best.number == trial.number else f"best {best.value:.4f}, trial {best.number}"
        self.say(f"trial {trial.number}: {TITLES[self.judge.objective]} {value:.4f} ({record}) · {_values_text(trial)}")

    def prune(self, trial: Trial, reason: str, seconds: float) -> None:
        with suppress(UpdateFinishedTrialError):  # another process has given it up meanwhile
            trial.set_user_attr(SECONDS, seconds)
            trial.set_user_attr(REASON, reason)
            self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        self.say(f"trial {trial.number}: {reason} · {_values_text(trial)}")

    def others_running(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in _MEMORY)


def _values_text(trial: Trial) -> str:
    values = trial.params.items()
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values)


class _Watch:
    """Follows a trial: signs of life, the budget, and pruning.

    The score within the first fold is reported after each tenth of its steps; after every fold, the mean so far.
    """

    def __init__(self, search: Search, trial: Trial) -> None:
        self.search, self.trial = search, trial
        self.started = self.last_beat = time.perf_counter()
        self.share = 0.0
        self.scores: list[float] = []
        # Whatever the budget, one recipe comes to its end
        self.stop_at = math.inf if search.best() is None else self.started + search.time_left()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def callbacks(self, fold: int) -> list[Callback]:
        auc = [ValidationMetric("val_auc", lambda predictions: auc_macro_ovr(predictions).value)]
        return [*(auc if self.search.start.epoch_auc else []), _FollowFold(self, fold)]

    def after_step(self, share: float) -> None:
        self.share = share
        self.search.signals.end()  # not within what writes to the database
        now = time.perf_counter()
        if now - self.last_beat > SECONDS_BETWEEN_BEATS:
            self.last_beat = now
            beat(self.trial)
        if now > self.stop_at:
            raise _OutOfTime

    def report(self, value: float, steps: Iterable[int]) -> None:
        """Report a score; end the trial if the median of those before is better, but not the recipe to start from."""
        for step in steps:
            self.trial.report(value, step)
        if not self.trial.user_attrs.get(START, False) and self.trial.should_prune():
            raise _Pruned

    def after_fold(self, number: int, score: float) -> None:
        self.scores.append(score)
        if number + 1 < len(self.search.judge.folds):
            self.report(statistics.fmean(self.scores), [10 + number])


class _FollowFold(Callback):
    """Tells a watch of each step, and of the score in the first fold."""

    def __init__(self, watch: _Watch, fold: int) -> None:
        self.watch, self.fold = watch, fold
        self.tenths = 0

    def on_step_end(self, fit: Fit) -> None:
        self.watch.after_step((self.fold + fit.step / fit.steps) / len(self.watch.search.judge.folds))

    def on_epoch_end(self, fit: Fit) -> None:
        tenths = int(10 * fit.step / fit.steps)
        if self.fold == 0 and self.tenths < tenths < 10:
            score = self.watch.search.judge.score(fit.validation_predictions)
            passed, self.tenths = range(self.tenths + 1, tenths + 1), tenths
            self.watch.report(score, passed)
