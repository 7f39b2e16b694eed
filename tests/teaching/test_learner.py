"""Trainings, exports and audits behind the page's routes; the commands are stood in for by quick ones."""

import asyncio
import io
import json
import shutil
import threading
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import foveola
from foveola.documents import TrainingRequest
from foveola.errors import Failure
from foveola.serving.settings import Settings
from foveola.teaching import commands, jobs
from foveola.teaching.app import create_app, open_studio
from foveola.teaching.held_out import find_mistakes
from foveola.teaching.snapshot import take_snapshot

CLASSES = ("cup", "glass")
PNG = {"Content-Type": "image/png"}


def picture(label, seed):
    """A grey image of 12×12 with a bright bar left or right; a few are dark, which nobody can recognise."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (12, 12), dtype=np.uint8)
    if seed % 8:
        pixels[2:10, 1 + 6 * label : 5 + 6 * label] += 180
    return pixels


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder, count=20):
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            seed = 100 * label + number
            (folder / name / f"picture-{seed:016x}.png").write_bytes(png(picture(label, seed)))


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run as a training leaves it, with its mistakes; to be read only."""
    root = tmp_path_factory.mktemp("trained")
    fill(root / "pictures")
    run = foveola.train(
        root / "pictures", tiny, out=root / "runs" / "pictures-1", epochs=10, report=False, verbose=False
    )
    foveola.export(run, verbose=False)
    snapshot = root / "pictures" / ".foveola" / "trained" / "pictures-1"
    take_snapshot(root / "pictures", snapshot)
    found = find_mistakes(run.path, snapshot)
    snapshot.with_name("pictures-1.json").write_text(found.to_json())
    return SimpleNamespace(root=root, run=run, mistakes=found)


class Commands:
    """Stands for the processes of jobs: copies what a training would write."""

    def __init__(self, trained):
        self.trained = trained
        self.called = []
        self.failing = None
        self.wait = threading.Event()
        self.wait.set()

    def run(self, module, *arguments):
        self.called.append((module, *arguments))
        name = arguments[0] if module == "foveola" else module.rpartition(".")[2]
        self.wait.wait(60)
        if self.failing == name:
            raise Failure("There is no room on the disk. Make room.")
        options = dict(pairwise(arguments))
        match name:
            case "train" if "--resume" in options:
                out = Path(options["--resume"])
                shutil.rmtree(out / "checkpoint", ignore_errors=True)
                shutil.copytree(
                    self.trained.run.path, out, ignore=shutil.ignore_patterns("exports"), dirs_exist_ok=True
                )
            case "train":
                out = Path(options["--out"])
                assert not list(out.iterdir()), "the command takes an empty folder"
                shutil.copytree(
                    self.trained.run.path, out, ignore=shutil.ignore_patterns("exports"), dirs_exist_ok=True
                )
            case "export" if options["--format"] == "onnx":
                shutil.copytree(self.trained.run.path / "exports", Path(arguments[1], "exports"))
            case "export":
                folder = Path(arguments[1], "exports", "web")
                folder.mkdir(parents=True)
                (folder / "index.html").touch()
            case "held_out":
                mistakes = self.trained.mistakes.model_copy(update={"run": Path(arguments[0]).name})
                Path(arguments[2]).write_text(mistakes.to_json())
            case "report":
                Path(arguments[1], "report.html").write_text("<p>A report")


@pytest.fixture
def quick(trained, monkeypatch):
    """The commands of jobs, stood in for."""
    found = Commands(trained)

    def run(job, module, *arguments):
        job._check()
        found.run(module, *arguments)
        job._check()

    monkeypatch.setattr(jobs._Running, "run", run)
    yield found
    found.wait.set()


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "pictures")
    return tmp_path / "pictures"


@contextmanager
def opened(folder):
    """A client of the application of a folder, until the server ends."""
    studio = open_studio(folder, Settings(log_requests=False))
    with TestClient(create_app(studio), base_url="http://127.0.0.1") as client:
        yield client
    studio.project.close()


@pytest.fixture
def client(folder):
    with opened(folder) as client:
        yield client


