"""Predict: image files classified."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveola.datasets import table
from foveola.datasets.columns import as_columns
from foveola.datasets.reload import known_image_column
from foveola.datasets.table_images import TableImage, table_images
from foveola.errors import DataError
from foveola.files import expanded, safe_stem, write_atomically, writing
from foveola.images import Images
from foveola.inputs.find import ImageFile, as_names, find_images
from foveola.inputs.fixes import Fix, apply_fixes
from foveola.inputs.prepare import Prediction, PreparedImage, make_prediction, prepare, requested_fixes
from foveola.models.metadata import Columns, ModelMetadata
from foveola.predictions import Predictor, predict_outputs
from foveola.progress import console, show_progress
from foveola.runs import Run
from foveola.tasks import probabilities
from foveola.workflow.open import as_predictor, metadata_of

# Side, in pixels, to which the network's input is enlarged by whole multiples
_SHOWN_SIDE = 224
_BATCH = 256


@dataclass(frozen=True)
class Refusal:
    """An image that could not be classified, and why."""

    image: str
    reason: str


def predict(
    model: str | Path | Run | Predictor,
    images: str | Path | Sequence[str | Path],
    *,
    grey: bool = False,
    fix: Collection[str] = (),
    show: str | Path | None = None,
    top: int = 3,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    verbose: bool = True,
) -> list[Prediction]:
    """Classify image files of any size.

    Parameters
    ----------
    model : run, its directory, model file or predictor
    images : one path, or several, of files, folders (their images, at every depth), patterns such as "scans/*.png", or
        "-" for standard input; or a single table (.csv, .tsv, .parquet, .tar) with a row for each image
    grey : convert colour images to grey for a model of grey images; the same as the fix of that name
    fix : fixes to apply, keys of `foveola.inputs.fixes.FIXES`; "auto" applies those that each image's findings propose
    show : a folder, into which the network's input is written as PNG files: NUMBER-NAME-before.png, and -after.png if
        it was fixed
    top : number of classes to list
    columns : of a table, as for `foveola.train`; None: as in the training, or guessed
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
    answers = predict_each(model, images, grey=grey, fix=fix, show=show, top=top, columns=columns, verbose=verbose)
    predictions = []
    for answer in answers:
        if isinstance(answer, Refusal):
            raise DataError(answer.reason)
        predictions.append(answer)
    return predictions


def predict_each(
    model: str | Path | Run | Predictor,
    images: str | Path | Sequence[str | Path],
    *,
    grey: bool = False,
    fix: Collection[str] = (),
    show: str | Path | None = None,
    top: int = 3,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    verbose: bool = True,
) -> Iterator[Prediction | Refusal]:
    """As `predict`, but an image that cannot be used is refused by itself, and the others are classified.

    Raises
    ------
    UserError
        If the model or a fix cannot be used, or there are no images.
    """
    predictor = as_predictor(model)
    metadata = metadata_of(predictor)
    requested = requested_fixes(fix, grey, metadata)
    files = find_readable(images, metadata, as_columns(columns))
    inputs = None if show is None else _Inputs(Path(show), len(files))
    with show_progress(console(verbose)) as progress:
        for start in range(0, len(files), _BATCH):
            batch: list[tuple[str, PreparedImage | Refusal]] = []
            for number, file in enumerate(files[start : start + _BATCH], start + 1):
                try:
                    given, prepared = _prepared(file, metadata, requested, auto="auto" in fix)
                except DataError as error:
                    batch.append((file.name, Refusal(file.name, str(error))))
                else:
                    batch.append((file.name, prepared))
                    if inputs is not None:
                        inputs.write(number, file.name, unfixed(given, prepared, metadata), prepared)
                progress(number, len(files), "images")
            outputs = _outputs(predictor, metadata, [ready for _, ready in batch if isinstance(ready, PreparedImage)])
            for name, ready in batch:
                if isinstance(ready, Refusal):
                    yield ready
                else:
                    row, score = next(outputs)
                    yield make_prediction(name, row, ready, metadata, predictor.class_names, top, score)


def find_readable(
    images: str | Path | Sequence[str | Path], metadata: ModelMetadata, columns: Columns
) -> Sequence[ImageFile | TableImage]:
    """The image files that the names stand for, or the images of a single table."""
    names = as_names(images)
    if len(names) == 1 and is_table(names[0]):
        path = expanded(names[0])
        image = columns.image or known_image_column(metadata, path)
        return table_images(path, columns.model_copy(update={"image": image}), metadata.image_shape[:2])
    return find_images(names)


def is_table(name: str | Path) -> bool:
    """Whether the name is that of a table, not of an image."""
    path = expanded(name)
    return path.is_file() and table.recognises(path)


def _outputs(
    predictor: Predictor, metadata: ModelMetadata, prepared: Sequence[PreparedImage]
) -> Iterator[tuple[NDArray[np.float64], float | None]]:
    """Probabilities, K, and score of unfamiliarity of each image."""
    if prepared:
        outputs = predict_outputs(predictor, np.stack([image.pixels for image in prepared]))
        scores = [None] * len(prepared) if outputs.unfamiliarity is None else outputs.unfamiliarity.tolist()
        yield from zip(probabilities(outputs.logits, metadata.task), scores, strict=True)


def read_images(
    files: Sequence[ImageFile], metadata: ModelMetadata, *, grey: bool, fix: Collection[str], verbose: bool
) -> Iterator[tuple[Images, PreparedImage]]:
    """Each image as it was given, uint8 H×W×C, and as the network gets it; options as of `predict`.

    Raises
    ------
    UserError
        If an image or a fix cannot be used.
    """
    requested = requested_fixes(fix, grey, metadata)
    with show_progress(console(verbose)) as progress:
        for number, file in enumerate(files, start=1):
            yield _prepared(file, metadata, requested, auto="auto" in fix)
            progress(number, len(files), "images")


def _prepared(
    file: ImageFile | TableImage, metadata: ModelMetadata, requested: Collection[Fix], *, auto: bool
) -> tuple[Images, PreparedImage]:
    frame = file.read(metadata.white_level)
    return frame.pixels, prepare(frame, metadata, requested, auto=auto, name=file.name)


def unfixed(given: Images, prepared: PreparedImage, metadata: ModelMetadata) -> Images:
    """The network's input without fixes except grey, uint8 H×W×C of the metadata's `image_shape`."""
    fixes = {"grey"} & set(prepared.fixes)
    return apply_fixes(
        given, fixes, metadata.statistics, metadata.image_shape, metadata.original_images.aspect,
        resize=metadata.resize, fill=metadata.fill,
    )  # fmt: skip


@dataclass(frozen=True)
class _Inputs:
    """The folder of `show`: a file for each image, and a second one if something was fixed."""

    folder: Path
    count: int

    def write(self, number: int, name: str, before: Images, after: PreparedImage) -> None:
        from foveola.reports.pixels import enlarge, png_bytes

        start = f"{number:0{len(str(self.count))}}-{safe_stem(name)}"
        with writing(self.folder, "Choose another folder with --show."):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{start}-before.png", png_bytes(enlarge(before, _SHOWN_SIDE)))
            if after.fixes:
                write_atomically(self.folder / f"{start}-after.png", png_bytes(enlarge(after.pixels, _SHOWN_SIDE)))
