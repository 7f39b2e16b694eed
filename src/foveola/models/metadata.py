"""ModelMetadata: class names, preprocessing, layers and origin of a model file, readable without PyTorch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from foveola.errors import ModelError, RecipeError
from foveola.images import Polarity, Resize
from foveola.models.layers import Layer
from foveola.models.learnt import LearntImages
from foveola.models.shapes import check_size, infer_shapes
from foveola.tasks import Task

METADATA_KEY = "foveola"

MAX_CLASSES = 10_000
MAX_PAD = 64
_MAX_LAYERS = 1000

Side = Annotated[int, Field(ge=1, le=2**16)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# Of pixels that are scaled to 0..1: such that nothing computed with them overflows
Mean = Annotated[float, Field(ge=-1e3, le=1e3)]
Std = Annotated[float, Field(ge=1e-6, le=1e3)]


# What a split keeps on one side: nothing, copies (the same pixels), or also near copies
Together = Literal["nothing", "copies", "near copies"]


ColumnName = Annotated[str, Field(max_length=1000)]


class Columns(BaseModel):
    """Which columns of a table hold images (paths, or image files), labels, groups, splits, weights; None: guessed.

    `label` may be several columns of zeros and ones, one for each label. `separator` is the text between several labels
    in a cell; None: a cell holds one class. `root` is the folder that holds the images; None: the table's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: ColumnName | None = None
    label: ColumnName | tuple[ColumnName, ...] | None = None
    group: ColumnName | None = None
    split: ColumnName | None = None
    weight: ColumnName | None = None
    separator: Annotated[str, Field(max_length=100)] | None = None
    root: Annotated[str, Field(max_length=4096)] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is not None, by its name here."""
        return self.model_dump(exclude_none=True)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of labels; none: guessed."""
        if self.label is None:
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def names(self) -> set[str]:
        """All columns that were given."""
        others = (self.image, self.group, self.split, self.weight)
        return {*self.labels, *(name for name in others if name is not None)}


class DataOrigin(BaseModel):
    """The data that a model was trained on, and how it was split.

    `groups` is the pattern by which the images were grouped, "folder", or "array" if the groups were given as numbers.
    `columns` are those that were given for a table. `learnt` is in model files only, not in exports.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str
    licence: str | None = None
    validation: Annotated[float, Field(ge=0, lt=1)]
    test: Annotated[float, Field(ge=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0)]
    together: Together = "nothing"
    groups: str | None = None
    columns: Columns | None = None
    learnt: LearntImages | None = Field(default=None, repr=False)


class PretrainedOrigin(BaseModel):
    """The published weights that a training started from: their name in `foveola.models.pretrained`, and the file.

    For an imported model, name and file are those of the imported file. `source` and `licence` are None if the file was
    given by its path and is not a known one. `verified` says whether the SHA-256 is that of a published file.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    source: str | None = None
    licence: str | None = None
    verified: bool = False

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.name}, from a file of unknown origin and licence, SHA-256 {self.sha256[:12]}…"
        doubt = "" if self.verified else f"; the file is not a known one, SHA-256 {self.sha256[:12]}…"
        return f"{self.name}, {self.licence}, {self.source}{doubt}"


class Quantiles(BaseModel):
    """The 1 %, 50 % and 99 % quantiles of a measurement over the training images."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The quantiles of values, N, rounded to four decimal places."""
        low, middle, high = (round(float(value), 4) for value in np.quantile(values, (0.01, 0.5, 0.99)))
        return cls(low=low, middle=middle, high=high)


