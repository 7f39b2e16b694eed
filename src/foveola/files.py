"""Files: written atomically, checked against SHA256SUMS, and one wording for what cannot be written."""

import hashlib
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foveola.errors import ModelError, OutputError, UserError
from foveola.text import escape_surrogates

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Windows neither replaces, renames nor removes a file that any program has open, nor renames a folder that holds one
OPEN_FILES_STAY = sys.platform == "win32"
# Between attempts: virus scanners and indexers open new files for a moment
_PAUSES = (0.02, 0.05, 0.1, 0.3, 1.0)
# Characters of a file's name that `safe_stem` keeps
_MAX_STEM = 60


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write beside, flush to the disk, rename into place, flush the folder; text as UTF-8.

    Raises
    ------
    OSError
        If the folder cannot be written; the old file, if any, is then still whole.
    """
    content = escape_surrogates(data).encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, in the place of a file that is there; what is open for a moment only is waited for.

    Raises
    ------
    OSError
        If it cannot be renamed.
    """
    for pause in _PAUSES if OPEN_FILES_STAY else ():
        try:
            os.replace(source, target)  # noqa: PTH105 (of a folder, too)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)  # noqa: PTH105


@contextmanager
def writing(path: Path, cure: str = "Choose another with --out.") -> Iterator[None]:
    """Turn what the operating system refuses inside the block into one message.

    Raises
    ------
    OutputError
        Naming the path, the reason, and the cure.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}. {cure}") from None


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be created or written, before the work and without changing anything.

    Raises
    ------
    OutputError
        If it, or the nearest folder above it that exists, is a file or may not be written to.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder} cannot be written: {existing} is not a folder that you may write to. Choose another with --out."
        )


def lock(path: Path) -> int | None:
    """Lock a file for this process alone, until the returned descriptor is closed or the process ends, however it ends.

    None if another process holds it, or has removed it meanwhile.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116 (Path.stat has no descriptor to compare)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def as_path(given: object, what: str) -> Path:
    """A path, of what may be given as one; `what` begins the message, such as "init".

    Raises
    ------
    UserError
        If it is something else: a model instead of its run, for example.
    """
    if isinstance(given, str | os.PathLike):
        return Path(given)
    raise UserError(f"{what} is of the type {type(given).__name__}. Give the path of a file or folder, or a Run.")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with ~ as the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~name, where there is no such user
        return Path(path)


def flush(path: Path) -> None:
    """Wait until a file that another library has written is on the disk."""
    with path.open("r+b") as file:  # Windows flushes no file that is open for reading only
        os.fsync(file.fileno())


def is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Paths sorted alike on every system: Windows' own order takes no notice of case."""
    return sorted(paths, key=lambda path: path.parts)


def safe_stem(name: str) -> str:
    """The name of a file without its extension, as the beginning of another that every file system takes."""
    stem = "".join(letter if letter.isalnum() or letter in " ._-" else "_" for letter in Path(name).stem)
    return stem[:_MAX_STEM].rstrip(" .")


def new_folder(first: Path) -> Path:
    """The first of NAME, NAME-2, NAME-3, … that does not exist yet."""
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder


def flush_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk."""
    if sys.platform == "win32":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


CHECKSUM_FILE = "SHA256SUMS"
_EXPORT_AGAIN = "Export the run again"

# Digest, two spaces or " *", name; a leading backslash says that the name has escapes
_CHECKSUM_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
# Of ten thousand files
_MAX_CHECKSUM_BYTES = 2**20


def record_checksum(path: Path) -> None:
    """Name a file in the SHA256SUMS beside it; the lines of other files stay.

    Raises
    ------
    OSError
        If SHA256SUMS cannot be written.
    """
    sums, name = path.parent / CHECKSUM_FILE, _escape_name(path.name)
    others = [
        line for line in _checksum_lines(sums) if (found := _CHECKSUM_LINE.fullmatch(line)) is None or found[2] != name
    ]
    _write_checksums(sums, [*others, _checksum_line(path, name)])


def record_checksums(folder: Path, names: Collection[str] | None = None) -> None:
    """Write a SHA256SUMS into a folder that names every other file in it, at any depth, or those of `names`.

    Raises
    ------
    OSError
        If SHA256SUMS cannot be written.
    """
    files = {name: path for name, path in sorted(_files_in(folder).items()) if names is None or name in names}
    _write_checksums(folder / CHECKSUM_FILE, [_checksum_line(path, name) for name, path in files.items()])


def has_checksum(path: Path) -> bool:
    """Whether a SHA256SUMS beside a file names it."""
    return _escape_name(path.name) in _listed_checksums(path.parent)


def remove_listed(folder: Path) -> None:
    """Remove the files that SHA256SUMS names, itself, and folders that are then empty; anything else stays."""
    if not folder.is_dir() or folder.is_symlink():
        return
    present = _files_in(folder)
    for name in _listed_checksums(folder).keys() & present.keys():
        present[name].unlink()
    (folder / CHECKSUM_FILE).unlink(missing_ok=True)
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if is_empty_folder(inner):
            inner.rmdir()
    if is_empty_folder(folder):
        folder.rmdir()


def read_verified(path: Path, max_bytes: int, cure: str) -> bytes:
    """The content of a file, read once, whose checksum in SHA256SUMS beside it, if there is one, is right.

    Parameters
    ----------
    max_bytes : a larger file is not read
    cure : what to do about a file that cannot be used, a sentence without its full stop

    Raises
    ------
    ModelError
        If the file is missing, no regular file, too large, or not the one that SHA256SUMS names.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is not a file. {cure}.")
        if (size := path.stat().st_size) > max_bytes:
            raise ModelError(f"{path} is not read: it has {size:,} bytes, of at most {max_bytes:,}. {cure}.")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. It is missing or damaged. {cure}.") from None
    verify_checksum(path, content, cure)
    return content


