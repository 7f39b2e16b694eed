"""Models written for elsewhere: each export is reopened and compared with its model before it gets its name."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from foveola import checksums
from foveola.errors import ExportError, ModelError, OutputError, UserError, unknown
from foveola.export import int8, onnx, safetensors, web
from foveola.export.parity import Parity, compare
from foveola.files import write_atomically
from foveola.images import Images, ImageSet
from foveola.models.card import read_card
from foveola.predictions import Predictor

__all__ = [
    "FORMATS",
    "INT8_NAME",
    "ExportReport",
    "Format",
    "Parity",
    "check",
    "default_name",
    "export_int8",
    "export_run",
    "format_named",
]

# Beside model.onnx, which it does not replace
INT8_NAME = f"model.int8{onnx.SUFFIX}"


class Format(Protocol):
    """A module of this package that writes one format and opens what it has written.

    `SUFFIX` is how its files' names end; "" says that an export is a folder, with a SHA256SUMS of what is in it
    (`checksums.record_all`).
    """

    SUFFIX: str

    def write(self, source: Path, live: Predictor, target: Path) -> None:
        """Write `target`, which is not there yet, from a run's model file; `live` is the same model, opened."""
        ...

    def open(self, path: Path) -> Predictor:
        """Open what `write` has written, or refuse it with a ModelError."""
        ...


FORMATS: dict[str, Format] = {"onnx": onnx, "safetensors": safetensors, "web": web}


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it lies from the model; `gain` is that of int8."""

    path: Path
    format: str
    size_bytes: int
    parity: Parity
    gain: int8.Gain | None = None


def export_run(source: Path, live: Predictor, images: Images, target: Path, format: str = "onnx") -> ExportReport:
    """Write a model in another format, reopen it, compare it with the live one, and only then give it its name.

    In the exports folder of the run, SHA256SUMS then names the file.

    Parameters
    ----------
    source : the model.safetensors of a run
    live : the same model, opened
    images : real ones, uint8 N×H×W×C
    target : the file to write, which is replaced at once or not at all; or the folder, which must not be there yet or
        be empty
    format : a key of FORMATS

    Raises
    ------
    UserError
        If format, source or target cannot be used.
    ExportError
        If export and model disagree.
    """
    chosen = check(source, target, format)
    with _place_beside(target, chosen.SUFFIX) as place:
        chosen.write(source, live, place)
        parity = compare(live, _reopen(chosen, place), images)
        size = _move(place, target, source)
    return ExportReport(target, format, size, parity)


def export_int8(source: Path, live: Predictor, images: Images, validation: ImageSet, target: Path) -> ExportReport:
    """Write a model as ONNX that computes in 8-bit integers, if that is worth it on this machine.

    Parameters as of `export_run`; `validation` holds images of the model's shape, to calibrate and judge with. The
    report says how far the logits lie apart, but does not bound it: what counts is the accuracy.

    Raises
    ------
    UserError
        If source or target cannot be used.
    ExportError
        If it is less accurate or no faster.
    """
    check(source, target, "onnx")
    with _place_beside(target, onnx.SUFFIX) as place:
        gain = int8.write(source, live, place, validation)
        parity = compare(live, _reopen(onnx, place), images, tolerance=math.inf)
        size = _move(place, target, source)
    return ExportReport(target, "onnx", size, parity, gain)


def check(source: Path, target: Path, format: str) -> Format:
    """The format, if this model can be written in it, and there."""
    chosen = format_named(format)
    if chosen.SUFFIX and target.suffix != chosen.SUFFIX:
        raise OutputError(f"{target} would not be known as {format} again: end its name in {chosen.SUFFIX}.")
    if not chosen.SUFFIX and target.exists() and not _is_empty_folder(target):
        raise OutputError(f"{target} is there already, and is left alone. Remove it, or choose another with --out.")
    if read_card(source).layers is None:
        raise ModelError(
            f"{source} holds a network that you wrote in PyTorch; only networks made of a recipe's layers can be "
            f"exported. Write yours with torch.onnx.export."
        )
    return chosen


def format_named(name: str) -> Format:
    """An entry of FORMATS."""
    if name not in FORMATS:
        raise UserError(unknown("export format", name, FORMATS))
    return FORMATS[name]


def default_name(format: str) -> str:
    """How an export is called in the exports folder of a run."""
    suffix = format_named(format).SUFFIX
    return f"model{suffix}" if suffix else format


@contextmanager
def _place_beside(target: Path, suffix: str) -> Iterator[Path]:
    """A name for a file or folder that is gone again at the end, unless it was moved."""
    place = target.with_name(f".{target.stem}.{os.getpid()}{suffix}")
    made = not target.parent.exists()
    try:
        target.parent.mkdir(exist_ok=True)
        yield place
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}. Choose another place with --out.") from None
    finally:
        with suppress(OSError):
            if place.is_dir():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            if made:
                target.parent.rmdir()  # which fails, as it should, if the export lies there


def _reopen(chosen: Format, path: Path) -> Predictor:
    try:
        return chosen.open(path)
    except ModelError as error:
        raise ExportError(f"The export does not open again, and is not kept: {error}") from None


def _move(place: Path, target: Path, source: Path) -> int:
    """Give an export its name, and a file its line in SHA256SUMS; its size in bytes."""
    if place.is_dir():
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        if target.exists():
            target.rmdir()  # an empty one, which not every system replaces
        place.rename(target)
        return size
    content = place.read_bytes()
    write_atomically(target, content)
    in_exports = target.parent.resolve() == source.parent.resolve() / "exports"
    if in_exports or checksums.is_listed(target):
        checksums.record(target)
    return len(content)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