def ended(client):
    """The job, once it has ended."""
    assert client.app.state.learner.jobs.wait(60)
    return client.get("/project").json()["job"]


def train(client, **body):
    response = client.post("/project/train", json=body)
    assert response.status_code == 202, response.text
    return ended(client)


def test_before_a_training_there_is_no_model(client):
    document = client.get("/project").json()
    assert (document["model"], document["summary"], document["job"]) == (None, None, None)
    for response in (client.get("/model"), client.post("/predict", content=png(picture(0, 1)))):
        assert response.status_code == 409
        assert response.json()["error"] == "There is no model yet. Add images to two classes, and train."
    assert client.get("/project/summary").status_code == 404
    assert client.get("/project/download").status_code == 404
    assert client.get("/project/report").status_code == 409
    assert client.post("/project/export", json={"format": "onnx"}).status_code == 409


def test_a_training_ends_with_a_model_that_answers_and_a_summary(client, folder, quick, trained):
    job = train(client, seconds=30)
    assert (job["kind"], job["state"], job["result"]) == ("training", "done", {"run": "pictures-1"})
    run = folder.parent / "runs" / "pictures-1"
    assert quick.called[0] == (
        "foveola", "train", str(folder / ".foveola" / "trained" / "pictures-1"), "--recipe", "auto", "--out", str(run),
        "--budget", "30s",
        "--set", "validation=0.2", "--callback", "foveola.teaching.announce:Announce",
    )  # fmt: skip
    document = client.get("/project").json()
    assert document["model"]["run"] == "pictures-1"
    assert document["model"]["classes"] == list(CLASSES)
    summary = client.get("/project/summary").json()
    assert summary == document["summary"]
    assert summary["accuracy"]["n"] == trained.mistakes.n == trained.run.evaluation.n
    listed = [one for confusion in summary["confusions"] for one in confusion["pictures"]]
    assert len(listed) == len(trained.mistakes.mistakes)
    assert all(client.get(f"/project/thumbnail?id={one}").status_code == 200 for one in listed)
    answer = client.post("/predict", content=png(picture(0, 1)), headers={"Content-Type": "image/png"}).json()
    assert answer["predictions"][0]["class"] == "cup"
    assert client.post("/look", content=png(picture(0, 1)), headers={"Content-Type": "image/png"}).status_code == 200
    assert client.get("/model").json()["class_names"] == list(CLASSES)


def test_commands_are_what_is_run_with_the_words_of_a_terminal(client, folder, quick):
    train(client)
    shown = client.get("/project").json()["commands"]
    assert set(shown) == {"train", "audit", "evaluate", "export_onnx", "export_web", "report"}
    assert shown["train"].startswith(f"foveola train {folder} --recipe auto --out {folder.parent}/runs/pictures-2 ")
    assert shown["audit"] == f"foveola audit {folder} --recipe auto --out {folder.parent}/audits/pictures"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "glass"), "Make a second class, and add images to it."),
        (lambda folder: [shutil.rmtree(folder / name) for name in CLASSES], "Make two classes, and add images"),
        (lambda folder: (folder / "bowl").mkdir(), "The class “bowl” has no images. Add some, or delete it."),
    ],
    ids=["one class", "none", "empty class"],
)
def test_too_few_pictures_are_told_before_anything_runs(client, folder, quick, change, message):
    change(folder)
    client.get("/project")
    for path in ("/project/train", "/project/audit"):
        response = client.post(path, json={})
        assert response.status_code == 409
        assert response.json()["error"].startswith(message)
    assert quick.called == []


@pytest.mark.parametrize(
    "body",
    [
        {"seconds": 0}, {"seconds": 1e9}, {"recipe": "../x.toml"}, {"recipe": "/etc/passwd"}, {"out": "runs/x"},
        {"replace": "yes please"}, [],
    ],
    ids=str,
)  # fmt: skip
def test_a_training_is_asked_for_by_known_names_and_bounds_only(client, quick, body):
    assert client.post("/project/train", json=body).status_code == 422
    assert quick.called == []


