"""Damage to the files of a run is seen: a hundred alterations of benchmarks/damage.py, and every command on rubbish."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveola.errors import ModelError
from foveola.files import CHECKSUM_FILE, record_checksum
from foveola.runs import Run
from foveola.workflow.open import model_path

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "damage.py"
ALTERATIONS = 108


@pytest.fixture(scope="module")
def damage():
    spec = importlib.util.spec_from_file_location("damage", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_altered_files_are_refused_by_name_or_give_the_same_answer(damage, tmp_path):
    trial = damage.Trial(damage.make_runs(tmp_path), tmp_path)
    outcomes = dict(trial.alter(number, 0) for number in range(ALTERATIONS))
    assert {what.rpartition(" ")[2] for what in outcomes} == set(damage.KINDS)
    assert {what for what, outcome in outcomes.items() if outcome != "refused"} <= {
        # A line that is no checksum any more names no file
        f"{folder}{CHECKSUM_FILE} {kind}"
        for folder in ("", "exports/")
        for kind in damage.KINDS[:-1]
    }
    assert set(outcomes.values()) == {"refused", "same answer"}


# Without SHA256SUMS, as in older runs, rubbish reaches the parsers

RUBBISH = {
    "deep": b'{"format":' + b"[" * 100_000,
    "digits": b'{"format":1' + b"0" * 5000 + b"}",
    "nul": bytes(64),
    "utf-16": '{"format": 1}'.encode("utf-16"),
    "not a number": b'{"format": NaN}',
    "list": b"[1, 2]",
    "empty": b"",
}


@pytest.fixture
def older_run(toy_run, tmp_path):
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    (run / CHECKSUM_FILE).unlink()
    return run


@pytest.fixture
def picture(tmp_path, toy):
    Image.fromarray(toy.train.images[0, ..., 0]).save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


def commands(run, data, picture):
    return {
        "report": ["report", run],
        "evaluate": ["evaluate", run, data],
        "compare": ["compare", run, run],
        "explain": ["explain", run, picture],
        "export": ["export", run],
        "predict": ["predict", run, picture],
        "serve": ["serve", run, "--port", "0"],
        "train": ["train", data, "--init", run],
    }


@pytest.mark.parametrize("kind", RUBBISH)
def test_every_command_refuses_a_rubbish_run_json(older_run, toy_npz, picture, foveola_command, kind, monkeypatch):
    monkeypatch.chdir(older_run.parent)
    (older_run / "run.json").write_bytes(RUBBISH[kind])
    for name, command in commands(older_run, toy_npz, picture).items():
        code, _, err = foveola_command(*command)
        assert code == 2, name
        assert "run.json" in err and "damaged" in err, name


@pytest.mark.parametrize("kind", RUBBISH)
def test_a_rubbish_evaluation_is_refused(older_run, foveola_command, kind):
    (older_run / "evaluation.json").write_bytes(RUBBISH[kind])
    code, _, err = foveola_command("report", older_run)
    assert code == 2
    assert "evaluation.json" in err and "damaged" in err


@pytest.mark.parametrize(
    "content",
    [
        b"epoch,step,loss\n1,2,abc\n",
        b"epoch,step,loss\n1,2\n",
        b"epoch,step\n1,2,3\n",
        b"loss\n0.5\n",
        b"epoch,step,loss\n" + b"9" * 200_000 + b",1,1\n",
        b'epoch,step\n"1,2\n',
        b"epoch,step\n\0,1\n",
        b"\xff\xfe\n1\n",
        b"epoch,step,loss\n1,nan,3\n",
        b"epoch,step,loss\n1,,3\n",
    ],
)
def test_a_rubbish_history_is_refused(older_run, foveola_command, content):
    (older_run / "history.csv").write_bytes(content)
    code, _, err = foveola_command("report", older_run)
    assert code == 2
    assert "history.csv is damaged" in " ".join(err.split())


@pytest.mark.parametrize("loss", ["inf", "nan", "1e300"])
def test_the_report_draws_a_history_with_any_number(older_run, foveola_command, loss):
    (older_run / "history.csv").write_text(f"epoch,step,loss\n1,2,0.5\n2,4,{loss}\n")
    code, _, err = foveola_command("report", older_run)
    assert code == 0, err


def test_files_that_are_too_large_are_not_read(older_run):
    with (older_run / "evaluation.json").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(ModelError, match=r"evaluation\.json is not read: it has 134,217,728 bytes"):
        _ = Run.open(older_run).evaluation


def test_a_file_of_another_run_is_refused(toy_run, tmp_path):
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    for name in ("run.json", "evaluation.json", "history.csv", "model.safetensors", "recipe.toml"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content + b" ")
        with pytest.raises(ModelError, match=rf"{name} is not the file that SHA256SUMS names.*([Tt]rain|[Cc]opy)"):
            read_all(run)
        (run / name).write_bytes(content)
    read_all(run)


def read_all(path):
    from foveola.models.model_file import read_metadata
    from foveola.recipe import RecipeError, load_recipe

    run = Run.open(path)
    _ = (run.evaluation, run.history)
    read_metadata(run.model_path)
    try:
        load_recipe(path / "recipe.toml")
    except RecipeError as error:
        raise ModelError(str(error)) from None


@pytest.mark.parametrize(("status", "reason"), [("diverged", "lower learning rate"), ("failed", "Train again")])
def test_a_run_that_has_not_ended_well_is_not_opened(
    older_run, toy_npz, picture, foveola_command, status, reason, monkeypatch
):
    monkeypatch.chdir(older_run.parent)
    run = Run.open(older_run)
    run.write_status(run.status.model_copy(update={"status": status}))
    for name, command in commands(older_run, toy_npz, picture).items():
        code, _, err = foveola_command(*command)
        assert code == 2, name
        assert status in err and "rain" in err, name
    with pytest.raises(ModelError, match=f"has {status}.*{reason}"):
        model_path(older_run)


def test_an_interrupted_run_is_opened(older_run):
    run = Run.open(older_run)
    run.write_status(run.status.model_copy(update={"status": "interrupted"}))
    assert model_path(older_run).name == "model.safetensors"


def test_writing_a_document_of_a_finished_run_keeps_its_checksum_right(toy_run, tmp_path):
    run = Run.open(shutil.copytree(toy_run, tmp_path / "run"))
    run.write_evaluation(run.evaluation.model_copy(update={"n": 7}))
    assert Run.open(run.path).evaluation.n == 7
    record_checksum(run.history_path)
    np.testing.assert_equal(run.history, Run.open(toy_run).history)
