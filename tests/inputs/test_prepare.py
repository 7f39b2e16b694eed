"""Preparation of images for the network, and predictions from its output."""

import json

import numpy as np
import pytest
from PIL import Image

from foveola.errors import DataError, UserError
from foveola.inputs import checks
from foveola.inputs.checks import Finding
from foveola.inputs.decode import FirstFrame
from foveola.inputs.prepare import PreparedImage, make_prediction, prediction_document, prepare, requested_fixes
from foveola.models.metadata import ModelMetadata, Rejection, Unfamiliarity

PREPARED = PreparedImage(np.zeros((8, 8, 1), np.uint8), [], ())


@pytest.fixture
def metadata(toy):
    """Make the metadata of a model of the toy images; keywords override values."""

    def make(**values):
        defaults = {
            "image_shape": (8, 8, 1),
            "polarity": "light on dark",
            "statistics": checks.compute_statistics(toy.train.images),
        }
        return ModelMetadata(class_names=toy.class_names, **(defaults | values))

    return make


@pytest.fixture
def red():
    """A red square on black, 8×8 RGB."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6, 0] = 255
    return pixels


# Requested fixes


def test_requested_fixes_are_ordered_and_exclude_auto(metadata):
    assert requested_fixes(["center", "auto", "invert"], True, metadata()) == ("grey", "invert", "center")
    assert requested_fixes(["auto"], False, metadata(statistics=None)) == ()


def test_an_unknown_fix_is_refused_with_the_nearest_known_one(metadata):
    with pytest.raises(UserError, match=r"'centre'.*Did you mean 'center'"):
        requested_fixes(["centre"], False, metadata())


def test_without_statistics_only_grey_and_invert_can_be_requested(metadata):
    assert requested_fixes(["invert"], True, metadata(statistics=None)) == ("grey", "invert")
    with pytest.raises(UserError, match=r"The fix crop needs statistics .* Use only grey and invert"):
        requested_fixes(["invert", "crop"], False, metadata(statistics=None))


# Prepared images


def test_an_image_like_the_training_images_is_not_changed(metadata, toy):
    prepared = prepare(FirstFrame(toy.train.images[25]), metadata(), (), auto=True, name="a.png")
    np.testing.assert_array_equal(prepared.pixels, toy.train.images[25])
    assert (prepared.findings, prepared.fixes) == ([], ())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 500, 3), (70, 41, 1), (8, 8, 3)])
def test_any_shape_is_converted_to_the_input_shape(metadata, shape, channels):
    grey = np.full(shape, 90, np.uint8)
    prepared = prepare(FirstFrame(grey), metadata(image_shape=(8, 8, channels)), (), name="a.png")
    assert prepared.pixels.dtype == np.uint8
    np.testing.assert_array_equal(prepared.pixels, np.full((8, 8, channels), 90))


def test_findings_describe_the_original_image(metadata, toy):
    dark = 255 - toy.train.images[25]
    unchanged, requested, proposed = (
        prepare(FirstFrame(dark), metadata(), fixes, auto=auto, name="a.png")
        for fixes, auto in [((), False), (("invert",), False), ((), True)]
    )
    for prepared, fixes, pixels in [
        (unchanged, (), dark),
        (requested, ("invert",), 255 - dark),
        (proposed, ("invert",), 255 - dark),
    ]:
        assert [finding.code for finding in prepared.findings] == ["polarity"]
        assert prepared.fixes == fixes
        np.testing.assert_array_equal(prepared.pixels, pixels)


def test_without_findings_the_image_is_checked_only_for_automatic_fixes(metadata, toy, monkeypatch):
    dark, toy_metadata = 255 - toy.train.images[25], metadata()
    prepared = prepare(FirstFrame(dark, animated=True), toy_metadata, (), auto=True, name="a.png", findings=False)
    assert (prepared.findings, prepared.fixes) == ([], ("invert",))
    monkeypatch.setattr("foveola.inputs.prepare.check_image", lambda *_: pytest.fail("checked"))
    prepared = prepare(FirstFrame(dark), toy_metadata, ("invert",), name="a.png", findings=False)
    assert (prepared.findings, prepared.fixes) == ([], ("invert",))
    np.testing.assert_array_equal(prepared.pixels, toy.train.images[25])


def test_an_animation_is_a_finding(metadata, toy):
    prepared = prepare(FirstFrame(255 - toy.train.images[25], animated=True), metadata(), (), name="a.gif")
    assert [finding.code for finding in prepared.findings] == ["animation", "polarity"]


def test_colour_is_refused_by_a_grey_model_unless_grey_is_requested_or_automatic(metadata, red):
    with pytest.raises(DataError, match=r"red\.png is a colour image .*Convert it to grey with --fix auto or --grey"):
        prepare(FirstFrame(red), metadata(), (), name="red.png", findings=False)
    luma = np.asarray(Image.fromarray(red).convert("L"))[..., None]
    for requested, auto in [(("grey",), False), ((), True)]:
        prepared = prepare(FirstFrame(red), metadata(statistics=None), requested, auto=auto, name="red.png")
        assert ([finding.code for finding in prepared.findings], prepared.fixes) == (["channels"], ("grey",))
        np.testing.assert_array_equal(prepared.pixels, luma)


def test_a_model_whose_recipe_converts_to_grey_accepts_colour(metadata, red):
    prepared = prepare(FirstFrame(red), metadata(statistics=None, channels="grey"), (), name="red.png")
    assert (prepared.findings, prepared.fixes) == ([], ())
    np.testing.assert_array_equal(prepared.pixels, np.asarray(Image.fromarray(red).convert("L"))[..., None])


# Predictions


@pytest.mark.parametrize(
    ("reject", "expected"),
    [
        (None, [False, False]),
        (Rejection(error=0.01, threshold=0.7), [False, True]),
        (Rejection(error=0.01, threshold=0.6), [False, False]),  # the threshold itself is confident
        (Rejection(error=0.01, threshold=None), [True, True]),
    ],
)
def test_a_prediction_below_the_threshold_is_uncertain(metadata, reject, expected):
    rejecting = metadata(reject=reject)
    predictions = [
        make_prediction("a.png", np.array(row), PREPARED, rejecting, rejecting.class_names, 1)
        for row in ([0.1, 0.9, 0.0], [0.0, 0.6, 0.4])
    ]
    assert [prediction.uncertain for prediction in predictions] == expected
    assert [prediction.class_name for prediction in predictions] == ["middle", "middle"]


@pytest.mark.parametrize(("score", "unfamiliar"), [(2.6, True), (2.5, False), (-3.0, False), (None, None)])
def test_an_image_above_the_threshold_is_unfamiliar(metadata, score, unfamiliar):
    measure = Unfamiliarity(
        layers=("conv2d_1",), energy_weight=0.1, threshold=2.5, false_alarms=0.01, validation_images=99
    )
    measuring = metadata(unfamiliarity=measure)
    prediction = make_prediction("a.png", np.array([0.1, 0.9]), PREPARED, measuring, ("a", "b"), 1, score)
    assert prediction.unfamiliar is unfamiliar
    document = json.loads(json.dumps(prediction_document(prediction)))
    assert document["unfamiliar"] is unfamiliar
    assert document["unfamiliarity"] == (None if score is None else {"score": score, "threshold": 2.5})


def test_a_model_without_the_measure_makes_no_statement(metadata):
    prediction = make_prediction("a.png", np.array([0.1, 0.9]), PREPARED, metadata(), ("a", "b"), 1)
    assert prediction.unfamiliar is None


@pytest.mark.parametrize(("top", "names"), [(1, ["b"]), (3, ["b", "a", "c"]), (9, ["b", "a", "c", "d"])])
def test_the_most_probable_classes_come_first_and_ties_keep_the_class_order(metadata, top, names):
    prediction = make_prediction(
        "a.png", np.array([0.2, 0.5, 0.2, 0.1]), PREPARED, metadata(), ("a", "b", "c", "d"), top
    )
    assert [name for name, _ in prediction.top] == names


def test_the_document_holds_plain_values(metadata):
    prepared = PreparedImage(PREPARED.pixels, [Finding("polarity", "dark on light", "invert")], ("invert",))
    rejecting = metadata(reject=Rejection(error=0.1, threshold=0.9))
    document = prediction_document(
        make_prediction("a.png", np.array([0.25, 0.75, 0]), prepared, rejecting, ("a", "b", "c"), 2)
    )
    assert json.loads(json.dumps(document)) == {
        "class": "b",
        "probability": 0.75,
        "uncertain": True,
        "unfamiliar": None,
        "unfamiliarity": None,
        "top": [{"class": "b", "probability": 0.75}, {"class": "a", "probability": 0.25}],
        "findings": [{"code": "polarity", "text": "dark on light", "fix": "invert"}],
        "fixes": ["invert"],
    }


@pytest.mark.parametrize(
    ("frame", "white_level", "codes"),
    [
        ({}, None, []),
        ({"on_black": True}, None, ["transparency"]),
        ({"peak": 4095}, 4095, []),
        ({"peak": 60_000}, None, []),
        ({"peak": 4095}, None, ["depth"]),
        ({"peak": 60_000}, 4095, ["depth"]),
    ],
)
def test_what_was_assumed_of_a_file_is_a_finding(toy, metadata, frame, white_level, codes):
    prepared = prepare(
        FirstFrame(toy.train.images[25], **frame), metadata(white_level=white_level), (), name="a.png", auto=True
    )
    assert [finding.code for finding in prepared.findings] == codes
    assert prepared.fixes == ()


def test_a_file_that_is_too_dark_comes_with_the_factor(toy, metadata):
    (finding,) = prepare(FirstFrame(toy.train.images[25], peak=4000), metadata(), (), name="a.png").findings
    assert finding.text.endswith("its values end at 4,000; if it has 12 bits, it is too dark: multiply them by 16")


def test_models_from_before_sizes_were_kept_compare_with_their_own_shape(metadata):
    old = metadata().model_dump(mode="json", exclude={"originals", "white_level"})
    again = ModelMetadata.model_validate(old)
    height, width, _ = again.image_shape
    assert (again.originals, again.white_level) == (None, None)
    assert (again.original_images.height.low, again.original_images.width.high) == (height, width)
