"""Text from anybody's data that every terminal, page and document can hold."""

import re
import unicodedata
from typing import Any

# Class and file names come from anybody's data, and could set a terminal's title or overwrite what stands there; those
# from 0x202A on turn the direction of all text that follows
_CONTROL_CHARACTERS = dict.fromkeys(
    (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}"
)
del _CONTROL_CHARACTERS[ord("\n")], _CONTROL_CHARACTERS[ord("\t")]
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Text in which control characters, except line breaks and tabs, are replaced by �, and surrogates escaped."""
    return escape_surrogates(text).translate(_CONTROL_CHARACTERS)


def escape_surrogates(text: str) -> str:
    r"""Text in which the bytes of a file name that are not UTF-8 are written out, such as caf\xe9.

    Python holds such a byte as a lone surrogate (PEP 383), which neither JSON nor HTML nor a terminal can encode.
    """
    return _SURROGATE.sub(_byte_or_code, text)


def class_name(text: str) -> str:
    """The name of a class in Unicode's composed form (NFC), without surrogates: one name, however it was written."""
    return escape_surrogates(unicodedata.normalize("NFC", text))


def escape_all_surrogates(value: Any) -> Any:
    """The value, with `escape_surrogates` applied to the texts in it and in its lists, tuples and dicts."""
    if isinstance(value, str):
        return escape_surrogates(value)
    if isinstance(value, list | tuple):
        return [escape_all_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {escape_all_surrogates(key): escape_all_surrogates(one) for key, one in value.items()}
    return value


def restore_surrogates(text: str) -> str:
    r"""The file name that `escape_surrogates` has written out, such as one with the byte E9 for caf\xe9."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def _byte_or_code(surrogate: re.Match[str]) -> str:
    code = ord(surrogate[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
