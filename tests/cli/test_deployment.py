"""`predict`, `export`, `serve`: tables, JSON, and the options that reach the workflow."""

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from foveola.cli.options import parse_size
from foveola.errors import UserError
from foveola.serving.settings import Settings
from foveola.workflow.serve import is_loopback


def test_predict_prints_class_and_probability(foveola_command, arguments, image_file):
    code, out, _ = foveola_command("predict", *arguments["predict"], "--top", 2, "--json")
    assert code == 0
    (prediction,) = json.loads(out)["predictions"]
    assert prediction["image"] == str(image_file)
    assert prediction["top"][0] == {"class": prediction["class"], "probability": prediction["probability"]}
    assert len(prediction["top"]) == 2
    text = foveola_command("predict", *arguments["predict"]).out
    assert f"{prediction['class']}" in text
    assert f"{prediction['probability']:.3f}" in text


def test_predict_prints_findings_and_fixes(foveola_command, arguments, toy_run, image_file):
    ImageOps.invert(Image.open(image_file)).save("dark.png")
    text = foveola_command("predict", toy_run, "dark.png").out
    assert "dark on light, but the training images are light on dark; invert it" in text
    assert "This may help: --fix invert" in text
    fixed = foveola_command("predict", toy_run, "dark.png", "--fix", "invert, center", "--show", "seen")
    assert fixed.code == 0
    assert "Fixed: invert, center" in fixed.out
    assert {path.name for path in Path("seen").iterdir()} == {"1-dark-before.png", "1-dark-after.png"}
    out = foveola_command("predict", toy_run, "dark.png", "--fix", "auto", "--json").out
    (prediction,) = json.loads(out)["predictions"]
    assert "invert" in prediction["fixes"]
    (polarity,) = (finding for finding in prediction["findings"] if finding["code"] == "polarity")
    assert polarity["fix"] == "invert"


def test_predict_reports_uncertain_predictions(foveola_command, toy_npz, tiny, image_file):
    run = ["train", toy_npz, "--recipe", tiny, "--epochs", 1, "--reject", 0, "--set", "learning_rate=1e-6"]
    trained = json.loads(foveola_command(*run, "--out", "unsure", "--json").out)
    out = foveola_command("predict", "unsure", image_file, "--json").out
    (prediction,) = json.loads(out)["predictions"]
    assert prediction["uncertain"] is (prediction["probability"] < (trained["reject"]["threshold"] or 2))
    assert prediction["uncertain"]
    assert f"uncertain (most likely {prediction['class']})" in foveola_command("predict", "unsure", image_file).out


def test_an_export_has_the_metrics_of_its_run(foveola_command, arguments, toy_run, toy_npz):
    code, out, _ = foveola_command("export", *arguments["export"], "--json")
    document = json.loads(out)
    assert code == 0
    assert document["path"] == "model.onnx"
    assert document["parity"]["images"] == 1000
    assert document["parity"]["largest_difference"] < 1e-3
    run, export = (
        json.loads(foveola_command("evaluate", model, toy_npz, "--json").out) for model in (toy_run, "model.onnx")
    )
    assert export["confusion"] == run["confusion"]
    assert abs(export["log_loss"]["value"] - run["log_loss"]["value"]) < 1e-4


def test_an_unknown_format_is_refused(foveola_command, toy_run):
    code, _, err = foveola_command("export", toy_run, "--format", "onx")
    assert code == 2
    assert "'onx'" in err and "onnx" in err


# ruff: noqa: S104  # no socket is bound


@pytest.fixture
def settings(monkeypatch) -> list[Settings]:
    """The settings that the server would be started with."""
    received = []

    def start(model, settings, announce, verbose):
        received.append(settings)
        announce("http://127.0.0.1:8000")

    monkeypatch.setattr("foveola.workflow.serve.serve", start)
    return received


def test_the_defaults_of_the_command_are_those_of_settings(foveola_command, settings):
    code, out, err = foveola_command("serve", "runs/mnist-fast")
    assert (code, out, err) == (0, "", "Serving mnist-fast at http://127.0.0.1:8000 (Ctrl+C to stop)\n")
    assert settings == [Settings(name="mnist-fast")]