@pytest.mark.parametrize(
    ("pictures", "options"),
    [
        (20, ["--set", "validation=0.2"]),
        (249, ["--set", "validation=0.2"]),
        (250, ["--set", "validation=0.2", "--reject", "0.05", "--reject-on-average"]),
        (500, ["--set", "validation=0.1", "--reject", "0.05", "--reject-on-average"]),
        (1000, ["--reject", "0.05", "--reject-on-average"]),
    ],
)
def test_what_is_set_aside_and_whether_doubt_can_be_said(tmp_path, pictures, options):
    command = commands.train(
        tmp_path / "cups", tmp_path / "runs/cups-1", None, "auto", pictures=pictures, grouped=False, measured=True
    )
    assert command[command.index("--no-report") + 1 :] == options
    few = commands.train(
        tmp_path / "cups", tmp_path / "runs/cups-1", None, "auto", pictures=pictures, grouped=False, measured=False
    )
    assert few[few.index("--no-report") + 1 :] == ["--set", "validation=0", "--set", "test=0"]


def test_recordings_are_kept_together_and_few_of_them_are_not_measured(client, folder, quick):
    for name in CLASSES:
        for file in (folder / name).iterdir():
            file.unlink()
        for number in range(4):
            (folder / name / f"recording-0000000a_{number:04d}.png").write_bytes(png(picture(0, number)))
    client.get("/project")
    train(client, seconds=None)
    command = quick.called[0]
    assert command[command.index("--groups") + 1] == commands.RECORDING_GROUPS
    assert [command[n + 1] for n, one in enumerate(command) if one == "--set"] == ["validation=0", "test=0"]
    assert "--no-report" in command
    assert "--budget" not in command


def test_a_failed_training_says_why_and_leaves_the_model_before(client, folder, quick):
    train(client)
    quick.failing = "export"
    job = train(client)
    assert job["state"] == "failed"
    assert job["error"] == "There is no room on the disk. Make room."
    assert client.get("/project").json()["model"]["run"] == "pictures-1"
    quick.failing = "train"
    assert train(client)["state"] == "failed"
    assert sorted(path.name for path in (folder.parent / "runs").iterdir()) == ["pictures-1", "pictures-2"]
    assert sorted(path.name for path in (folder / ".foveola" / "trained").iterdir()) == [
        "pictures-1",
        "pictures-1.json",
        "pictures-2",
    ]
    quick.failing = None
    assert train(client)["result"] == {"run": "pictures-3"}


def test_a_trained_model_that_could_not_be_written_is_gone_on_with(client, folder, quick):
    quick.failing = "export"
    train(client)
    quick.failing = None
    assert client.get("/project").json()["unfinished"] == "pictures-1"
    quick.called.clear()
    assert train(client, resume=True)["result"] == {"run": "pictures-1"}
    run = folder.parent / "runs" / "pictures-1"
    assert quick.called[0] == (
        "foveola", "train", "--resume", str(run), "--callback", "foveola.teaching.announce:Announce",
    )  # fmt: skip
    document = client.get("/project").json()
    assert (document["model"]["run"], document["unfinished"]) == ("pictures-1", None)


@pytest.fixture
def interrupted(folder, trained):
    """A training that was killed after its first checkpoint."""
    run = folder.parent / "runs" / "pictures-3"
    (run / "checkpoint").mkdir(parents=True)
    snapshot = folder / ".foveola" / "trained" / "pictures-3"
    request = TrainingRequest(
        data=str(snapshot), recipe=trained.run.recipe, seed=0, device="cpu", threads=1, checkpoint_every=30,
        callbacks=[commands.ANNOUNCE],
    )  # fmt: skip
    (run / "checkpoint" / "request.json").write_text(request.to_json())
    (run / "checkpoint" / "state.safetensors").touch()
    take_snapshot(folder, snapshot)
    return run


