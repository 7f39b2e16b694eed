"""Models written for elsewhere: each export is reopened and compared with its model before it gets its name."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from foveola.errors import ExportError, ModelError, OutputError, UserError, unknown
from foveola.export import onnx, safetensors
from foveola.export.parity import Parity, compare
from foveola.files import write_atomically
from foveola.images import Images
from foveola.models.card import read_card
from foveola.predictions import Predictor

__all__ = ["FORMATS", "ExportReport", "Format", "Parity", "check", "export_run", "format_named"]


class Format(Protocol):
    """A module of this package that writes one format and opens what it has written."""

    SUFFIX: str

    def write(self, source: Path, live: Predictor, target: Path) -> None:
        """Write `target` from a run's model file; `live` is the same model, opened."""
        ...

    def open(self, path: Path) -> Predictor:
        """Open what `write` has written, or refuse it with a ModelError."""
        ...


FORMATS: dict[str, Format] = {"onnx": onnx, "safetensors": safetensors}


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it lies from the model."""

    path: Path
    format: str
    size_bytes: int
    parity: Parity


def export_run(source: Path, live: Predictor, images: Images, target: Path, format: str = "onnx") -> ExportReport:
    """Write a model in another format, reopen it, compare it with the live one, and only then give it its name.

    Parameters
    ----------
    source : the model.safetensors of a run
    live : the same model, opened
    images : real ones, uint8 N×H×W×C
    target : the file to write; it is replaced at once or not at all
    format : a key of FORMATS

    Raises
    ------
    UserError
        If format, source or target cannot be used.
    ExportError
        If export and model disagree.
    """
    chosen = check(source, target, format)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{chosen.SUFFIX}")
    made = not target.parent.exists()
    try:
        target.parent.mkdir(exist_ok=True)
        chosen.write(source, live, temporary)
        parity = compare(live, _reopen(chosen, temporary), images)
        content = temporary.read_bytes()
        write_atomically(target, content)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}. Choose another file with --out.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            if made:
                target.parent.rmdir()  # which fails, as it should, if the export lies there
    return ExportReport(target, format, len(content), parity)


def check(source: Path, target: Path, format: str) -> Format:
    """The format, if this model can be written in it, and there."""
    chosen = format_named(format)
    if target.suffix != chosen.SUFFIX:
        raise OutputError(f"{target} would not be known as {format} again: end its name in {chosen.SUFFIX}.")
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


def _reopen(chosen: Format, path: Path) -> Predictor:
    try:
        return chosen.open(path)
    except ModelError as error:
        raise ExportError(f"The export does not open again, and is not kept: {error}") from None
