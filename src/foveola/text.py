"""Text from anybody's data that every terminal, page and document can hold."""

import re

# Class and file names come from anybody's data, and could set a terminal's title or overwrite what stands there
_CONTROL_CHARACTERS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
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


def _byte_or_code(surrogate: re.Match[str]) -> str:
    code = ord(surrogate[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
