"""Evaluate: a model measured on data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveola.datasets import as_source
from foveola.datasets.columns import as_columns
from foveola.datasets.reader import Prepare
from foveola.datasets.reload import image_paths, known_columns, load_for_model
from foveola.datasets.splits import Split, Splits, select_split
from foveola.documents import Evaluation, SeenImages, WeightedImages, WithoutCopies
from foveola.errors import DataError
from foveola.images import Dataset, Images, ImageSet, Labels
from foveola.inputs.decode import FirstFrame
from foveola.inputs.fixes import Fix
from foveola.inputs.prepare import prepare, requested_fixes
from foveola.inputs.resize import is_colour, to_channels
from foveola.models.learnt import Seen, hash_images
from foveola.models.metadata import Columns, ModelMetadata
from foveola.predictions import Predictions, Predictor, predict_outputs
from foveola.progress import console, show_progress
from foveola.runs import Run
from foveola.workflow.open import as_predictor, metadata_of


def evaluate(
    model: str | Path | Run | Predictor,
    data: object,
    y: object = None,
    *,
    split: Split = "test",
    grey: bool = False,
    fix: Collection[str] = (),
    skip_bad: int = 0,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    verbose: bool = True,
) -> Evaluation:
    """Measure a model on data.

    Parameters
    ----------
    model : run, its directory, model file or predictor
    data, y : as for `foveola.load`: catalog name, path, or objects, such as images with their labels. Classes are
        matched by name; numbers that are not names of the model's classes are indices of these, from 0 on
    split : if the data has no test split of its own, it is split as in the training if the model was trained on it;
        otherwise it is measured whole, without the images that the model has seen in training
    grey : convert colour images to grey for a model of grey images; the same as the fix of that name
    fix : fixes to apply to every image, as for `predict`
    skip_bad : maximum number of unreadable images of a folder to skip
    class_names, channels_first, name : as for `foveola.load`, if data is given as objects
    columns : of a table, as for `foveola.train`; None: those of the training if the table has them
    verbose : report progress on standard error

    Raises
    ------
    UserError
        If model or data cannot be used, or do not fit together.

    Examples
    --------
    >>> run = foveola.train("digits", "mlp", overrides={"epochs": 1}, verbose=False)
    >>> evaluation = foveola.evaluate(run.path, "digits", verbose=False)
    >>> evaluation.split, evaluation.n, 0 < evaluation.accuracy.value <= 1
    ('test', 359, True)

    >>> digits = foveola.load("digits").train
    >>> foveola.evaluate(run.path, digits.images, digits.labels, verbose=False).n
    359
    """
    predictor = as_predictor(model)
    metadata = metadata_of(predictor)
    requested, chosen = requested_fixes(fix, grey, metadata), as_columns(columns)
    fix_one = partial(_pixels, metadata=metadata, requested=requested, auto="auto" in fix)
    source = as_source(
        data, y, class_names=class_names, channels_first=channels_first, name=name, known_names=predictor.class_names
    )
    with show_progress(console(verbose)) as progress:
        chosen = chosen if chosen.given else known_columns(metadata, source)
        dataset = load_for_model(metadata, source, skip_bad, progress, columns=chosen)
        selected = select_split(dataset, metadata, split)
        labels = match_classes(selected.images, metadata, dataset.name)
        images = selected.images.images
        if set(fix) - {"grey"}:
            fixed = None
            if image_paths(source, dataset, chosen):
                fixed = load_for_model(metadata, source, skip_bad, progress, fix_one, chosen)
            images = _fixed(selected.images, dataset, fixed, fix_one)
        elif metadata.channels == "data":
            images = _in_channels(images, metadata.image_shape[2], grey="grey" in requested, name=dataset.name)
    outputs = predict_outputs(predictor, images)
    names, groups, weights = tuple(predictor.class_names), selected.images.groups, selected.images.weights
    predictions = Predictions(outputs.logits, labels, names, selected.held_out, groups, weights, metadata.thresholds)
    return evaluate_predictions(
        predictions, selected.name, metadata, outputs.unfamiliarity, seen=selected.seen, left_out=selected.left_out
    )


def _pixels(frame: FirstFrame, name: str, *, metadata: ModelMetadata, requested: Collection[Fix], auto: bool) -> Images:
    """What the network gets of an image."""
    return prepare(frame, metadata, requested, auto=auto, name=name, findings=False).pixels


def _fixed(selected: ImageSet, dataset: Dataset, fixed: Dataset | None, fix_one: Prepare) -> Images:
    """The selected images after fixes, uint8 N×H×W×C.

    Files are fixed before they are resized, as `predict` does it; `fixed` holds them in the order of `dataset`, where
    the selected ones are found again by their hashes. Images that come as arrays are fixed as they are.
    """
    if fixed is None:
        return np.stack([fix_one(FirstFrame(image), dataset.name) for image in selected.images])
    before, after = (Splits.of(each).together.images for each in (dataset, fixed))
    places = {key: place for place, key in enumerate(hash_images(before).tolist())}
    return after[[places[key] for key in hash_images(selected.images).tolist()]]


def _in_channels(images: Images, channels: int, *, grey: bool, name: str) -> Images:
    """Images for a model of grey ones: those that are only saved in colour are taken, others if `grey` is given."""
    if channels == 3 or images.shape[3] == 1:
        return images
    colour = sum(map(is_colour, images))
    if colour and not grey:
        raise DataError(
            f"{colour:,} of {len(images):,} images of {name} are in colour (3 channels), but the model was trained on "
            f"grey images (1 channel). Convert them to grey with --fix auto or --grey."
        )
    return np.stack([to_channels(image, 1) for image in images])


def evaluate_predictions(
    predictions: Predictions,
    split: str,
    metadata: ModelMetadata,
    unfamiliarity: NDArray[np.float32] | None = None,
    *,
    seen: Seen | None = None,
    left_out: int = 0,
) -> Evaluation:
    """Metrics, their values before the temperature, rejection, false alarms, and the points of the report's plots.

    Parameters
    ----------
    predictions : temperature applied
    split : the name of the split that the images come from
    metadata : of the model
    unfamiliarity : scores of the images, N, if the model measures them
    seen : which images the model has seen; None if that cannot be known
    left_out : number of images that were left out, because the model has seen them
    """
    from foveola.evaluation.curves import curves
    from foveola.evaluation.intervals import effective_number
    from foveola.evaluation.metrics import METRICS, compute_metrics, confusion, metrics_of, per_class
    from foveola.evaluation.multilabel import per_label
    from foveola.evaluation.rejection import evaluate_rejection
    from foveola.evaluation.unfamiliarity import evaluate_unfamiliarity

    measure, weights = metadata.unfamiliarity, predictions.weights
    metrics = compute_metrics(predictions)
    one_class = predictions.task == "multiclass"
    uncalibrated = replace(predictions, logits=predictions.logits * np.float32(metadata.temperature))
    return Evaluation(
        split=split,
        n=len(predictions),
        task=predictions.task,
        held_out=bool(predictions.held_out),
        seen=None if seen is None else _count_seen(seen, left_out),
        without_copies=None if seen is None else _without_copies(predictions, seen),
        weighted=None if weights is None else WeightedImages(effective=effective_number(weights)),
        metrics=metrics,
        per_class=per_class(predictions) if one_class else [],
        confusion=confusion(predictions).tolist() if one_class else [],
        labels=None if one_class else per_label(predictions),
        ece_uncalibrated=METRICS["ece"].compute(uncalibrated) if one_class else None,
        log_loss_uncalibrated=metrics_of(predictions.task)["log_loss"].compute(uncalibrated),
        rejection=None if metadata.reject is None else evaluate_rejection(predictions, metadata.reject),
        unfamiliar=None if measure is None or unfamiliarity is None else evaluate_unfamiliarity(unfamiliarity, measure),
        curves=curves(predictions, metadata.temperature) if one_class else None,
    )


def _count_seen(seen: Seen, left_out: int) -> SeenImages:
    return SeenImages(training=int(seen.training.sum()), validation=int(seen.validation.sum()), left_out=left_out)


def _without_copies(predictions: Predictions, seen: Seen) -> WithoutCopies | None:
    """Metrics of the images that the model has not seen, if it has seen some of them, but not all."""
    from foveola.evaluation.metrics import metrics_of

    others = np.flatnonzero(~seen.any)
    if len(others) in (0, len(predictions)):
        return None
    unseen = predictions.take(others, held_out=True)
    if unseen.weights is not None and not unseen.weights.any():
        return None
    return WithoutCopies(
        n=len(others), **{name: metrics_of(unseen.task)[name].compute(unseen) for name in ("accuracy", "log_loss")}
    )


def match_classes(images: ImageSet, metadata: ModelMetadata, data_name: str) -> Labels:
    """The images' labels as those of the model, matched by the names of classes or labels: N, or bool N×K.

    Raises
    ------
    DataError
        If the data has classes or labels that the model does not know, lacks labels that it gives, or has one class an
        image while the model gives several labels, or the other way round.
    """
    names = metadata.class_names
    if images.task != metadata.task:
        forms = {"multiclass": "one class", "multilabel": "any number of labels"}
        raise DataError(
            f"The images of {data_name} have {forms[images.task]} each, but the model gives {forms[metadata.task]}. "
            f"Evaluate on data with labels of that form."
        )
    occurring = [name for name, count in zip(images.class_names, images.class_counts, strict=True) if count]
    unknown = [name for name in occurring if name not in names]
    if unknown:
        raise DataError(
            f"{data_name} has classes that the model does not know: {', '.join(unknown[:10])}. "
            f"The model knows: {', '.join(names[:20])}. Evaluate on data with these class names."
        )
    if images.task == "multilabel":
        if missing := [name for name in names if name not in images.class_names]:
            raise DataError(
                f"{data_name} does not say which images have the labels {', '.join(missing[:10])}, which the model "
                f"gives. Add a column for each."
            )
        return images.labels[:, [images.class_names.index(name) for name in names]]
    positions = {name: position for position, name in enumerate(names)}
    to_model = np.array([positions.get(name, -1) for name in images.class_names], dtype=np.int64)
    return to_model[images.labels]
