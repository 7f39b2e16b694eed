"""Three sentences on a training, from made documents."""

import numpy as np
import pytest

from foveola.datasets.reload import RecordedData
from foveola.documents import Evaluation, ModelSize, RunStatus
from foveola.evaluation.intervals import grouped_wilson, wilson
from foveola.evaluation.metrics import ClassMetrics
from foveola.recipe import load_recipe
from foveola.teaching.held_out import Mistake
from foveola.teaching.summary import MAX_PICTURES, summarize


def measured(confusion, names=("cup", "glass"), groups=None):
    """The evaluation with this confusion matrix, without mistakes if the images come in so many groups."""
    counts = np.array(confusion)
    right, supports, named = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    rows = [
        ClassMetrics(
            name=name, precision=right[k] / max(named[k], 1), recall=right[k] / max(supports[k], 1), f1=0.5,
            support=supports[k],
        )
        for k, name in enumerate(names)
    ]  # fmt: skip
    accuracy = wilson(int(right.sum()), int(counts.sum()))
    if groups is not None:
        accuracy = grouped_wilson(np.ones(accuracy.n, bool), np.arange(accuracy.n) % groups)
    return Evaluation(
        split="test", n=accuracy.n, held_out=True, metrics={"accuracy": accuracy}, per_class=rows, confusion=confusion
    )


def status(**data):
    known = {
        "name": "pictures",
        "fingerprint": "0",
        "train": 80,
        "validation": 10,
        "test": 20,
        "classes": ["cup", "glass"],
    }
    accuracy = data.pop("training_accuracy", 0.9)
    return RunStatus(
        status="done", recipe=load_recipe("fast"), data=RecordedData(**known | data), model=ModelSize(parameters=1),
        seed=0, training_accuracy=accuracy,
    )  # fmt: skip


def sentences(evaluation, counts=None, mistakes=(), **data):
    return summarize("pictures-1", status(**data), evaluation, counts or {"cup": 60, "glass": 60}, mistakes).sentences


@pytest.mark.parametrize(
    ("confusion", "sentence"),
    [
        (
            [[190, 10], [10, 190]],
            "Of 400 images that it was not trained on, it classifies 380 correctly (95 %); for others like them, "
            "expect 92 to 97 %.",
        ),
        (
            [[6, 0], [1, 5]],
            "Of 12 images that it was not trained on, it classifies 11 correctly. This test is small: for "
            "others like them, anything from 65 to 99 % is possible.",
        ),
        (
            [[3, 0], [1, 2]],
            "Of 6 images that it was not trained on, it classifies 5 correctly. This test is too small to be "
            "sure: for others like them, anything from 44 to 97 % is possible, and guessing gives 50 %.",
        ),
        (
            [[100, 100], [100, 100]],
            "Of 400 images that it was not trained on, it classifies 200 correctly, which is no better than guessing.",
        ),
        (
            [[1, 2], [2, 1]],
            "Of 6 images that it was not trained on, it classifies 2 correctly, which is no better than guessing.",
        ),
    ],
    ids=["many", "few", "fewer", "guessing", "few and guessing"],
)
def test_the_first_sentence_says_how_good_with_its_interval(confusion, sentence):
    assert sentences(measured(confusion))[0] == sentence


def test_recordings_are_named_where_they_were_kept_together():
    assert (
        "Of 400 images that it was not trained on, nor on others of the same recording, it classifies 380"
        in sentences(measured([[190, 10], [10, 190]]), groups="recording")[0]
    )


def test_all_right_on_two_recordings_is_not_called_guessing():
    first, _, third = sentences(measured([[8, 0], [0, 10]], groups=2), groups="recording")
    assert first == (
        "Of 18 images that it was not trained on, nor on others of the same recording, it classifies 18 correctly. "
        "This test is too small to be sure: for others like them, anything from 34 to 100 % is possible, and guessing "
        "gives 56 %."
    )
    assert third.startswith("Record every class a few more times")


def test_without_test_pictures_nothing_is_claimed():
    first, second, third = sentences(None)
    assert first == "It is not known how good it is: there were too few images to hold some back for a test."
    assert "not known" in second
    assert "three recordings, or three single images, of every class" in third


def test_the_second_sentence_names_the_confused_classes():
    _, none, _ = sentences(measured([[20, 0], [0, 20]]))
    assert none == "No classes were confused in the test."
    _, some, _ = sentences(measured([[15, 5], [1, 17]]))
    assert some == (
        "Confused most: 5 of 20 images of “cup” were taken for “glass”; 1 of 18 images of “glass” was taken for “cup”."
    )


@pytest.mark.parametrize(
    ("confusion", "counts", "data", "begins"),
    [
        ([[100, 100], [100, 100]], None, {}, "Check that every image is in the right class"),
        ([[150, 50], [50, 150]], None, {"training_accuracy": 1.0}, "Add more varied images of every class"),
        ([[190, 10], [2, 38]], {"cup": 900, "glass": 200}, {}, "Add images of “glass”: it has 200, the largest"),
        ([[198, 2], [60, 140]], None, {}, "Add images of “glass”, from other sides and in other light: only 70 %"),
        ([[200, 0], [2, 198]], None, {"different": 40}, "Vary the images more: of 120, only 40 differ"),
        ([[6, 0], [0, 6]], None, {}, "Add images of every class"),
        ([[180, 20], [20, 180]], None, {}, "Add images that differ from those that are there"),
        ([[200, 0], [2, 198]], None, {}, "No weak point was found: try it with new images"),
    ],
    ids=["guessing", "memorised", "few of a class", "weak class", "copies", "few", "not yet good", "good"],
)
def test_the_third_sentence_says_what_would_help_most(confusion, counts, data, begins):
    assert sentences(measured(confusion), counts, **data)[2].startswith(begins)


def test_confusions_list_the_pictures_that_are_still_there():
    mistakes = [
        (f"{number:016x}", Mistake(picture=f"cup/{number}.png", true="cup", predicted="glass", probability=0.9))
        for number in range(2)
    ]
    found = summarize("pictures-1", status(), measured([[15, 5], [1, 17]]), {"cup": 60, "glass": 60}, mistakes)
    assert [(one.true, one.predicted, one.count, len(one.pictures)) for one in found.confusions] == [
        ("cup", "glass", 5, 2),
        ("glass", "cup", 1, 0),
    ]
    assert found.accuracy.n == 38
    assert found.accuracy.low < found.accuracy.value == 32 / 38 < found.accuracy.high


def test_a_confusion_lists_no_more_pictures_than_were_counted():
    row = Mistake(picture="cup/1.png", true="cup", predicted="glass", probability=0.9)
    found = summarize(
        "pictures-1", status(), measured([[100, 100], [3, 197]]), {"cup": 60, "glass": 60}, [("0" * 16, row)] * 150
    )
    assert len(found.confusions[0].pictures) == MAX_PICTURES
    found = summarize("pictures-1", status(), measured([[19, 1], [0, 20]]), {"cup": 60}, [("0" * 16, row)] * 3)
    assert len(found.confusions[0].pictures) == 1
