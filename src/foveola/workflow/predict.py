"""Picture files classified."""

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveola import doctor
from foveola.decoding import is_animated, read_image, to_channels
from foveola.doctor import Finding, Fix
from foveola.errors import DataError, OutputError, UserError
from foveola.files import write_atomically
from foveola.images import Images
from foveola.models.card import ModelCard
from foveola.predictions import Answer, Predictor, softmax
from foveola.workflow.opening import card_of, open_model
from foveola.workflow.progress import console, reading

# What the network sees is shown at least this large, in pixels, each of its own a square
_SHOWN_SIDE = 224


def predict(
    model: str | Path | Predictor,
    images: Sequence[str | Path],
    *,
    grey: bool = False,
    fix: Collection[str] = (),
    show: str | Path | None = None,
    top: int = 3,
    verbose: bool = True,
) -> list[Answer]:
    """Classify picture files of any size.

    Parameters
    ----------
    model : run directory, model file or predictor
    images : paths
    grey : read colour pictures as grey for a model of grey images; the same as the fix of that name
    fix : changes to the pictures, keys of `doctor.FIXES`; "auto" for those that the findings of each picture propose
    show : a folder that gets what the network sees as PNG: NUMBER-NAME-before.png, and -after.png if it was fixed
    top : how many classes to name
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If the model, a picture or a fix cannot be used.
    """
    predictor = model if not isinstance(model, str | Path) else open_model(model)
    card = card_of(predictor)
    asked = _asked_for(fix, grey, card)
    before, after, findings, fixes = [], [], [], []
    with reading(console(verbose)) as progress:
        for number, path in enumerate(images, start=1):
            picture = read_image(Path(path))
            if card.channels == "grey":
                picture = to_channels(picture, 1)
            found = doctor.examine(picture, card.statistics, card.image_shape)
            wanted = doctor.check_fixes({*asked, *(doctor.proposed(found) if "auto" in fix else ())})
            _refuse_colour(picture, path, card, wanted)
            before.append(doctor.fix(picture, {"grey"} & set(wanted), card.statistics, card.image_shape))
            after.append(doctor.fix(picture, wanted, card.statistics, card.image_shape))
            findings.append([*_animation(Path(path)), *found])
            fixes.append(wanted)
            progress(number, len(images), "pictures")
    probabilities = softmax(predictor.predict_logits(np.stack(after)))
    if show is not None:
        _write_pictures(Path(show), images, before, after, fixes)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    uncertain = _uncertain(probabilities, card)
    return [
        Answer(str(path), [(predictor.class_names[k], float(row[k])) for k in best], found, changed, bool(unsure))
        for path, row, best, found, changed, unsure in zip(
            images, probabilities, order, findings, fixes, uncertain, strict=True
        )
    ]


def _asked_for(fix: Collection[str], grey: bool, card: ModelCard) -> tuple[Fix, ...]:
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


def _refuse_colour(picture: Images, path: str | Path, card: ModelCard, fixes: Collection[Fix]) -> None:
    if card.image_shape[2] == 1 and "grey" not in fixes and doctor.in_colour(picture):
        raise DataError(
            f"{path} is a colour picture (3 channels), but the model has learnt from grey images (1 channel). "
            f"Add --grey to have it converted."
        )


def _animation(path: Path) -> list[Finding]:
    text = "an animation: only its first frame is looked at"
    return [Finding("animation", text, None)] if is_animated(path) else []


def _uncertain(probabilities: NDArray[np.float64], card: ModelCard) -> NDArray[np.bool_]:
    """Which answers the model's threshold does not accept, bool N."""
    from foveola.evaluation.rejection import accepted

    if card.reject is None:
        return np.zeros(len(probabilities), bool)
    return ~accepted(probabilities, card.reject.threshold)


def _write_pictures(
    folder: Path,
    paths: Sequence[str | Path],
    before: Sequence[Images],
    after: Sequence[Images],
    fixes: Sequence[tuple[Fix, ...]],
) -> None:
    """One picture a file, or two where something was fixed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (path, first, second, fixed) in enumerate(zip(paths, before, after, fixes, strict=True), start=1):
            name = f"{number:0{len(str(len(paths)))}}-{Path(path).stem}"
            write_atomically(folder / f"{name}-before.png", _png(first))
            if fixed:
                write_atomically(folder / f"{name}-after.png", _png(second))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}. Choose another folder with --show.") from None


def _png(image: Images) -> bytes:
    """Enlarged by whole numbers, so that no pixel is blurred."""
    scale = max(-(-_SHOWN_SIDE // max(image.shape[:2])), 1)
    pixels = image.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
