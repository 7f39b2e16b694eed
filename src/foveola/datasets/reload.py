"""Reload the data of a run, and check its fingerprint."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from foveola.datasets import Progress, Source, as_source, folder, is_named, load, reader_of, table
from foveola.datasets.objects import frame_columns
from foveola.datasets.reader import Prepare, ReadOptions
from foveola.errors import DataError, DownloadError
from foveola.files import expanded
from foveola.images import Dataset
from foveola.inputs.decode import MAX_WHITE_LEVEL
from foveola.models.metadata import Columns, ModelMetadata, Together
from foveola.recipe import Recipe
from foveola.text import escape_surrogates, restore_surrogates

# Recorded in place of a pattern, where groups were given as an array
GIVEN_GROUPS = "array"


class Leaks(BaseModel):
    """Images of a split that are also in another one.

    `test` counts test images that are also training or validation images, `validation` validation images that are also
    training images. `test_groups` and `validation_groups` count images whose group is also in training.
    """

    test: int = 0
    validation: int = 0
    test_groups: int = 0
    validation_groups: int = 0


class RecordedData(BaseModel):
    """What a run records of its data: `train`, `validation` and `test` count images; a named data set has no `path`.

    `groups` is the pattern by which images were kept together, "folder", or "array"; `series` the pattern that would do
    so where file names look like series, and no groups were given. `columns` are those that were given for a table.
    `together` says which copies were kept together; `different`, the number of different images, and `leaks` are
    counted by the same rule. `summary` is what the training said of its data. Runs of older versions have none of
    these.
    """

    name: str
    fingerprint: str
    train: int
    validation: int
    test: int
    classes: list[str]
    image_shape: list[int] = []
    skipped: list[str] = []
    path: str | None = None
    groups: str | None = None
    series: str | None = None
    columns: Columns | None = None
    together: Together = "nothing"
    different: int | None = None
    leaks: Leaks = Leaks()
    summary: list[str] = []


def load_for_recipe(
    recipe: Recipe,
    data: Source,
    groups: str | None,
    skip_bad: int,
    progress: Progress,
    columns: Columns | None = None,
) -> Dataset:
    """Load data in the size and with the channels that a recipe asks for; `groups` as of `load`."""
    channels = {"data": None, "grey": 1, "rgb": 3}[recipe.channels]
    return load(
        data, image_size=recipe.image_size, channels=channels, resize=recipe.resize, groups=groups,
        skip_bad=skip_bad, progress=progress, **_options(columns or Columns()),
    )  # fmt: skip


def load_for_model(
    metadata: ModelMetadata,
    data: Source,
    skip_bad: int,
    progress: Progress,
    prepare: Prepare | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """Load data in the image shape of a model, and with the groups and columns of its training where they fit the data.

    Grey images are taken for a model of colour ones; colour images are converted for a grey model only if its recipe
    says so. `prepare` is as of `load`; `columns` are those of a table, if they are not those of the training.
    """
    channels = None if metadata.channels == "data" and metadata.image_shape[2] == 1 else metadata.image_shape[2]
    load_with = partial(
        load,
        data,
        image_size=metadata.image_shape[:2],
        channels=channels,
        resize=metadata.resize,
        fill=metadata.fill,
        white_level=metadata.white_level or MAX_WHITE_LEVEL,
        skip_bad=skip_bad,
        prepare=prepare,
        progress=progress,
        label_names=metadata.class_names if metadata.task == "multilabel" else (),
        **_options(columns if columns is not None and columns.given else known_columns(metadata, data)),
    )
    groups = None if metadata.data is None else metadata.data.groups
    if groups not in (None, GIVEN_GROUPS):
        with suppress(DataError):
            return load_with(groups=groups)
    return load_with()


def reload_data(
    recorded: RecordedData,
    run: Path,
    metadata: ModelMetadata,
    data: object,
    purpose: str,
    progress: Progress,
    *,
    skip_bad: int | None = None,
) -> Dataset:
    """Load the given data, or else the data that the run was trained on, by its catalog name or recorded path.

    Parameters
    ----------
    recorded : what the run records about its data
    run : path of the run, for messages
    metadata : of the run's model
    data : catalog name, path or objects; None for the run's own data
    purpose : why the images are needed, such as "The report shows images"; begins the error message
    skip_bad : maximum number of unreadable images to leave out; None: as many as when the run was trained

    Raises
    ------
    DataError
        If the data is no longer there, or cannot be used.
    """
    source: Source | None
    if data is not None:
        source = as_source(data, known_names=recorded.classes)
    else:
        source = _data_source(recorded.name, recorded.path)
    if source is None and recorded.path is None:
        raise DataError(
            f"{purpose}, but {run} was trained on Python objects ({recorded.name}) that a run does not hold. Give "
            f"them again: data=(images, labels) from Python, or with --data their path, if they are in a file."
        )
    if source is None:
        raise DataError(
            f"{purpose}, but the data that {run} was trained on ({recorded.path or recorded.name}) is no longer "
            f"there and is not in the catalog. Give its path with --data."
        )
    if skip_bad is None:
        skip_bad = len(recorded.skipped)
    try:
        return load_for_model(metadata, source, skip_bad, progress, columns=_recorded_columns(recorded, source))
    except DownloadError as error:
        raise DataError(
            f"{purpose}, but {source} is not on this machine and could not be downloaded: {error} "
            f"Give its path with --data."
        ) from None


def known_columns(metadata: ModelMetadata, data: Source) -> Columns:
    """The columns that a model was trained on, if the data is a table that has all of them; otherwise none."""
    columns = None if metadata.data is None else metadata.data.columns
    if columns is None or is_named(data):
        return Columns()
    if isinstance(data, str | Path):
        return columns if table.has_columns(expanded(data), columns) else Columns()
    names = frame_columns(data)
    return columns if names and columns.names <= set(names) else Columns()


def known_image_column(metadata: ModelMetadata, path: Path) -> str | None:
    """The column of images of a model's training, if the table has it; it need not have the others."""
    columns = None if metadata.data is None else metadata.data.columns
    if columns is None or columns.image is None or not table.has_columns(path, Columns(image=columns.image)):
        return None
    return columns.image


