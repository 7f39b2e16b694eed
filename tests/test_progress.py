"""Progress in notebooks: one place below the cell, plain lines on standard output."""

import io
import sys
import time
import types

import pytest

from foveola import progress
from foveola.progress import NotebookBar, console, duration_text, show_progress


class Shown:
    """What IPython.display.display returns: a place whose content can be replaced."""

    def __init__(self, content):
        self.contents = [content]

    def update(self, content):
        self.contents.append(content)


@pytest.fixture
def jupyter(monkeypatch):
    """As in a kernel of Jupyter, whose environment demands colours; returns the places below the cell."""
    places = []

    def display(content, display_id):
        assert display_id is True
        places.append(Shown(content))
        return places[-1]

    module = types.ModuleType("IPython.display")
    module.display, module.HTML = display, str
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    return places


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a tenth of a second at each look."""
    now = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(now) / 10)


def test_lines_are_plain_and_on_standard_output(jupyter, capsys):
    console(True).print("epoch 1/2", soft_wrap=True)
    assert capsys.readouterr() == ("epoch 1/2\n", "")
    console(False).print("nothing")
    assert capsys.readouterr() == ("", "")


def test_a_command_that_a_cell_has_started_is_not_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert console(True).is_terminal
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not console(True).is_terminal


def test_a_bar_has_one_place_which_is_empty_at_the_end(jupyter, clock, capsys):
    with show_progress(console(True)) as report:
        for done in range(1, 101):
            report(done, 100, "images <b>")
    (place,) = jupyter
    assert 2 < len(place.contents) < 50
    assert place.contents[-1] == ""
    bars = place.contents[:-1]
    assert all(bar.startswith('<progress value="') and "images &lt;b&gt;: " in bar for bar in bars)
    assert "of 100" in bars[-1]
    assert capsys.readouterr() == ("", "")


def test_short_or_quiet_work_shows_nothing(jupyter, clock):
    NotebookBar()(1, None, "images")
    with show_progress(console(False)) as report:
        for done in range(100):
            report(done, None, "images")
    assert jupyter == []


def test_a_training_shows_its_steps(jupyter, clock, monkeypatch):
    from rich.console import Console

    from foveola.training.callbacks import ProgressBar

    monkeypatch.setattr("foveola.training.callbacks.in_notebook", lambda: True)
    file = io.StringIO()
    bar = ProgressBar(Console(file=file, force_terminal=False))
    metrics = {"loss": 0.5, "accuracy": 0.75}
    fit = types.SimpleNamespace(step=0, steps=400, epoch=0, epochs=200, stop=False, metrics=metrics, best_epoch=200)
    bar.on_fit_start(fit)
    for fit.epoch in range(1, 201):
        for _ in range(2):
            fit.step += 1
            bar.on_step_end(fit)
        bar.on_epoch_end(fit)
    bar.on_fit_end(fit)
    (place,) = jupyter
    assert "training, steps" in place.contents[0]
    assert place.contents[-1] == ""
    lines = file.getvalue().splitlines()
    assert len(lines) < 20, "a notebook keeps every line"
    assert lines[-1].startswith("epoch 200/200")


def test_durations_are_said_in_seconds_minutes_or_hours():
    texts = ["0.0 s", "119.9 s", "2 min 0 s", "29 min 2 s", "1 h 0 min", "2 h 2 min"]
    assert list(map(duration_text, (0.01, 119.94, 119.96, 1742.2, 3599.7, 7321))) == texts
