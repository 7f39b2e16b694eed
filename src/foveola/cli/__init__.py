"""The command line: every command, and how it ends."""

from collections.abc import Callable, Sequence

import typer

from foveola.cli import auditing, judging, listing, looking, serving, training, using
from foveola.errors import FoveolaError

# One short function a command, in the order of `foveola --help`, with what stands below its own help
COMMANDS: dict[Callable[..., None], str] = {
    listing.datasets: "Example: foveola datasets --json",
    listing.recipes: "Example: foveola recipes",
    listing.summary: "Example: foveola summary west --image 28x28x1 --diagram west.svg",
    training.train: "Examples: foveola train digits · foveola train mnist --recipe lenet5 --seed 98 · "
    "foveola train fashion-mnist --budget 60s · "
    "foveola train my-pictures --epochs 20 --set augment.flip=true --out runs/mine",
    judging.evaluate: "Example: foveola evaluate runs/mnist-fast mnist",
    judging.report: "Examples: foveola report runs/mnist-fast · "
    "foveola report runs/mine --data my-pictures --out mine.html",
    judging.compare: "Examples: foveola compare runs/mnist-mlp runs/mnist-fast --out mlp-fast.html · "
    "foveola compare runs/mnist-mlp runs/mnist-fast --seeds 5",
    auditing.audit: "Examples: foveola audit fashion-mnist · foveola audit my-pictures --retrain --out findings",
    using.predict: "Example: foveola predict runs/mnist-fast seven.png photo.jpg",
    using.export: "Examples: foveola export runs/mnist-fast · "
    "foveola evaluate runs/mnist-fast/exports/model.onnx mnist",
    serving.serve: "Examples: foveola serve runs/mnist-fast · "
    "foveola serve model.onnx --host 0.0.0.0 --workers 4 --collect more-digits",
    looking.explain: "Example: foveola explain runs/mnist-fast seven.png --class 1",
    looking.convolve: "Examples: foveola convolve letter:A --kernel diagonal · "
    "foveola convolve photo.jpg --kernel '[[1, -1]]' --padding same --out lab.gif · "
    "foveola convolve letter:E --pool max",
    listing.info: "Example: foveola info",
}

app = typer.Typer(
    help="Small labelled images in, a classifier you can trust out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, examples in COMMANDS.items():
    app.command(epilog=examples)(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="foveola")
    except SystemExit as end:  # how Typer always ends; it has worded wrong usage itself, and ends 130 on an interrupt
        return _complain("Interrupted.", 130) if end.code == 130 else int(end.code or 0)
    except FoveolaError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        return _complain(f"The operating system refused: {error}", 1)
    except MemoryError:
        return _complain("Memory ran out. Use a smaller image_size (--set image_size=32) or fewer images.", 1)
    return 0


def _complain(message: str, code: int) -> int:
    typer.echo(f"foveola: {message}", err=True)
    return code
