"""Predict: image files classified."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from foveola.files import write_atomically, writing
from foveola.images import Images
from foveola.inputs.decode import read_first_frame
from foveola.inputs.fixes import apply_fixes
from foveola.inputs.prepare import Prediction, PreparedImage, make_prediction, prepare, requested_fixes
from foveola.models.metadata import ModelMetadata
from foveola.predictions import Predictor, softmax
from foveola.progress import console, show_progress
from foveola.workflow.open import metadata_of, open_model

# Side, in pixels, to which the network's input is enlarged by whole multiples
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
) -> list[Prediction]:
    """Classify image files of any size.

    Parameters
    ----------
    model : run directory, model file or predictor
    images : paths
    grey : convert colour images to grey for a model of grey images; the same as the fix of that name
    fix : fixes to apply, keys of `foveola.inputs.fixes.FIXES`; "auto" for those that each image's findings propose
    show : a folder for the network's input as PNG files: NUMBER-NAME-before.png, and -after.png if it was fixed
    top : number of classes to list
    verbose : report progress on standard error

    Returns
    -------
    A Prediction for each image: its class, probability, the next classes, findings and fixes.

    Raises
    ------
    UserError
        If the model, an image or a fix cannot be used.

    Examples
    --------
    >>> from PIL import Image
    >>> data = foveola.load("digits")
    >>> Image.fromarray(data.train.images[0, :, :, 0]).save("zero.png")
    >>> run = foveola.train(data, "mlp", overrides={"epochs": 20}, verbose=False)
    >>> [prediction] = foveola.predict(run.path, ["zero.png"], verbose=False)
    >>> prediction.class_name, prediction.findings
    ('0', [])
    """
    predictor = model if not isinstance(model, str | Path) else open_model(model)
    metadata = metadata_of(predictor)
    before, after = [], []
    for given, prepared in read_images(images, metadata, grey=grey, fix=fix, verbose=verbose):
        after.append(prepared)
        if show is not None:
            before.append(unfixed(given, prepared, metadata))
    probabilities = softmax(predictor.predict_logits(np.stack([prepared.pixels for prepared in after])))
    if show is not None:
        _write_inputs(Path(show), images, before, after)
    return [
        make_prediction(str(path), row, prepared, metadata, predictor.class_names, top)
        for path, row, prepared in zip(images, probabilities, after, strict=True)
    ]


def read_images(
    images: Sequence[str | Path], metadata: ModelMetadata, *, grey: bool, fix: Collection[str], verbose: bool
) -> Iterator[tuple[Images, PreparedImage]]:
    """Each image as it was given, uint8 H×W×C, and as the network gets it; parameters as of `predict`.

    Raises
    ------
    UserError
        If an image or a fix cannot be used.
    """
    requested = requested_fixes(fix, grey, metadata)
    with show_progress(console(verbose)) as progress:
        for number, path in enumerate(images, start=1):
            given, animated = read_first_frame(path)
            yield given, prepare(given, metadata, requested, auto="auto" in fix, name=str(path), animated=animated)
            progress(number, len(images), "images")


def unfixed(given: Images, prepared: PreparedImage, metadata: ModelMetadata) -> Images:
    """The network's input without fixes except grey, uint8 H×W×C of the metadata's `image_shape`."""
    return apply_fixes(given, {"grey"} & set(prepared.fixes), metadata.statistics, metadata.image_shape)


def _write_inputs(
    folder: Path, paths: Sequence[str | Path], before: Sequence[Images], after: Sequence[PreparedImage]
) -> None:
    """A file for each image, and a second one if something was fixed."""
    from foveola.reports.pixels import enlarge, png_bytes

    with writing(folder, "Choose another folder with --show."):
        folder.mkdir(parents=True, exist_ok=True)
        for number, (path, first, second) in enumerate(zip(paths, before, after, strict=True), start=1):
            name = f"{number:0{len(str(len(paths)))}}-{Path(path).stem}"
            write_atomically(folder / f"{name}-before.png", png_bytes(enlarge(first, _SHOWN_SIDE)))
            if second.fixes:
                write_atomically(folder / f"{name}-after.png", png_bytes(enlarge(second.pixels, _SHOWN_SIDE)))
