"""Where rows of tables come from: files by their endings, folders of tables, what `datasets` has saved, the hub."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from foveola.datasets import arrow, delimited, webdataset
from foveola.datasets.columns import Source, shown
from foveola.datasets.layout import SPLIT_NAMES, split_of
from foveola.errors import DataError, require
from foveola.files import in_order
from foveola.inputs.find import is_junk

HUB = "hf:"
"""What a data set of the Hugging Face hub begins with."""

EXTENSIONS = (*delimited.EXTENSIONS, *arrow.PARQUET, webdataset.EXTENSION)


def is_table(path: Path) -> bool:
    """Whether this is a table, or a folder of tables by their names."""
    if path.is_file():
        return path.suffix.lower() in EXTENSIONS
    return path.is_dir() and (_is_saved(path) or bool(_files_by_split(path)))


def sources(path: Path) -> Iterator[tuple[str | None, Source]]:
    """Yield the tables, with their splits where their names tell."""
    if path.is_file() or (path / arrow.SAVED).is_file():
        yield None, source_of(path)
        return
    files = _files_by_split(path)
    if (path / arrow.SAVED_SPLITS).is_file():
        files = defaultdict(list)
        for name, folder in arrow.saved_splits(path).items():
            if (split := split_of(name)) is None:
                raise DataError(
                    f"{path} has a split called {name!r}, which is none of train, validation and test. Give the folder "
                    f"of one split: {path / name}."
                )
            files[split].append(folder)
    for split in SPLIT_NAMES:
        for file in files.get(split, []):
            yield split, source_of(file)


def hub_sources(name: str) -> Iterator[tuple[str | None, Source]]:
    datasets = require("datasets", "hub")
    require("pyarrow", "tables")
    try:
        loaded = datasets.load_dataset(name.removeprefix(HUB))
        tables = {split: part.with_format("arrow")[:] for split, part in loaded.items()}
        features = {split: part.features.to_dict() for split, part in loaded.items()}
    except Exception as error:  # of many types, of the library and of those below it
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise DataError(
            f"{name} cannot be read by the library datasets: {reason}. Check the name and the network."
        ) from error
    known = {split: split_of(split) for split in tables}
    if not any(known.values()):
        raise DataError(f"{name} has the splits {shown(tables)}; none of them is train, validation or test.")
    for split, table in tables.items():
        if known[split] is not None:
            yield known[split], arrow.arrow_table(table, f"{name}, {split}", features[split])


def source_of(path: Path) -> Source:
    """The table in a file, or in a folder that `datasets` has saved."""
    if path.is_dir():
        return arrow.saved_table(path)
    if path.suffix.lower() == webdataset.EXTENSION:
        return webdataset.TarFile(path)
    return arrow.parquet_table(path) if path.suffix.lower() in arrow.PARQUET else delimited.DelimitedFile(path)


def _is_saved(folder: Path) -> bool:
    return (folder / arrow.SAVED_SPLITS).is_file() or all(
        (folder / name).is_file() for name in (arrow.SAVED, arrow.SAVED_STATE)
    )


def _files_by_split(folder: Path) -> Mapping[str, list[Path]]:
    """The tables in a folder without folders, by the splits that their names tell; empty without a training table."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in in_order(folder.iterdir()):
        if is_junk(path.name):
            continue
        if path.is_dir():
            return {}
        if path.suffix.lower() in EXTENSIONS and (split := split_of_file(path)):
            files[split].append(path)
    return files if "train" in files else {}


def split_of_file(path: Path) -> str | None:
    """The split that the name of a table tells: train.csv, mnist_test.csv, validation-00000-of-00001.parquet."""
    words = re.split(r"[-_. ]", path.stem)
    return split_of(path.stem) or next(filter(None, map(split_of, reversed(words))), None)
