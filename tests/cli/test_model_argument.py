"""MODEL of every command: a run, a model file, an ONNX export or a web export; or a refusal that says what to give."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def models(toy_run, toy_npz, tmp_path_factory):
    """A model by kind; the web export without the files of its page, which need the npm package."""
    from foveola.exports import web
    from foveola.files import record_checksums
    from foveola.workflow.export import export

    folder = tmp_path_factory.mktemp("models")
    paths = {"run": toy_run}
    for format in ("onnx", "safetensors"):
        paths[format] = folder / f"model.{format}"
        export(toy_run, format, out=paths[format], data=toy_npz, verbose=False)
    paths["web"] = folder / "web"
    paths["web"].mkdir()
    shutil.copy(paths["onnx"], paths["web"] / web.MODEL)
    (paths["web"] / web.INDEX).write_text("<!doctype html>")
    (paths["web"] / web.DESCRIPTION).write_text("{}")
    record_checksums(paths["web"])
    return paths


KINDS = ["run", "onnx", "safetensors", "web"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_predicts_the_same(foveola_command, models, image_file, kind):
    code, out, _ = foveola_command("predict", models[kind], image_file, "--json")
    [prediction] = json.loads(out)["predictions"]
    [expected] = json.loads(foveola_command("predict", models["run"], image_file, "--json").out)["predictions"]
    assert (code, prediction["class"]) == (0, expected["class"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_evaluated(foveola_command, models, toy_npz, kind):
    code, out, _ = foveola_command("evaluate", models[kind], toy_npz, "--split", "all", "--json")
    assert (code, json.loads(out)["n"]) == (0, 60)


@pytest.mark.parametrize("kind", ["safetensors", "web"])
def test_every_kind_is_explained(foveola_command, models, image_file, kind):
    assert foveola_command("explain", models[kind], image_file, "--out", "explained", "--quiet").code == 0


@pytest.mark.parametrize("command", ["report", "export", "compare"])
@pytest.mark.parametrize("kind", ["onnx", "safetensors", "web"])
def test_what_needs_a_whole_run_says_so(foveola_command, models, command, kind):
    more = [models["run"]] if command == "compare" else []
    code, _, err = foveola_command(command, models[kind], *more)
    assert code == 2
    assert "Give the folder that `foveola train` wrote" in " ".join(err.split())


def test_serve_takes_exports_and_runs(foveola_command, models, monkeypatch):
    served = []
    monkeypatch.setattr("foveola.serving.server.serve", lambda path, settings, announce: served.append(path))
    for kind in ("onnx", "web"):
        assert foveola_command("serve", models[kind]).code == 0
    assert served == [models["onnx"], models["web"] / "model.onnx"]
    code, _, err = foveola_command("serve", models["safetensors"])
    assert (code, "foveola export" in err) == (2, True)


def test_serve_prints_its_address_as_json(foveola_command, models, monkeypatch):
    monkeypatch.setattr(
        "foveola.serving.server.serve", lambda path, settings, announce: announce("http://127.0.0.1:8000")
    )
    code, out, _ = foveola_command("serve", models["onnx"], "--json", "--name", "toy")
    assert (code, json.loads(out)) == (0, {"format": 1, "name": "toy", "url": "http://127.0.0.1:8000"})


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_gpu_of_an_apple_machine_that_is_not_there(foveola_command, arguments, command):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    code, _, err = foveola_command(command, *arguments[command], "--device", "mps")
    assert (code, "PyTorch finds no GPU of an Apple machine here" in err) == (2, True)


def test_exports_do_not_run_on_a_gpu(foveola_command, models, image_file):
    for device in ("cuda", "mps"):
        code, _, err = foveola_command("predict", models["web"], image_file, "--device", device)
        assert (code, "is an export, which runs on the CPU" in err) == (2, True)
