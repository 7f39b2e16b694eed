"""Blocks of the documentation's pages, and how they are run in a folder of small data.

A block of `console` (commands after `$ `, then lines of their output) or `python` is run, unless a comment before it
says why not: `<!-- not run: needs a GPU -->`. Other blocks are only shown, and hold no commands. `python
tests/docs/page_blocks.py` counts them.
"""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from typer.main import get_command

import foveola
from foveola.cli import app, main

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
RUN = ("console", "python")
SHOWN = ("", "ini", "json", "nginx", "pycon", "text", "toml", "yaml")
BLOCK = re.compile(r"(?:^<!-- not run: (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE_ADDRESS = "127.0.0.1:8000"

# Arguments added to commands, so that they take seconds
SMALL = {"train": ["--epochs", "1", "--no-report"], "audit": ["--epochs", "1"], "tune": ["--trials", "1"]}


class Block(NamedTuple):
    """A block of a page; `reason` says why it is not run."""

    language: str
    text: str
    line: int
    reason: str | None


def pages() -> list[Path]:
    """Every page of the documentation, and those of the root."""
    return sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    text = page.read_text("utf-8")
    found = BLOCK.finditer(text)
    return [Block(match[2], match[3], text[: match.start()].count("\n") + 1, match[1]) for match in found]


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines of output below it."""
    text = block.text.replace("\\\n", " ")
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not parts[0], f"a console block begins with a command after '$ ', not with {parts[0]!r}"
    for part in parts[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


class Reader:
    """Does what a page says, as its reader would, in the working folder.

    Parameters
    ----------
    capsys : pytest's fixture, which catches what commands print
    names : Python names that the page takes for given
    """

    def __init__(self, capsys: Any, names: dict[str, Any]) -> None:
        self.capsys = capsys
        self.names = names | {"small_train": small_train}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.address = PAGE_ADDRESS

    def read(self, page: Path) -> int:
        """Run a page's blocks in order; returns how many were run."""
        count = 0
        try:
            for block in blocks(page):
                where = f"{page.name}, line {block.line}"
                if block.language == "toml" and (name := re.match(r"# ([\w-]+\.toml)\n", block.text)):
                    Path(name[1]).write_text(block.text, encoding="utf-8")
                if block.reason is not None or block.language not in RUN:
                    continue
                count += 1
                if block.language == "python":
                    self.python(block.text, where)
                else:
                    for command, shown in commands(block):
                        self.command(command, shown, f"{where}: {command}")
        finally:
            self.stop()
        return count

    def python(self, text: str, where: str) -> None:
        """Run a block with the names of those before it."""
        file = Path(f"{re.sub('[^a-z0-9]+', '-', where)}.py").resolve()
        file.write_text(text.replace("foveola.train(", "small_train(").replace(PAGE_ADDRESS, self.address), "utf-8")
        self.names |= runpy.run_path(str(file), init_globals=self.names)
        file.unlink()
        self.capsys.readouterr()

    def command(self, command: str, shown: list[str], where: str) -> None:
        """Run a command; it must end with 0 and print lines of the form shown, in their order."""
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert words[1] in targets, where
        elif words[:2] == ["foveola", "serve"] or words[:2] == ["foveola", "teach"]:
            self.serve(words, where)
        elif words[:2] == ["foveola", "export"] and "web" in words:  # downloads: tests/serving/test_web_page.py does it
            get_command(app).commands["export"].make_context("export", words[2:])  # type: ignore[attr-defined]
        elif words[0] == "foveola" and not {"|", ">", "<"} & set(words):
            self.foveola(words[1:], shown, where)
        elif words != [".", ".venv/bin/activate"]:  # the tests run in that environment
            self.shell(command, shown, where)

    def foveola(self, words: list[str], shown: list[str], where: str) -> None:
        if "--resume" in words:
            interrupt(Path(words[words.index("--resume") + 1]))
        self.capsys.readouterr()
        code = main(words if shown else smaller(words))
        out, err = self.capsys.readouterr()
        assert code == 0, f"{where} ended with {code}\n{err}"
        check_lines(shown, err + out, where)

    def shell(self, command: str, shown: list[str], where: str) -> None:
        if "foveola train" in command:
            command += f" {shlex.join(SMALL['train'])}"
        done = subprocess.run(
            ["bash", "-c", command.replace(PAGE_ADDRESS, self.address)],
            capture_output=True, text=True, check=False, timeout=600, env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, f"{where} ended with {done.returncode}\n{done.stderr}"
        check_lines(shown, done.stderr + done.stdout, where)

    def serve(self, words: list[str], where: str) -> None:
        """Start a server at a free port; later commands reach it. One that was started before is stopped."""
        self.stop()
        more = ["--port", "0", *(["--no-browser"] if words[1] == "teach" else [])]
        log = Path(".server.log")
        with log.open("w") as file:
            arguments = [PROGRAMS / "foveola", *words[1:], *more]
            self.servers.append(subprocess.Popen(arguments, stderr=file, env=environment()))
        for _ in range(1200):
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", log.read_text("utf-8")):
                self.address = found[1]
                return
            assert self.servers[0].poll() is None, f"{where}\n{log.read_text('utf-8')}"
            time.sleep(0.1)
        raise AssertionError(f"{where}: not ready\n{log.read_text('utf-8')}")

    def stop(self) -> None:
        """End the server as Ctrl+C does; it must end with 0 or 130."""
        while self.servers:
            server = self.servers.pop()
            server.send_signal(signal.SIGINT)
            code = server.wait(60)
            assert code in (0, 130), f"the server ended with {code}"


def smaller(words: list[str]) -> list[str]:
    """A command's words, so that it takes seconds: one epoch, three seconds for a time budget.

    >>> smaller(["train", "mnist", "--budget", "60s"])
    ['train', 'mnist', '--budget', '3s', '--no-report']
    >>> smaller(["compare", "a", "b", "--seeds", "5"])
    ['compare', 'a', 'b', '--seeds', '2']
    """
    words = list(words)
    for option, value in {"--seeds": "2", "--budget": "30s" if words[0] == "tune" else "3s"}.items():
        if option in words:
            words[words.index(option) + 1] = value
    if {"--resume", "--find-rate", "--show-space"} & set(words):
        return words
    more = SMALL.get(words[0], [])
    if words[0] == "train" and ("--budget" in words or any(word.startswith("epochs=") for word in words)):
        more = more[2:]  # how long it is has been said
    return [*words, *more]


def small_train(*arguments: Any, overrides: dict[str, Any] | None = None, **settings: Any) -> foveola.Run:
    """foveola.train for an epoch, without a report."""
    settings = {key: value for key, value in settings.items() if key != "epochs"} | {"report": False}
    return foveola.train(*arguments, overrides={**(overrides or {}), "epochs": 1}, **settings)


def interrupt(run: Path) -> None:
    """Let an interrupted training of my-images lie in the folder, in the place of what was there."""
    words = ["train", "my-images", "--recipe", "mlp", "--epochs", "300", "--no-report", "--out", str(run), "--force"]
    arguments = [PROGRAMS / "foveola", *words]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment()) as training:
        assert training.stderr is not None
        for line in training.stderr:
            if line.startswith("epoch"):
                training.send_signal(signal.SIGTERM)
                break
        training.stderr.read()
    assert training.returncode == 143


def environment() -> dict[str, str]:
    """The environment of the tests, with the programs of their Python first."""
    return os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}


def check_lines(shown: list[str], printed: str, where: str) -> None:
    """Assert that lines of the form shown are printed in this order; numbers may be others, and … is any lines."""
    lines = iter([form(line) for line in printed.splitlines()])
    for line in shown:
        if line.strip() not in ("…", ""):
            assert form(line) in lines, f"{where}: no line as {line!r} was printed in its place; printed:\n{printed}"


def form(line: str) -> str:
    """A line without its numbers and spaces.

    >>> form("test accuracy    0.9961 (95 % CI 0.98–1.0)") == form("test accuracy 1.0000 (95 % CI 0.9894–1.0000)")
    True
    """
    return " ".join(re.sub(r"\d[\d.,]*", "#", line).split())


def count() -> dict[str, int]:
    """How many blocks of commands and Python are run, and how many are not."""
    found = [block for page in pages() for block in blocks(page) if block.language in RUN]
    left_out = sum(block.reason is not None for block in found)
    return {"run": len(found) - left_out, "not run": left_out}


if __name__ == "__main__":
    for page in pages():
        for block in blocks(page):
            if block.reason is not None:
                print(f"{page.relative_to(ROOT)}:{block.line}: not run: {block.reason}")
    print(count())