def verify_checksum(path: Path, content: bytes | None = None, cure: str = _EXPORT_AGAIN) -> None:
    """Refuse a file whose bytes are not those that SHA256SUMS beside it names; one that is not named there passes.

    Parameters
    ----------
    content : the file's bytes, where they have been read already
    cure : what to do about another file, a sentence without its full stop

    Raises
    ------
    ModelError
        If the checksums differ, or SHA256SUMS cannot be read.
    """
    wanted = _listed_checksums(path.parent).get(_escape_name(path.name))
    if wanted is not None and (content is not None or path.is_file()):
        found = sha256_of(path) if content is None else hashlib.sha256(content).hexdigest()
        _compare_checksum(path, found, wanted, cure)


def verify_checksums(folder: Path, required: Collection[str] = ()) -> None:
    """Refuse a folder that lacks a file which its SHA256SUMS names, or has another in its place.

    Parameters
    ----------
    required : names that SHA256SUMS must list

    Raises
    ------
    ModelError
        Naming the first such file, or if SHA256SUMS is missing or does not list a required name.
    """
    listed, present = _listed_checksums(folder), _files_in(folder)
    if not listed:
        raise ModelError(
            f"{folder} has no {CHECKSUM_FILE} that names its files, so that it is not opened. Export it again."
        )
    if unlisted := sorted(set(required) - listed.keys()):
        raise ModelError(f"{folder / CHECKSUM_FILE} does not list {', '.join(unlisted)}. Export it again.")
    for name, wanted in listed.items():
        if name not in present:
            raise ModelError(f"{folder} lacks {name}, which its {CHECKSUM_FILE} names. Export it again.")
        _compare_checksum(present[name], sha256_of(present[name]), wanted)


def _compare_checksum(path: Path, found: str, wanted: str, cure: str = _EXPORT_AGAIN) -> None:
    if found != wanted:
        raise ModelError(
            f"{path} is not the file that {CHECKSUM_FILE} names: its SHA-256 begins with {found[:12]}, there it is "
            f"{wanted[:12]}. It was altered, damaged or replaced after it was written. {cure}, or delete its line "
            f"there if you have replaced it yourself."
        )


def _listed_checksums(folder: Path) -> dict[str, str]:
    """Name, escaped, and digest, in small letters."""
    found = (_CHECKSUM_LINE.fullmatch(line) for line in _checksum_lines(folder / CHECKSUM_FILE))
    return {line[2]: line[1].lower() for line in found if line is not None}


def _checksum_lines(sums: Path) -> list[str]:
    try:
        if not sums.is_file():
            return []
        if sums.stat().st_size > _MAX_CHECKSUM_BYTES:
            raise ModelError(f"{sums} has more than {_MAX_CHECKSUM_BYTES:,} bytes, so that it is not read. Delete it.")
        # A name is bytes to the system: what is no text in it comes back as it was
        text = sums.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ModelError(f"{sums} cannot be read: {error}. Correct its rights, or delete it.") from None
    return [line for line in text.split("\n") if line]


def _files_in(folder: Path) -> dict[str, Path]:
    """Every file but SHA256SUMS, by its name from here, escaped."""
    files = {_escape_name(path.relative_to(folder).as_posix()): path for path in folder.rglob("*") if path.is_file()}
    files.pop(CHECKSUM_FILE, None)
    return files


def _escape_name(name: str) -> str:
    return name.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")


def _checksum_line(path: Path, escaped: str) -> str:
    return ("\\" if "\\" in escaped else "") + f"{sha256_of(path)}  {escaped}"


def _write_checksums(sums: Path, lines: list[str]) -> None:
    write_atomically(sums, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