def test_a_killed_training_is_offered_and_gone_on_with_at_the_next_start(folder, interrupted, quick):
    with opened(folder) as client:
        assert client.get("/project").json()["unfinished"] == "pictures-3"
        assert train(client, resume=True)["result"] == {"run": "pictures-3"}
        assert client.get("/project").json()["unfinished"] is None
        assert client.post("/project/train", json={"resume": True}).status_code == 409
        assert train(client)["result"] == {"run": "pictures-4"}


@pytest.mark.parametrize("kind", ["add", "delete", "move", "rename"])
def test_a_training_whose_images_have_changed_is_not_gone_on_with(folder, interrupted, quick, kind):
    with opened(folder) as client:
        one = client.get("/project/pictures?class=cup").json()["pictures"][0]["id"]
        changes = {
            "add": lambda: client.post("/project/pictures?class=cup", content=png(picture(0, 999)), headers=PNG),
            "delete": lambda: client.post("/project/pictures/delete", json={"ids": [one]}),
            "move": lambda: client.post("/project/pictures/move", json={"ids": [one], "to": "glass"}),
            "rename": lambda: client.post("/project/classes/rename", json={"name": "cup", "to": "mug"}),
        }
        assert changes[kind]().is_success
        assert client.get("/project").json()["unfinished"] is None
        refused = client.post("/project/train", json={"resume": True})
        assert refused.status_code == 409
        assert refused.json()["error"].startswith("There is no interrupted training to go on with, or images have")
        assert quick.called == []
        if kind != "add":
            assert client.post("/project/undo", json={}).json()["unfinished"] == "pictures-3"


@pytest.mark.parametrize("kind", ["no checkpoint", "other data", "other callbacks", "no snapshot", "exported"])
def test_other_trainings_are_not_offered(folder, interrupted, trained, quick, kind):
    place = interrupted / "checkpoint" / "request.json"
    request = json.loads(place.read_text())
    match kind:
        case "no checkpoint":
            (interrupted / "checkpoint" / "state.safetensors").unlink()
        case "other data":
            place.write_text(json.dumps(request | {"data": "digits"}))
        case "other callbacks":
            place.write_text(json.dumps(request | {"callbacks": []}))
        case "no snapshot":
            shutil.rmtree(folder / ".foveola" / "trained")
        case "exported":
            shutil.copytree(trained.run.path, interrupted, dirs_exist_ok=True)
    with opened(folder) as client:
        assert client.get("/project").json()["unfinished"] is None


def test_a_training_that_the_end_of_the_server_interrupts_is_kept_and_one_that_is_stopped_is_not(
    folder, interrupted, quick, monkeypatch
):
    def train_until_stopped(job, module, *arguments):
        quick.called.append(arguments)
        job._stopping.wait(60)
        job._check()

    monkeypatch.setattr(jobs._Running, "run", train_until_stopped)
    with opened(folder) as client:
        assert client.post("/project/train", json={"resume": True}).status_code == 202
    with opened(folder) as client:
        assert client.get("/project").json()["unfinished"] == "pictures-3"
        client.post("/project/train", json={"resume": True})
        client.post("/project/stop", json={})
        assert ended(client)["state"] == "stopped"
        assert client.get("/project").json()["unfinished"] is None
    assert not interrupted.exists()


def test_a_model_whose_mistakes_cannot_be_found_is_used_all_the_same(client, quick, caplog):
    quick.failing = "held_out"
    assert train(client)["state"] == "done"
    summary = client.get("/project/summary").json()
    assert all(confusion["pictures"] == [] for confusion in summary["confusions"])
    assert "mistakes" in caplog.text


def test_a_second_training_waits_or_replaces(client, quick):
    quick.wait.clear()
    assert client.post("/project/train", json={}).status_code == 202
    refused = client.post("/project/train", json={})
    assert refused.status_code == 409
    assert refused.json()["error"] == "A training is running. Wait for its end, or stop it."
    threading.Timer(0.1, quick.wait.set).start()
    assert client.post("/project/train", json={"replace": True}).status_code == 202
    assert ended(client)["state"] == "done"
    assert client.get("/project").json()["model"]["run"] == "pictures-1"


