"""Exceptions: invalid input (UserError, exit code 2) and other failures (Failure, exit code 1).

FoveolaError
├── UserError             the input cannot be used: one message, exit code 2
│   ├── DataError         images, labels, data files, data-set names
│   ├── RecipeError       recipes: their keys, layers and values
│   ├── ModelError        run directories and model files
│   ├── OutputError       paths for results
│   └── MissingExtra      an optional dependency is not installed
└── Failure               not caused by the input: one message, exit code 1
    ├── DownloadError     no source delivered the published file
    ├── ExportError       an export differs from its model, or int8 brings no gain; the export is not kept
    ├── NonFiniteLoss     training diverged; the last finite weights are kept
    └── ProcessLost       another process of the training has ended

Every message says what was found, why it cannot be used, and what to do.
"""

import difflib
import importlib
import re
from collections.abc import Iterable, Sequence
from types import ModuleType


class FoveolaError(Exception):
    """Base class of all errors that Foveola raises deliberately."""

    exit_code = 1


class UserError(FoveolaError):
    """The user's input cannot be used."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What notebooks show instead of a traceback (IPython asks for it): the message says what to do."""
        return [f"{type(self).__name__}: {self}"]


class DataError(UserError):
    """Images or labels cannot be used."""


class RecipeError(UserError):
    """A recipe, one of its keys or one of its layers cannot be used."""


class ModelError(UserError):
    """A run directory or a model file cannot be used."""


class OutputError(UserError):
    """The path for the results cannot be used."""


class MissingExtra(UserError):
    """A dependency of an optional extra is not installed."""


class Failure(FoveolaError):
    """A failure that is not caused by the user's input."""


class DownloadError(Failure):
    """No source delivered the published file."""


class ExportError(Failure):
    """An export differs from its model, or brings no gain; it is not kept."""


class NonFiniteLoss(Failure):
    """The loss became NaN or infinite; the last finite weights are kept."""


class ProcessLost(Failure):
    """Another process of a training that several processes share has ended, or cannot be reached."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Message about an unknown name, with the nearest known name and the list of all known names."""
    names = sorted(known)
    nearest = _nearest(name, names)
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """The known name whose initials these are (lr: learning_rate), or the one that is spelt most alike."""
    initials = {"".join(word[:1] for word in re.split("[_-]", known)): known for known in names if len(name) > 1}
    alike = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return initials.get(name.lower()) or next(iter(alike), None)


def require(module: str, extra: str) -> ModuleType:
    """Import a module that an extra installs.

    Raises
    ------
    MissingExtra
        If it is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module.partition(".")[0]:
            raise
        raise MissingExtra(
            f"This needs {missing.name}, which is not installed. Install it with: pip install 'foveola[{extra}]'"
        ) from None
