"""Plot test accuracy against seconds of training: the targets of time_to_accuracy.py, and the tutorials in Keras.

    .venv/bin/python benchmarks/plot.py docs/trainings.jsonl docs/speed.svg

A point is the mean over the seeds in the log of trainings. Foveola computes in bf16 where the processor can, Keras in
float32.
"""

import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from runs import Training, read, shown, spreads
from time_to_accuracy import TARGETS
from tutorials import PROGRAMS, TITLES, keras_command

PANELS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
# Program → colour, marker, line between the points
STYLES = {"Foveola": ("#0b6e99", "o", "-"), "Keras": ("#c2571a", "s", "none")}


def main() -> None:
    log, target = map(Path, sys.argv[1:])
    trainings = defaultdict(list)
    for training in read(log):
        trainings[training["command"]].append(training)
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "foveola", "font.size": 10}
    figure, all_axes = plt.subplots(1, len(PANELS), figsize=(5 * len(PANELS), 4), layout="constrained")
    for axes, (data, title) in zip(all_axes, PANELS.items(), strict=True):
        ours = {length(target.arguments): shown(target.command) for target in TARGETS if target.data == data}
        theirs = {f"{TITLES[name]}, tutorial": keras_command(name) for name, on in PROGRAMS.items() if on == data}
        for who, commands in (("Foveola", ours), ("Keras", theirs)):
            draw(axes, who, {name: trainings[command] for name, command in commands.items() if command in trainings})
        finish(axes, title)
    figure.legend(*all_axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(target, metadata={"Date": None})


def length(arguments: str) -> str:
    """Label of a point: recipe and length of the training."""
    words = dict(zip(arguments.split(), arguments.split()[1:], strict=False))
    recipe = Path(words.get("--recipe", "fast")).stem
    settings = dict(word.split("=") for word in arguments.split() if "=" in word)
    if "steps" in settings:
        return f"{recipe}, {int(settings['steps']):,} steps"
    return f"{recipe}, {words['--epochs']} epochs" if "--epochs" in words else recipe


def draw(axes: Axes, who: str, points: dict[str, list[Training]]) -> None:
    """Draw a labelled point for each command."""
    colour, marker, line = STYLES[who]
    means = {name: spreads(trainings) for name, trainings in points.items()}
    seconds, accuracy = ([mean[what]["mean"] for mean in means.values()] for what in ("seconds", "accuracy"))
    percent = [100 * share for share in accuracy]
    axes.plot(seconds, percent, marker, color=colour, label=who, markersize=7, linestyle=line, linewidth=1)
    for name, x, y in zip(means, seconds, percent, strict=True):
        axes.annotate(name, (x, y), xytext=(6, -11), textcoords="offset points", fontsize=8, color=colour)


def finish(axes: Axes, title: str) -> None:
    """Style axes and grid."""
    axes.set(
        xscale="log", title=title, xlabel="seconds of training, two cores (logarithmic)", ylabel="test accuracy, %"
    )
    axes.grid(alpha=0.25)
    axes.margins(x=0.25, y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    main()
