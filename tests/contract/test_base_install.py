"""An install without extras: exported models predict, are evaluated and served, without PyTorch, SciPy, scikit-learn.

Quickly: in this environment, with every distribution out of sight that such an install would not bring. Slowly: in a
separate environment, made from what the Dockerfile copies.
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

# Of an environment with the base install
MAX_MIB = 260

# Hides the top-level modules named in the first argument, as if they were not installed
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


def base_install(*extras):
    """The distributions that `pip install .`, or `.[extras]`, brings, from pyproject.toml and their metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def required(name, extra):
        if name == "foveola":  # what is installed here may be older than pyproject.toml
            return project["optional-dependencies"][extra] if extra else project["dependencies"]
        return metadata.requires(name) or ()

    waiting, seen = [("foveola", ""), *(("foveola", extra) for extra in extras)], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, required(name, extra)):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), other) for other in ("", *requirement.extras)]
    return {name for name, _ in seen}


def outside(*extras):
    """What can be imported here, but not in a base install, or one with these extras."""
    base = base_install(*extras)
    modules = metadata.packages_distributions().items()
    return {module for module, names in modules if base.isdisjoint(map(canonicalize_name, names))}


def flat(document, place=""):
    """Every value of a document by its place, for an approximate comparison."""
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
def image_file(toy, tmp_path_factory):
    """Dark on light, larger than the training images: it has findings, and fixes apply."""
    path = tmp_path_factory.mktemp("images") / "dark.png"
    Image.fromarray(255 - toy.train.images[25, :, :, 0]).resize((50, 50)).save(path)
    return path


