"""One picture on its way through a model: what the network gets of it, and what is said of the network's answer.

`foveola predict`, `foveola explain` and the server share these steps, so that they cannot disagree.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveola import doctor
from foveola.decoding import to_channels
from foveola.doctor import Finding, Fix
from foveola.errors import DataError, UserError
from foveola.evaluation.rejection import accepted
from foveola.images import Images
from foveola.models.card import ModelCard
from foveola.predictions import Answer


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the network gets it: `pixels`, uint8 H×W×C of the card's `image_shape`.

    `findings` in what the picture, as it was given, is unlike the training images; `fixes` what was changed.
    """

    pixels: Images
    findings: list[Finding]
    fixes: tuple[Fix, ...]


def asked_for(fix: Collection[str], grey: bool, card: ModelCard) -> tuple[Fix, ...]:
    """The fixes that every picture gets, in the order in which they are applied.

    Parameters
    ----------
    fix : keys of `doctor.FIXES`; "auto", which depends on the picture, is left out here
    grey : the same as the fix of that name
    card : of the model

    Raises
    ------
    UserError
        If a fix is unknown, or needs statistics of the training images that the model does not have.
    """
    asked = doctor.check_fixes({*fix, *(["grey"] if grey else [])} - {"auto"})
    without = doctor.WITHOUT_STATISTICS
    needy = [name for name in asked if name not in without]
    if needy and card.statistics is None:
        raise UserError(
            f"The fix {needy[0]} needs to know how the training images look, but this model does not say: they are "
            f"photographs without a common background, or an older Foveola trained it. "
            f"Only {' and '.join(without)} can be used."
        )
    return asked


def prepare(
    picture: Images,
    card: ModelCard,
    asked: Collection[Fix],
    *,
    auto: bool = False,
    name: str,
    findings: bool = True,
    animated: bool = False,
) -> Prepared:
    """What the network gets of a picture.

    Parameters
    ----------
    picture : uint8 H×W×C of any size, as `decode` gives it
    card : of the model
    asked : fixes, as `asked_for` gives them
    auto : also those that the findings propose
    name : what messages call the picture
    findings : look for what is unlike the training images; without, `findings` of the result is empty, and unless
        `auto` needs it, the doctor is not asked, which saves most of the time that a picture takes
    animated : the picture is the first frame of several

    Raises
    ------
    DataError
        If the picture is in colour, the model has learnt from grey images, and nobody has asked to convert it.
    """
    if card.channels == "grey":
        picture = to_channels(picture, 1)
    found = doctor.examine(picture, card.statistics, card.image_shape) if findings or auto else []
    fixes = doctor.check_fixes({*asked, *(doctor.proposed(found) if auto else ())})
    if card.image_shape[2] == 1 and "grey" not in fixes and doctor.in_colour(picture):
        raise DataError(
            f"{name} is a colour picture (3 channels), but the model has learnt from grey images (1 channel). "
            f"Ask for the fix grey to have it converted: --grey, or grey=true in a request."
        )
    if animated:
        found = [Finding("animation", "an animation: only its first frame is looked at", None), *found]
    pixels = doctor.fix(picture, fixes, card.statistics, card.image_shape)
    return Prepared(pixels, found if findings else [], fixes)


def answer(
    name: str,
    probabilities: NDArray[np.float64],
    prepared: Prepared,
    card: ModelCard,
    class_names: Sequence[str],
    top: int,
) -> Answer:
    """What the model says of a picture.

    Parameters
    ----------
    name : of the picture
    probabilities : float64 K, softmax of the logits of `prepared.pixels`
    prepared : the picture
    card : of the model, with its threshold for uncertain answers
    class_names : K names
    top : how many classes to name, the most probable first
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [(class_names[k], float(probabilities[k])) for k in order]
    uncertain = card.reject is not None and not accepted(probabilities[None], card.reject.threshold)[0]
    return Answer(name, best, prepared.findings, prepared.fixes, uncertain)


def answer_document(answer: Answer) -> dict[str, Any]:
    """An answer as plain values for JSON; which picture it is about, the caller adds."""
    return {
        "class": answer.class_name,
        "probability": answer.probability,
        "uncertain": answer.uncertain,
        "top": [{"class": name, "probability": probability} for name, probability in answer.top],
        "findings": [asdict(finding) for finding in answer.findings],
        "fixes": list(answer.fixes),
    }