def test_a_stopped_training_leaves_the_model_before(client, quick, folder):
    train(client)
    quick.wait.clear()
    client.post("/project/train", json={})
    assert client.post("/project/stop", json={}).json()["message"] == "Stopping"
    quick.wait.set()
    assert ended(client)["state"] == "stopped"
    assert client.get("/project").json()["model"]["run"] == "pictures-1"
    assert [path.name for path in (folder.parent / "runs").iterdir()] == ["pictures-1"]
    assert client.post("/project/stop", json={}).status_code == 409


def test_moved_and_deleted_pictures_leave_the_summary(client, quick):
    train(client)
    (first, *_) = [one for row in client.get("/project/summary").json()["confusions"] for one in row["pictures"]]
    client.post("/project/pictures/delete", json={"ids": [first]})
    assert first not in str(client.get("/project/summary").json())
    client.post("/project/undo", json={})
    assert first in str(client.get("/project/summary").json())


def test_the_newest_run_is_opened_at_the_start_and_a_damaged_one_left_out(folder, trained, caplog):
    runs = folder.parent / "runs"
    for number in (1, 2, 10):
        shutil.copytree(trained.run.path, runs / f"pictures-{number}")
    (runs / "pictures-10" / "exports" / "model.onnx").write_bytes(b"damaged")
    (runs / "pictures-11").mkdir()
    studio = open_studio(folder, Settings(log_requests=False))
    with TestClient(create_app(studio), base_url="http://127.0.0.1") as client:
        assert client.get("/project").json()["model"]["run"] == "pictures-2"
        assert client.get("/project").json()["commands"]["train"].count("pictures-12") == 1
    studio.project.close()
    assert "A run is left out" in caplog.text


def test_exports_and_the_report_are_written_once(client, folder, quick):
    train(client)
    run = folder.parent / "runs" / "pictures-1"
    for format, path in (("onnx", run / "exports" / "model.onnx"), ("web", run / "exports" / "web")):
        for _ in range(2):
            assert client.post("/project/export", json={"format": format}).status_code == 202
            assert ended(client)["result"] == {"path": str(path)}
    first, second = client.get("/project/report"), client.get("/project/report")
    assert first.text == second.text == "<p>A report"
    assert "sandbox" in first.headers["content-security-policy"]
    assert "self" not in first.headers["content-security-policy"]
    snapshot = folder / ".foveola" / "trained" / "pictures-1"
    web, report = [call for call in quick.called if call[1:2] == ("report",) or "web" in call]
    assert web == ("foveola", "export", str(run), "--format", "web", "--data", str(snapshot))
    assert report == ("foveola", "report", str(run), "--data", str(snapshot))
    download = client.get("/project/download")
    assert download.content == (run / "exports" / "model.onnx").read_bytes()
    assert "pictures-1.onnx" in download.headers["content-disposition"]


def test_a_report_that_takes_longer_appears_where_it_is_waited_for(client, quick, monkeypatch):
    train(client)
    monkeypatch.setattr("foveola.teaching.learner.REPORT_SECONDS", 0.01)
    quick.wait.clear()
    response = client.get("/project/report")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    page = client.get("/project/report", headers={"Accept": "text/html,*/*"})
    assert page.headers["refresh"] == "1"
    assert "being written" in page.text
    quick.wait.set()
    assert client.app.state.learner._reports.wait(60)
    assert client.get("/project/report").text == "<p>A report"


def test_a_report_that_cannot_be_written_says_why(client, quick):
    train(client)
    quick.failing = "report"
    response = client.get("/project/report")
    assert response.status_code == 409
    assert response.json()["error"].endswith("There is no room on the disk. Make room.")


