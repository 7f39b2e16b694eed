"""The command line: the commands, their help panels, and the exit codes."""

import atexit
import errno
import gc
import io
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foveola import __version__
from foveola.cli import data, deployment, evaluation, explanation, information, training, tuning
from foveola.cli.defaults import Command
from foveola.cli.output import replace_unencodable
from foveola.errors import FoveolaError

# How often a thread of PyTorch looks for work before it sleeps, on Linux. By default it looks for so long that threads
# wait for each other's time slices beside another busy process: docs/benchmarks.md, "A busy machine"
_SPIN_COUNT = "10000"

# Exit codes after signals
_ENDED = {
    129: "Ended by SIGHUP, as when a terminal closes.",
    130: "Interrupted.",
    143: "Ended by SIGTERM.",
    149: "Ended by Ctrl+Break.",  # on Windows
}
_PATH_TOO_LONG = 206  # error number of Windows


# Panels of `foveola --help` in order, each a module; every command with the examples below its own help
PANELS: dict[str, dict[Callable[..., None], str]] = {
    "Data": {
        data.datasets: "Example: foveola datasets --json",
        data.pack: "Examples: foveola pack my-images · foveola pack photos --image-size 64 --out packed/photos · "
        "foveola pack packed/photos --verify",
        data.audit: "Examples: foveola audit fashion-mnist · foveola audit my-images --retrain --out findings",
    },
    "Training": {
        training.recipes: "Examples: foveola recipes · foveola recipes fast",
        training.summary: "Example: foveola summary west --image 28x28x1 --diagram west.svg",
        training.train: "Examples: foveola train digits · foveola train mnist --recipe lenet5 --seed 98 · "
        "foveola train fashion-mnist --budget 60s · "
        "foveola train my-images --epochs 20 --set augment.flip=true --out runs/mine · "
        "foveola train photos --set image_size=160 · "
        "foveola train --resume runs/mine · foveola train my-images --find-rate",
        tuning.tune: "Examples: foveola tune digits --trials 20 · foveola tune my-images --budget 10m · "
        "foveola tune my-images --show-space · foveola tune my-images --space space.toml --folds 5 --repeats 3",
    },
    "Evaluation": {
        evaluation.evaluate: "Example: foveola evaluate runs/mnist-fast mnist",
        evaluation.report: "Examples: foveola report runs/mnist-fast · "
        "foveola report runs/mine --data my-images --out mine.html",
        evaluation.compare: "Examples: foveola compare runs/mnist-mlp runs/mnist-fast --out mlp-fast.html · "
        "foveola compare runs/mnist-mlp runs/mnist-fast --seeds 5",
    },
    "Explanation": {
        explanation.explain: "Example: foveola explain runs/mnist-fast seven.png --class 1",
        explanation.convolve: "Examples: foveola convolve letter:A --kernel diagonal · "
        "foveola convolve photo.jpg --kernel '[[1, -1]]' --padding same --out lab.gif · "
        "foveola convolve letter:E --pool max",
    },
    "Deployment": {
        deployment.predict: "Examples: foveola predict runs/mnist-fast seven.png photo.jpg · "
        "foveola predict runs/mnist-fast scans --out answers.csv · cat seven.png | foveola predict runs/mnist-fast -",
        deployment.export: "Examples: foveola export runs/mnist-fast · "
        "foveola evaluate runs/mnist-fast/exports/model.onnx mnist",
        deployment.import_: "Examples: foveola import mnist.keras · "
        "foveola import pets.h5 --classes cat,dog --pixel-range 0,255 --out runs/pets",
        deployment.serve: "Examples: foveola serve runs/mnist-fast · "
        "foveola serve model.onnx --host 0.0.0.0 --workers 4 --collect more-digits",
        deployment.teach: "Examples: foveola teach · foveola teach my-images --port 0 --no-browser",
    },
    "Information": {
        information.info: "Example: foveola info",
        information.help: "Examples: foveola help · foveola help train",
    },
}


def _command_name(function: Callable[..., None]) -> str:
    """The function's name, without the underscore of one that Python reserves (`import_`)."""
    return function.__name__.rstrip("_")


class _Panels(TyperGroup):
    """Lists the commands by panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for panel, functions in PANELS.items():
            commands = [self.commands[_command_name(function)] for function in functions]
            with formatter.section(panel):
                formatter.write_dl(
                    [(f"{command.name}".ljust(width), command.get_short_help_str(limit=200)) for command in commands]
                )


# At the end, the system takes all memory back at once: Python need not look through it for garbage first, for 0.7 s
atexit.register(gc.freeze)

app = typer.Typer(
    cls=_Panels,
    help="Small labelled images in, a classifier you can trust out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for functions in PANELS.values():
    for function, examples in functions.items():
        kind = Command if function is not information.help else None
        app.command(_command_name(function), cls=kind, epilog=examples)(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foveola {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 the input is wrong, 130, 143, 129 or 149 interrupted."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)  # read when PyTorch is imported
    replace_unencodable()
    silence = redirect_stderr(io.StringIO()) if os.environ.get("LOCAL_RANK", "0") != "0" else nullcontext()
    with silence:  # of several processes that torchrun has started, one a machine prints messages
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="foveola")
    except SystemExit as end:  # how Typer always ends; it has worded wrong usage itself, and ends 130 on an interrupt
        code = int(end.code or 0)
        return _complain(_ENDED[code], code) if code in _ENDED else code
    except FoveolaError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG or getattr(error, "winerror", None) == _PATH_TOO_LONG:
            return _complain("A path is too long for this system. Give a shorter one.", 2)
        return _complain(f"The operating system refused: {error}", 1)
    except MemoryError:
        return _complain("Memory ran out. Use a smaller image_size (--set image_size=32) or fewer images.", 1)
    return 0


def _complain(message: str, code: int) -> int:
    from foveola.text import printable

    typer.echo(f"foveola: {printable(message)}", err=True)
    return code