def test_every_option_reaches_the_settings(foveola_command, settings, tmp_path):
    options = (
        "--host 0.0.0.0 --port 80 --workers 3 --name digits --api-key opensesame --allow-host a.example --max-body 2MB "
        "--allow-host b.example --max-pixels 1000 --receive-timeout 1m --queue 8 --quiet"
    )
    assert foveola_command("serve", "model.onnx", *options.split(), "--collect", tmp_path).code == 0
    assert settings == [
        Settings(
            host="0.0.0.0",
            port=80,
            workers=3,
            name="digits",
            api_key="opensesame",
            allowed_hosts=("a.example", "b.example"),
            max_body_bytes=2_000_000,
            max_pixels=1000,
            receive_seconds=60,
            queue_images=8,
            collect=tmp_path,
            log_requests=False,
        )
    ]


def test_the_key_may_come_from_the_environment(foveola_command, settings, monkeypatch):
    monkeypatch.setenv("FOVEOLA_API_KEY", "opensesame")
    _, _, err = foveola_command("serve", "model.onnx", "--host", "0.0.0.0")
    assert settings[0].api_key.get_secret_value() == "opensesame"
    assert "Warning" not in err


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "my-machine"])
def test_a_public_server_without_a_key_warns(foveola_command, settings, host):
    code, _, err = foveola_command("serve", "model.onnx", "--host", host)
    assert code == 0
    assert err.startswith(f"Warning: anyone who can reach {host} can use the model")
    assert "FOVEOLA_API_KEY" in err


@pytest.fixture
def taught(monkeypatch) -> list[object]:
    """The folder and the settings with which a project would be opened, and the pages that a browser would open."""
    received = []

    def start(folder, settings, announce, verbose):
        received.extend((folder, settings))
        announce("http://127.0.0.1:8000")

    monkeypatch.setattr("foveola.workflow.teach.teach", start)
    monkeypatch.setattr("webbrowser.open", received.append)
    return received


def test_teach_opens_a_folder_and_its_page(foveola_command, taught):
    code, out, err = foveola_command("teach")
    assert (code, out) == (0, "")
    assert err == "Open http://127.0.0.1:8000 to teach pictures (Ctrl+C to stop)\n"
    assert taught == [Path("pictures"), Settings(log_requests=False, shutdown_seconds=3), "http://127.0.0.1:8000"]


def test_the_options_of_teach(foveola_command, taught):
    options = "cups --host 0.0.0.0 --port 80 --api-key opensesame --allow-host a.example --no-browser --json"
    code, out, err = foveola_command("teach", *options.split())
    assert (code, "Warning" in err) == (0, False)
    assert json.loads(out) == {"format": 1, "folder": "cups", "url": "http://127.0.0.1:8000"}
    folder, settings = taught
    assert (folder, settings.host, settings.port, settings.allowed_hosts) == (
        Path("cups"),
        "0.0.0.0",
        80,
        ("a.example",),
    )
    assert settings.api_key.get_secret_value() == "opensesame"
    _, _, err = foveola_command("teach", "--host", "0.0.0.0")
    assert err.startswith("Warning: anyone who can reach 0.0.0.0 can add and see images")
    assert foveola_command("teach", "--api-key", "").code == 2


def test_quiet_servers_say_where_they_are(foveola_command, settings, taught):
    """The address is their result: with port 0, nothing else tells it."""
    assert foveola_command("serve", "model.onnx", "--quiet").err.count("http://127.0.0.1:8000") == 1
    assert foveola_command("teach", "--quiet").err.count("http://127.0.0.1:8000") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_host(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--name", "a/b"),
        ("--name", ""),
        ("--api-key", ""),
        ("--max-body", "0MB"),
        ("--max-body", "16 apples"),
        ("--receive-timeout", "soon"),
        ("--port", "70000"),
        ("--workers", "0"),
        ("--queue", "0"),
    ],
    ids=" ".join,
)
def test_invalid_options_are_refused(foveola_command, settings, wrong):
    code, out, err = foveola_command("serve", "model.onnx", *wrong)
    assert (code, out) == (2, "")
    assert err
    assert settings == []


