"""The Keras models in keras_models/, and files like them that are altered or hostile."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MODELS = Path(__file__).parent / "keras_models"
NAMES = sorted(path.name for path in MODELS.iterdir() if path.suffix in (".keras", ".h5"))
ROWS, ROWS_H5 = MODELS / "keras3-rows.keras", MODELS / "keras3-rows.h5"

Hdf5Change = Callable[[h5py.File], object]


def saved_predictions(model: Path) -> dict[str, Any]:
    """Images, and the probabilities that Keras gives them."""
    with np.load(model.with_suffix(".npz")) as arrays:
        return dict(arrays)


def altered(
    folder: Path,
    *,
    config: Callable[[dict[str, Any]], object] = lambda document: None,
    weights: Hdf5Change = lambda file: None,
    source: Path = ROWS,
) -> Path:
    """A copy of a .keras file whose configuration or arrays have been changed in place."""
    members = read_members(source)
    document = json.loads(members["config.json"])
    config(document)
    content = io.BytesIO(members["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        weights(file)
    return archive(
        folder / "altered.keras",
        members | {"config.json": json.dumps(document), "model.weights.h5": content.getvalue()},
    )


def altered_h5(folder: Path, change: Hdf5Change, source: Path = ROWS_H5) -> Path:
    """A copy of an .h5 file that has been changed in place."""
    path = folder / "altered.h5"
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def read_members(source: Path) -> dict[str, bytes | str]:
    with zipfile.ZipFile(source) as members:
        return {name: members.read(name) for name in members.namelist()}


def archive(path: Path, members: dict[str, bytes | str], compressed: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content, zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED)
    return path


def layer(kind: str, **settings: Any) -> dict[str, Any]:
    """A layer of a configuration."""
    settings = {"name": kind.lower()} | settings
    return {"module": "keras.layers", "class_name": kind, "config": settings, "registered_name": None}


def layers_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = document["config"]["layers"]
    return layers


def put(*entries: dict[str, Any], at: int = 2) -> Callable[[dict[str, Any]], object]:
    """Insert layers into the configuration; those of `ROWS` are InputLayer, Flatten and Dense."""

    def change(document: dict[str, Any]) -> None:
        layers_of(document)[at:at] = entries

    return change


def replace_array(name: str, values: Any) -> Hdf5Change:
    """Put other values in the place of an array."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = np.asarray(values)

    return change
