"""Picture files classified."""

import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from foveola import doctor
from foveola.answering import Prepared, answer, asked_for, prepare
from foveola.decoding import is_animated, read_image
from foveola.errors import OutputError
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
    before, after = [], []
    for given, prepared in read_pictures(images, card, grey=grey, fix=fix, verbose=verbose):
        after.append(prepared)
        if show is not None:
            before.append(unfixed(given, prepared, card))
    probabilities = softmax(predictor.predict_logits(np.stack([prepared.pixels for prepared in after])))
    if show is not None:
        _write_pictures(Path(show), images, before, after)
    return [
        answer(str(path), row, prepared, card, predictor.class_names, top)
        for path, row, prepared in zip(images, probabilities, after, strict=True)
    ]


def read_pictures(
    images: Sequence[str | Path], card: ModelCard, *, grey: bool, fix: Collection[str], verbose: bool
) -> Iterator[tuple[Images, Prepared]]:
    """Each picture as it was given, uint8 H×W×C, and as the network gets it; parameters as of `predict`.

    Raises
    ------
    UserError
        If a picture or a fix cannot be used.
    """
    asked = asked_for(fix, grey, card)
    with reading(console(verbose)) as progress:
        for number, path in enumerate(images, start=1):
            given = read_image(path)
            yield given, prepare(given, card, asked, auto="auto" in fix, name=str(path), animated=is_animated(path))
            progress(number, len(images), "pictures")


def unfixed(given: Images, prepared: Prepared, card: ModelCard) -> Images:
    """What the network would get of a picture without fixes, grey apart: uint8 H×W×C of the card's image_shape."""
    return doctor.fix(given, {"grey"} & set(prepared.fixes), card.statistics, card.image_shape)


def _write_pictures(
    folder: Path, paths: Sequence[str | Path], before: Sequence[Images], after: Sequence[Prepared]
) -> None:
    """One picture a file, or two where something was fixed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (path, first, second) in enumerate(zip(paths, before, after, strict=True), start=1):
            name = f"{number:0{len(str(len(paths)))}}-{Path(path).stem}"
            write_atomically(folder / f"{name}-before.png", _png(first))
            if second.fixes:
                write_atomically(folder / f"{name}-after.png", _png(second.pixels))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}. Choose another folder with --show.") from None


def _png(image: Images) -> bytes:
    """Enlarged by whole numbers, so that no pixel is blurred."""
    scale = max(-(-_SHOWN_SIDE // max(image.shape[:2])), 1)
    pixels = image.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
