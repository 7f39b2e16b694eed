"""Find a learning rate: data → training images → range test → suggestion, plot and page. No run is written."""

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveola.datasets import as_source
from foveola.datasets.columns import as_columns
from foveola.datasets.splits import divide
from foveola.datasets.weights import find_weights
from foveola.documents import LearningRateCurve
from foveola.errors import UserError, require
from foveola.files import check_writable, write_atomically, writing
from foveola.models.metadata import Columns
from foveola.progress import console, show_progress
from foveola.recipe import Recipe, load_recipe, merge_settings
from foveola.runs import Run
from foveola.workflow.open import Device, choose_device, choose_threads, model_path
from foveola.workflow.prepare_run import check_weights, labels_and_recipe, load_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

PAGE, PLOT = "learning_rate.html", "learning_rate.png"


def find_rate(
    data: object,
    y: object = None,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int | None = None,
    init: str | Path | Run | None = None,
    freeze: bool = False,
    weights: str | Path | None = None,
    skip_bad: int = 0,
    groups: "str | ArrayLike | None" = None,
    class_names: Sequence[str] | None = None,
    channels_first: bool | None = None,
    name: str | None = None,
    columns: Columns | Mapping[str, str | Sequence[str]] | None = None,
    network: "nn.Module | None" = None,
    verbose: bool = True,
    **settings: Any,
) -> LearningRateCurve:
    """Record the training loss while the learning rate grows, and suggest a rate (the range test of Smith, 2017).

    Only training images are used, and the weights are discarded.

    Parameters
    ----------
    data, y : as in `train`: catalog name, path, or objects, such as images with their labels
    recipe : name, path of a TOML file, or a Recipe; by default "fast"
    out : the folder for learning_rate.html and learning_rate.png, which replace earlier ones; by default rates/<name of
        the data>-<name of the recipe>
    overrides, seed, device, threads, init, freeze, weights, skip_bad, groups, columns, network, settings : as in
        `train`; give the same ones to `train`
    class_names, channels_first, name : as for `foveola.load`, if data is given as objects
    verbose : report progress on standard error

    Returns
    -------
    The document of `foveola train --find-rate --json`.

    Raises
    ------
    UserError
        If recipe, data, device or folder cannot be used; nothing is written then.

    Examples
    --------
    >>> curve = foveola.find_rate("digits", "mlp", verbose=False)
    >>> curve.diverged, curve.settings == [f"learning_rate={curve.suggestion:g}"], 1e-4 < curve.suggestion < 1e-2
    (True, True, True)
    """
    started = time.perf_counter()
    y, recipe = labels_and_recipe(y, recipe)
    overrides = merge_settings(overrides, settings, find_rate)
    source = as_source(data, y, class_names=class_names, channels_first=channels_first, name=name)
    for module in ("torch", "matplotlib", "jinja2"):
        require(module, "train")
    from foveola.training.augment import uses_flips
    from foveola.training.build import build_classifier
    from foveola.training.colour import settle_augmentation
    from foveola.training.find_rate import range_test, suggest
    from foveola.training.loop import choose_precision
    from foveola.training.transfer import transfer_weights

    loaded = load_recipe(recipe or "fast", overrides)
    if freeze and init is None:
        raise UserError("--freeze keeps the layers that --init gives, but there is no --init. Add --init RUN.")
    check_weights(weights, init, network)
    initial = None if init is None else model_path(Path(init))  # refused before data is read
    if out is not None:
        check_writable(Path(out))
    chosen_device, _ = choose_device(device), choose_threads(threads)
    screen = console(verbose)
    pretrained = None
    if init is None and network is None:
        with show_progress(screen) as progress:
            pretrained = find_weights(loaded, weights, progress)
    dataset = load_data(source, loaded, skip_bad, groups, screen, as_columns(columns))
    dataset.check_trainable()
    folder = Path(out) if out is not None else Path("rates") / f"{dataset.name}-{loaded.name}"
    check_writable(folder)
    train = divide(dataset, loaded.validation, loaded.test, seed)[0].train
    loaded, _ = settle_augmentation(loaded, train)
    classifier = build_classifier(
        loaded, train, seed,
        network=copy.deepcopy(network), picture_polarity=dataset.picture_polarity, pretrained=pretrained,
    )  # fmt: skip
    if initial is not None:
        transfer_weights(classifier, initial, freeze=freeze)
    screen.print(f"{dataset.name}, {loaded.name}: range test on {len(train):,} training images", soft_wrap=True)
    test = range_test(
        classifier, train, loaded,
        seed=seed, device=chosen_device, precision=choose_precision(loaded.precision, chosen_device),
        flip=uses_flips(loaded, dataset.flip_safe, len(train)),
    )  # fmt: skip
    suggestion = suggest(test, loaded)
    document = LearningRateCurve(
        data=dataset.name,
        recipe=loaded.name,
        optimizer=loaded.optimizer,
        schedule=loaded.schedule,
        recipe_learning_rate=loaded.learning_rate,
        seed=seed,
        learning_rates=test.learning_rates.tolist(),
        losses=test.losses.tolist(),
        smoothed=test.smoothed.tolist(),
        diverged=test.diverged,
        lowest=float(test.learning_rates[test.lowest]) if len(test.losses) else None,
        suggestion=suggestion,
        settings=[] if suggestion is None else _settings(loaded, suggestion),
        files=[str(folder / name) for name in (PAGE, PLOT)],
        seconds=time.perf_counter() - started,
    )
    _write(folder, document)
    return document


def _settings(recipe: Recipe, rate: float) -> list[str]:
    """The values of --set that train with a rate; Muon's rate keeps its ratio to it, as in the test."""
    settings = [f"learning_rate={rate:g}"]
    if recipe.optimizer == "muon":
        settings.append(f"muon_learning_rate={rate * recipe.muon_learning_rate / recipe.learning_rate:.2g}")
    return settings


def _write(folder: Path, document: LearningRateCurve) -> None:
    from foveola.reports.learning_rate import learning_rate_page, learning_rate_png

    page, plot = learning_rate_page(document), learning_rate_png(document)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PAGE, page)
        write_atomically(folder / PLOT, plot)