class Range(BaseModel):
    """The smallest, the median and the largest value of a measurement over the training images."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.number]) -> Self:
        """The range of values, N."""
        return cls(low=float(values.min()), middle=float(np.median(values)), high=float(values.max()))


class OriginalImages(BaseModel):
    """The training images before they were resized and converted.

    `height` and `width` are in pixels, `aspect` is height by width, `colour` the fraction of the images that were in
    colour; None if that is unknown.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    height: Range
    width: Range
    aspect: Range
    colour: Fraction | None = None

    @classmethod
    def of(cls, heights: NDArray[np.int64], widths: NDArray[np.int64], colour: float | None = None) -> Self:
        """The ranges of heights, N, and widths, N."""
        aspect = Range.of(heights / widths)
        return cls(height=Range.of(heights), width=Range.of(widths), aspect=aspect, colour=colour)


class ImageStatistics(BaseModel):
    """Statistics of the training images that share a background; the foreground is what stands out from it.

    `background`, `unevenness` (of the background across an image) and `contrast` (the foreground's distance from the
    background) are grey levels, 0 to 255. `ink` is the foreground's fraction of the pixels; `size` the longer side of
    the foreground's bounding box, as a fraction of the image's side; `stroke` the width of strokes, as a fraction of
    that longer side; `centre_y` and `centre_x` the foreground's center of mass, as fractions of height and width.
    """

    model_config = ConfigDict(frozen=True)

    polarity: Literal["light on dark", "dark on light"]
    background: Quantiles
    unevenness: Quantiles
    contrast: Quantiles
    ink: Quantiles
    size: Quantiles
    stroke: Quantiles
    centre_y: Quantiles
    centre_x: Quantiles


