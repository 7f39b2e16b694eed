"""`train`: what it prints, options that reach the recipe, and the run's folder."""

import json
from pathlib import Path

import torch

import foveola


def test_train_prints_accuracy_and_path_of_the_run(foveola_command, arguments):
    code, out, _ = foveola_command("train", *arguments["train"])
    accuracy = foveola.Run.open(Path("run")).evaluation.accuracy
    assert code == 0
    assert f"{accuracy.value:.4f} (95 % CI {accuracy.low:.4f}–{accuracy.high:.4f})" in out
    assert [line.split() for line in out.splitlines()[-2:]] == [["run", "run"], ["report", "run/report.html"]]


def test_train_without_test_images_reports_no_accuracy(foveola_command, arguments):
    code, out, _ = foveola_command("train", *arguments["train"], "--set", "test=0")
    assert code == 0
    assert "not measured" in out
    code, out, _ = foveola_command("train", *arguments["train"], "--set", "test=0", "--force", "--json")
    assert code == 0
    assert json.loads(out)["evaluation"] is None


def test_train_json_holds_run_and_evaluation(foveola_command, arguments):
    document = json.loads(foveola_command("train", *arguments["train"], "--json").out)
    run = foveola.Run.open(Path("run"))
    status, evaluation = json.loads(run.status.to_json()), json.loads(run.evaluation.to_json())
    assert document == {"run": "run", **status, "evaluation": evaluation}


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


def test_the_same_seed_gives_the_same_bytes(foveola_command, toy_npz, tiny):
    for out, seed in (("one", 7), ("two", 7), ("three", 8)):
        assert foveola_command("train", toy_npz, "--recipe", tiny, "--seed", seed, "--out", out).code == 0
    one, two, three = (Path(run, "model.safetensors").read_bytes() for run in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_reject_reaches_recipe_model_and_metrics(foveola_command, arguments, toy_npz):
    command = ["train", *arguments["train"], "--epochs", 10, "--reject", 0.3, "--reject-on-average", "--json"]
    document = json.loads(foveola_command(*command).out)
    assert document["recipe"]["reject"] == document["reject"]["error"] == 0.3
    assert document["evaluation"]["rejection"]["threshold"] == document["reject"]["threshold"]
    for again in (
        ["train", *arguments["train"], "--reject", 0.3, "--reject-on-average", "--force"],
        ["evaluate", "run", toy_npz],
    ):
        text = foveola_command(*again).out
        assert "coverage (target error 30.00%, on average)" in text
        assert "error of confident predictions" in text


def test_the_number_of_threads_is_chosen_and_recorded(foveola_command, arguments):
    before = torch.get_num_threads()
    try:
        chosen = json.loads(foveola_command("train", *arguments["train"], "--threads", before + 1, "--json").out)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    default = json.loads(foveola_command("train", *arguments["train"], "--force", "--json").out)
    assert (chosen["threads"], default["threads"]) == (before + 1, before)
    assert chosen["processor"] == torch.backends.cpu.get_cpu_capability()
    assert foveola_command("train", *arguments["train"], "--threads", 0).code == 2


def test_a_promise_that_cannot_be_made_says_what_it_would_take(foveola_command, arguments):
    _, out, _ = foveola_command("train", *arguments["train"], "--reject", 0.01)
    text = " ".join(out.split())
    assert "validation images are too few to promise an error of 1 % with 90 % confidence" in text
    assert "Without a mistake it takes 299" in text
    code, _, err = foveola_command("train", *arguments["train"], "--force", "--reject-on-average")
    assert (code, "Add --reject 0.01" in err) == (2, True)
