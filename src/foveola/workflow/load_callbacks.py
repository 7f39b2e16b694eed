"""Callbacks by name, `package.module:Class`: from the command line only, because naming code runs it."""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from foveola.errors import UserError, require, unknown

if TYPE_CHECKING:
    from foveola.training.callbacks import Callback


def load_callbacks(names: Sequence[str]) -> "list[Callback]":
    """Import classes from the working folder or from installed packages, and make a callback of each.

    Parameters
    ----------
    names : as `package.module:Class`; each class is a subclass of `foveola.Callback` that takes no arguments

    Raises
    ------
    UserError
        If there is no such module or class, its code fails, or it is not a callback.

    Examples
    --------
    >>> [callback] = load_callbacks(["foveola.training.callbacks:LearningRate"])
    >>> type(callback).__name__
    'LearningRate'
    """
    if not names:
        return []
    require("torch", "train")
    return [_load(name) for name in names]


def _load(name: str) -> "Callback":
    from foveola.training.callbacks import Callback

    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise UserError(f"--callback is {name!r}; it should be MODULE:CLASS, such as stopping:StopAt for stopping.py.")
    module_name, _, class_name = name.partition(":")
    module = _import(module_name)
    found = getattr(module, class_name, None)
    if found is None:
        classes = [name for name, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Callback)]
        there = (
            unknown("class", class_name, classes) if classes else f"There is no class {class_name!r}. Check its name."
        )
        raise UserError(f"--callback: {module_name} ({module.__file__}): {there}")
    if not inspect.isclass(found) or not issubclass(found, Callback):
        raise UserError(
            f"--callback {name} is not a training callback. Make {class_name} a subclass of foveola.Callback: "
            f"class {class_name}(foveola.Callback)."
        )
    try:
        return found()
    except Exception as error:
        raise UserError(
            f"--callback {name} cannot be made: {class_name}() fails with {_reason(error)}. It is called without "
            f"arguments: give them defaults, or train from Python with callbacks=[{class_name}(…)]."
        ) from None


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as for a script in the working folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise UserError(f"--callback: importing {name} fails with {_reason(missing)}. Install it.") from None
        raise UserError(
            f"--callback: there is no module {missing.name}, neither in {folder} nor installed. Name a module as for "
            f"`import`, without .py, and start in the folder that holds it."
        ) from None
    except Exception as error:
        raise UserError(f"--callback: importing {name} fails with {_reason(error)}. Correct it.") from None


def _reason(error: Exception) -> str:
    """The error in one line, with the place in the code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if frame.filename not in (__file__, importlib.__file__) and frame.filename[0] != "<"
    ]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
