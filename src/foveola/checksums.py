"""SHA256SUMS: a file that says of those beside it what their bytes were, as sha256sum of the GNU coreutils writes it.

It finds accidents; who alters a file on purpose can alter its checksum too.
"""

import hashlib
import re
from pathlib import Path

from foveola.errors import ModelError
from foveola.files import write_atomically

SUMS = "SHA256SUMS"

# Digest, two spaces or " *", name; a leading backslash says that the name has escapes
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
# Of ten thousand files
_MAX_BYTES = 2**20


def record(path: Path) -> None:
    """Name a file in the SHA256SUMS beside it; the lines of other files stay.

    Raises
    ------
    OSError
        If SHA256SUMS cannot be written.
    """
    sums, name = path.parent / SUMS, _escaped(path.name)
    others = [line for line in _lines(sums) if (found := _LINE.fullmatch(line)) is None or found[2] != name]
    _write(sums, [*others, _line(path, name)])


def record_all(folder: Path) -> None:
    """Write a SHA256SUMS into a folder that names every other file in it, at any depth.

    Raises
    ------
    OSError
        If SHA256SUMS cannot be written.
    """
    _write(folder / SUMS, [_line(path, name) for name, path in sorted(_files_in(folder).items())])


def is_listed(path: Path) -> bool:
    """Whether a SHA256SUMS beside a file names it."""
    return _escaped(path.name) in _listed(path.parent)


def check(path: Path, content: bytes | None = None) -> None:
    """Refuse a file whose bytes are not those that SHA256SUMS beside it names; one that is not named there passes.

    Parameters
    ----------
    content : the file's bytes, where they have been read already

    Raises
    ------
    ModelError
        If the checksums differ, or SHA256SUMS cannot be read.
    """
    wanted = _listed(path.parent).get(_escaped(path.name))
    if wanted is not None and path.is_file():
        _compare(path, _digest(path) if content is None else hashlib.sha256(content).hexdigest(), wanted)


def check_all(folder: Path) -> None:
    """Refuse a folder that lacks a file which its SHA256SUMS names, or has another in its place.

    Raises
    ------
    ModelError
        Naming the first such file, or if there is no SHA256SUMS.
    """
    listed, present = _listed(folder), _files_in(folder)
    if not listed:
        raise ModelError(f"{folder} has no {SUMS} that names its files, so that it is not opened. Export it again.")
    for name, wanted in listed.items():
        if name not in present:
            raise ModelError(f"{folder} lacks {name}, which its {SUMS} names. Export it again.")
        _compare(present[name], _digest(present[name]), wanted)


def _compare(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise ModelError(
            f"{path} is not the file that {SUMS} names: its SHA-256 begins with {found[:12]}, there it is "
            f"{wanted[:12]}. It was altered, damaged or replaced after its export. Export the run again, or delete its "
            f"line there if you have replaced it yourself."
        )


def _listed(folder: Path) -> dict[str, str]:
    """Name, escaped, and digest, in small letters."""
    found = (_LINE.fullmatch(line) for line in _lines(folder / SUMS))
    return {line[2]: line[1].lower() for line in found if line is not None}


def _lines(sums: Path) -> list[str]:
    try:
        if not sums.is_file():
            return []
        if sums.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{sums} has more than {_MAX_BYTES:,} bytes, so that it is not read. Delete it.")
        # A name is bytes to the system: what is no text in it comes back as it was
        text = sums.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ModelError(f"{sums} cannot be read: {error}. Correct its rights, or delete it.") from None
    return [line for line in text.split("\n") if line]


def _files_in(folder: Path) -> dict[str, Path]:
    """Every file but SHA256SUMS, by its name from here, escaped."""
    files = {_escaped(path.relative_to(folder).as_posix()): path for path in folder.rglob("*") if path.is_file()}
    files.pop(SUMS, None)
    return files


def _escaped(name: str) -> str:
    return name.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")


def _line(path: Path, escaped: str) -> str:
    return ("\\" if "\\" in escaped else "") + f"{_digest(path)}  {escaped}"


def _write(sums: Path, lines: list[str]) -> None:
    write_atomically(sums, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
