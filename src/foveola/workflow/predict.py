"""Picture files classified."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foveola.decoding import read_image, resize, to_channels
from foveola.errors import DataError
from foveola.images import Images, polarity
from foveola.models.card import ModelCard
from foveola.predictions import Answer, Predictor, softmax
from foveola.workflow.opening import card_of, open_model
from foveola.workflow.progress import console, reading


def predict(
    model: str | Path | Predictor,
    images: Sequence[str | Path],
    *,
    grey: bool = False,
    top: int = 3,
    verbose: bool = True,
) -> list[Answer]:
    """Classify picture files of any size.

    Parameters
    ----------
    model : run directory, model file or predictor
    images : paths
    grey : read colour pictures as grey for a model of grey images
    top : how many classes to name
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If the model or a picture cannot be used.
    """
    predictor = model if not isinstance(model, str | Path) else open_model(model)
    card = card_of(predictor)
    pictures, findings = [], []
    with reading(console(verbose)) as progress:
        for number, path in enumerate(images, start=1):
            picture = read_image(Path(path))
            if card.image_shape[2] == 1 and picture.shape[2] == 3:
                picture = _as_grey(picture, path, convert=grey or card.channels == "grey")
            findings.append(_findings(picture, card))
            pictures.append(_in_shape(picture, card))
            progress(number, len(images), "pictures")
    probabilities = softmax(predictor.predict_logits(np.stack(pictures)))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        Answer(str(path), [(predictor.class_names[k], float(row[k])) for k in best], found)
        for path, row, best, found in zip(images, probabilities, order, findings, strict=True)
    ]


def _as_grey(picture: Images, path: str | Path, *, convert: bool) -> Images:
    if not convert and np.ptp(picture, axis=2).max() > 0:
        raise DataError(
            f"{path} is a colour picture (3 channels), but the model has learnt from grey images (1 channel). "
            f"Add --grey to have it converted."
        )
    return to_channels(picture, 1)


def _in_shape(picture: Images, card: ModelCard) -> Images:
    height, width, channels = card.image_shape
    return resize(to_channels(picture, channels), height, width)


def _findings(picture: Images, card: ModelCard) -> list[str]:
    """What looks unlike the training images; nothing is changed because of it."""
    found = polarity(picture[None])
    if "mixed" in (found, card.polarity) or found == card.polarity:
        return []
    return [f"{found}, but the model has learnt from images that are {card.polarity}; inverting it may help"]
