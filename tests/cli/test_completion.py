"""Completion in shells: commands, options, recipes and data sets; without PyTorch, because each Tab waits for it."""

import os
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def complete(foveola_command, monkeypatch):
    """What bash is offered for the last of the words."""

    def ask(*words):
        for name, value in asked(words).items():
            monkeypatch.setenv(name, value)
        code, out, err = foveola_command()
        assert (code, err) == (0, "")
        return out.split()

    return ask


def asked(words):
    line = " ".join(["foveola", *words])
    return {"_FOVEOLA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tra"], ["train"]),
        (["train", "--teach"], ["--teacher"]),
        (["train", "kmn"], ["kmnist"]),
        (["train", "mnist", "--recipe", "le"], ["lenet5"]),
        (["train", "mnist", "--recipe", "au"], ["auto"]),
        (["train", "mnist", "--log", "ml"], ["mlflow"]),
        (["train", "mnist", "--device", "m"], ["mps"]),
        (["evaluate", "run", "emnist-l"], ["emnist-letters"]),
        (["summary", "efficientnet-lite0"], ["efficientnet-lite0"]),
        (["predict", "no-such-fi"], []),  # the shell offers files
    ],
)
def test_names_are_completed(complete, words, offered):
    assert complete(*words) == offered


@pytest.mark.parametrize("words", [["train", "kmn"], ["train", "mnist", "--recipe", "le"]])
def test_completing_brings_no_torch(words):
    code = "import sys; from foveola.cli import main; main([]); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked(words), capture_output=True, text=True, check=True
    )
    assert (done.stdout.split(), done.stderr) == ([{"kmn": "kmnist", "le": "lenet5"}[words[-1]]], "False\n")


def test_help_says_how_completion_is_installed(foveola_command):
    code, out, _ = foveola_command("--help")
    assert code == 0
    assert "--install-completion" in out
    assert "--show-completion" in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_script(tmp_path):
    """The script is loaded into a real bash, whose completion function is called as by Tab."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "foveola").write_text(f'#!/bin/sh\nexec {sys.executable} -m foveola "$@"\n')
    (folder / "foveola").chmod(0o755)
    commands = """
        eval "$(foveola --show-completion bash 2>/dev/null || foveola --show-completion)"
        COMP_WORDS=(foveola train fashion) COMP_CWORD=2
        _foveola_completion foveola fashion train
        echo "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", commands], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.split() == ["fashion-mnist"], done.stderr
