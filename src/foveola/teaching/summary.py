"""What a finished training means, in three sentences: how good, what is confused, what would help most."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel

from foveola.documents import Evaluation, RunStatus
from foveola.evaluation.overfitting import guessing_accuracy, has_memorised, is_guessing, is_undecided
from foveola.teaching.held_out import Mistake

MAX_CONFUSIONS = 24
MAX_PICTURES = 60
"""Images that a confusion lists."""

# Of an interval: what is wider says little
_WIDE = 0.2
# A class with fewer pictures than this fraction of the largest one's is behind
_BEHIND = 1 / 3
# A recall that a class should have
_GOOD_RECALL = 0.9
# A fraction of the pictures that are different from all others, below which most are too much alike
_MANY_COPIES = 0.5
_GOOD_ACCURACY = 0.95


class Accuracy(BaseModel):
    """The fraction of `n` test images that are classified correctly, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class Confusion(BaseModel):
    """How many test images of one class are taken for another, and the ids of those that are still there."""

    true: str
    predicted: str
    count: int
    pictures: list[str] = []


class Summary(BaseModel):
    """What a run means. `accuracy` is null if nothing was held out to measure it on."""

    run: str
    sentences: tuple[str, str, str]
    accuracy: Accuracy | None
    confusions: list[Confusion]
    suggestions: list[str]


def summarize(
    run: str,
    status: RunStatus,
    evaluation: Evaluation | None,
    counts: Mapping[str, int],
    mistakes: Sequence[tuple[str, Mistake]],
) -> Summary:
    """The summary of a finished run.

    Parameters
    ----------
    run : its name
    status, evaluation : its documents; no evaluation if no pictures were held out
    counts : pictures of each class at the training
    mistakes : with the id of the picture, those of the test pictures that are still there
    """
    confusions = [] if evaluation is None else _confusions(evaluation, mistakes)
    suggestions = suggest(status, evaluation, counts)
    sentences = (how_good(status, evaluation), what_is_confused(evaluation, confusions), suggestions[0])
    accuracy = None
    if evaluation is not None:
        estimate = evaluation.accuracy
        accuracy = Accuracy(value=estimate.value, low=estimate.low, high=estimate.high, n=evaluation.n)
    return Summary(run=run, sentences=sentences, accuracy=accuracy, confusions=confusions, suggestions=suggestions)


def how_good(status: RunStatus, evaluation: Evaluation | None) -> str:
    """The first sentence: accuracy and interval, and what they were measured on."""
    if evaluation is None:
        return "It is not known how good it is: there were too few images to hold some back for a test."
    accuracy, n = evaluation.accuracy, evaluation.n
    recordings = " nor on others of the same recording," if status.data.groups else ""
    tested = (
        f"Of {_images(n)} that it was not trained on,{recordings} it classifies {round(accuracy.value * n):,} correctly"
    )
    supports = _supports(evaluation)
    expected = f"{_percent(accuracy.low)} to {_percent(accuracy.high)} %"
    if is_guessing(accuracy, supports):
        return f"{tested}, which is no better than guessing."
    if is_undecided(accuracy, supports):
        return (
            f"{tested}. This test is too small to be sure: for others like them, anything from {expected} is possible, "
            f"and guessing gives {_percent(guessing_accuracy(supports))} %."
        )
    if accuracy.high - accuracy.low > _WIDE:
        return f"{tested}. This test is small: for others like them, anything from {expected} is possible."
    return f"{tested} ({_percent(accuracy.value)} %); for others like them, expect {expected}."


def what_is_confused(evaluation: Evaluation | None, confusions: Sequence[Confusion]) -> str:
    """The second sentence: the classes that are confused most."""
    if evaluation is None:
        return "Which classes it confuses is not known either; try it with new images."
    if not confusions:
        return "No classes were confused in the test."
    supports = {row.name: row.support for row in evaluation.per_class}
    listed = [
        f"{one.count:,} of {_images(supports[one.true])} of {_quoted(one.true)} "
        f"{'was' if one.count == 1 else 'were'} taken for {_quoted(one.predicted)}"
        for one in confusions[:2]
    ]
    return f"Confused most: {'; '.join(listed)}."


