"""Dockerfiles: what they copy, as whom they run; and, slow, their images built and run in a clean Debian."""

import io
import json
import os
import re
import shutil
import signal
import socket
import time
import tomllib
from pathlib import Path

import dockerfiles
import httpx2 as httpx
import pytest
from PIL import Image

import foveola

PROJECT = Path(__file__).parents[2]
SERVER, TRAINING = PROJECT / "Dockerfile", PROJECT / "Dockerfile.train"
PATIENCE = 60


@pytest.mark.parametrize("dockerfile", [SERVER, TRAINING], ids=lambda path: path.name)
def test_it_runs_as_a_numbered_user_on_a_pinned_base(dockerfile):
    steps = list(dockerfiles.instructions(dockerfile))
    bases = [value.split()[0] for name, value in steps if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)
    assert [value for name, value in steps if name == "USER"] == ["10001:10001"]


@pytest.mark.parametrize("dockerfile", [SERVER, TRAINING], ids=lambda path: path.name)
def test_what_it_copies_is_there_and_makes_a_whole_wheel(dockerfile):
    copied = [
        source
        for name, value in dockerfiles.instructions(dockerfile)
        if name == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    sent = dockerfiles.context_files(PROJECT)
    assert {path.split("/")[0] for path in sent} == set(copied)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    description = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    readme = {fragment["path"] for fragment in description["fragments"]}
    needed = {*readme, *project["project"]["license-files"], "constraints.txt"}
    assert needed <= set(copied)


def test_only_sources_are_sent(tmp_path):
    (tmp_path / ".dockerignore").write_bytes((PROJECT / ".dockerignore").read_bytes())
    wanted = ["README.md", "src/foveola/page/a.js", "src/foveola/x.py"]
    others = [
        ".env", ".git/config", "data/mnist/train.gz", "runs/a/run.json", "src/foveola.egg-info/PKG-INFO",
        "src/foveola/__pycache__/x.pyc", ".venv/bin/python", "tests/test_x.py", "Dockerfile",
    ]  # fmt: skip
    for path in (*wanted, *others):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert dockerfiles.context_files(tmp_path) == wanted


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    if reason := dockerfiles.why_not():
        pytest.skip(reason)
    return dockerfiles.make_base(tmp_path_factory.mktemp("base") / "root")


@pytest.mark.slow
def test_the_server_answers_as_a_user_who_can_write_nothing(base, toy_run, toy, tmp_path):
    image = dockerfiles.build(SERVER, base, tmp_path)
    print(f"the environment has {dockerfiles.size(image.root / 'opt' / 'foveola') / 2**20:,.0f} MiB")
    exported = foveola.export(toy_run, "onnx", out=tmp_path / "model" / "model.onnx", verbose=False).path
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [*image.entrypoint, *image.cmd, "--port", str(port)]
    with dockerfiles.container(image, command, {str(exported.parent): "/model"}) as process:
        wait_until_ready(f"{address}/v2/health/ready", process)
        inside = dockerfiles.process_1(process)
        users = re.search(r"^Uid:\s+(.+)$", Path(f"/proc/{inside}/status").read_text("utf-8"), re.MULTILINE)
        assert set(users[1].split()) == {"10001"}
        assert [predicted(address, toy.train.images[0, ..., 0])] == foveola.open(exported).predict(toy.train.images[:1])
        check = [word.replace(":8000", f":{port}") for word in image.healthcheck]
        assert outcome(image, check)[0] == 0
        os.kill(inside, signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert outcome(image, check)[0] == 1
    for path in ("/opt/foveola/x", "/var/tmp/x", "/x"):  # noqa: S108
        assert "Read-only file system" in outcome(image, ["touch", path])[1]


@pytest.mark.slow
def test_trainings_run_and_end_with_a_checkpoint(base, toy_npz, tiny, tmp_path):
    image = dockerfiles.build(TRAINING, base, tmp_path)
    print(f"the environment has {dockerfiles.size(image.root / 'opt' / 'foveola') / 2**20:,.0f} MiB")
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    for folder in (work, scratch):
        folder.mkdir()
        os.chown(folder, 10001, 10001)
    for file in (toy_npz, tiny):
        shutil.copyfile(file, work / file.name)
    options = {
        "mounts": {str(work): image.workdir, str(scratch): image.env["HOME"]},
        "writable": (image.workdir, image.env["HOME"]),
    }
    train = [*image.entrypoint, "train", toy_npz.name, "--recipe", tiny.name]
    code, out = outcome(image, [*train, "--out", "runs/toy"], **options)
    assert code == 0, out
    assert json.loads((work / "runs" / "toy" / "run.json").read_bytes())["status"] == "done"
    with dockerfiles.container(image, [*train, "--epochs", "1000000", "--out", "runs/long"], **options) as process:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        os.kill(dockerfiles.process_1(process), signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert (work / "runs" / "long" / "checkpoint" / "state.safetensors").is_file()


def outcome(image, command, mounts=None, **options):
    """Exit code and output of a command in a container."""
    with dockerfiles.container(image, command, mounts or {}, **options) as process:
        out, _ = process.communicate(timeout=10 * PATIENCE)
    return process.returncode, out


def wait_until_ready(url, process):
    for _ in range(20 * PATIENCE):
        try:
            if httpx.get(url).json()["ready"]:
                return
        except httpx.TransportError:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
    pytest.fail("the server did not become ready")


def predicted(address, pixels):
    """The class that the server gives for an image, uint8 H×W."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    headers = {"Content-Type": "image/png"}
    return httpx.post(f"{address}/predict", content=buffer.getvalue(), headers=headers).json()["predictions"][0][
        "class"
    ]
