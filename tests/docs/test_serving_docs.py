"""What docs/serving.md and the Dockerfile say is so: options, commands, examples, metrics, log, manifests."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command

from foveola.cli import app
from foveola.serving.settings import Settings
from foveola.workflow.export import export

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
FOVEOLA = Path(sys.executable).with_name("foveola")
ADDRESS = "127.0.0.1:8000"  # as the page has it


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def commands(program):
    """What the page tells to type, without what stands behind a #."""
    lines = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line.startswith(f"{program} ")]


def instructions(name):
    """The arguments of a Dockerfile's instructions of this name."""
    whole = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", whole, re.MULTILINE)


def manifests():
    yaml = pytest.importorskip("yaml", reason="no PyYAML to read the manifests with")
    files = [(ROOT / "docs" / name).read_text("utf-8") for name in ("kubernetes.yaml", "kserve.yaml")]
    return [document for content in files for document in yaml.safe_load_all(content)]


def options_of(command):
    """The options of a command with their defaults."""
    parameters = get_command(app).commands[command].params
    return {option: parameter.default for parameter in parameters for option in parameter.opts if option[:2] == "--"}


def line_with(log, pattern):
    """The match in the first line of a growing file that has one."""
    for _ in range(600):
        if found := re.search(rf"^.*{pattern}.*$", log.read_text("utf-8"), re.MULTILINE):
            return found
        time.sleep(0.1)
    pytest.fail(f"no line of the log has {pattern}: {log.read_text('utf-8')}")


@pytest.fixture(scope="module")
def folder(toy_run, toy, tmp_path_factory):
    """What the page's commands find where they are typed: a run's export, pictures."""
    folder = tmp_path_factory.mktemp("typed")
    out = folder / "runs" / "mnist-fast" / "exports"
    out.mkdir(parents=True)
    export(toy_run, data=toy, out=out / "model.onnx", verbose=False)
    Image.fromarray(toy.train.images[25, :, :, 0]).resize((28, 28)).save(folder / "seven.png")
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def served(folder):
    """The server as the page's first command starts it, at a port of its own: its address and its log."""
    command = [FOVEOLA, *shlex.split(commands("foveola")[1])[1:], "--port", "0"]
    log = folder / "log"
    with log.open("w") as file, subprocess.Popen(command, cwd=folder, stderr=file) as server:
        try:
            yield line_with(log, r"http://(127\.0\.0\.1:\d+)")[1], log
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def ask(url):
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310
        return response.read().decode()


# The page


def test_the_table_of_options_is_that_of_the_command():
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \|", PAGE.partition("## Requests")[0], re.MULTILINE))
    options = options_of("serve")
    assert rows.keys() == options.keys() - {"--help"}
    for name, default in rows.items():
        if re.fullmatch(r"`.*`|\d+", default):
            assert default.strip("`") == str(options[name]), name


