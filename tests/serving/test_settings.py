"""What a server is told must make sense before it starts."""

import pytest
from pydantic import ValidationError

from foveola.serving.settings import Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": -1},
        {"port": 65536},
        {"workers": 0},
        {"name": "a/b"},
        {"name": ""},
        {"api_key": ""},
        {"queue_images": 0},
        {"max_body_bytes": 0},
        {"receive_seconds": 0},
        {"shutdown_seconds": float("inf")},
        {"hots": "127.0.0.1"},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_by_default_it_listens_to_this_machine_alone():
    assert Settings().host == "127.0.0.1"


def test_the_key_is_not_printed():
    settings = Settings(api_key="opensesame")
    assert settings.api_key.get_secret_value() == "opensesame"
    assert "opensesame" not in repr(settings)
