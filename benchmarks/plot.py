"""Draw accuracy against seconds of training, from measured figures.

    .venv/bin/python benchmarks/plot.py docs/speed.json docs/speed.svg

The JSON holds, for each data set, points {name, who, seconds, accuracy}: `who` is "Foveola" or a peer.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

COLOURS = {"Foveola": "#0b6e99", "Keras": "#c2571a", "goal": "#888888"}
MARKERS = {"Foveola": "o", "Keras": "s", "goal": "+"}


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    panels = json.loads(source.read_text())["panels"]
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "foveola", "font.size": 10}
    figure, all_axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (data, points) in zip(all_axes, panels.items(), strict=True):
        for who in dict.fromkeys(point["who"] for point in points):
            chosen = [point for point in points if point["who"] == who]
            seconds, accuracy = ([point[what] for point in chosen] for what in ("seconds", "accuracy"))
            axes.plot(
                seconds, [100 * share for share in accuracy], MARKERS[who], color=COLOURS[who], label=who, markersize=7,
                linestyle="-" if who == "Foveola" else "none", linewidth=1,
            )  # fmt: skip
        for point in points:
            axes.annotate(
                point["name"], (point["seconds"], 100 * point["accuracy"]),
                xytext=(6, -11), textcoords="offset points", fontsize=8, color=COLOURS[point["who"]],
            )  # fmt: skip
        axes.set(
            xscale="log", title=data, xlabel="seconds of training, two cores (logarithmic)", ylabel="test accuracy, %"
        )
        axes.grid(alpha=0.25)
        axes.margins(x=0.25, y=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*all_axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