def test_every_option_that_is_written_anywhere_exists():
    for command in commands("foveola"):
        words = shlex.split(command)
        assert set(re.findall(r"(?<!\S)--[a-z-]+", command)) <= options_of(words[1]).keys(), command
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    written = set(re.findall(r"(?<=`)--[a-z-]+", prose)) - {"--tmpfs", "--gpus"}  # of Docker
    assert written <= options_of("serve").keys() | {"--json"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl to type the examples with")
@pytest.mark.parametrize("command", commands("curl"))
def test_the_curl_examples_are_answered(served, folder, command):
    typed = command.replace("curl ", "curl --silent --show-error --fail-with-body ", 1).replace(ADDRESS, served[0])
    done = subprocess.run(["bash", "-c", typed], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert "outputs" in document or all(prediction["top"] for prediction in document["predictions"])


def test_an_answer_has_the_keys_that_the_page_shows(served, folder):
    body = (folder / "seven.png").read_bytes()
    request = urllib.request.Request(f"http://{served[0]}/predict", body, {"Content-Type": "image/png"})
    (answer,) = json.loads(ask(request))["predictions"]
    (shown,) = json.loads(blocks("json")[0])["predictions"]
    assert answer.keys() == shown.keys()


def test_the_python_example_runs(served, folder):
    (block,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", block.replace(ADDRESS, served[0])],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1]\n"  # the picture shows a bar in the middle


def test_the_metrics_are_those_that_the_page_names(served):
    families = text_string_to_metric_families(ask(f"http://{served[0]}/metrics"))
    found = {family.name + "_total" * (family.type == "counter") for family in families}
    found = {name for name in found if not name.endswith("_created")}  # when a figure was first counted
    assert set(re.findall(r"^\| `(foveola_\w+)", PAGE, re.MULTILINE)) == found


def test_a_line_of_the_log_has_the_fields_that_the_page_shows(served):
    address, log = served
    ask(urllib.request.Request(f"http://{address}/v2/health/live", headers={"X-Request-ID": "look-for-me"}))
    line = line_with(log, "look-for-me")[0]
    assert list(json.loads(line)) == list(json.loads(blocks("json")[1]))


def test_the_statuses_are_those_of_the_servers_description(served):
    """Those of OpenAPI, and those that come before any route: no HTTP, no such address, a head that is too long."""
    rows = re.findall(r"^\| ((?:\d{3}(?:, )?)+) \|", PAGE, re.MULTILINE)
    named = {int(status) for row in rows for status in row.split(", ")}
    paths = json.loads(ask(f"http://{served[0]}/openapi.json"))["paths"].values()
    sent = {int(status) for path in paths for operation in path.values() for status in operation["responses"]}
    assert {status for status in sent if status >= 400} <= named
    assert named - sent <= {400, 404, 405, 408, 414, 421, 431, 500, 507}


# The Dockerfile


def test_the_image_has_the_base_install_at_its_pinned_versions_and_nothing_more():
    pip = [line.partition("pip install")[2].split() for line in instructions("RUN") if "pip install" in line]
    assert pip == [["--no-cache-dir", "--constraint", "constraints.txt", "."]]
    assert {line.split()[0] for line in instructions("FROM")} == {"python:3.12-slim-bookworm"}


def test_what_the_image_copies_is_let_through():
    copied = [name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"
    assert sorted(copied) == sorted(line[1:] for line in lines if line.startswith("!"))
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_a_command_that_there_is_and_not_as_root():
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", final, re.MULTILINE)
    assert "0" not in user
    assert instructions("EXPOSE") == ["8000"] == [str(Settings().port)]
    entry, given = (json.loads(*instructions(name)) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["foveola", "serve"]
    context = get_command(app).commands["serve"].make_context("serve", given)
    assert (context.params["model"], context.params["host"]) == (Path("/model/model.onnx"), "0.0.0.0")  # noqa: S104


def test_the_health_check_tells_a_server_that_is_ready_from_none(served):
    (line,) = instructions("HEALTHCHECK")
    program, *arguments = json.loads(line.partition("CMD ")[2])
    assert program == "python"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        codes = [
            subprocess.run(
                [sys.executable, *(argument.replace(ADDRESS, address) for argument in arguments)],
                capture_output=True, check=False, timeout=60,
            ).returncode
            for address in (served[0], f"127.0.0.1:{closed.getsockname()[1]}")
        ]  # fmt: skip
    assert codes == [0, 1]


# Kubernetes


def test_the_manifests_start_the_server_as_it_can_be_started():
    deployment, _, runtime, _ = manifests()
    containers = [deployment["spec"]["template"]["spec"]["containers"][0], runtime["spec"]["containers"][0]]
    for container in containers:
        context = get_command(app).commands["serve"].make_context("serve", list(container["args"]))
        assert context.params["port"] == container["ports"][0]["containerPort"]
        assert context.params["host"] == "0.0.0.0"  # noqa: S104


def test_the_manifests_ask_for_health_where_it_is_and_leave_time_to_end(served):
    deployment, _, runtime, _ = manifests()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = [
        value
        for holder in (container, *runtime["spec"]["containers"])
        for name, value in holder.items()
        if name.endswith("Probe")
    ]
    assert len(probes) == 4
    for probe in probes:
        ask(f"http://{served[0]}{probe['httpGet']['path']}")
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > sleep + Settings().shutdown_seconds
    (key,) = (option for option in get_command(app).commands["serve"].params if option.name == "api_key")
    assert container["env"][0]["name"] == key.envvar
