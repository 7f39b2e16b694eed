"""The HTML page of a tuning: what was found, how the search went, importances, and the trials."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foveola.documents import TunedTrial, Tuning
from foveola.reports.html import render, svg
from foveola.reports.style import BLUE, GREY, INK, ORANGE, RED, new_figure, short, style_axes

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

TITLES = {"log_loss": "log loss", "accuracy": "accuracy"}
# Axis of parallel coordinates per row of the figure
MAX_AXES = 10


def tuning_page(document: Tuning) -> str:
    """The page as self-contained HTML."""
    complete = [trial for trial in document.trials if trial.value is not None and trial.state == "complete"]
    states = [trial.state for trial in document.trials]
    return render(
        "tuning.html",
        document=document,
        title=TITLES[document.objective],
        value_text=value_text,
        counts={state: states.count(state) for state in ("complete", "pruned", "failed")},
        changes=_changes(document),
        keys=list(document.best.values),
        trials=sorted(document.trials, key=lambda trial: _rank(document, trial)),
        history=_history(document, complete),
        importances=_importances(document.importances) if document.importances else None,
        coordinates=_coordinates(document, complete) if len(complete) > 1 else None,
    )


def value_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _changes(document: Tuning) -> list[dict[str, Any]]:
    """The settings of the best trial beside those of the recipe it started from."""
    start = document.start.values if document.start is not None else {}
    return [
        {"key": key, "start": value_text(start[key]) if key in start else "–", "best": value_text(value)}
        for key, value in document.best.values.items()
    ]


def _rank(document: Tuning, trial: TunedTrial) -> tuple[int, float, int]:
    """Complete trials first, the best of them first; then pruned ones, then the others."""
    order = ("complete", "pruned").index(trial.state) if trial.state in ("complete", "pruned") else 2
    sign = -1 if document.objective == "accuracy" else 1
    return order, sign * trial.value if order == 0 and trial.value is not None else 0.0, trial.number


def _history(document: Tuning, complete: Sequence[TunedTrial]) -> "Markup":
    """The value of each complete trial, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(6, 3.4)
    axes = figure.add_subplot()
    numbers = np.array([trial.number for trial in complete])
    values = np.array([trial.value for trial in complete], dtype=np.float64)
    best = np.maximum.accumulate(values) if document.objective == "accuracy" else np.minimum.accumulate(values)
    last = max(trial.number for trial in document.trials)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=BLUE, linewidth=1.8, label="best so far")
    axes.plot(numbers, values, "o", color=ORANGE, markersize=5, label="trial")
    start = [index for index, trial in enumerate(complete) if trial.start]
    axes.plot(numbers[start], values[start], "s", color=RED, markersize=7, label="recipe to start from")
    pruned = [trial.number for trial in document.trials if trial.state == "pruned"]
    if pruned:
        low = values.min() - 0.06 * (np.ptp(values) or 1)
        axes.plot(pruned, [low] * len(pruned), "|", color=GREY, markersize=8, label="pruned")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(axes, f"Validation {TITLES[document.objective]}", x="trial")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)
    return svg(figure, f"Validation {TITLES[document.objective]} of each trial, and the best so far")


def _importances(importances: dict[str, float]) -> "Markup":
    figure = new_figure(6, 0.9 + 0.36 * len(importances))
    axes = figure.add_subplot()
    rows = sorted(importances.items(), key=lambda item: item[1])
    axes.barh([short(key) for key, _ in rows], [value for _, value in rows], color=BLUE, height=0.6)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    style_axes(axes, "Importance: share of the variance")
    return svg(figure, "Importance of each setting, as its share of the variance of the score")


def _coordinates(document: Tuning, complete: Sequence[TunedTrial]) -> "Markup":
    """Parallel coordinates: one line a complete trial, through its values and its score; the best one on top."""
    keys = list(document.best.values)[:MAX_AXES]
    axes_of = [_Scale.of(key, [trial.values[key] for trial in complete], _is_log(document, key)) for key in keys]
    score = _Scale.of(TITLES[document.objective], [trial.value for trial in complete], False)
    scales = [*axes_of, score]
    figure = new_figure(max(10.5, 1.15 * len(scales)), 3.8)
    axes = figure.add_subplot()
    lines = np.array([scale.positions for scale in scales]).T
    sign = 1 if document.objective == "accuracy" else -1
    order = np.argsort([sign * (trial.value or 0.0) for trial in complete], kind="stable")
    quality = np.linspace(0, 1, len(complete))
    for rank, index in zip(quality, order, strict=True):
        best = complete[index].number == document.best.number
        axes.plot(
            range(len(scales)), lines[index], linewidth=2.4 if best else 1.1,
            color=RED if best else BLUE, alpha=1 if best else 0.12 + 0.5 * rank, zorder=3 if best else 2,
        )  # fmt: skip
    _draw_scales(axes, scales)
    return svg(figure, "Parallel coordinates of the complete trials")


class _Scale:
    """One axis of parallel coordinates: where each trial's value is, from 0 to 1, and the texts at its ends."""

    def __init__(self, title: str, positions: list[float], ticks: dict[float, str]) -> None:
        self.title, self.positions, self.ticks = title, positions, ticks

    @classmethod
    def of(cls, title: str, values: Sequence[Any], log: bool) -> "_Scale":
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers = [math.log(value) if log else float(value) for value in values]
            low, width = min(numbers), (max(numbers) - min(numbers)) or 1.0
            ticks = {0.0: f"{min(values):.3g}", (max(numbers) - low) / width: f"{max(values):.3g}"}
            return cls(title, [(number - low) / width for number in numbers], ticks)
        names = sorted({str(value) for value in values})
        step = 1 / max(len(names) - 1, 1)
        return cls(
            title, [names.index(str(value)) * step for value in values],
            {index * step: short(name) for index, name in enumerate(names)},
        )  # fmt: skip


def _draw_scales(axes: "Axes", scales: Sequence[_Scale]) -> None:
    for x, scale in enumerate(scales):
        axes.axvline(x, color=GREY, linewidth=0.8, zorder=1)
        for y, text in scale.ticks.items():
            below = y < 0.5
            axes.annotate(
                text, (x, y), xytext=(0, -4 if below else 4), textcoords="offset points", ha="center",
                va="top" if below else "bottom", fontsize=8, color=INK, parse_math=False,
            )  # fmt: skip
    titles = [scale.title.replace("augment.", "").replace("_", "\n") for scale in scales]
    axes.set_xticks(range(len(scales)), titles, fontsize=8.5, color=INK)
    axes.tick_params(axis="x", length=0, pad=14)
    axes.set_yticks([])
    axes.set_ylim(-0.09, 1.09)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.set_title("Parallel coordinates", loc="left", fontsize=10.5, fontweight="bold", color=INK)


def _is_log(document: Tuning, key: str) -> bool:
    table: Any = document.space
    for name in key.split("."):
        table = table[name]
    return bool(table.get("log", False))
