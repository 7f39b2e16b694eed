"""Exports of a model: each is written, reopened, compared with the model, and only then renamed into place."""

import copy
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from foveola.errors import ExportError, ModelError, OutputError, UserError, require, unknown
from foveola.exports import int8, onnx, safetensors, web
from foveola.exports.parity import Parity, check_parity
from foveola.files import has_checksum, is_empty_folder, move, record_checksum, write_atomically, writing
from foveola.images import Images, ImageSet
from foveola.models.model_file import read_metadata
from foveola.predictions import Predictor

if TYPE_CHECKING:
    from foveola.models.classifier import Classifier

__all__ = [
    "FORMATS",
    "INT8_NAME",
    "ExportReport",
    "Format",
    "Parity",
    "check_target",
    "default_name",
    "export_int8",
    "export_network",
    "export_run",
    "format_named",
]

# Written beside model.onnx, which it does not replace
INT8_NAME = f"model.int8{onnx.SUFFIX}"


class Format(Protocol):
    """A module of this package that writes one export format and reopens it.

    `SUFFIX` is the suffix of its files; "" means that an export is a folder with a SHA256SUMS of its content
    (`files.record_checksums`).
    """

    SUFFIX: str

    def write(self, source: Path, live: Predictor, target: Path) -> None:
        """Write `target`, which does not exist yet, from a run's model file; `live` is the same model, opened."""
        ...

    def open(self, path: Path) -> Predictor:
        """Open an export, or refuse it with a ModelError."""
        ...


FORMATS: dict[str, Format] = {"onnx": onnx, "safetensors": safetensors, "web": web}


@dataclass(frozen=True)
class ExportReport:
    """An export that was written, and its difference from the model; `gain` is only set for int8."""

    path: Path
    format: str
    size_bytes: int
    parity: Parity
    gain: int8.Gain | None = None


def export_network(source: Path, live: "Classifier", images: Images) -> ExportReport:
    """Export a network that a user has written, beside its model file: what opens the run without the network's code.

    Parameters
    ----------
    source : the model.safetensors of a run
    live : the same model, whose network torch exports
    images : real images to compare on, uint8 N×H×W×C

    Raises
    ------
    NotExportable
        If torch cannot export the network, or its graph has something that exports do not allow.
    ExportError
        If the export's logits differ from the network's.
    MissingExtra
        If onnx or onnxscript is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "train")
    from foveola.exports import own_graph

    target = source.with_name(onnx.OWN_GRAPH)
    still = live if live.mean.device.type == "cpu" else copy.deepcopy(live).cpu()
    with _temporary_path(target, onnx.SUFFIX) as temporary:
        own_graph.write(source, still, temporary)
        compared = check_parity(still, onnx.open(temporary), images)
        size = _move(temporary, target, source)
    return ExportReport(target, "onnx", size, compared)


def export_run(
    source: Path,
    live: Predictor,
    images: Images | None,
    target: Path,
    format: str = "onnx",
    compared: Parity | None = None,
) -> ExportReport:
    """Export a model: write it, reopen it, compare it with the live model, and only then rename it into place.

    In the run's exports folder, the file is then listed in SHA256SUMS.

    Parameters
    ----------
    source : the model.safetensors of a run
    live : the same model, opened
    images : real images to compare on, uint8 N×H×W×C
    target : the file to write, which is replaced atomically; or the folder, which must be empty or not exist yet
    format : a key of FORMATS
    compared : of a network that the user has written: how its export, which is copied, was compared with it

    Raises
    ------
    UserError
        If format, source or target cannot be used.
    ExportError
        If the export's logits differ from the model's.
    """
    exporter = check_target(source, target, format)
    with _temporary_path(target, exporter.SUFFIX) as temporary:
        exporter.write(source, live, temporary)
        export = _reopen(exporter, temporary)
        if compared is None:
            assert images is not None, "the export is compared on them"
            compared = check_parity(live, export, images)
        size = _move(temporary, target, source)
    return ExportReport(target, format, size, compared)


def export_int8(source: Path, live: Predictor, images: Images, validation: ImageSet, target: Path) -> ExportReport:
    """Export a model as ONNX that computes in 8-bit integers, if it is faster on this machine and as accurate.

    Parameters as for `export_run`; `validation` holds images of the model's shape, for calibration and measurement. The
    report gives the difference of the logits, but does not limit it: what counts is the accuracy.

    Raises
    ------
    UserError
        If source or target cannot be used.
    ExportError
        If it is less accurate or not faster.
    """
    check_target(source, target, "onnx")
    with _temporary_path(target, onnx.SUFFIX) as temporary:
        gain = int8.write(source, live, temporary, validation)
        parity = check_parity(live, _reopen(onnx, temporary), images, tolerance=math.inf)
        size = _move(temporary, target, source)
    return ExportReport(target, "onnx", size, parity, gain)


def check_target(source: Path, target: Path, format: str) -> Format:
    """The format, after checks that the model can be exported in it, and to this target.

    Raises
    ------
    UserError
        If format, source or target cannot be used.
    """
    exporter = format_named(format)
    if exporter.SUFFIX and target.suffix != exporter.SUFFIX:
        raise OutputError(
            f"{target} would not be recognised as {format} when it is opened. End its name with {exporter.SUFFIX}."
        )
    if not exporter.SUFFIX and target.exists() and not is_empty_folder(target):
        raise OutputError(f"{target} already exists and is not overwritten. Remove it, or choose another with --out.")
    if read_metadata(source).layers is None:
        if exporter is safetensors:
            raise ModelError(
                f"{source} holds a network that you wrote in PyTorch: a safetensors file has its weights, but not its "
                f"code, and could not be opened. Export it as onnx or web."
            )
        onnx.own_graph(source)
    return exporter


def format_named(name: str) -> Format:
    """The entry of FORMATS with this name; an unknown name raises a UserError."""
    if name not in FORMATS:
        raise UserError(unknown("export format", name, FORMATS))
    return FORMATS[name]


def default_name(format: str) -> str:
    """The name of an export in a run's exports folder."""
    suffix = format_named(format).SUFFIX
    return f"model{suffix}" if suffix else format


@contextmanager
def _temporary_path(target: Path, suffix: str) -> Iterator[Path]:
    """A path beside the target for a file or folder, which is removed at the end unless it was moved."""
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{suffix}")
    new_parent = not target.parent.exists()
    try:
        with writing(target):
            target.parent.mkdir(exist_ok=True)
            yield temporary
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)
            if new_parent:
                target.parent.rmdir()  # fails, as intended, if it holds the export


def _reopen(exporter: Format, path: Path) -> Predictor:
    try:
        return exporter.open(path)
    except ModelError as error:
        raise ExportError(f"The export was not kept, because it cannot be reopened: {error}") from None


def _move(temporary: Path, target: Path, source: Path) -> int:
    """Rename an export into place, list a file in SHA256SUMS, and return the size in bytes."""
    if temporary.is_dir():
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        if target.exists():
            target.rmdir()  # it is empty; not every system renames onto an empty folder
        move(temporary, target)
        return size
    content = temporary.read_bytes()
    write_atomically(target, content)
    in_exports = target.parent.resolve() == source.parent.resolve() / "exports"
    if in_exports or has_checksum(target):
        record_checksum(target)
    return len(content)
