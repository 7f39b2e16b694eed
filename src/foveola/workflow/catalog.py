"""Catalog: the data sets known by name, and where they are on this machine."""

from foveola.datasets import CATALOG, locate
from foveola.documents import Catalog, CatalogRow


def catalog() -> Catalog:
    """The data sets that `foveola.load` and `foveola.train` know by name, as `foveola datasets` lists them.

    Examples
    --------
    >>> [row.train for row in foveola.catalog().datasets if row.name == "mnist"]
    [60000]
    """
    return Catalog(
        datasets=[
            CatalogRow(
                name=entry.name,
                title=entry.title,
                train=entry.train_images,
                test=entry.test_images,
                image_shape=list(entry.image_shape),
                classes=list(entry.class_names),
                licence=entry.licence,
                citation=entry.citation,
                path="embedded" if not entry.files else _location(entry.name),
            )
            for entry in CATALOG.values()
        ]
    )


def _location(name: str) -> str | None:
    folder = locate(name)
    return None if folder is None else str(folder)
