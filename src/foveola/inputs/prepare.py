"""Prepare an image for the network, and turn the network's output into a Prediction."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola.errors import DataError, UserError
from foveola.images import Images
from foveola.inputs.checks import Finding, check_image, proposed_fixes
from foveola.inputs.decode import FirstFrame, white_level_of
from foveola.inputs.fixes import WITHOUT_STATISTICS, Fix, apply_fixes, check_fixes
from foveola.inputs.resize import is_colour, to_channels
from foveola.models.metadata import ModelMetadata
from foveola.tasks import decide

UNFAMILIAR = "unlike anything the model was trained on, so class and probability mean little"


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as passed to the network: `pixels`, uint8 H×W×C of the metadata's `image_shape`.

    `findings` describe how the original image differs from the training images; `fixes` are those applied.
    """

    pixels: Images
    findings: list[Finding]
    fixes: tuple[Fix, ...]


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for one image.

    `top` holds (class, probability), most probable first. `findings` describe how the original image differs from the
    training images; `fixes` are those applied before prediction. `uncertain` means that the probability is below the
    model's threshold. `unfamiliar` means that what the network got is unlike anything it was trained on: its
    `unfamiliarity` is above `unfamiliarity_threshold`; None if the model does not measure it. `labels` are those that
    reach their thresholds, most probable first, of a model that gives any number of labels; None of one class an image.
    """

    image: str
    top: list[tuple[str, float]]
    findings: list[Finding]
    fixes: tuple[Fix, ...] = ()
    uncertain: bool = False
    unfamiliarity: float | None = None
    unfamiliarity_threshold: float | None = None
    labels: tuple[str, ...] | None = None

    @property
    def unfamiliar(self) -> bool | None:
        if self.unfamiliarity is None or self.unfamiliarity_threshold is None:
            return None
        return self.unfamiliarity > self.unfamiliarity_threshold

    @property
    def class_name(self) -> str:
        return self.top[0][0]

    @property
    def text(self) -> str:
        """What is predicted, in words: the class, or all labels."""
        return self.class_name if self.labels is None else "; ".join(self.labels)

    @property
    def probability(self) -> float:
        return self.top[0][1]


def requested_fixes(fix: Collection[str], grey: bool, metadata: ModelMetadata) -> tuple[Fix, ...]:
    """The fixes to apply to every image, in the order in which they are applied.

    Parameters
    ----------
    fix : keys of FIXES; "auto" is ignored here, because its fixes differ by image
    grey : add the fix grey
    metadata : of the model

    Raises
    ------
    UserError
        If a fix is unknown, or needs statistics of the training images that the model does not have.
    """
    requested = check_fixes({*fix, *(["grey"] if grey else [])} - {"auto"})
    need_statistics = [name for name in requested if name not in WITHOUT_STATISTICS]
    if need_statistics and metadata.statistics is None:
        raise UserError(
            f"The fix {need_statistics[0]} needs statistics of the training images, which this model does not have: "
            f"its training images are photographs without a common background, or it was trained by an older Foveola. "
            f"Use only {' and '.join(WITHOUT_STATISTICS)}."
        )
    return requested


def prepare(
    frame: FirstFrame,
    metadata: ModelMetadata,
    requested: Collection[Fix],
    *,
    auto: bool = False,
    name: str,
    findings: bool = True,
    how_to_fix: str = "--fix auto or --grey",
) -> PreparedImage:
    """Check an image, apply fixes, and resize it to the network's input shape.

    Parameters
    ----------
    frame : an image of any size, as `decode_first_frame` returns it
    metadata : of the model
    requested : fixes to apply, as returned by `requested_fixes`
    auto : also apply the fixes that the findings propose
    name : name of the image in messages
    findings : compare the image with the training images. If False, the result has no findings, and the comparison,
        which takes most of the time, is skipped unless `auto` needs it
    how_to_fix : how the user requests the fix grey, for messages

    Raises
    ------
    DataError
        If the image is in colour, the model was trained on grey images, and the fix grey is not applied.
    """
    image = to_channels(frame.pixels, 1) if metadata.channels == "grey" else frame.pixels
    originals = metadata.original_images
    differences: list[Finding] = []
    if findings or auto:
        differences = check_image(image, metadata.statistics, metadata.image_shape, originals, metadata.resize)
    fixes = check_fixes({*requested, *(proposed_fixes(differences) if auto else ())})
    if metadata.image_shape[2] == 1 and "grey" not in fixes and is_colour(image):
        raise DataError(
            f"{name} is a colour image (3 channels), but the model was trained on grey images (1 channel). "
            f"Convert it to grey with {how_to_fix}."
        )
    pixels = apply_fixes(
        image, fixes, metadata.statistics, metadata.image_shape, originals.aspect,
        resize=metadata.resize, fill=metadata.fill,
    )  # fmt: skip
    return PreparedImage(pixels, [*_file_findings(frame, metadata), *differences] if findings else [], fixes)


def _file_findings(frame: FirstFrame, metadata: ModelMetadata) -> Iterator[Finding]:
    """What was assumed when the file was decoded."""
    if frame.animated:
        yield Finding("animation", "an animation: only its first frame is used", None)
    if frame.on_black:
        text = "light on a transparent ground: put on black, because on white nothing would be left"
        yield Finding("transparency", text, None)
    if frame.peak is None:
        return
    if metadata.white_level is not None and frame.peak > metadata.white_level:
        text = f"of {frame.peak.bit_length()} bits, but the training images have {metadata.white_level.bit_length()}"
        yield Finding("depth", f"{text}: its values up to 65,535 became grey levels", None)
    elif metadata.white_level is None and (white := white_level_of(frame.peak)) is not None:
        text = (
            f"of 16 bits, but its values end at {frame.peak:,}; if it has {white.bit_length()} bits, it is too dark: "
        )
        yield Finding("depth", f"{text}multiply them by {65536 // (white + 1)}", None)


def make_prediction(
    name: str,
    probabilities: NDArray[np.float64],
    prepared: PreparedImage,
    metadata: ModelMetadata,
    class_names: Sequence[str],
    top: int,
    unfamiliarity: float | None = None,
) -> Prediction:
    """Turn the probabilities of an image into a Prediction.

    Parameters
    ----------
    name : of the image
    probabilities : float64 K, of classes or labels, from the logits of `prepared.pixels`
    prepared : the image
    metadata : of the model, with its thresholds for uncertain predictions and unfamiliar images
    class_names : K names
    top : number of classes to list, most probable first
    unfamiliarity : the model's score of `prepared.pixels`, if it measures it
    """
    order = np.argsort(-probabilities, kind="stable")
    best = [(class_names[k], float(probabilities[k])) for k in order[:top]]
    labels = None
    if metadata.task == "multilabel":
        reached = decide(probabilities[None], metadata.task, metadata.thresholds)[0]
        labels = tuple(class_names[k] for k in order if reached[k])
    uncertain = metadata.reject is not None and not metadata.reject.is_confident(probabilities[None])[0]
    threshold = metadata.unfamiliarity.threshold if metadata.unfamiliarity else None
    return Prediction(name, best, prepared.findings, prepared.fixes, uncertain, unfamiliarity, threshold, labels)


def prediction_document(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain values for JSON, without the name of the image."""
    labels = {} if prediction.labels is None else {"labels": list(prediction.labels)}
    return labels | {
        "class": prediction.class_name,
        "probability": prediction.probability,
        "uncertain": prediction.uncertain,
        "unfamiliar": prediction.unfamiliar,
        "unfamiliarity": None
        if prediction.unfamiliar is None
        else {"score": prediction.unfamiliarity, "threshold": prediction.unfamiliarity_threshold},
        "top": [{"class": name, "probability": probability} for name, probability in prediction.top],
        "findings": [asdict(finding) for finding in prediction.findings],
        "fixes": list(prediction.fixes),
    }