@pytest.mark.parametrize(
    ("text", "size"), [("16MiB", 16 * 2**20), ("500 kB", 500_000), ("1GB", 10**9), ("123", 123), ("64b", 64)]
)
def test_valid_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "1.5MB", "MB", "1TB"])
def test_invalid_sizes(text):
    with pytest.raises(UserError, match="500kB"):
        parse_size(text)


def test_one_bad_image_does_not_keep_the_good_ones_from_being_answered(foveola_command, toy_run, image_file, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    code, out, err = foveola_command("predict", toy_run, image_file, "bad.png", image_file, "gone.png", "--json")
    document = json.loads(out)
    assert code == 2
    assert [row["image"] for row in document["predictions"]] == [str(image_file)] * 2
    assert [row["image"] for row in document["refused"]] == ["bad.png", "gone.png"]
    assert "2 of 4 images cannot be used; the others are answered" in err
    assert "bad.png is not an image" in err and "gone.png does not exist" in err
    assert str(image_file) in foveola_command("predict", toy_run, "bad.png", image_file).out


def test_nothing_is_printed_where_no_image_can_be_used(foveola_command, toy_run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    code, out, err = foveola_command("predict", toy_run, "bad.png", "--json")
    assert (code, out) == (2, "")
    assert err.startswith("foveola: bad.png is not an image")
    assert "2 of 2 images cannot be used; none is answered" in foveola_command("predict", toy_run, "bad.png", "x").err


def test_answers_are_written_as_a_table_and_as_json(foveola_command, toy_run, image_file, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("b.png", "a, b.png"):
        ImageOps.invert(Image.open(image_file)).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "bad.png").write_bytes(b"")
    code, out, _ = foveola_command("predict", toy_run, "pictures", "--out", "answers.csv", "--json")
    assert code == 2
    with Path("answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["pictures/a, b.png", "pictures/b.png", "pictures/bad.png"]
    first = json.loads(out)["predictions"][0]
    assert rows[0]["class"] == first["class"]
    assert float(rows[0]["probability"]) == pytest.approx(first["probability"], abs=1e-6)
    assert "dark on light" in rows[0]["findings"]
    assert rows[2]["class"] == "" and "bad.png" in rows[2]["refused"]
    foveola_command("predict", toy_run, "pictures", "--out", "answers.json")
    assert json.loads(Path("answers.json").read_text()) == json.loads(out)


def test_many_answers_are_counted_where_a_file_has_them(foveola_command, toy_run, image_file, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(50):
        Image.open(image_file).save(tmp_path / "pictures" / f"{number}.png")
    code, out, _ = foveola_command("predict", toy_run, "pictures", "--out", "answers.csv")
    assert code == 0
    assert "in all" in out and "50" in out and "17.png" not in out
    assert len(Path("answers.csv").read_text().splitlines()) == 51
    assert "17.png" in foveola_command("predict", toy_run, "pictures").out


def test_a_path_that_no_system_takes_is_refused(foveola_command, toy_run):
    code, _, err = foveola_command("predict", toy_run, "a" * 300)
    assert code == 2
    assert "too long" in err


def test_predict_refuses_a_file_it_cannot_write_before_the_work(foveola_command, toy_run, image_file, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = foveola_command("predict", toy_run, image_file, "--out", "file/answers.csv")
    assert (code, out) == (2, "")
    assert "file" in err and "--out" in err


def test_predict_writes_a_name_that_is_not_utf_8_into_a_table(foveola_command, toy_run, image_file):
    image = image_file.rename(os.fsdecode(b"caf\xe9.png"))
    assert foveola_command("predict", toy_run, image, "--out", "answers.csv").code == 0
    assert Path("answers.csv").read_text("utf-8").splitlines()[1].startswith("caf\\xe9.png,")
