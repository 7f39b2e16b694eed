"""Every command: help, JSON, standard output and standard error."""

import json
import re
import tomllib

import pytest
import torch

import foveola

COMMANDS = (
    "datasets",
    "pack",
    "audit",
    "recipes",
    "summary",
    "train",
    "tune",
    "evaluate",
    "report",
    "compare",
    "explain",
    "convolve",
    "predict",
    "export",
    "import",
    "serve",
    "teach",
    "info",
    "help",
)


# `serve` and `teach` run until they are stopped, and `help` is text
COMPUTING = ("audit", "train", "tune", "evaluate", "report", "compare", "explain", "predict", "export")
ENDING = tuple(command for command in COMMANDS if command not in ("serve", "teach", "help"))


def test_help_lists_the_commands(foveola_command):
    code, out, err = foveola_command("--help")
    assert (code, err) == (0, "")
    panels = out[out.index("Data:\n") :]
    assert re.findall(r"^  (\S+) ", panels, re.MULTILINE) == list(COMMANDS)
    titles = re.findall(r"^(\S+):$", panels, re.MULTILINE)
    assert titles == ["Data", "Training", "Evaluation", "Explanation", "Deployment", "Information"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help_with_an_example(foveola_command, command, option):
    code, out, err = foveola_command(command, option)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: foveola {command} ")
    assert f"foveola {command}" in out.partition("Example")[2]
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ENDING)
def test_json_is_one_document_on_standard_output(foveola_command, arguments, command):
    code, out, _ = foveola_command(command, *arguments[command], "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("command", ENDING)
def test_without_json_a_text_on_standard_output_and_with_quiet_nothing_else(foveola_command, arguments, command):
    before = torch.get_num_threads()
    threads = ["--threads", before + 1] if command in COMPUTING else []
    try:
        code, out, err = foveola_command(command, *arguments[command], "--quiet", *threads)
        assert torch.get_num_threads() == before + len(threads) // 2
    finally:
        torch.set_num_threads(before)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) > 1
    assert not out.startswith("{")
    assert "\x1b" not in out  # no colours in a pipe


def test_progress_goes_to_standard_error_and_quiet_suppresses_it(foveola_command, arguments):
    code, out, err = foveola_command("train", *arguments["train"])
    assert code == 0
    assert "epoch 2/2" in err
    assert "epoch" not in out.splitlines()[0]
    code, quiet_out, quiet_err = foveola_command("train", *arguments["train"], "--force", "--quiet")
    assert (code, quiet_err) == (0, "")
    assert quiet_out.splitlines()[0] == out.splitlines()[0]
    assert foveola_command("evaluate", *arguments["evaluate"], "--quiet").err == ""


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version(foveola_command, option):
    assert foveola_command(option) == (0, f"foveola {foveola.__version__}\n", "")


def test_help_is_a_command_too(foveola_command):
    assert foveola_command("help") == foveola_command("--help")
    assert foveola_command("help", "train") == foveola_command("train", "--help")
    code, _, err = foveola_command("help", "trian")
    assert (code, "Did you mean 'train'?" in err) == (2, True)


def test_threads_reach_an_export_without_torch_being_asked(foveola_command, arguments, image_file, monkeypatch):
    from foveola.exports import onnx

    assert foveola_command("export", *arguments["export"]).code == 0
    asked = []
    opened = onnx.open
    monkeypatch.setattr(onnx, "open", lambda path, threads=None: asked.append(threads) or opened(path, threads))
    assert foveola_command("predict", "model.onnx", image_file, "--threads", 3).code == 0
    assert asked == [3]


def test_a_search_space_is_shown_as_toml_and_as_json(foveola_command, arguments):
    text = foveola_command("tune", *arguments["tune"], "--show-space").out
    document = json.loads(foveola_command("tune", *arguments["tune"], "--show-space", "--json").out)
    assert document["space"] == tomllib.loads(text)
