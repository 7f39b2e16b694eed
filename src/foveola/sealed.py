"""Safetensors files with a checksum of their own: every byte but the checksum's is covered by it.

A safetensors file is a length, a header in JSON, and the tensors' bytes (https://github.com/huggingface/safetensors).
The checksum is an entry of the header's metadata, as long before it is known as after. It shows accidents, not attacks:
whoever alters a file on purpose can write a checksum that fits.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from foveola.errors import ModelError

CHECKSUM_KEY = "sha256"
_UNSET = "0" * 64
# As the header has it; within a text the quotation marks would be escaped
_ENTRY = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 32 * 2**20


def unsealed(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a safetensors file with room for the checksum that `seal` fills in."""
    return {**metadata, CHECKSUM_KEY: _UNSET}


def seal(content: bytes) -> bytes:
    """A safetensors file, written with metadata of `unsealed`, with its checksum; the same tensors give the same bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from safetensors.numpy import save
    >>> content = seal(save({"weight": np.zeros(2, np.float32)}, unsealed({"name": "a"})))
    >>> verify_seal(content, "here")
    >>> verify_seal(content[:-1] + b"!", "here")
    Traceback (most recent call last):
    foveola.errors.ModelError: here is damaged: its SHA-256 is not the one that it names itself. …
    """
    content = _with_sorted_metadata(content)
    start, end = _find(content)
    return content[:start] + _digest(content, start, end).encode() + content[end:]


def verify_seal(content: bytes, where: str | Path) -> None:
    """Refuse a file whose bytes are not those that its checksum was computed from.

    Raises
    ------
    ModelError
        If they differ, or there is no checksum.
    """
    try:
        start, end = _find(content)
    except ValueError as error:
        raise ModelError(f"{where} is damaged, or not Foveola's: {error}. Copy it again, or train again.") from None
    if content[start:end] != _digest(content, start, end).encode():
        raise ModelError(
            f"{where} is damaged: its SHA-256 is not the one that it names itself. Copy it again, or train again."
        )


def _with_sorted_metadata(content: bytes) -> bytes:
    """The file with its metadata by name: safetensors writes them in another order every time."""
    end = _header_end(content)
    header = json.loads(content[_LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[end:]


def header_bytes(content: bytes) -> bytes:
    """The header of a safetensors file, JSON; raises a ValueError if the file does not hold it, or it is too long."""
    return content[_LENGTH_BYTES : _header_end(content)]


def _header_end(content: bytes) -> int:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < _LENGTH_BYTES or length > min(MAX_HEADER_BYTES, len(content) - _LENGTH_BYTES):
        raise ValueError("it is cut off, or not a safetensors file")
    return _LENGTH_BYTES + length


def _find(content: bytes) -> tuple[int, int]:
    """Where the checksum begins and ends."""
    found = list(_ENTRY.finditer(content, _LENGTH_BYTES, _header_end(content)))
    if len(found) != 1:
        raise ValueError("it has no checksum")
    return found[0].span(1)


def _digest(content: bytes, start: int, end: int) -> str:
    """Of the content with an unset checksum."""
    view, digest = memoryview(content), hashlib.sha256()
    for part in (view[:start], _UNSET.encode(), view[end:]):
        digest.update(part)
    return digest.hexdigest()
