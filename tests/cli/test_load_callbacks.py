"""`train --callback package.module:Class`: found, refused in plain words, and named again by --resume."""

import json
import sys
from pathlib import Path

import pytest

STOPPING = """
import foveola

class StopAt(foveola.Callback):
    def on_epoch_end(self, fit):
        fit.metrics["seen_by_mine"] = fit.epoch
        fit.stop = fit.epoch >= 2

class Takes(foveola.Callback):
    def __init__(self, accuracy):
        self.accuracy = accuracy

class FailsOnce(foveola.Callback):
    def on_epoch_end(self, fit):
        from pathlib import Path
        if not Path("repaired").exists():
            raise KeyError("val_acc")

class Unrelated:
    pass

number = 3
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Modules in the working folder, which are forgotten afterwards."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "stopping.py").write_text(STOPPING)
    (tmp_path / "needs.py").write_text("import no_such_package_here")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "empty_module.py").write_text("")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in ("mine", "mine.stopping", "needs", "wrong", "empty_module"):
        sys.modules.pop(name, None)


def test_a_class_of_the_working_folder_is_called(foveola_command, arguments):
    code, out, _ = foveola_command(
        "train", *arguments["train"], "--epochs", 9, "--callback", "mine.stopping:StopAt", "--no-report", "--json"
    )
    assert (code, json.loads(out)["epochs"]) == (0, 2)
    assert "seen_by_mine" in Path("run/history.csv").read_text()


def test_several_are_called_in_their_order(foveola_command, arguments):
    code, out, _ = foveola_command(
        "train", *arguments["train"], "--epochs", 9, "--no-report", "--json",
        "--callback", "foveola.training.callbacks:EarlyStopping", "--callback", "mine.stopping:StopAt",
    )  # fmt: skip
    assert (code, json.loads(out)["epochs"]) == (0, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.stopping", "it should be MODULE:CLASS, such as stopping:StopAt"),
        ("mine/stopping.py:StopAt", "it should be MODULE:CLASS"),
        ("mine.stoping:StopAt", "there is no module mine.stoping, neither in"),
        ("mine.stopping.py:StopAt", "Name a module as for `import`, without .py"),
        ("mine.stopping:StopsAt", "Unknown class 'StopsAt'. Did you mean 'StopAt'?"),
        ("empty_module:StopAt", "There is no class 'StopAt'. Check its name."),
        ("mine.stopping:Unrelated", "Make Unrelated a subclass of foveola.Callback"),
        ("mine.stopping:number", "is not a training callback"),
        ("mine.stopping:Takes", "It is called without arguments: give them defaults"),
        ("needs:StopAt", "importing needs fails with ModuleNotFoundError: No module named 'no_such_package_here'"),
        ("wrong:StopAt", "importing wrong fails with SyntaxError"),
    ],
)
def test_what_cannot_be_used_is_explained(foveola_command, arguments, name, message):
    code, out, err = foveola_command("train", *arguments["train"], "--callback", name)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not Path("run").exists()


def test_a_training_goes_on_with_the_callbacks_that_the_command_line_names(foveola_command, arguments, capsys):
    with pytest.raises(KeyError):  # an error in somebody's own code is shown as Python shows it
        foveola_command("train", *arguments["train"], "--callback", "mine.stopping:FailsOnce", "--no-report")
    again = "foveola train --resume run --callback mine.stopping:FailsOnce"
    assert f"To go on with it: {again}" in capsys.readouterr().err
    Path("repaired").touch()
    code, _, err = foveola_command("train", "--resume", "run")  # the run's folder alone runs no code
    assert code == 2
    assert "foveola train --resume RUN --callback mine.stopping:FailsOnce" in err
    code, _, err = foveola_command("train", "--resume", "run", "--callback", "mine.stopping:StopAt")
    assert (code, "Give the same, in the same order" in err) == (2, True)
    code, out, _ = foveola_command(*again.split()[1:], "--json")
    assert (code, json.loads(out)["status"]) == (0, "done")
