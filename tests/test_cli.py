"""The command line: every command, its JSON, its streams, its exit codes."""

import errno
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import foveola
from foveola import cli
from foveola.errors import DownloadError

FOVEOLA = Path(sys.executable).with_name("foveola")
COMMANDS = ("datasets", "recipes", "summary", "train", "evaluate", "predict", "info")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def picture(tmp_path, toy) -> Path:
    from PIL import Image

    Image.fromarray(toy.train.images[0, :, :, 0]).resize((50, 30)).save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


@pytest.fixture
def arguments(toy_npz, toy_run, tiny, picture) -> dict[str, list[object]]:
    """What a good call of each command takes."""
    return {
        "datasets": [],
        "recipes": [],
        "summary": ["lenet5"],
        "train": [toy_npz, "--recipe", tiny, "--out", "run"],
        "evaluate": [toy_run, toy_npz],
        "predict": [toy_run, picture],
        "info": [],
    }


def test_help_lists_the_commands(foveola_command):
    code, out, err = foveola_command("--help")
    assert (code, err) == (0, "")
    listed = [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_an_example(foveola_command, command, option):
    code, out, err = foveola_command(command, option)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: foveola {command} ")
    assert f"foveola {command}" in out.partition("Example")[2]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_on_standard_output(foveola_command, arguments, command):
    code, out, _ = foveola_command(command, *arguments[command], "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("command", COMMANDS)
def test_for_people_a_text_on_standard_output(foveola_command, arguments, command):
    code, out, _ = foveola_command(command, *arguments[command])
    assert code == 0
    assert len(out.splitlines()) > 1
    assert not out.startswith("{")
    assert "\x1b" not in out  # no colours in a pipe


def test_progress_goes_to_standard_error_and_quiet_silences_it(foveola_command, arguments):
    code, out, err = foveola_command("train", *arguments["train"])
    assert code == 0
    assert "epoch 2/2" in err
    assert "epoch" not in out.splitlines()[0]
    code, quiet_out, quiet_err = foveola_command("train", *arguments["train"], "--force", "--quiet")
    assert (code, quiet_err) == (0, "")
    assert quiet_out.splitlines()[0] == out.splitlines()[0]
    assert foveola_command("evaluate", *arguments["evaluate"], "--quiet").err == ""


def test_datasets_names_licence_and_place(foveola_command):
    rows = {row["name"]: row for row in json.loads(foveola_command("datasets", "--json").out)["datasets"]}
    assert rows["digits"]["path"] == "embedded"
    assert {"mnist", "fashion-mnist", "kmnist", "kuzushiji-49", "emnist-letters", "cifar-10"} <= rows.keys()
    assert rows["mnist"].keys() == {
        "name", "title", "train", "test", "image_shape", "classes", "licence", "citation", "path",
    }  # fmt: skip


def test_recipes_are_complete(foveola_command):
    rows = {row["name"]: row for row in json.loads(foveola_command("recipes", "--json").out)["recipes"]}
    assert {"lenet5", "west", "eduonix", "kmnist", "mlp", "fast"} <= rows.keys()
    assert all(row["description"] and row["layers"] for row in rows.values())


@pytest.mark.parametrize(("recipe", "parameters"), [("lenet5", 61_706), ("west", 693_962), ("eduonix", 47_090)])
def test_summary_totals_of_the_tutorials(foveola_command, recipe, parameters):
    document = json.loads(foveola_command("summary", recipe, "--json").out)
    assert document["parameters"] == parameters == sum(layer["parameters"] for layer in document["layers"])
    assert f"Total parameters: {parameters:,}" in foveola_command("summary", recipe).out


def test_summary_takes_image_classes_and_settings_and_draws(foveola_command):
    code, out, _ = foveola_command(
        "summary", "mlp", "--image", "8X8x1", "--classes", 3, "--set", "pad=1", "--diagram", "mlp.svg", "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["input_shape"] == [10, 10, 1]
    assert document["layers"][-1]["output_shape"] == [3]
    assert Path("mlp.svg").read_text().startswith("<?xml")


def test_train_says_what_it_reached_and_where_the_run_lies(foveola_command, arguments):
    code, out, _ = foveola_command("train", *arguments["train"])
    accuracy = foveola.Run.open(Path("run")).evaluation["accuracy"]
    assert code == 0
    assert f"{accuracy['value']:.4f} (95 % CI {accuracy['low']:.4f}–{accuracy['high']:.4f})" in out
    assert out.splitlines()[-1].split() == ["run", "run"]


def test_train_without_test_images_says_so(foveola_command, arguments):
    code, out, _ = foveola_command("train", *arguments["train"], "--set", "test=0")
    assert code == 0
    assert "not measured" in out
    code, out, _ = foveola_command("train", *arguments["train"], "--set", "test=0", "--force", "--json")
    assert code == 0
    assert json.loads(out)["evaluation"] is None


def test_train_json_holds_run_and_evaluation(foveola_command, arguments):
    document = json.loads(foveola_command("train", *arguments["train"], "--json").out)
    run = foveola.Run.open(Path("run"))
    assert document == {"run": "run", **run.status, "evaluation": run.evaluation}


def test_epochs_and_settings_reach_the_recipe(foveola_command, arguments):
    document = json.loads(
        foveola_command(
            "train", *arguments["train"], "--epochs", 1, "--set", "learning_rate=0.02", "--set", "augment.shift=1",
            "--seed", 5, "--json",
        ).out
    )  # fmt: skip
    assert document["epochs"] == document["recipe"]["epochs"] == 1
    assert document["recipe"]["learning_rate"] == 0.02
    assert document["recipe"]["augment"]["shift"] == 1
    assert document["seed"] == 5


def test_default_run_folders_are_numbered(foveola_command, toy_npz, tiny):
    runs = [json.loads(foveola_command("train", toy_npz, "-r", tiny, "--json").out)["run"] for _ in range(3)]
    assert runs == ["runs/toy-tiny", "runs/toy-tiny-2", "runs/toy-tiny-3"]


def test_evaluate_writes_the_same_document(foveola_command, arguments):
    code, out, _ = foveola_command("evaluate", *arguments["evaluate"], "--json", "--out", "figures.json")
    assert code == 0
    assert json.loads(Path("figures.json").read_text()) == json.loads(out)


def test_predict_names_class_and_probability(foveola_command, arguments, picture):
    code, out, _ = foveola_command("predict", *arguments["predict"], "--top", 2, "--json")
    assert code == 0
    (answer,) = json.loads(out)["predictions"]
    assert answer["image"] == str(picture)
    assert answer["top"][0] == {"class": answer["class"], "probability": answer["probability"]}
    assert len(answer["top"]) == 2
    text = foveola_command("predict", *arguments["predict"]).out
    assert f"{answer['class']}" in text
    assert f"{answer['probability']:.3f}" in text


def test_info_names_versions_and_folders(foveola_command):
    document = json.loads(foveola_command("info", "--json").out)
    assert document["versions"]["torch"] == importlib.metadata.version("torch")
    assert document["versions"]["foveola"] == foveola.__version__
    assert {"data_folder", "cache_folder", "processors", "device", "precision"} <= document.keys()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DownloadError("No source answered."), 1, "foveola: No source answered.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "run"), 1, "No space left on device: 'run'"),
        (PermissionError(errno.EACCES, "Permission denied", "run"), 1, "Permission denied: 'run'"),
        (MemoryError(), 1, "--set image_size="),
        (KeyboardInterrupt(), 130, "foveola: Interrupted.\n"),
    ],
)
def test_what_is_not_the_users_doing(foveola_command, monkeypatch, error, code, message):
    def fail():
        raise error

    monkeypatch.setattr("foveola.workflow.machine.describe", fail)
    outcome = foveola_command("info")
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr("foveola.workflow.machine.describe", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


def test_a_diverged_training_ends_with_1_and_leaves_finite_weights(foveola_command, arguments):
    from safetensors.numpy import load_file

    code, out, err = foveola_command(
        "train", *arguments["train"], "--set", "optimizer=sgd", "--set", "learning_rate=1e38", "--json"
    )
    assert (code, out) == (1, "")
    assert "not finite" in err
    assert "--set learning_rate=" in err
    assert foveola.Run.open(Path("run")).status["status"] == "diverged"
    assert all(np.isfinite(weights).all() for weights in load_file("run/model.safetensors").values())


def test_whoever_closes_the_pipe_gets_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([FOVEOLA, "recipes"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_an_interrupt_ends_with_130_and_leaves_a_readable_run(toy_npz, tiny, foveola_command):
    process = subprocess.Popen(
        [FOVEOLA, "train", toy_npz, "--recipe", tiny, "--epochs", "1000000", "--out", "run"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(600):
        if Path("run/history.csv").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("foveola: Interrupted.\n")
    assert "Traceback" not in err
    status = foveola.Run.open(Path("run")).status
    assert status["status"] == "interrupted"
    assert status["epochs"] >= 1
    assert foveola_command("evaluate", "run", toy_npz).code == 0


def test_the_same_seed_gives_the_same_bytes(foveola_command, toy_npz, tiny):
    for out, seed in (("one", 7), ("two", 7), ("three", 8)):
        assert foveola_command("train", toy_npz, "--recipe", tiny, "--seed", seed, "--out", out).code == 0
    one, two, three = (Path(run, "model.safetensors").read_bytes() for run in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_importing_foveola_brings_no_torch():
    code = "import sys, foveola, foveola.cli, foveola.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_every_public_name_can_be_had():
    assert {name for name in foveola.__all__ if getattr(foveola, name) is None} == set()
    assert set(foveola.__all__) <= set(dir(foveola))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = foveola.trian
