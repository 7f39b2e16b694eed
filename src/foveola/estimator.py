"""FoveolaClassifier: a recipe as a scikit-learn estimator."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from foveola.arrays import shape_cure, shape_text, to_pixels
from foveola.datasets import MAX_DARK
from foveola.datasets.reload import load_for_model
from foveola.errors import DataError, require
from foveola.images import Dataset, Images, ImageSet
from foveola.progress import no_progress
from foveola.recipe import Recipe, load_recipe
from foveola.tasks import softmax
from foveola.workflow.fit_classifier import fit_classifier
from foveola.workflow.open import Device, choose_device, open_model
from foveola.workflow.train import train

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

ImageShape = tuple[int, int] | tuple[int, int, int]


class FoveolaClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of small images, with the interface of scikit-learn: for pipelines, searches and cross-validation.

    X is images, N×H×W or N×H×W×C with C = 1 (grey) or 3 (RGB), or with `image_shape` flat rows, N×(H·W·C).

    Parameters
    ----------
    recipe : name of a recipe, path of a TOML file, or a Recipe
    epochs : passes over the images, instead of the recipe's
    settings : further values by recipe key, such as {"learning_rate": 0.01, "augment.shift": 2}
    validation_fraction : fraction of the images held out to choose the temperature, and whatever else the recipe
        chooses by validation; None: the recipe's. 0 trains on all images, and leaves the probabilities uncalibrated
    image_shape : of flat rows: (height, width), or (height, width, channels); "row": each is an image one pixel high
    value_range : the values of black and white; values between them are rounded to 256 levels, those outside are
        clipped. "data": the smallest and the largest value of the images that are fitted. None: 0 and 1 of floats up to
        1 and of booleans, otherwise 0 and 255; other values are refused
    class_weight : "balanced", or weights by class, as in scikit-learn: factors of `sample_weight`
    random_state : seed of validation images, initial weights, order, augmentation and dropout; None: a new one each
        time
    device : "auto" uses a GPU if there is one
    run : a folder, into which the training is written as a run, as by `foveola.train`; None: nothing is written

    Attributes
    ----------
    classes_ : the classes, K, sorted
    n_features_in_ : number of values of an image
    image_shape_ : height, width, channels
    value_range_ : the values of black and white
    classifier_ : the trained `foveola.Classifier`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = foveola.FoveolaClassifier("mlp", epochs=3, image_shape=(8, 8), value_range=(0, 16))
    >>> model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.8
    True
    """

    def __init__(
        self,
        recipe: str | Path | Recipe = "fast",
        *,
        epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        validation_fraction: float | None = None,
        image_shape: ImageShape | Literal["row"] | None = None,
        value_range: tuple[float, float] | Literal["data"] | None = None,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: Device = "auto",
        run: str | Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.epochs = epochs
        self.settings = settings
        self.validation_fraction = validation_fraction
        self.image_shape = image_shape
        self.value_range = value_range
        self.class_weight = class_weight
        self.random_state = random_state
        self.device = device
        self.run = run

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Self:
        """Train on images.

        Parameters
        ----------
        X : images, N×H×W, N×H×W×C, or flat rows
        y : classes, N: numbers or texts
        sample_weight : how much each image counts, N
        groups : a number or name for each image, N: images with the same one are not divided between training and
            validation

        Raises
        ------
        ValueError
            If shapes, values or labels cannot be used, as scikit-learn raises it.
        UserError
            If recipe, settings or device cannot be used.
        NonFiniteLoss
            If training diverges.
        """
        require("torch", "train")
        recipe = self._recipe()
        array, targets = cast("tuple[NDArray[Any], NDArray[Any]]", validate_data(self, X, y, allow_nd=True))
        check_classification_targets(targets)
        self.classes_, labels = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_[0]!r}; a classifier needs at least two.")
        self.image_shape_ = self._find_image_shape(array)
        self.n_features_in_ = int(np.prod(self.image_shape_))
        self.value_range_ = self._find_value_range(array)
        numbers = None if groups is None else np.unique(column_or_1d(groups), return_inverse=True)[1]
        names = tuple(map(str, self.classes_.tolist()))
        weights = self._weights(sample_weight, array, targets)
        images = ImageSet(self._pixels(array), labels, names, numbers, weights)
        dataset, seed = Dataset("estimator", images), self._seed()
        if self.run is None:
            self.classifier_ = fit_classifier(dataset, recipe, seed=seed, device=choose_device(self.device))
        else:
            written = train(dataset, recipe=recipe, out=self.run, seed=seed, device=self.device, verbose=False)
            self.classifier_ = cast("Classifier", open_model(written.path, device=self.device))
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits, float64 N×K; of two classes the second's less the first's, N."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities, float64 N×K, in the order of `classes_`."""
        return softmax(self._logits(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each image, N."""
        predicted = self._logits(X).argmax(axis=1)
        return cast("NDArray[Any]", self.classes_[predicted])

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        pixels = self._pixels(self._like_fitted(X))
        metadata = self.classifier_.metadata
        images = ImageSet(pixels, np.zeros(len(pixels), np.int64), metadata.class_names)
        in_shape = load_for_model(metadata, Dataset("estimator", images), 0, no_progress).train.images
        return self.classifier_.predict_logits(in_shape).astype(np.float64)

    def _like_fitted(self, X: ArrayLike) -> NDArray[Any]:
        """X as a finite array, of the shape that was fitted."""
        array: NDArray[Any] = check_array(X, allow_nd=True, dtype="numeric")
        if array.ndim == 2:
            validate_data(self, X, reset=False, skip_check_array=True)  # the number and the names of the columns
        elif _image_shape(array) != self.image_shape_:
            raise ValueError(
                f"X has images of {shape_text(array.shape[1:])}, but {type(self).__name__} is expecting images of "
                f"{shape_text(self.image_shape_)}, as it was fitted with."
            )
        return array

    # Parameters, when they are used

    def _recipe(self) -> Recipe:
        overrides = dict(self.settings or {})
        for key, value in {"epochs": self.epochs, "validation": self.validation_fraction}.items():
            if value is not None and key in overrides:
                raise ValueError(f"settings and a parameter of the estimator both give {key}. Give it once.")
            if value is not None:
                overrides[key] = value
        return load_recipe(self.recipe, overrides | {"test": 0.0})

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _weights(self, sample_weight: ArrayLike | None, X: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64] | None:
        """How much each image counts, N; None if all count the same."""
        if sample_weight is None and self.class_weight is None:
            return None
        if sample_weight is None or np.isscalar(sample_weight):
            sample_weight = np.full(len(X), 1.0 if sample_weight is None else sample_weight)
        weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
        if weights.shape != (len(X),):
            raise ValueError(
                f"sample_weight has the shape {weights.shape}; give a weight for each of {len(X):,} images."
            )
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        weights = weights * compute_sample_weight(self.class_weight, y)
        return None if (weights == weights[0]).all() and weights[0] > 0 else weights

    def _find_image_shape(self, X: NDArray[Any]) -> tuple[int, int, int]:
        if X.ndim > 2:
            return _image_shape(X)
        count = X.shape[1]
        if self.image_shape is None:
            raise ValueError(
                f"X has flat rows of {count:,} values, and what images they are is not known. Give "
                f"image_shape=(height, width) or (height, width, channels); or images, N×H×W or N×H×W×C."
            )
        shape = (1, count, 1) if self.image_shape == "row" else (*self.image_shape, 1)[:3]
        if np.prod(shape) != count or shape[2] not in (1, 3):
            raise ValueError(
                f"image_shape is {self.image_shape!r}, and X has rows of {count:,} values. It is (height, width) or "
                f"(height, width, channels) with 1 or 3 channels, whose product is the number of values."
            )
        height, width, channels = map(int, shape)
        return height, width, channels

    def _find_value_range(self, X: NDArray[Any]) -> tuple[float, float]:
        if self.value_range is None:
            low, high = _usual_range(X)
            if high == 255 and 0 < X.max() <= MAX_DARK:
                warnings.warn(
                    f"X has no value above {X.max():g}, and 255 is taken for white: all images are dark. If "
                    f"{X.max():g} is white, say so: value_range=(0, {X.max():g}).",
                    stacklevel=3,
                )
            return low, high
        low, high = (X.min(), X.max()) if self.value_range == "data" else self.value_range
        if self.value_range == "data" and low == high:
            high = low + 1
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"value_range is {self.value_range!r}; it is (black, white), with black below white.")
        return float(low), float(high)

    def _pixels(self, X: NDArray[Any]) -> Images:
        """X as images, uint8 N×H×W×C."""
        images = X.reshape(len(X), *self.image_shape_)
        low, high = self.value_range_
        if self.value_range is None and images.dtype == np.uint8:
            return images
        if self.value_range is None and not _is_in_range(images, high):
            raise ValueError(
                f"X has values from {images.min()} to {images.max()} ({images.dtype}), and {type(self).__name__} was "
                f"fitted with values from {low:g} to {high:g}. Give values of the same kind, or say which are black "
                f"and white: value_range=(low, high)."
            )
        levels = (images.astype(np.float64) - low) * (255 / (high - low))
        return cast(Images, np.rint(np.clip(levels, 0, 255)).astype(np.uint8))

    # What scikit-learn and pickle ask for

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = self.image_shape is None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The attributes, with the bytes of the model file in the place of the network."""
        state = dict(super().__getstate__())
        if "classifier_" in state:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                state["classifier_"].save(path)
                state["classifier_"] = path.read_bytes()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the model from its bytes, checked as a file is; it computes on the CPU."""
        if isinstance(content := state.get("classifier_"), bytes):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                path.write_bytes(content)
                state = state | {"classifier_": open_model(path)}
        super().__setstate__(state)


def _image_shape(X: NDArray[Any]) -> tuple[int, int, int]:
    """Height, width and channels of images, N×H×W or N×H×W×C."""
    shape = (*X.shape[1:], 1)[:3] if X.ndim in (3, 4) else ()
    if len(shape) < 3 or shape[2] not in (1, 3):
        raise ValueError(
            f"X must be images, N×H×W or N×H×W×C with C = 1 (grey) or 3 (RGB), or flat rows, not "
            f"{shape_text(X.shape)}. {shape_cure(X.shape).replace('images', 'X')}"
        )
    height, width, channels = shape
    return height, width, channels


def _usual_range(X: NDArray[Any]) -> tuple[float, float]:
    """The values that are black and white where nothing else is said; raises a ValueError for other values."""
    if X.dtype == np.uint8:
        return 0.0, 255.0
    try:
        to_pixels(X)
    except DataError as error:
        raise ValueError(f"{error} Or say which values are black and white: value_range=(low, high).") from None
    return (0.0, 1.0) if X.dtype.kind in "fb" and X.max() <= 1 else (0.0, 255.0)


def _is_in_range(images: NDArray[Any], white: float) -> bool:
    """Whether images have the usual values of those that were fitted, whose white is 1 or 255."""
    whole = images.dtype.kind != "f" or bool((np.rint(images) == images).all())
    return _usual_range(images)[1] <= white and (whole or white == 1)
