"""FoveolaClassifier does what scikit-learn expects of an estimator, and what Foveola's training does."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import foveola
from foveola.errors import RecipeError
from foveola.images import Dataset, ImageSet
from foveola.recipe import parse_recipe

LAYERS = [{"type": "Flatten"}, {"type": "Dense", "units": "classes"}]
TINY = parse_recipe(
    {
        "name": "tiny", "validation": 0.0, "batch_size": 16, "steps": 50, "learning_rate": 0.1,
        "precision": "float32", "layers": LAYERS,
    }
)  # fmt: skip
DIGITS = load_digits()
IMAGES, FLAT, LABELS = (DIGITS.images[:300] * 15.9).astype(np.uint8), DIGITS.data[:300], DIGITS.target[:300]


def classifier(**options):
    """The tiny recipe with validation images, on the processor."""
    return foveola.FoveolaClassifier(TINY, **{"epochs": 3, "validation_fraction": 0.2, "device": "cpu"} | options)


def flat(**options):
    return classifier(image_shape=(8, 8), value_range=(0, 16), **options)


# scikit-learn's checks

EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "Images are drawn into batches: an image of weight 2 is in one "
    "batch of an epoch, and an image that is there twice is in two. Losses of an epoch are equal, its steps are not.",
}


@parametrize_with_checks(
    [foveola.FoveolaClassifier(TINY, image_shape="row", value_range="data", device="cpu")],
    expected_failed_checks=lambda estimator: EXPECTED,
)
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


# Searches, cross-validation, pipelines


def test_a_grid_search_over_two_settings():
    grid = {"epochs": [1, 8], "settings": [None, {"learning_rate": 1e-6}]}
    search = GridSearchCV(flat(), grid, cv=3).fit(FLAT, LABELS)
    assert search.best_params_ == {"epochs": 8, "settings": None}
    assert search.best_score_ > 0.8 > min(search.cv_results_["mean_test_score"])


def test_cross_validation_with_groups():
    groups = np.arange(300) // 10
    scores = cross_val_score(classifier(), IMAGES, LABELS, cv=GroupKFold(3), groups=groups)
    assert scores.shape == (3,)
    assert scores.min() > 0.6


def test_calibration_curves_and_pipelines():
    calibrated = CalibratedClassifierCV(classifier(), cv=StratifiedKFold(2)).fit(IMAGES, LABELS)
    np.testing.assert_allclose(calibrated.predict_proba(IMAGES[:9]).sum(axis=1), 1)
    *_, scores = learning_curve(flat(), FLAT, LABELS, train_sizes=[0.3, 1.0], cv=2)
    assert scores.shape == (2, 2)
    pipeline = make_pipeline(MinMaxScaler(clip=True), classifier(image_shape=(8, 8)))
    pipeline.fit(FLAT, LABELS, foveolaclassifier__groups=np.arange(300) // 3)
    assert pipeline.score(FLAT, LABELS) > 0.7


# What is fitted


def test_it_is_the_training_of_foveola():
    """The same classifier bit for bit as `foveola.train` with the same images for validation."""
    names = tuple(map(str, range(10)))
    dataset = Dataset("digits", ImageSet(IMAGES[..., None], LABELS, names))
    run = foveola.train(
        dataset, TINY, epochs=3, validation=0.2, test=0.0, device="cpu", out="run", report=False, verbose=False
    )
    fitted = classifier().fit(IMAGES, LABELS)
    logits = foveola.open(run.path).predict_logits(IMAGES[..., None])
    np.testing.assert_array_equal(fitted.decision_function(IMAGES), logits)
    written = classifier(run="mine").fit(IMAGES, LABELS)
    np.testing.assert_array_equal(written.decision_function(IMAGES), logits)
    assert foveola.Run.open("mine").status.status == "done"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_nothing_is_written_unless_a_run_is_asked_for(tmp_path):
    classifier().fit(IMAGES, LABELS).predict(IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "y", [LABELS == 3, LABELS.astype(float) + 0.5, np.array(["é", "b", "a b"])[LABELS % 3], LABELS - 4, list(LABELS)]
)
def test_classes_are_given_back_as_they_came(y):
    y = np.asarray(y) if not isinstance(y, list) else y
    if isinstance(y, np.ndarray) and y.dtype == float:
        y = np.where(y > 4, 2.0, 1.0)
    fitted = classifier().fit(IMAGES, y)
    np.testing.assert_array_equal(fitted.classes_, np.unique(y))
    predicted = fitted.predict(IMAGES)
    assert predicted.dtype == fitted.classes_.dtype
    assert set(predicted) <= set(fitted.classes_)
    probabilities = fitted.predict_proba(IMAGES)
    np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], predicted)
    assert probabilities.shape == (300, len(fitted.classes_))


def test_images_in_every_form_are_the_same():
    expected = classifier().fit(IMAGES, LABELS).decision_function(IMAGES)
    for images in (IMAGES[..., None], IMAGES.astype(float), IMAGES / 255):
        np.testing.assert_array_equal(classifier().fit(images, LABELS).decision_function(images), expected)
    rows = IMAGES.reshape(300, 64)
    fitted = classifier(image_shape=(8, 8)).fit(rows, LABELS)
    np.testing.assert_array_equal(fitted.decision_function(rows), expected)
    assert (fitted.n_features_in_, fitted.image_shape_, fitted.value_range_) == (64, (8, 8, 1), (0, 255))
    colour = np.repeat(IMAGES[..., None], 3, axis=3)
    assert classifier(image_shape=(8, 8, 3)).fit(colour.reshape(300, -1), LABELS).image_shape_ == (8, 8, 3)


def test_values_of_another_range_are_warned_of():
    """As scikit-learn's digits, from 0 to 16."""
    with pytest.warns(UserWarning, match=r"no value above 16, and 255 is taken for white.*value_range=\(0, 16\)"):
        classifier(image_shape=(8, 8)).fit(FLAT, LABELS)


