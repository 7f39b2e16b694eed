"""Valid arguments of every command; each test runs in an empty folder."""

from pathlib import Path

import pytest

from keras_cases import ROWS


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def image_file(tmp_path, toy) -> Path:
    from PIL import Image

    Image.fromarray(toy.train.images[0, :, :, 0]).resize((50, 30)).save(tmp_path / "bar.png")
    return tmp_path / "bar.png"


@pytest.fixture
def arguments(toy_npz, toy_run, tiny, image_file) -> dict[str, list[object]]:
    """Valid arguments by command."""
    return {
        "datasets": [],
        "recipes": [],
        "summary": ["lenet5"],
        "train": [toy_npz, "--recipe", tiny, "--out", "run"],
        "tune": [toy_npz, "--recipe", tiny, "--trials", 2, "--folds", 2],
        "evaluate": [toy_run, toy_npz],
        "report": [toy_run, "--data", toy_npz, "--out", "report.html"],
        "compare": [toy_run, toy_run, "--data", toy_npz],
        "pack": [toy_npz, "--out", "packed"],
        "audit": [toy_npz, "--recipe", tiny],
        "predict": [toy_run, image_file],
        "import": [ROWS, "--out", "imported"],
        "export": [toy_run, "--data", toy_npz, "--out", "model.onnx"],
        "explain": [toy_run, image_file],
        "convolve": ["letter:A"],
        "info": [],
    }
