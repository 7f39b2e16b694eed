"""Trackers: what TensorBoard, MLflow and Weights & Biases read is what the run's history holds, once each."""

import json
import os
import struct
import sys
from pathlib import Path

import pytest

import foveola
from foveola.errors import MissingExtra, UserError
from foveola.training.trackers import TRACKERS, MLflow, TensorBoard, WandB

PICTURES = {"samples", "curves", "confusion", "mistakes"}
INTERRUPTED_AFTER = 3
SETTINGS = {"epochs": 5, "test": 0.2}


class PowerCut(Exception):
    """Ends a training at a moment at which nothing can be saved."""


class Interrupt(foveola.Callback):
    def __init__(self, after):
        self.after = after

    def on_epoch_start(self, fit):
        if fit.epoch > self.after:
            raise PowerCut


def interrupted_and_resumed(toy_npz, tiny, out, tracker):
    """A training that ended without a checkpoint, so that all its epochs are repeated."""
    with pytest.raises(PowerCut):
        foveola.train(
            toy_npz, tiny, out=out, overrides=SETTINGS, callbacks=[Interrupt(INTERRUPTED_AFTER)], log=tracker,
            checkpoint_every=1e6, report=False, verbose=False,
        )  # fmt: skip
    return foveola.resume(out, callbacks=[Interrupt(99)], verbose=False)


def expected(run):
    """Values by metric and epoch, of history.csv; without the seconds, which are others after a repetition."""
    names = set().union(*run.history) - {"epoch", "step", "seconds"}
    return {name: {int(row["epoch"]): row[name] for row in run.history} for name in names}


def measured(run):
    return {f"test_{name}": estimate.value for name, estimate in run.evaluation.metrics.items()}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No setting of a tracker from outside; what a tracker sets is taken back."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_tensorboard_reads_what_the_history_holds_each_epoch_once(toy_npz, tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = interrupted_and_resumed(toy_npz, tiny, tmp_path / "run", "tensorboard")
    [folder] = (run.path / "tensorboard").iterdir()
    assert len(list(folder.iterdir())) == 2  # before and after
    events = EventAccumulator(str(folder)).Reload()
    for name, values in expected(run).items():
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in logged] == [1, 2, 3, 4, 5]
        assert [value for _, value in logged] == pytest.approx(list(values.values()), rel=1e-6)
    for name, value in measured(run).items():
        assert [event.value for event in events.Scalars(name)] == pytest.approx([value], rel=1e-6)
    assert set(events.Tags()["images"]) == PICTURES
    assert set(events.Tags()["tensors"]) == {"settings/text_summary", "model/text_summary"}
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.strip("`\n"))["recipe"]["epochs"] == 5
    assert not (run.path / "checkpoint").exists()


def test_a_forced_training_has_a_log_of_its_own(toy_npz, tiny, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    for stamp in ("first", "second"):
        monkeypatch.setattr("time.strftime", lambda form, stamp=stamp: stamp)
        run = foveola.train(
            toy_npz, tiny, out=tmp_path / "run", log="tensorboard", force=True, report=False, verbose=False
        )
    assert {folder.name for folder in (run.path / "tensorboard").iterdir()} == {"first", "second"}


def test_a_tracker_that_fails_does_not_end_the_training(toy_npz, tiny, tmp_path, monkeypatch, capsys):
    calls = []

    def fail(self, *arguments):
        calls.append(arguments)
        raise OSError("No space left on device")

    monkeypatch.setattr(TensorBoard, "check", classmethod(lambda cls: None))
    monkeypatch.setattr(TensorBoard, "_open", fail)
    run = foveola.train(toy_npz, tiny, out=tmp_path / "run", log="tensorboard", report=False)
    assert run.status.status == "done"
    assert len(calls) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "Logging with tensorboard has failed, and the training goes on without it: OSError: No space" in err


def test_unknown_and_missing_trackers_are_refused_before_anything_is_written(toy_npz, tiny, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"Unknown tracker 'tensorbord'\. Did you mean 'tensorboard'"):
        foveola.train(toy_npz, tiny, out=tmp_path / "run", log=["tensorbord"], verbose=False)
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtra, match=rf"pip install 'foveola\[{name}\]'"):
            foveola.train(toy_npz, tiny, out=tmp_path / "run", log=name, verbose=False)
    assert not (tmp_path / "run").exists()


def test_packages_are_told_not_to_report_unless_the_environment_says_so(monkeypatch):
    monkeypatch.setattr("foveola.training.trackers.require", lambda package, extra: None)
    MLflow.check()
    WandB.check()
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["WANDB_ERROR_REPORTING"]) == ("true", "false")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    WandB.check()
    assert os.environ["WANDB_ERROR_REPORTING"] == "true"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_mlflow_reads_what_the_history_holds_each_epoch_once(toy_npz, tiny, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run = interrupted_and_resumed(toy_npz, tiny, tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=(run.path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("foveola")
    [logged] = client.search_runs([experiment.experiment_id])
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", "run")
    for name, values in expected(run).items():
        history = client.get_metric_history(logged.info.run_id, name)
        assert {metric.step: metric.value for metric in history} == values
        assert len(history) == 5
    assert {name: logged.data.metrics[name] for name in measured(run)} == measured(run)
    assert logged.data.params["recipe.epochs"] == "5"
    names = [
        item.path for folder in ("pictures", "model") for item in client.list_artifacts(logged.info.run_id, folder)
    ]
    assert {name.removesuffix(".png").removeprefix("pictures/") for name in names if "pictures" in name} == PICTURES
    copied = client.download_artifacts(logged.info.run_id, "model/model.safetensors", str(tmp_path))
    assert Path(copied).read_bytes() == run.model_path.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_mlflow_logs_where_the_environment_says(toy_npz, tiny, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "shared").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "digits")
    run = foveola.train(toy_npz, tiny, out=tmp_path / "run", log="mlflow", report=False, verbose=False)
    client = mlflow.MlflowClient()
    assert len(client.search_runs([client.get_experiment_by_name("digits").experiment_id])) == 1
    assert not (run.path / "mlruns").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Weights & Biases's own
def test_wandb_writes_what_the_history_holds_each_epoch_once_and_sends_nothing(toy_npz, tiny, tmp_path):
    pytest.importorskip("wandb")
    run = interrupted_and_resumed(toy_npz, tiny, tmp_path / "run", "wandb")
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # before and after, of one run
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    records = [record for folder in folders for record in wandb_records(folder)]
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    for name, values in expected(run).items():
        rows = [(row["_step"], row[name]) for row in history if name in row]
        assert [step for step, _ in rows] == [1, 2, 3, 4, 5]
        assert [value for _, value in rows] == pytest.approx(list(values.values()))
    assert {name for row in history for name in row} >= PICTURES
    summary = {
        item.key: json.loads(item.value_json)
        for record in records
        for item in record.summary.update
        if not item.nested_key
    }
    assert {name: summary[name] for name in measured(run)} == pytest.approx(measured(run))
    configured = {item.key: json.loads(item.value_json) for record in records for item in record.run.config.update}
    assert configured["recipe"]["epochs"] == 5
    assert (folders[1] / "files" / "model.safetensors").read_bytes() == run.model_path.read_bytes()


def wandb_records(folder):
    """The records of an offline run: protocol buffers in a log of LevelDB's form, after seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = folder.glob("*.wandb")
    data, position, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32_768 - position % 32_768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last of several parts
            yield Record.FromString(b"".join(parts))
            parts = []
    assert position == len(data)