def without(hidden):
    """A function that runs a command which does not find these modules."""

    def run(*arguments):
        command = [sys.executable, "-c", HIDING, ",".join(sorted(hidden)), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    return run


@pytest.fixture(scope="module")
def base():
    """Run a command that finds nothing but the base install."""
    names = outside()
    assert {"torch", "onnx", "matplotlib", "jinja2", "cleanlab", "pandas", "pytest", "sklearn", "scipy"} <= names
    assert {"foveola", "onnxruntime", "pooch", "fastapi", "granian"}.isdisjoint(names)
    return without(names)


@pytest.fixture(scope="module")
def plots():
    """Run a command that finds nothing but the base install and the extra `plots`."""
    names = outside("plots")
    assert {"torch", "onnx", "cleanlab", "sklearn", "scipy"} <= names
    assert {"matplotlib", "jinja2", "markupsafe"}.isdisjoint(names)
    return without(names)


def same_metrics(text, run):
    expected = json.loads(foveola.Run.open(run).evaluation.to_json())
    assert flat(json.loads(text)) == pytest.approx(flat(expected), abs=1e-6)


def same_predictions(text, run, image_file):
    (prediction,) = json.loads(text)["predictions"]
    (expected,) = foveola.predict(run, [image_file], fix=["auto"], verbose=False)
    assert dict(expected.top) == pytest.approx(
        {top["class"]: top["probability"] for top in prediction["top"]}, abs=1e-6
    )
    assert (prediction["class"], prediction["fixes"]) == (expected.class_name, list(expected.fixes))
    assert [finding["text"] for finding in prediction["findings"]] == [finding.text for finding in expected.findings]
    assert prediction["fixes"]


def test_an_export_has_the_metrics_of_its_run(base, exported, toy_npz, toy_run):
    done = base("evaluate", exported, toy_npz, "--json")
    assert done.returncode == 0, done.stderr
    same_metrics(done.stdout, toy_run)


def test_an_export_predicts_as_its_run(base, exported, image_file, toy_run):
    done = base("predict", exported, image_file, "--fix", "auto", "--json")
    assert done.returncode == 0, done.stderr
    same_predictions(done.stdout, toy_run, image_file)


@pytest.mark.parametrize("command", ["datasets", "recipes", "summary lenet5", "info", "--help"])
def test_commands_that_compute_nothing_work(base, command):
    done = base(*command.split())
    assert done.returncode == 0, done.stderr


def test_the_embedded_digits_are_there(base, tmp_path):
    done = base("pack", "digits", "--out", tmp_path / "digits.pack", "--quiet")
    assert done.returncode == 0, done.stderr


def test_the_image_of_a_convolution_needs_no_extra(base, tmp_path):
    done = base("convolve", "letter:A", "--out", tmp_path / "lab.png")
    assert done.returncode == 0, done.stderr


def test_pages_name_the_smallest_extra(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = base("convolve", "letter:A", "--out", "lab.html")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("foveola: This needs jinja2, which is not installed.")
    assert "pip install 'foveola[plots]'" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["convolve letter:A --out lab.html", "summary lenet5 --diagram lenet5.svg"])
def test_pages_and_diagrams_need_no_more_than_plots(plots, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = plots(*command.split())
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_trainings_bring_all_that_a_report_needs():
    assert base_install("plots") < base_install("train")
    assert base_install("plots") < base_install("notebook")
    assert "torch" not in base_install("notebook", "tables")


@pytest.mark.parametrize("command", ["train digits", "predict RUN IMAGE", "explain RUN IMAGE", "audit digits"])
def test_commands_that_need_torch_name_the_extra(base, command, toy_run, image_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"RUN": toy_run, "IMAGE": image_file}
    done = base(*(known.get(word, word) for word in command.split()))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("foveola: This needs torch, which is not installed.")
    assert "pip install 'foveola[train]'" in done.stderr
    assert not any(tmp_path.iterdir())


# In a separate environment


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
    assert names - {"pip", "setuptools"} == base_install()
    assert {"torch", "scipy", "scikit-learn", "matplotlib"}.isdisjoint(names)
    assert alone("python", "-c", "import importlib.util; print(importlib.util.find_spec('torch'))") == "None\n"


@pytest.mark.slow
def test_it_is_small(installed, capsys):
    """The whole environment, with pip and what Python compiles, as docs/install.md has it."""
    sizes = [file.stat().st_size for file in installed.parent.rglob("*") if file.is_file() and not file.is_symlink()]
    with capsys.disabled():
        print(f"\nbase install: {sum(sizes) / 2**20:.0f} MiB")
    assert sum(sizes) <= MAX_MIB * 2**20


@pytest.mark.slow
def test_installed_alone_an_export_is_evaluated_and_predicts_as_its_run(alone, exported, toy_npz, toy_run, image_file):
    same_metrics(alone("foveola", "evaluate", exported, toy_npz, "--json"), toy_run)
    same_predictions(alone("foveola", "predict", exported, image_file, "--fix", "auto", "--json"), toy_run, image_file)


@pytest.mark.slow
def test_installed_alone_the_server_predicts(installed, exported, toy_run, image_file, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, log = [installed / "foveola", "serve", exported, "--port", str(port)], tmp_path / "log"
    started = time.monotonic()
    with log.open("w") as file, subprocess.Popen(command, stderr=file, env=environment(), cwd=tmp_path) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server, log)
            seconds, memory = time.monotonic() - started, resident_memory(server.pid)
            prediction = ask(f"http://127.0.0.1:{port}/predict?fix=auto", image_file.read_bytes())
            page = ask(f"http://127.0.0.1:{port}/")
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    assert code == 0, log.read_text()
    same_predictions(prediction, toy_run, image_file)
    assert b"<script" in page
    with capsys.disabled():
        print(f"\nserve, base install: ready in {seconds:.2f} s, {memory:.0f} MiB in all processes")


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
    """MiB of a process and its children, shared pages counted once (Pss of /proc); 0 where there is no /proc."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return 0
    files = [Path(f"/proc/{one}/smaps_rollup") for one in [pid, *children.read_text().split()]]
    return sum(int(re.search(r"^Pss:\s+(\d+) kB", file.read_text(), re.MULTILINE)[1]) for file in files) / 1024
