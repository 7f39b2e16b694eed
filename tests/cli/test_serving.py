"""`foveola serve`: its options, and what it warns of."""
# ruff: noqa: S104  # nothing is bound here

import pytest

from foveola.cli.serving import is_loopback, parse_size
from foveola.errors import UserError
from foveola.serving.settings import Settings


@pytest.fixture
def settings(monkeypatch) -> list[Settings]:
    """What the server is started with, instead of it."""
    found = []

    def start(model, settings, announce, verbose):
        found.append(settings)
        announce("http://127.0.0.1:8000")

    monkeypatch.setattr("foveola.workflow.serve.serve", start)
    return found


def test_the_defaults_of_the_command_are_the_settings_own(foveola_command, settings):
    code, out, err = foveola_command("serve", "runs/mnist-fast")
    assert (code, out, err) == (0, "", "Serving mnist-fast at http://127.0.0.1:8000 (Ctrl+C ends)\n")
    assert settings == [Settings(name="mnist-fast")]


def test_every_option_arrives(foveola_command, settings, tmp_path):
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
def test_without_a_key_a_server_for_others_warns(foveola_command, settings, host):
    code, _, err = foveola_command("serve", "model.onnx", "--host", host)
    assert code == 0
    assert err.startswith(f"Warning: whoever reaches {host} can use the model")
    assert "FOVEOLA_API_KEY" in err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_is_no_other(host):
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
def test_what_cannot_be_meant_is_refused(foveola_command, settings, wrong):
    code, out, err = foveola_command("serve", "model.onnx", *wrong)
    assert (code, out) == (2, "")
    assert err
    assert settings == []


@pytest.mark.parametrize(
    ("text", "size"), [("16MiB", 16 * 2**20), ("500 kB", 500_000), ("1GB", 10**9), ("123", 123), ("64b", 64)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "1.5MB", "MB", "1TB"])
def test_no_sizes(text):
    with pytest.raises(UserError, match="500kB"):
        parse_size(text)
