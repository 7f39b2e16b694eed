"""What can go wrong, and whose doing it is.

FoveolaError
├── UserError             the input is wrong: one message, exit code 2
│   ├── DataError         images, labels, data files, data-set names
│   ├── RecipeError       recipes, their keys, layers and values
│   ├── ModelError        run directories and model files
│   ├── OutputError       where the results should go
│   └── MissingExtra      an optional dependency is not installed
└── Failure               not the user's doing: one message, exit code 1
    ├── DownloadError     no source answered with the published bytes
    ├── ExportError       an export does not answer as its model does, or int8 is no gain; not kept
    └── NonFiniteLoss     training diverged; the last finite weights are kept

Every message says what was found, why it cannot be used, and what to do.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class FoveolaError(Exception):
    """Base of everything that Foveola raises on purpose."""

    exit_code = 1


class UserError(FoveolaError):
    """The user's input cannot be used."""

    exit_code = 2


class DataError(UserError):
    """Images or labels cannot be used."""


class RecipeError(UserError):
    """A recipe, one of its keys or one of its layers cannot be used."""


class ModelError(UserError):
    """A run directory or a model file cannot be used."""


class OutputError(UserError):
    """The place for the results cannot be used."""


class MissingExtra(UserError):
    """A dependency of an optional extra is not installed."""


class Failure(FoveolaError):
    """Something failed that is not the user's doing."""


class DownloadError(Failure):
    """No source answered with the published bytes."""


class ExportError(Failure):
    """An export does not answer as its model does; it is not kept."""


class NonFiniteLoss(Failure):
    """The loss became NaN or infinite; the last finite weights are kept."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the refusal of an unknown name: the nearest known one, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def require(module: str, extra: str) -> ModuleType:
    """Import a dependency of an extra, or say which command installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module.partition(".")[0]:
            raise
        raise MissingExtra(
            f"This needs {missing.name}, which is not installed. Install it with: pip install 'foveola[{extra}]'"
        ) from None
