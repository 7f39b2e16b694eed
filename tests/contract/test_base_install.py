"""What an install without extras is for: exported models predict, are measured and served, without PyTorch.

Quickly: in this environment, with every distribution out of sight that such an install would not bring. Slowly: in an
environment of its own, made from what the Dockerfile copies.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import foveola
from foveola.workflow.export import export

ROOT = Path(__file__).parents[2]
# What the Dockerfile copies
COPIED = [
    name
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for name in line.split()
]

# Names that are given as the first argument are not found, as if nothing of theirs were installed
HIDING = """
import sys
from importlib.machinery import PathFinder

hidden = set(sys.argv[1].split(","))


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)


sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from foveola.cli import main

sys.exit(main(sys.argv[2:]))
"""


def base_install():
    """The distributions that `pip install .` brings, by what pyproject.toml and their own metadata say."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting, seen = [(Requirement(line), "") for line in project["dependencies"]], set()
    while waiting:
        requirement, parents_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": parents_extra}):
            continue
        for extra in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(Requirement(line), extra) for line in metadata.requires(name) or ()]
    return {name for name, _ in seen}


def outside():
    """What can be imported here, but not in a base install."""
    base = base_install() | {"foveola"}
    modules = metadata.packages_distributions().items()
    return {module for module, names in modules if base.isdisjoint(map(canonicalize_name, names))}


def flat(document, place=""):
    """Every value of a document by its place; such can be compared approximately."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        return {name: value for key, inner in items for name, value in flat(inner, f"{place}/{key}").items()}
    return {place: document}


def environment():
    """Without what would lead another Python to this one's packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def exported(toy_run, toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "model.onnx"
    return export(toy_run, data=toy, out=out, verbose=False).path


@pytest.fixture(scope="module")
def picture(toy, tmp_path_factory):
    """Dark on light, larger than the training images: the doctor has something to say and to mend."""
    path = tmp_path_factory.mktemp("pictures") / "dark.png"
    Image.fromarray(255 - toy.train.images[25, :, :, 0]).resize((50, 50)).save(path)
    return path


@pytest.fixture(scope="module")
def hidden():
    names = outside()
    assert {"torch", "onnx", "matplotlib", "jinja2", "cleanlab", "torchcam", "pandas", "pytest"} <= names
    assert {"foveola", "onnxruntime", "sklearn", "scipy", "pooch", "fastapi", "uvicorn"}.isdisjoint(names)
    return ",".join(sorted(names))


@pytest.fixture(scope="module")
def base(hidden):
    """Run a command that finds nothing but the base install."""

    def run(*arguments):
        command = [sys.executable, "-c", HIDING, hidden, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    return run


def same_figures(text, run):
    assert flat(json.loads(text)) == pytest.approx(flat(foveola.Run.open(run).evaluation), abs=1e-6)


def same_answers(text, run, picture):
    (found,) = json.loads(text)["predictions"]
    (expected,) = foveola.predict(run, [picture], fix=["auto"], verbose=False)
    assert dict(expected.top) == pytest.approx({top["class"]: top["probability"] for top in found["top"]}, abs=1e-6)
    assert (found["class"], found["fixes"]) == (expected.class_name, list(expected.fixes))
    assert [finding["text"] for finding in found["findings"]] == [finding.text for finding in expected.findings]
    assert found["fixes"]


def test_an_export_is_measured_to_the_runs_own_figures(base, exported, toy_npz, toy_run):
    done = base("evaluate", exported, toy_npz, "--json")
    assert done.returncode == 0, done.stderr
    same_figures(done.stdout, toy_run)


def test_an_export_answers_as_its_run(base, exported, picture, toy_run):
    done = base("predict", exported, picture, "--fix", "auto", "--json")
    assert done.returncode == 0, done.stderr
    same_answers(done.stdout, toy_run, picture)


@pytest.mark.parametrize("command", ["datasets", "recipes", "summary lenet5", "info", "--help"])
def test_what_computes_nothing_works(base, command):
    done = base(*command.split())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["train digits", "predict RUN PICTURE", "explain RUN PICTURE", "audit digits"])
def test_what_needs_more_says_what_to_install(base, command, toy_run, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"RUN": toy_run, "PICTURE": picture}
    done = base(*(known.get(word, word) for word in command.split()))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("foveola: This needs torch, which is not installed.")
    assert "pip install 'foveola[train]'" in done.stderr
    assert not any(tmp_path.iterdir())


# In an environment of its own


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder with the programs of an environment that holds the base install and nothing else."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("environment")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, env=environment())
    pip = [folder / "bin" / "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "--constraint", source / "constraints.txt", source], check=True, env=environment())
    return folder / "bin"


@pytest.fixture
def alone(installed, tmp_path):
    """Run a program of that environment, in an empty folder."""

    def run(program, *arguments):
        command = [installed / program, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment(), cwd=tmp_path, timeout=300
        ).stdout

    return run


@pytest.mark.slow
def test_nothing_else_is_installed(alone):
    names = {canonicalize_name(row["name"]) for row in json.loads(alone("pip", "list", "--format", "json"))}
    assert names - {"pip", "setuptools"} == base_install() | {"foveola"}
    assert "torch" not in names
    assert alone("python", "-c", "import importlib.util; print(importlib.util.find_spec('torch'))") == "None\n"


@pytest.mark.slow
def test_there_too_an_export_is_measured_and_answers_as_its_run(alone, exported, toy_npz, toy_run, picture):
    same_figures(alone("foveola", "evaluate", exported, toy_npz, "--json"), toy_run)
    same_answers(alone("foveola", "predict", exported, picture, "--fix", "auto", "--json"), toy_run, picture)


@pytest.mark.slow
def test_there_the_server_answers(installed, exported, toy_run, picture, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, log = [installed / "foveola", "serve", exported, "--port", str(port)], tmp_path / "log"
    started = time.monotonic()
    with log.open("w") as file, subprocess.Popen(command, stderr=file, env=environment(), cwd=tmp_path) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server, log)
            seconds, memory = time.monotonic() - started, resident_memory(server.pid)
            found = ask(f"http://127.0.0.1:{port}/predict?fix=auto", picture.read_bytes())
            page = ask(f"http://127.0.0.1:{port}/")
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    assert code == 0, log.read_text()
    same_answers(found, toy_run, picture)
    assert b"<script" in page
    with capsys.disabled():
        print(f"\nserve, base install: ready in {seconds:.2f} s, {memory} resident")


def ask(url, data=None):
    request = urllib.request.Request(url, data, {"Content-Type": "application/octet-stream"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return response.read()


def wait_until_ready(address, server, log):
    for _ in range(3000):
        if server.poll() is not None:
            break
        try:
            ask(f"{address}/v2/health/ready")
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the server is not ready: {log.read_text()}")


def resident_memory(pid):
    """As Linux says it."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("VmRSS")), "unknown memory")
