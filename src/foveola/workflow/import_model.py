"""Import: a model that Keras has saved becomes a run, without Keras and without running anything from its file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from foveola.claims import Claim
from foveola.datasets.reload import RecordedData
from foveola.documents import ModelSize, RunStatus
from foveola.errors import UserError, require
from foveola.files import check_writable, expanded
from foveola.models.keras_import import ImageShape, ImportedNetwork, PixelRange, import_keras
from foveola.models.metadata import ModelMetadata, PretrainedOrigin, first_problem
from foveola.models.shapes import infer_shapes
from foveola.progress import console
from foveola.recipe import Recipe, parse_recipe
from foveola.runs import RUNS, Run
from foveola.text import escape_surrogates
from foveola.workflow.environment import versions

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

# Of a file of class names: ten thousand of a hundred letters
_MAX_NAMES_BYTES = 2**20


def import_model(
    file: str | Path,
    *,
    class_names: Sequence[str] | Path | None = None,
    image_shape: ImageShape | None = None,
    pixel_range: PixelRange | None = None,
    out: str | Path | None = None,
    force: bool = False,
    verbose: bool = True,
) -> Run:
    """Convert a Keras file into a run, which can be explained, exported and served like a trained one.

    Layers, settings and arrays are read from the file and compared with a list; anything else is refused by name, and
    nothing in the file is executed. A model that ends with several sigmoids becomes a multilabel model. docs/keras.md
    lists what is imported.

    Parameters
    ----------
    file : a whole model that Keras 2 or 3 has saved, as .keras or .h5: Sequential, or functional without branches
    class_names : names of the outputs, in their order, or a text file with one a line; 0, 1, 2, … by default, because
        Keras' files have none
    image_shape : height, width, channels of the images, if the file does not give them
    pixel_range : the values of black and white that the network expects; (0, 1) by default, or (0, 255) if it begins
        with a layer Rescaling
    out : the run's folder; runs/NAME by default, NAME being the file's
    force : replace a run that is there already
    verbose : print on standard error what was assumed

    Raises
    ------
    UserError
        If the file, a name or the folder cannot be used; for a file, the message names the layer and the reason.

    Examples
    --------
    >>> run = foveola.import_model("model.keras", class_names=["circle", "cross", "square"], verbose=False)
    >>> run.status.status, foveola.open(run.path).class_names
    ('imported', ('circle', 'cross', 'square'))
    """
    require("torch", "train")
    path = expanded(file)
    imported = import_keras(path, image_shape=image_shape, pixel_range=pixel_range)
    classifier = _classifier(path, imported, _class_names(class_names, imported.classes))
    status = _status(path, imported, classifier)
    screen = console(verbose)
    for note in imported.notes:
        screen.print(note, soft_wrap=True)
    if out is None:
        check_writable(RUNS)
    with Claim.take_new(RUNS / _short_name(path)) if out is None else Claim.take(Path(out), force=force) as claim:
        classifier.save(claim.result.model_path)
        claim.result.write_recipe(status.recipe)
        claim.result.write_status(status)
        return claim.finish()


def _class_names(names: Sequence[str] | Path | None, classes: int) -> tuple[str, ...]:
    """The names of the outputs.

    Raises
    ------
    UserError
        If there are more or fewer than outputs, or a file cannot be read.
    """
    if names is None:
        return tuple(map(str, range(classes)))
    where = "class names"
    if isinstance(names, Path):
        where = f"class names in {names}"
        try:
            if not names.is_file() or names.stat().st_size > _MAX_NAMES_BYTES:
                raise UserError(f"{names} is not a text file with a class name a line. Give one with --class-names.")
            names = names.read_text("utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The {where} cannot be read: {error}. Save them as UTF-8, one a line.") from None
    stripped = tuple(escape_surrogates(name.strip()) for name in names)
    if len(stripped) != classes or not all(stripped):
        raise UserError(
            f"The model has {classes} outputs, but there are {len(stripped)} {where}"
            f"{'' if all(stripped) else ', some of them empty'}. Give one for each output, in their order."
        )
    return stripped


def _classifier(path: Path, imported: ImportedNetwork, class_names: tuple[str, ...]) -> "Classifier":
    import torch

    from foveola.models.classifier import Classifier
    from foveola.models.modules import build_network

    try:
        metadata = ModelMetadata(
            class_names=class_names,
            task=imported.task,
            image_shape=imported.image_shape,
            pad=imported.pad,
            mean=imported.mean,
            std=imported.std,
            layers=imported.layers,
            recipe=_short_name(path),
            pretrained=PretrainedOrigin(name=escape_surrogates(path.name), sha256=imported.file.sha256),
        )
    except ValidationError as invalid:
        raise UserError(f"{path} cannot be imported so: {first_problem(invalid)}. Give other class names.") from None
    network = build_network(infer_shapes(imported.layers, metadata.network_shape, len(class_names)))
    weights = {name: torch.from_numpy(values) for name, values in imported.weights.items()}
    counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(weights | counts)
    return Classifier(network, metadata)


def _status(path: Path, imported: ImportedNetwork, classifier: "Classifier") -> RunStatus:
    """What run.json says: where the model comes from, what was assumed, and that its training data is not known."""
    metadata = classifier.metadata
    return RunStatus(
        status="imported",
        recipe=_recipe(path, imported),
        data=RecordedData(
            name="unknown",
            fingerprint="",
            train=0,
            validation=0,
            test=0,
            classes=list(metadata.class_names),
            image_shape=list(metadata.image_shape),
            summary=list(imported.notes),
        ),
        model=ModelSize(parameters=classifier.parameter_count),
        versions=versions() | {"keras": imported.file.version},
        seed=0,
        pretrained=metadata.pretrained,
    )


def _recipe(path: Path, imported: ImportedNetwork) -> Recipe:
    """The network as a recipe: `foveola train DATA --recipe RUN/recipe.toml --init RUN` goes on training it."""
    document: dict[str, Any] = {
        "name": _short_name(path),
        "description": f"imported from {escape_surrogates(path.name)}",
        "layers": [layer.model_dump() for layer in imported.layers],
        "pad": imported.pad,
        "scaling": "signed" if imported.mean == (0.5,) and imported.std == (0.5,) else "unit",
    }
    return parse_recipe(document, str(path))


def _short_name(path: Path) -> str:
    """The file's name without its suffix, as every file system takes it."""
    return re.sub(r"[^\w.-]+", "-", path.stem, flags=re.ASCII).strip("-.") or "imported"