def test_images_get_the_size_and_channels_of_the_recipe():
    fitted = classifier(settings={"image_size": 6, "channels": "rgb"}).fit(IMAGES, LABELS)
    assert fitted.classifier_.metadata.image_shape == (6, 6, 3)
    assert fitted.predict(IMAGES[:2]).shape == (2,)


def test_weights_of_images_and_classes_count():
    """An image of weight 0 does not; class weights are factors of the images' weights."""
    wrong = np.where(np.arange(300) < 150, (LABELS + 1) % 10, LABELS)
    weights = (np.arange(300) >= 150).astype(float)
    options = {"validation_fraction": 0.0, "epochs": 8}
    weighted = classifier(**options).fit(IMAGES, wrong, sample_weight=weights)
    assert weighted.score(IMAGES, LABELS) > classifier(**options).fit(IMAGES, wrong).score(IMAGES, LABELS) + 0.2
    by_class = classifier(**options, class_weight={3: 0.0} | {k: 1.0 for k in range(10) if k != 3}).fit(IMAGES, LABELS)
    same = classifier(**options).fit(IMAGES, LABELS, sample_weight=(LABELS != 3).astype(float))
    np.testing.assert_array_equal(by_class.predict_proba(IMAGES), same.predict_proba(IMAGES))
    uniform = classifier(**options).fit(IMAGES, LABELS, sample_weight=np.full(300, 2.0))
    np.testing.assert_array_equal(
        uniform.predict_proba(IMAGES), classifier(**options).fit(IMAGES, LABELS).predict_proba(IMAGES)
    )


def test_random_states():
    first, again, other = (
        classifier(random_state=seed).fit(IMAGES, LABELS).predict_proba(IMAGES) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert classifier(random_state=np.random.RandomState(1)).fit(IMAGES, LABELS)._seed() >= 0


# Clone and pickle


def test_clone_has_the_parameters_and_nothing_fitted():
    fitted = flat(class_weight="balanced").fit(FLAT, LABELS)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(FLAT)


def test_pickle_holds_the_model_file():
    fitted = flat().fit(FLAT, LABELS)
    content = pickle.dumps(fitted)
    assert b"safetensors" not in content
    assert b"torch._utils" not in content
    reopened = pickle.loads(content)  # noqa: S301 - our own
    np.testing.assert_array_equal(reopened.predict_proba(FLAT), fitted.predict_proba(FLAT))
    state = fitted.__getstate__()
    assert isinstance(state["classifier_"], bytes)
    damaged = state | {"classifier_": state["classifier_"][:-1] + b"!"}
    with pytest.raises(foveola.UserError, match="damaged"):
        flat().__setstate__(damaged)


# What is refused


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({}, FLAT, r"flat rows of 64 values.*image_shape=\(height, width\)"),
        ({"image_shape": (7, 8)}, FLAT, "whose product is the number of values"),
        ({"image_shape": (4, 8, 2)}, FLAT, "1 or 3 channels"),
        ({}, np.zeros((300, 1, 8, 8)), r"X.transpose\(0, 2, 3, 1\)"),
        ({}, IMAGES - 5.5, r"value_range=\(low, high\)"),
        ({"value_range": (1, 1)}, IMAGES, "black below white"),
        ({"epochs": 3, "settings": {"epochs": 2}}, IMAGES, "both give epochs"),
    ],
)
def test_what_cannot_be_fitted(options, X, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options).fit(X, LABELS)


def test_what_cannot_be_predicted():
    fitted = classifier().fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"images of 7×8, but FoveolaClassifier is expecting images of 8×8×1"):
        fitted.predict(IMAGES[:, :7])
    with pytest.raises(ValueError, match="was fitted with values from 0 to 255"):
        fitted.predict(IMAGES / 255)
    with pytest.raises(ValueError, match="was fitted with values from 0 to 1"):
        classifier().fit(IMAGES / 255, LABELS).predict(IMAGES.astype(float))
    with pytest.raises(RecipeError, match="Did you mean 'epochs'"):
        classifier(settings={"epoch": 1}).fit(IMAGES, LABELS)


@pytest.mark.parametrize("wrong", [np.ones(299), np.ones((300, 1)), np.zeros(300), np.full(300, np.nan)])
def test_weights_that_cannot_be_used(wrong):
    with pytest.raises(ValueError, match=r"sample_weight|Sample weights"):
        classifier().fit(IMAGES, LABELS, sample_weight=wrong)
