"""Model files: read once, checked whole, and bounded before anything is built from them; without PyTorch."""

import json
from dataclasses import dataclass
from pathlib import Path

from foveola.errors import ModelError
from foveola.files import read_verified
from foveola.models.metadata import METADATA_KEY, ModelMetadata, parse_metadata
from foveola.sealed import CHECKSUM_KEY, header_bytes, verify_seal

# Twice the parameters that a network may have, in float32
MAX_BYTES = 2**31

_CURE = "Train or copy it again"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file that is whole: its bytes, as safetensors reads them, and its metadata."""

    path: Path
    content: bytes
    metadata: ModelMetadata


def read_model_file(path: Path) -> ModelFile:
    """Read a model file, and check it against its own checksum and the one in SHA256SUMS beside it.

    A file of an older Foveola has no checksum of its own. It is opened all the same, but only if it has nothing in its
    place, so that damage to the checksum's name does not pass for an older file.

    Raises
    ------
    ModelError
        If the file is missing, damaged or altered, not a Foveola model, or describes a network out of bounds.
    """
    content = read_verified(path, MAX_BYTES, _CURE)
    entries = header_metadata(path, content)
    if METADATA_KEY not in entries and CHECKSUM_KEY not in entries:
        raise ModelError(
            f"{path} is a safetensors file, but not a Foveola model: it has no class names or preprocessing. "
            f"Give a model file that Foveola has saved."
        )
    if entries.keys() != {METADATA_KEY}:
        verify_seal(content, path)
    if METADATA_KEY not in entries:
        raise ModelError(
            f"{path} is a checkpoint of a training, not a model. Give a model file that Foveola has saved."
        )
    return ModelFile(path, content, parse_metadata(entries[METADATA_KEY], path))


def read_metadata(path: Path) -> ModelMetadata:
    """Read the metadata of a model file; checks and errors as of `read_model_file`."""
    return read_model_file(path).metadata


def header_metadata(path: Path, content: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    try:
        header = json.loads(header_bytes(content))
        entries = header.get("__metadata__", {}) if isinstance(header, dict) else None
    except (ValueError, RecursionError) as error:  # of too many digits or brackets, too
        raise ModelError(f"The model file {path} cannot be read: {error}. It is damaged. {_CURE}.") from None
    if not isinstance(entries, dict) or not all(isinstance(text, str) for text in entries.values()):
        raise ModelError(f"The model file {path} cannot be read: its header is damaged. {_CURE}.")
    return entries