def _recorded_columns(recorded: RecordedData, data: Source) -> Columns | None:
    """The columns of a run's data; the folder of its images only if it is still there, and only for a table."""
    columns = recorded.columns
    if columns is None or not isinstance(data, str | Path) or is_named(data) or reader_of(expanded(data)) is not table:
        return None
    return columns if columns.root is None or Path(columns.root).is_dir() else columns.model_copy(update={"root": None})


def _options(columns: Columns) -> dict[str, Any]:
    """Columns as options of `load`."""
    own = {"root": "image_root", "separator": "label_separator"}
    return {own.get(name, f"{name}_column"): value for name, value in columns.given.items()}


def check_fingerprint(recorded: RecordedData, run: Path, dataset: Dataset) -> None:
    """Refuse data other than what the run was trained on.

    Raises
    ------
    DataError
        If the fingerprints differ.
    """
    if dataset.fingerprint != recorded.fingerprint:
        raise DataError(
            f"{dataset.name} (fingerprint {dataset.fingerprint[:12]}) is not the data that {run} was trained on "
            f"({recorded.name}, fingerprint {recorded.fingerprint[:12]}): its images, labels or class names "
            f"differ. Give the run's own data with --data."
        )


def _data_source(name: str | None, path: str | None) -> str | None:
    """The catalog name or existing path of a run's data, or None; the fingerprint is checked later."""
    if is_named(name):
        return name
    if path is not None and is_named(path):
        return path
    given = [source for source in (path, name) if source is not None]
    sources = [form for source in given for form in (source, restore_surrogates(source))]
    return next((source for source in sources if expanded(source).exists()), None)


def image_paths(source: Source, dataset: Dataset, columns: Columns | None = None) -> dict[str, list[str]]:
    """The files of an image folder or table by split, in the order of the images; empty for other formats.

    Parameters
    ----------
    source : the catalog name, path or objects that `dataset` was loaded from
    columns : of a table, as they were given
    """
    if not isinstance(source, str | Path) or is_named(source):
        return {}
    root = expanded(source)
    reader = reader_of(root)
    if reader is table:
        return table.image_names(root, ReadOptions(columns=columns or Columns()), dataset)
    if reader is not folder:
        return {}
    paths: dict[str, list[str]] = {}
    for split, path in folder.files(root, dataset.class_names, nested=dataset.train.groups is not None):
        if escape_surrogates(str(path)) not in dataset.skipped:
            paths.setdefault(split, []).append(str(path))
    return paths
