"""Pictures explained by a model: what each layer gives, and which pixels speak for a class."""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.answering import Prepared, answer, answer_document
from foveola.errors import DataError, ModelError, OutputError, require, unknown
from foveola.images import Images
from foveola.models.card import ModelCard
from foveola.predictions import softmax
from foveola.workflow.opening import Device, model_path, open_model
from foveola.workflow.predict import read_pictures, unfixed
from foveola.workflow.progress import console, reading

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier
    from foveola.report.explanation_page import Array, Explanation

# Where everything goes unless --out says so
FOLDER = "explanation"
PAGE = "explanation.html"
FILTERS = "filters.png"
# How many classes are named for each picture
TOP = 5


def explain(
    model: "str | Path | Classifier",
    images: Sequence[str | Path],
    *,
    classes: Sequence[str] = (),
    out: str | Path | None = None,
    grey: bool = False,
    fix: Collection[str] = (),
    device: Device = "cpu",
    verbose: bool = True,
) -> dict[str, Any]:
    """Write feature maps, filters, Grad-CAM and occlusion maps of pictures into a folder of PNGs with one page.

    Parameters
    ----------
    model : run directory, .safetensors file or live classifier
    images : paths
    classes : names of classes to explain beside the predicted one
    out : the folder, new or empty; by default a new one called "explanation"
    grey : read colour pictures as grey for a model of grey images
    fix : changes to the pictures, as for `predict`
    device : where to compute, for a model that is opened here
    verbose : report progress on standard error

    Returns
    -------
    The document of `foveola explain --json`: out, page, filters, and for each picture its folder, class, layers and the
    files of its heat maps; `grad_cam` is "done", or says why it is not possible.

    Raises
    ------
    UserError
        If the model cannot be looked into, a class or fix is unknown, or a picture or the folder cannot be used;
        nothing is written then.
    """
    folder = _claim(Path(out)) if out is not None else _new_folder()
    classifier = _open(model, device)
    numbers = [_class_number(classifier, name) for name in classes]
    pictures = list(read_pictures(images, classifier.card, grey=grey, fix=fix, verbose=verbose))
    require("jinja2", "train")
    from foveola.report import explanation_page

    filters, explanations = _filters(classifier), {}
    with reading(console(verbose)) as progress:
        for number, (path, (given, prepared)) in enumerate(zip(images, pictures, strict=True), start=1):
            place = f"{number}-{Path(path).stem}"
            explanations[place] = _explanation(classifier, str(path), given, prepared, numbers)
            progress(number, len(images), "pictures explained")
    name = str(model) if isinstance(model, str | Path) else "the model"
    page = explanation_page.page(name, classifier.card, filters, list(explanations.values()))
    pngs = _contents(classifier.card, filters, explanations)
    _write(folder, chain(pngs, [(PAGE, page.encode())]))
    return {
        "out": str(folder),
        "page": str(folder / PAGE),
        "filters": None if filters is None else FILTERS,
        "explanations": [_described(classifier.card, place, found) for place, found in explanations.items()],
    }


def _open(model: "str | Path | Classifier", device: Device) -> "Classifier":
    if isinstance(model, str | Path):
        model_path(Path(model))  # refuses exports, which can only predict
    require("torch", "train")
    from foveola.models.classifier import Classifier

    opened = open_model(model, device=device) if isinstance(model, str | Path) else model
    if not isinstance(opened, Classifier):
        raise ModelError(
            f"{type(opened).__name__} can only predict, not be looked into. Give the run that it was made from."
        )
    return opened


def _class_number(classifier: "Classifier", name: str) -> int:
    if name not in classifier.class_names:
        raise DataError(unknown("class", name, classifier.class_names))
    return classifier.class_names.index(name)


def _filters(classifier: "Classifier") -> "Array | None":
    from foveola.explanation.filters import first_filters

    try:
        return first_filters(classifier)
    except ModelError:  # dense networks have none
        return None


def _explanation(
    classifier: "Classifier", name: str, given: Images, prepared: Prepared, asked_for: Sequence[int]
) -> "Explanation":
    from foveola.explanation.feature_maps import feature_maps
    from foveola.explanation.occlusion import occlusion
    from foveola.explanation.saliency import grad_cam
    from foveola.report.explanation_page import Explanation, Saliency

    card, seen = classifier.card, prepared.pixels
    (probabilities,) = softmax(classifier.predict_logits(seen[None]))
    classes = np.array(list(dict.fromkeys([int(probabilities.argmax()), *asked_for])), np.int64)
    copies = np.repeat(seen[None], len(classes), axis=0)
    try:
        cams, reason = list(grad_cam(classifier, copies, classes)), None
    except ModelError as error:
        cams, reason = [None] * len(classes), str(error)
    drops = occlusion(classifier, card.polarity, copies, classes)
    maps = feature_maps(classifier, seen)
    saliency = [
        Saliency(label, classifier.class_names[label], float(probabilities[label]), cam, drop)
        for label, cam, drop in zip(classes.tolist(), cams, drops, strict=True)
    ]
    said = answer(name, probabilities, prepared, card, classifier.class_names, TOP)
    return Explanation(said, given, unfixed(given, prepared, card), seen, maps, saliency, reason)


def _contents(
    card: ModelCard, filters: "Array | None", explanations: "Mapping[str, Explanation]"
) -> Iterator[tuple[str, bytes]]:
    """Every PNG: its path in the folder, and what is in it."""
    from foveola.report import explanation_page

    if filters is not None:
        yield FILTERS, explanation_page.filter_grid(filters)
    for folder, explanation in explanations.items():
        for name, content in explanation_page.pictures(card, explanation):
            yield f"{folder}/{name}", content


def _described(card: ModelCard, folder: str, explanation: "Explanation") -> dict[str, Any]:
    """One picture in the document."""
    from foveola.report import explanation_page

    return {
        "image": explanation.answer.image,
        "folder": folder,
        **answer_document(explanation.answer),
        "grad_cam": explanation.without_grad_cam or "done",
        "classes": [
            {
                "class": saliency.name,
                "probability": saliency.probability,
                "largest_drop": float(saliency.occlusion.max()),
                "files": [name for name, _ in explanation_page.saliency_pictures(explanation.seen, saliency)],
            }
            for saliency in explanation.saliency
        ],
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.values.shape),
                "lowest": float(layer.values.min()),
                "highest": float(layer.values.max()),
                "file": layer.file if layer.tiles else None,
            }
            for layer in explanation_page.layers(card, explanation.maps)
        ],
    }


def _claim(folder: Path) -> Path:
    """Check, without changing anything, that the folder is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "holds files, which are left alone" if folder.is_dir() else "is a file"
        raise OutputError(f"{folder} {found}. Choose a new folder with --out.")
    return folder


def _new_folder() -> Path:
    """A folder that is not there yet."""
    folder, number = Path(FOLDER), 1
    while folder.exists():
        number += 1
        folder = Path(f"{FOLDER}-{number}")
    return folder


def _write(folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    """Write everything beside, then rename into place: the folder is whole or not there."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, content in contents:
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_bytes(content)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}. Choose another folder with --out.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