class Shortfall(BaseModel):
    """Why nothing could be promised: `images`, the validation images, are too few.

    `images_without_mistakes` would do if the model made no mistake among the accepted ones, about `images_needed` with
    mistakes as frequent as here; None where no number does. `possible_error` is the error rate that these images can
    promise, None where they can promise none.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    images: int
    images_without_mistakes: int | None
    images_needed: int | None
    possible_error: float | None


class Rejection(BaseModel):
    """Confidence threshold below which a prediction is reported as uncertain.

    `target_error`, "error" in JSON, is the error rate that the threshold was chosen for. With `confidence`, such as
    0.9, the error rate of the accepted predictions is at most that in 90 % of all trainings; None: without a promise,
    as in models of earlier versions. `threshold` is None if none keeps the target; every prediction is then uncertain,
    and `shortfall` says what it would take.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, serialize_by_alias=True)

    target_error: Fraction = Field(validation_alias=AliasChoices("target_error", "error"), serialization_alias="error")
    threshold: Annotated[float, Field(ge=0, le=2)] | None
    confidence: Fraction | None = None
    shortfall: Shortfall | None = None

    def is_confident(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which predictions reach the threshold, N, of probabilities, N×K."""
        if self.threshold is None:
            return np.zeros(len(probabilities), bool)
        confident: NDArray[np.bool_] = probabilities.max(axis=1) >= self.threshold
        return confident


class Unfamiliarity(BaseModel):
    """The measure of unfamiliarity of a model, whose arrays are `foveola.models.unfamiliarity.FeatureStatistics`.

    The features are the channel means of the outputs of `layers`; the energy of the logits counts `energy_weight` times
    the logarithm of their squared distance. An image with a score above `threshold` is unlike the training images. Of
    images like the training images at most the fraction `false_alarms` lies above it, on average over draws of the
    `validation_images`.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    layers: tuple[str, ...] = Field(min_length=1, max_length=_MAX_LAYERS)
    energy_weight: float = Field(ge=0)
    threshold: float
    false_alarms: float = Field(gt=0, lt=1)
    validation_images: int = Field(ge=0)


class ModelMetadata(BaseModel):
    """Everything about a classifier except its weights.

    `image_shape` is height, width, channels. Images of another size are brought to it by `resize`: stretched, or
    letterboxed, with the grey level `fill` beside the image (see `foveola.inputs.resize`). Then `pad` black pixels
    are added on each side, values are scaled to 0..1, `mean` is subtracted and the result divided by `std`, by channel.
    Logits are divided by `temperature`.
    `task` says what logits mean: one class an image, by softmax, or, by sigmoid, any number of labels, each of which is
    given from its probability in `thresholds` on (None: 0.5 each).
    `channels` is the recipe's setting: with "grey" or "rgb", images of the other kind are converted; with "data", a
    colour model takes grey images, too, but a grey model refuses colour images.
    `statistics` is None if the training images have no common background, as photographs; `originals` in models of an
    older Foveola; `white_level`, the value that became 255 in files of 16 bits per channel, if that was 65535; `reject`
    if the model never reports a prediction as uncertain. `unfamiliarity` is None if the model cannot tell images that
    are unlike its training images: it was trained without validation images or by an older Foveola, or its network is
    the user's own. `layers` is None for a network that the user wrote in PyTorch. `pretrained` is None if the training
    began with random weights.
    """

    model_config = ConfigDict(frozen=True, serialize_by_alias=True, allow_inf_nan=False)

    format: Literal[1] = 1
    class_names: tuple[str, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    task: Task = "multiclass"
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    image_shape: tuple[Side, Side, int]
    channels: Literal["data", "grey", "rgb"] = "data"
    resize: Resize = "stretch"
    fill: int = Field(default=0, ge=0, le=255)
    pad: int = Field(default=0, ge=0, le=MAX_PAD)
    mean: tuple[Mean, ...] = (0.0,)
    std: tuple[Std, ...] = (1.0,)
    polarity: Polarity = "mixed"
    statistics: ImageStatistics | None = None
    originals: OriginalImages | None = None
    white_level: int | None = Field(default=None, ge=1, le=65535)
    temperature: float = Field(default=1.0, ge=1e-3, le=1e3)
    reject: Rejection | None = None
    unfamiliarity: Unfamiliarity | None = None
    layers: tuple[Layer, ...] | None = Field(default=None, max_length=_MAX_LAYERS)
    recipe: str | None = None
    data: DataOrigin | None = None
    pretrained: PretrainedOrigin | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_shape[2] not in (1, 3):
            raise ValueError(f"image_shape has {self.image_shape[2]} channels; images have 1 or 3")
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("two classes have the same name")
        if self.thresholds is not None and (self.task != "multilabel" or len(self.thresholds) != len(self.class_names)):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds of labels for {len(self.class_names)} labels"
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.image_shape[2]):
                raise ValueError(f"{name} needs one value, or one for each of {self.image_shape[2]} channels")
        return self

    @property
    def original_images(self) -> OriginalImages:
        """The training images before they were resized and converted."""
        height, width, _ = self.image_shape
        return self.originals or OriginalImages.of(np.array([height]), np.array([width]))

    @property
    def network_shape(self) -> tuple[int, int, int]:
        """Height, width, channels of the network's input: the image with its padding."""
        height, width, channels = self.image_shape
        return height + 2 * self.pad, width + 2 * self.pad, channels


def parse_metadata(text: str, where: str | Path) -> ModelMetadata:
    """The metadata of a model, whose network is small enough to be built and computed; `where` is for messages.

    Raises
    ------
    ModelError
        If the text is damaged, a value is out of bounds, or the layers do not fit together or are too large.
    """
    try:
        metadata = ModelMetadata.model_validate_json(text)
    except ValidationError as error:
        reason = f"damaged or from a newer Foveola: {first_problem(error)}"
        raise ModelError(f"The metadata in {where} is {reason}. Train or copy it again.") from None
    if metadata.layers is not None:
        try:
            infos = infer_shapes(metadata.layers, metadata.network_shape, len(metadata.class_names))
        except RecipeError as error:
            raise ModelError(f"The layers in {where} do not fit together: {error}") from None
        try:
            check_size(infos)
        except RecipeError as error:
            raise ModelError(f"{where} is not opened: {error}") from None
    return metadata


def first_problem(invalid: ValidationError) -> str:
    """The first thing that is wrong with a document, and where in it."""
    first = invalid.errors(include_url=False, include_input=False)[0]
    place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{place[:100]}: {message}" if place else message
