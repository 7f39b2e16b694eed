"""What a run and its model record of the data: names, sizes, groups, leaks, what the images were, what is learnt."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveola.datasets import CATALOG, Source, is_named
from foveola.datasets.reader import originals_of
from foveola.datasets.reload import GIVEN_GROUPS, Leaks, RecordedData, image_paths
from foveola.datasets.series import missing_groups
from foveola.datasets.splits import Overlap, Splits
from foveola.datasets.summary import summarize
from foveola.files import expanded
from foveola.images import Dataset
from foveola.models.learnt import LearntImages
from foveola.models.metadata import Columns, DataOrigin, OriginalImages
from foveola.recipe import Recipe
from foveola.text import escape_surrogates, printable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def record_data(
    dataset: Dataset,
    splits: Splits,
    overlap: Overlap,
    source: Source,
    groups: "str | ArrayLike | None",
    columns: Columns,
) -> RecordedData:
    """What `run.json` says of the data.

    Parameters
    ----------
    overlap : what the splits have in common
    source : the data as it was given: name, path, or loaded
    groups : as they were given: a pattern, an array, or None
    columns : of a table, as they were given
    """
    test, validation = overlap.test, overlap.validation
    leaks = Leaks(
        test=0 if test is None else int(test.any.sum()),
        validation=0 if validation is None else int(validation.sum()),
        test_groups=overlap.test_groups,
        validation_groups=overlap.validation_groups,
    )
    is_drawn = splits.train is not dataset.train
    series = None
    if is_drawn and isinstance(source, str | Path):
        series = missing_groups(dataset, image_paths(source, dataset, columns))
    summary = summarize(dataset, splits, overlap)
    if series is not None:
        summary.append(
            f"series: the file names look like several images of one object, and a random split puts them on both "
            f"sides, so that accuracy comes out too high. Keep each object on one side: "
            f"foveola train {shlex.quote(printable(str(source)))} --groups {shlex.quote(series)}"
        )
    return RecordedData(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        train=len(splits.train),
        validation=0 if splits.validation is None else len(splits.validation),
        test=0 if splits.test is None else len(splits.test),
        classes=list(dataset.class_names),
        image_shape=list(dataset.image_shape),
        skipped=list(dataset.skipped),
        path=_path(source),
        groups=groups if groups is None or isinstance(groups, str) else GIVEN_GROUPS,
        series=series,
        columns=columns if columns.given else None,
        together=overlap.together,
        different=overlap.different,
        leaks=leaks,
        summary=summary,
    )


def _path(data: Source) -> str | None:
    """The absolute path of data that was given by its path, else None."""
    if not isinstance(data, str | Path) or (isinstance(data, str) and data in CATALOG):
        return None
    if is_named(data):
        return str(data)
    return escape_surrogates(str(expanded(data).resolve()))


def data_metadata(
    dataset: Dataset, recipe: Recipe, seed: int, recorded: RecordedData, learnt: LearntImages
) -> dict[str, Any]:
    """Fields of the model's metadata: its data, and what was done to the images before the network gets them."""
    before = dataset.originals or originals_of(dataset.train)
    originals = OriginalImages.of(before.heights, before.widths, before.colour / len(before.heights))
    return {
        "data": _origin(dataset, recipe, seed, recorded, learnt),
        "originals": originals,
        "white_level": before.white_level,
        "resize": recipe.resize,
        "fill": dataset.fill,
    }


def _names_of(columns: Columns | None) -> Columns | None:
    """The names of columns, without the folder of the images, which is of one machine."""
    named = None if columns is None else columns.model_copy(update={"root": None})
    return named if named is not None and named.given else None


def _origin(dataset: Dataset, recipe: Recipe, seed: int, recorded: RecordedData, learnt: LearntImages) -> DataOrigin:
    return DataOrigin(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        licence=dataset.licence,
        validation=recipe.validation,
        test=recipe.test if dataset.test is None else None,
        seed=seed,
        together=recorded.together,
        groups=recorded.groups,
        columns=_names_of(recorded.columns),
        learnt=learnt if learnt.fits else None,
    )
