"""The progress of a training as lines of JSON."""

import json

from foveola.teaching.announce import METRICS


def lines(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"event"')]


def test_a_training_announces_its_start_epochs_and_end(toy_npz, tiny, tmp_path, foveola_command):
    done = foveola_command(
        "train", toy_npz, "--recipe", tiny, "--out", tmp_path / "run", "--no-report", "--quiet",
        "--callback", "foveola.teaching.announce:Announce",
    )  # fmt: skip
    assert done.code == 0, done.err
    start, *between, end = lines(done.out)
    assert start == {"event": "start", "steps": start["steps"], "epochs": 2}
    assert end == {"event": "end"}
    epochs = [line for line in between if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(set(line) == {"event", "epoch", *METRICS} for line in epochs)
    assert all(0 <= line["val_accuracy"] <= 1 for line in epochs)
    steps = [line["step"] for line in between if line["event"] == "step"]
    assert steps
    assert steps == sorted(steps)
    assert steps[-1] <= start["steps"]


def test_without_validation_images_and_before_the_first_step_metrics_are_null(capsys):
    from types import SimpleNamespace

    from foveola.teaching.announce import Announce

    Announce().on_epoch_end(SimpleNamespace(epoch=0, metrics={"val_loss": float("nan"), "val_accuracy": 0.5}))
    (line,) = lines(capsys.readouterr().out)
    assert line["val_accuracy"] == 0.5
    assert [name for name in METRICS if line[name] is not None] == ["val_accuracy"]


def test_a_listener_that_has_gone_does_not_end_the_training(monkeypatch):
    from types import SimpleNamespace

    from foveola.teaching.announce import Announce

    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    Announce().on_fit_start(SimpleNamespace(steps=3, epochs=1))