def test_an_audit_lists_suspects_and_copies_until_they_are_dealt_with(client, folder, quick, monkeypatch):
    shutil.copy(folder / "cup" / f"picture-{1:016x}.png", folder / "cup" / "copy.png")
    (folder / "glass" / "wrong.png").write_bytes(png(picture(0, 999)))
    client.get("/project")

    def run(job, module, command, source, *options):
        assert (module, command, options[:3]) == ("foveola", "audit", ("--recipe", "auto", "--out"))
        (out,) = options[3:]
        foveola.audit(source, out=out, recipe="mlp", epochs=20, verbose=False)

    monkeypatch.setattr(jobs._Running, "run", run)
    assert client.post("/project/audit", json={}).status_code == 202
    job = ended(client)
    assert job["state"] == "done", job
    found = job["result"]
    assert found["sentence"]
    (copies,) = [group["ids"] for group in found["copies"] if len(group["ids"]) == 2]
    wrong = client.app.state.learner.project.picture_at("glass/wrong.png").id
    assert wrong in [suspect["id"] for suspect in found["suspects"]]
    for suspect in found["suspects"]:
        assert {suspect["class"], suspect["suggested"]} == set(CLASSES)
        assert 0 <= suspect["probability"] <= 1
    client.post("/project/pictures/delete", json={"ids": copies[:1]})
    assert copies not in [group["ids"] for group in client.get("/project").json()["job"]["result"]["copies"]]
    client.post("/project/keep", json={"ids": [wrong]})
    assert wrong not in str(client.get("/project").json()["job"]["result"])


def test_events_tell_every_client_of_changes(folder, quick):
    """At the beginning, and after a change of the project; then the stream ends with the server."""

    async def follow():
        studio = open_studio(folder, Settings(log_requests=False))
        learner = studio.parts["learner"]
        streams = [learner.events.stream() for _ in range(2)]
        await learner.start()
        for stream in streams:
            assert await anext(stream) == b"event: project\ndata: {}\n\n"
            assert await anext(stream) == b"event: job\ndata: null\n\n"
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.to_thread(studio.project.add_class, "bowl")
        assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [b"event: project\ndata: {}\n\n"] * 2
        await asyncio.to_thread(learner.jobs.start, "export", lambda progress: {"path": "model.onnx"})
        event = b""
        while b'"done"' not in event:
            event = await asyncio.wait_for(anext(streams[0]), 60)
        assert json.loads(event.partition(b"data: ")[2])["result"] == {"path": "model.onnx"}
        await learner.stop()
        remaining = [event async for event in streams[1]]
        assert len(remaining) <= 2
        studio.project.close()

    asyncio.run(follow())


def test_requests_under_way_are_answered_by_the_model_before(folder, trained):
    from foveola.teaching.current import Current, OpenedRun

    async def swap():
        app = SimpleNamespace(state=SimpleNamespace())
        current = Current(Settings())
        runs = [OpenedRun(trained.run.path, folder / "none.json") for _ in range(2)]
        await current.use(runs[0])
        image = np.stack([picture(0, 1)[..., None]])
        async with current.answering(app) as before:
            await current.use(runs[1])
            await asyncio.sleep(0)
            assert before.model is runs[0].model
            assert (await before.predict(image)).logits.shape == (1, 2)
            async with current.answering(app) as after:
                assert after.model is runs[1].model
        await current.close()
        async with current.answering(app):
            raise AssertionError("there is no model any more")

    with pytest.raises(Exception, match="There is no model yet"):
        asyncio.run(swap())


def test_a_training_gets_a_folder_that_nobody_else_has_made(tmp_path):
    """A training that fails removes its folder, and must not remove that of another."""
    project, runs = tmp_path / "cups", tmp_path / "runs"
    runs.mkdir()
    (runs / "cups-1").mkdir()
    (runs / "cups-2").write_text("not a folder")
    made = [commands.make_next_run(project) for _ in range(2)]
    assert [run.name for run in made] == ["cups-3", "cups-4"]
    assert all(run.is_dir() for run in made)


def test_a_folder_that_another_training_makes_at_the_same_moment_is_left_alone(tmp_path, monkeypatch):
    project = tmp_path / "cups"
    names = iter(["cups-1", "cups-2"])
    monkeypatch.setattr(commands, "next_run", lambda project: tmp_path / "runs" / next(names))
    (tmp_path / "runs" / "cups-1").mkdir(parents=True)
    assert commands.make_next_run(project).name == "cups-2"
