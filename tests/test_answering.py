"""One picture through a model: what the network gets, what is said of its answer, what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from foveola import doctor
from foveola.answering import Prepared, answer, answer_document, asked_for, prepare
from foveola.doctor import Finding
from foveola.errors import DataError, UserError
from foveola.models.card import ModelCard, Rejection

PLAIN = Prepared(np.zeros((8, 8, 1), np.uint8), [], ())


@pytest.fixture
def card(toy):
    """Of a model of the toy images; other values by name."""

    def make(**values):
        known = {"image_shape": (8, 8, 1), "polarity": "light on dark", "statistics": doctor.describe(toy.train.images)}
        return ModelCard(class_names=toy.class_names, **(known | values))

    return make


@pytest.fixture
def red():
    """A red square on black, 8×8 RGB."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6, 0] = 255
    return pixels


# What is asked for


def test_fixes_are_put_into_their_order_and_auto_is_left_to_each_picture(card):
    assert asked_for(["center", "auto", "invert"], True, card()) == ("grey", "invert", "center")
    assert asked_for(["auto"], False, card(statistics=None)) == ()


def test_an_unknown_fix_is_refused_with_the_nearest(card):
    with pytest.raises(UserError, match=r"'centre'.*Did you mean 'center'"):
        asked_for(["centre"], False, card())


def test_without_statistics_only_what_needs_none_can_be_asked_for(card):
    assert asked_for(["invert"], True, card(statistics=None)) == ("grey", "invert")
    with pytest.raises(UserError, match=r"The fix crop needs to know .* Only grey and invert"):
        asked_for(["invert", "crop"], False, card(statistics=None))


# What the network gets


def test_a_picture_like_the_training_images_comes_through_unchanged(card, toy):
    prepared = prepare(toy.train.images[25], card(), (), auto=True, name="a.png")
    np.testing.assert_array_equal(prepared.pixels, toy.train.images[25])
    assert (prepared.findings, prepared.fixes) == ([], ())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("picture", [(1, 1, 1), (3, 500, 3), (70, 41, 1), (8, 8, 3)])
def test_the_network_gets_its_own_shape_whatever_comes(card, picture, channels):
    grey = np.full(picture, 90, np.uint8)
    prepared = prepare(grey, card(image_shape=(8, 8, channels)), (), name="a.png")
    assert prepared.pixels.dtype == np.uint8
    np.testing.assert_array_equal(prepared.pixels, np.full((8, 8, channels), 90))


def test_what_is_reported_is_the_picture_as_it_was_given(card, toy):
    dark = 255 - toy.train.images[25]
    as_it_is, asked, proposed = (
        prepare(dark, card(), fixes, auto=auto, name="a.png")
        for fixes, auto in [((), False), (("invert",), False), ((), True)]
    )
    for prepared, fixes, pixels in [
        (as_it_is, (), dark),
        (asked, ("invert",), 255 - dark),
        (proposed, ("invert",), 255 - dark),
    ]:
        assert [finding.code for finding in prepared.findings] == ["polarity"]
        assert prepared.fixes == fixes
        np.testing.assert_array_equal(prepared.pixels, pixels)


def test_without_findings_the_doctor_is_asked_only_for_what_it_would_propose(card, toy, monkeypatch):
    dark, described = 255 - toy.train.images[25], card()
    prepared = prepare(dark, described, (), auto=True, name="a.png", findings=False, animated=True)
    assert (prepared.findings, prepared.fixes) == ([], ("invert",))
    monkeypatch.setattr(doctor, "examine", lambda *_: pytest.fail("asked"))
    prepared = prepare(dark, described, ("invert",), name="a.png", findings=False)
    assert (prepared.findings, prepared.fixes) == ([], ("invert",))
    np.testing.assert_array_equal(prepared.pixels, toy.train.images[25])


def test_of_an_animation_is_said_what_is_looked_at(card, toy):
    prepared = prepare(255 - toy.train.images[25], card(), (), name="a.gif", animated=True)
    assert [finding.code for finding in prepared.findings] == ["animation", "polarity"]


def test_colour_is_refused_by_a_grey_model_unless_asked_for_or_proposed(card, red):
    with pytest.raises(DataError, match=r"red\.png is a colour picture .*fix grey.*--grey"):
        prepare(red, card(), (), name="red.png", findings=False)
    luma = np.asarray(Image.fromarray(red).convert("L"))[..., None]
    for asked, auto in [(("grey",), False), ((), True)]:
        prepared = prepare(red, card(statistics=None), asked, auto=auto, name="red.png")
        assert ([finding.code for finding in prepared.findings], prepared.fixes) == (["channels"], ("grey",))
        np.testing.assert_array_equal(prepared.pixels, luma)


def test_a_recipe_that_makes_pictures_grey_finds_nothing_wrong_with_colour(card, red):
    prepared = prepare(red, card(statistics=None, channels="grey"), (), name="red.png")
    assert (prepared.findings, prepared.fixes) == ([], ())
    np.testing.assert_array_equal(prepared.pixels, np.asarray(Image.fromarray(red).convert("L"))[..., None])


# What is said


@pytest.mark.parametrize(
    ("reject", "expected"),
    [
        (None, [False, False]),
        (Rejection(error=0.01, threshold=0.7), [False, True]),
        (Rejection(error=0.01, threshold=0.6), [False, False]),  # the threshold itself is enough
        (Rejection(error=0.01, threshold=None), [True, True]),
    ],
)
def test_below_the_threshold_a_model_is_uncertain(card, reject, expected):
    described = card(reject=reject)
    answers = [
        answer("a.png", np.array(row), PLAIN, described, described.class_names, 1)
        for row in ([0.1, 0.9, 0.0], [0.0, 0.6, 0.4])
    ]
    assert [one.uncertain for one in answers] == expected
    assert [one.class_name for one in answers] == ["middle", "middle"]


@pytest.mark.parametrize(("top", "names"), [(1, ["b"]), (3, ["b", "a", "c"]), (9, ["b", "a", "c", "d"])])
def test_the_most_probable_come_first_and_equals_in_the_order_of_the_classes(card, top, names):
    said = answer("a.png", np.array([0.2, 0.5, 0.2, 0.1]), PLAIN, card(), ("a", "b", "c", "d"), top)
    assert [name for name, _ in said.top] == names


def test_the_document_holds_plain_values(card):
    prepared = Prepared(PLAIN.pixels, [Finding("polarity", "dark on light", "invert")], ("invert",))
    described = card(reject=Rejection(error=0.1, threshold=0.9))
    document = answer_document(answer("a.png", np.array([0.25, 0.75, 0]), prepared, described, ("a", "b", "c"), 2))
    assert json.loads(json.dumps(document)) == {
        "class": "b",
        "probability": 0.75,
        "uncertain": True,
        "top": [{"class": "b", "probability": 0.75}, {"class": "a", "probability": 0.25}],
        "findings": [{"code": "polarity", "text": "dark on light", "fix": "invert"}],
        "fixes": ["invert"],
    }