class _Class(NamedTuple):
    name: str
    recall: float
    support: int


def suggest(status: RunStatus, evaluation: Evaluation | None, counts: Mapping[str, int]) -> list[str]:
    """What would help, most helpful first; at least one sentence."""
    found = []
    total = sum(counts.values())
    smallest = min(counts, key=lambda name: counts[name], default=None)
    largest = max(counts.values(), default=0)
    if evaluation is None:
        found.append(
            "Add images: with at least three recordings, or three single images, of every class, some can be held "
            "back for a test."
        )
    else:
        found += _about_quality(status, evaluation)
    if status.reject is not None and status.reject.threshold is None:
        found.append(
            "Add images of every class, and check that each is in the right one: every answer is called uncertain, "
            "because too many of the surest ones were wrong on images set aside."
        )
    if smallest is not None and counts[smallest] < _BEHIND * largest:
        found.append(
            f"Add images of {_quoted(smallest)}: it has {counts[smallest]:,}, the largest class has {largest:,}."
        )
    if evaluation is not None and (weakest := _weakest(evaluation)) is not None:
        found.append(
            f"Add images of {_quoted(weakest.name)}, from other sides and in other light: only "
            f"{_percent(weakest.recall)} % of its {_images(weakest.support)} in the test were recognised."
        )
    different = status.data.different
    if different is not None and total and different < _MANY_COPIES * total:
        found.append(
            f"Vary the images more: of {total:,}, only {different:,} differ clearly from all others. Copies and "
            f"images that are nearly the same teach nothing new."
        )
    if evaluation is not None and evaluation.accuracy.high - evaluation.accuracy.low > _WIDE:
        if status.data.groups:
            found.append(
                "Record every class a few more times, at other places and in other light: with more recordings in the "
                "test, its result is more exact."
            )
        else:
            found.append("Add images of every class: with more of them in the test, its result is more exact.")
    if not found and evaluation is not None and evaluation.accuracy.value < _GOOD_ACCURACY:
        found.append("Add images that differ from those that are there, and check whether each is in the right class.")
    return found or ["No weak point was found: try it with new images, and correct what it gets wrong."]


def _about_quality(status: RunStatus, evaluation: Evaluation) -> list[str]:
    if is_guessing(evaluation.accuracy, _supports(evaluation)):
        return [
            "Check that every image is in the right class, and that you can tell the classes apart in them yourself; "
            "then train for longer."
        ]
    if has_memorised(status.training_accuracy, evaluation.accuracy):
        return [
            "Add more varied images of every class: it knows those that it was trained on almost by heart, and is "
            "much worse on others."
        ]
    return []


def _weakest(evaluation: Evaluation) -> _Class | None:
    """The class that is recognised worst, if it is clearly worse than it should be: at least two mistakes."""
    rows = [_Class(row.name, row.recall, row.support) for row in evaluation.per_class if row.support]
    worst = min(rows, key=lambda row: row.recall, default=None)
    if worst is None or worst.recall >= _GOOD_RECALL or round((1 - worst.recall) * worst.support) < 2:
        return None
    return worst


def _confusions(evaluation: Evaluation, mistakes: Sequence[tuple[str, Mistake]]) -> list[Confusion]:
    """Pairs of classes by the number of images that are confused, most first."""
    names = [row.name for row in evaluation.per_class]
    found = [
        Confusion(true=names[true], predicted=names[predicted], count=count)
        for true, row in enumerate(evaluation.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    found.sort(key=lambda one: -one.count)
    for one in found[:MAX_CONFUSIONS]:
        same = (true_id for true_id, row in mistakes if (row.true, row.predicted) == (one.true, one.predicted))
        one.pictures = list(same)[: min(one.count, MAX_PICTURES)]
    return found[:MAX_CONFUSIONS]


def _supports(evaluation: Evaluation) -> list[int]:
    return [row.support for row in evaluation.per_class]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _quoted(name: str) -> str:
    return f"“{name}”"
