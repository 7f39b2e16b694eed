"""Good calls of the commands, each in an empty folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def picture(tmp_path, toy) -> Path:
    from PIL import Image

    Image.fromarray(toy.train.images[0, :, :, 0]).resize((50, 30)).save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


@pytest.fixture
def arguments(toy_npz, toy_run, tiny, picture) -> dict[str, list[object]]:
    """What a good call of each command takes."""
    return {
        "datasets": [],
        "recipes": [],
        "summary": ["lenet5"],
        "train": [toy_npz, "--recipe", tiny, "--out", "run"],
        "evaluate": [toy_run, toy_npz],
        "report": [toy_run, "--data", toy_npz, "--out", "report.html"],
        "compare": [toy_run, toy_run, "--data", toy_npz],
        "audit": [toy_npz, "--recipe", tiny],
        "predict": [toy_run, picture],
        "export": [toy_run, "--data", toy_npz, "--out", "model.onnx"],
        "explain": [toy_run, picture],
        "convolve": ["letter:A"],
        "info": [],
    }
