"""Which file each image of an image folder comes from."""

from pathlib import Path

from foveola.datasets import CATALOG, READERS, folder
from foveola.images import Dataset


def image_paths(source: str | Path, dataset: Dataset) -> dict[str, list[str]]:
    """The files of an image folder by split, in the order of the images; empty for data that comes as arrays.

    Parameters
    ----------
    source : what `dataset` was loaded from
    """
    root = Path(source)
    named = isinstance(source, str) and source in CATALOG
    if named or next((reader for reader in READERS.values() if reader.recognises(root)), None) is not folder:
        return {}
    paths: dict[str, list[str]] = {}
    for split, path in folder.files(root, dataset.class_names):
        if str(path) not in dataset.skipped:
            paths.setdefault(split, []).append(str(path))
    return paths
