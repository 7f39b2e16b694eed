"""Explain: feature maps, filters, class activation and occlusion maps of images, written into a folder."""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.errors import DataError, ModelError, OutputError, require, unknown
from foveola.exports.onnx import OnnxModel
from foveola.files import is_empty_folder, move, new_folder, safe_stem, writing
from foveola.images import Images, Labels
from foveola.inputs.find import ImageFile, find_images
from foveola.inputs.prepare import PreparedImage, make_prediction, prediction_document
from foveola.models.metadata import ModelMetadata
from foveola.progress import console, show_progress
from foveola.runs import Run
from foveola.tasks import probabilities
from foveola.workflow.open import Device, open_model
from foveola.workflow.predict import read_images, unfixed

if TYPE_CHECKING:
    from foveola.explanation.cam import CamMethod
    from foveola.models.classifier import Classifier
    from foveola.reports.explanation import Array, ClassHeatmaps, Explanation

FOLDER = "explanation"
PAGE = "explanation.html"
FILTERS = "filters.png"
# Classes listed for each image
TOP = 5
# Each image adds some hundred pictures to the page, and its feature maps to memory
MAX_IMAGES = 100


def explain(
    model: "str | Path | Run | Classifier | OnnxModel",
    images: str | Path | Sequence[str | Path],
    *,
    classes: Sequence[str] = (),
    method: "CamMethod" = "hires-cam",
    out: str | Path | None = None,
    grey: bool = False,
    fix: Collection[str] = (),
    device: Device = "cpu",
    threads: int | None = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """Write feature maps, filters, class activation and occlusion maps of images as PNG files with one page.

    Parameters
    ----------
    model : run or its directory, model file, export, or live classifier; an export, which has no gradients, is
        explained by occlusion and by the layers that its graph names
    images : one path, or several, of files, folders (their images, at every depth), patterns such as "scans/*.png", or
        "-" for standard input; 100 images at most
    classes : further classes to explain, beside the predicted one
    method : of the class activation maps: "hires-cam", or "grad-cam" for comparison
    out : the folder, new or empty; by default a new one called "explanation"
    grey : convert colour images to grey for a model of grey images
    fix : fixes to apply, as for `predict`
    device : where to compute, if `model` is not opened yet
    threads : number of threads, from now on in this process; by default one per core
    verbose : report progress on standard error

    Returns
    -------
    The document of `foveola explain --json`: out, page, filters, method, and for each image its folder, class, layers
    and the files of its heat maps. `cam` is "done", or says why class activation maps are not possible; `grad_cam` is
    its earlier name. With HiResCAM, `evidence` holds the logit of each class, what its map adds to it and subtracts,
    and the remainder.

    Raises
    ------
    UserError
        If the model cannot be explained, a class, method or fix is unknown, or an image or the folder cannot be used;
        nothing is written then.

    Examples
    --------
    >>> from PIL import Image
    >>> data = foveola.load("digits")
    >>> Image.fromarray(data.train.images[0, :, :, 0]).save("zero.png")
    >>> run = foveola.train(data, "fast", overrides={"epochs": 1}, verbose=False)
    >>> document = foveola.explain(run.path, ["zero.png"], out="explained", verbose=False)
    >>> document["page"], document["method"], document["explanations"][0]["cam"]
    ('explained/explanation.html', 'hires-cam', 'done')
    """
    folder = new_folder(Path(FOLDER)) if out is None else _check_new(Path(out))
    classifier = _open(model, device, threads)
    from foveola.explanation.cam import check_cam_method

    check_cam_method(method)
    numbers = [_class_number(classifier, name) for name in classes]
    files = _find_images(images)
    inputs = list(read_images(files, classifier.metadata, grey=grey, fix=fix, verbose=verbose))
    require("jinja2", "plots")
    from foveola.reports.explanation import explanation_page, maps_shown

    filters, explanations = _filters(classifier), {}
    screen = console(verbose)
    with show_progress(screen) as progress:
        for number, (file, (given, prepared)) in enumerate(zip(files, inputs, strict=True), start=1):
            place = f"{number}-{safe_stem(file.name)}"
            explanations[place] = _explanation(classifier, file.name, given, prepared, numbers, method)
            progress(number, len(files), "images explained")
    screen.print("drawing the page and its images")
    name = os.fspath(model) if isinstance(model, str | Path | Run) else "the model"
    page = explanation_page(name, classifier.metadata, filters, list(explanations.values()))
    pngs = _contents(classifier.metadata, filters, explanations)
    _write(folder, chain(pngs, [(PAGE, page.encode())]))
    return {
        "out": str(folder),
        "page": str(folder / PAGE),
        "filters": None if filters is None else FILTERS,
        "method": method,
        "explanations": [
            _explanation_document(classifier.metadata, place, found, maps_shown(len(files)))
            for place, found in explanations.items()
        ],
    }


def _open(
    model: "str | Path | Run | Classifier | OnnxModel", device: Device, threads: int | None
) -> "Classifier | OnnxModel":
    require("torch", "train")
    from foveola.models.classifier import Classifier

    opened = open_model(model, device=device, threads=threads) if isinstance(model, str | Path | Run) else model
    if not isinstance(opened, Classifier | OnnxModel):
        raise ModelError(
            f"{type(opened).__name__} can predict, but not be explained. Give a run, a model file or an export."
        )
    return opened


def _find_images(names: str | Path | Sequence[str | Path]) -> list[ImageFile]:
    files = find_images(names)
    if len(files) > MAX_IMAGES:
        raise DataError(
            f"These are {len(files):,} images, but one page explains at most {MAX_IMAGES}. Give fewer at a time."
        )
    return files


def _class_number(classifier: "Classifier | OnnxModel", name: str) -> int:
    if name not in classifier.class_names:
        raise DataError(unknown("class", name, classifier.class_names))
    return classifier.class_names.index(name)


def _filters(classifier: "Classifier | OnnxModel") -> "Array | None":
    from foveola.explanation.activations import first_filters

    try:
        return first_filters(classifier)
    except ModelError:  # dense networks have none
        return None


def _explanation(
    classifier: "Classifier | OnnxModel",
    name: str,
    given: Images,
    prepared: PreparedImage,
    requested: Sequence[int],
    method: "CamMethod",
) -> "Explanation":
    from foveola.explanation.activations import feature_maps
    from foveola.reports.explanation import Explanation

    metadata, seen = classifier.metadata, prepared.pixels
    (logits,) = classifier.predict_logits(seen[None])
    classes = np.array(list(dict.fromkeys([int(logits.argmax()), *requested])), np.int64)
    heatmaps, reason = _heatmaps(classifier, seen, logits, classes, method)
    maps = feature_maps(classifier, seen)
    (values,) = probabilities(logits[None], metadata.task)
    prediction = make_prediction(name, values, prepared, metadata, classifier.class_names, TOP)
    without_fixes = unfixed(given, prepared, metadata)
    return Explanation(prediction, given, without_fixes, seen, maps, heatmaps, method, reason)


def _heatmaps(
    classifier: "Classifier | OnnxModel", seen: Images, logits: "Array", classes: Labels, method: "CamMethod"
) -> "tuple[list[ClassHeatmaps], str | None]":
    """The heat maps of these classes, and why there are no class activation maps; None if there are."""
    from foveola.explanation.cam import class_activation_maps, enlarge_maps
    from foveola.explanation.occlusion import occlusion
    from foveola.reports.explanation import ClassHeatmaps

    copies = np.repeat(seen[None], len(classes), axis=0)
    cams: list[tuple[Array | None, Array | None]]
    try:
        maps = class_activation_maps(classifier, copies, classes, method)
        cams, reason = list(zip(maps, enlarge_maps(classifier, maps, seen.shape[:2]), strict=True)), None
    except ModelError as error:
        cams, reason = [(None, None)] * len(classes), str(error)
    drops = occlusion(classifier, classifier.metadata.polarity, copies, classes)
    values = probabilities(logits[None], classifier.metadata.task)[0]
    heatmaps = [
        ClassHeatmaps(label, classifier.class_names[label], float(values[label]), float(logits[label]), *cam, drop)
        for label, cam, drop in zip(classes.tolist(), cams, drops, strict=True)
    ]
    return heatmaps, reason


def _contents(
    metadata: ModelMetadata, filters: "Array | None", explanations: "Mapping[str, Explanation]"
) -> Iterator[tuple[str, bytes]]:
    """Path in the folder and content of every PNG file."""
    from foveola.reports.explanation import explanation_images, filter_grid, maps_shown

    if filters is not None:
        yield FILTERS, filter_grid(filters)
    for folder, explanation in explanations.items():
        for name, content in explanation_images(metadata, explanation, maps_shown(len(explanations))):
            yield f"{folder}/{name}", content


def _explanation_document(
    metadata: ModelMetadata, folder: str, explanation: "Explanation", most: int
) -> dict[str, Any]:
    """One image in the document, of which the page shows at most `most` maps of a layer."""
    from foveola.reports.explanation import evidence, heatmap_images, shown_layers

    return {
        "image": explanation.prediction.image,
        "folder": folder,
        **prediction_document(explanation.prediction),
        "cam": explanation.without_cam or "done",
        "grad_cam": explanation.without_cam or "done",
        "cam_shape": None if (cam := explanation.heatmaps[0].cam) is None else list(cam.shape),
        "classes": [
            {
                "class": heatmaps.name,
                "probability": heatmaps.probability,
                "largest_drop": float(heatmaps.occlusion.max()),
                "evidence": evidence(explanation, heatmaps),
                "files": [name for name, _ in heatmap_images(explanation, heatmaps)],
            }
            for heatmaps in explanation.heatmaps
        ],
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.values.shape),
                "lowest": float(layer.values.min()),
                "highest": float(layer.values.max()),
                "file": layer.file if layer.tiles else None,
            }
            for layer in shown_layers(metadata, explanation.maps, most)
        ],
    }


def _check_new(folder: Path) -> Path:
    """Refuse, without changing anything, a folder that is neither new nor empty."""
    if folder.exists() and not is_empty_folder(folder):
        found = "holds files, which are left alone" if folder.is_dir() else "is a file"
        raise OutputError(f"{folder} {found}. Choose a new folder with --out.")
    return folder


def _write(folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    """Write everything beside, then rename into place: the folder is complete or does not exist."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with writing(folder):
            for name, content in contents:
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                (beside / name).write_bytes(content)
            if folder.exists():
                folder.rmdir()
            move(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
