"""What there is: layers of a network, data sets by name, a packed data set, the environment."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from foveola.display import Displayed
from foveola.documents.document import Document, Part


class LayerRow(Part):
    """One layer of a network; `layers` are those inside it, which its figures include."""

    name: str
    type: str
    output_shape: list[int]
    parameters: int
    multiply_adds: int
    layers: list["LayerRow"] = []


class Summary(Displayed, Document):
    """What `foveola summary --json` prints."""

    recipe: str
    input_shape: list[int]
    layers: list[LayerRow]
    parameters: int
    non_trainable: int
    multiply_adds: int
    diagram: str | None

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.input_shape))
        costs = f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds"
        return f"Summary({self.recipe} on {shape}: {len(self.layers)} layers, {costs})"


class CatalogRow(Part):
    """A data set known by name; `path` is where it lies on this machine, "embedded", or None."""

    name: str
    title: str
    train: int
    test: int
    image_shape: list[int]
    classes: list[str]
    licence: str
    citation: str
    path: str | None


class Catalog(Displayed, Document):
    """What `foveola datasets --json` prints."""

    datasets: list[CatalogRow]

    def __repr__(self) -> str:
        return f"Catalog({', '.join(row.name for row in self.datasets)})"


class Packed(Document):
    """What `foveola pack --json` prints.

    `splits` counts images, `bytes` are those of the pixels, and `in_memory` says whether a training reads all of them
    at once. `groups` is the pattern by which images were grouped, `series` a pattern for `--groups` if file names look
    like series. `skipped` lists the unreadable files that were left out.
    """

    path: str
    name: str
    fingerprint: str
    splits: dict[str, int]
    classes: list[str]
    image_shape: list[int]
    bytes: int
    in_memory: bool
    skipped: list[str]
    groups: str | None
    series: str | None


class Environment(Document):
    """What `foveola info --json` prints. `threads` and `precision` are known where PyTorch is installed.

    `pretrained_weights` says where each file is on this machine, or null. `defaults_file` is the foveola.toml or
    pyproject.toml whose `defaults` of options are in force in the working folder, or null.
    """

    versions: dict[str, str]
    platform: str
    data_folder: str | None
    cache_folder: str
    defaults_file: str | None = None
    defaults: dict[str, Any] = {}
    pretrained_weights: dict[str, str | None]
    processors: int | None
    threads: int | None = None
    device: str
    precision: str | None = None

    @model_serializer(mode="wrap")
    def _known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        unknown = [name for name in ("threads", "precision") if document[name] is None]
        return {name: value for name, value in document.items() if name not in unknown}
