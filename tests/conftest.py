"""Fixtures that several tests share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from foveola.cli import main
from foveola.images import Dataset, ImageSet

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # One core per worker: the spinning threads of two trainings on the same cores take tens of times as long
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# Tests of the cache turn it on
os.environ["FOVEOLA_FOLDER_CACHE"] = "0"

_BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"

TINY_RECIPE = """
name = "tiny"
description = "One dense layer"
validation = 0.2
batch_size = 16
epochs = 2
learning_rate = 0.01
precision = "float32"
layers = [{ type = "Flatten" }, { type = "Dense", units = "classes" }]
"""


class Outcome(NamedTuple):
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets; without one, the test is skipped with a message."""
    folder = Path(os.environ.get("FOVEOLA_DATA") or _BESIDE_THE_CHECKOUT)
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real data: set FOVEOLA_DATA to the folder that holds mnist/ (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def toy() -> Dataset:
    """60 grey images of 8×8 with a bright bar left, in the middle or right; without a test split."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    images = random.integers(0, 60, (60, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2:6, 1 + 2 * label : 3 + 2 * label] += 180
    return Dataset("toy", ImageSet(images, labels, ("left", "middle", "right")))


@pytest.fixture(scope="session")
def toy_npz(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, x_train=toy.train.images, y_train=toy.train.labels, class_names=np.array(toy.class_names))
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains within milliseconds."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def toy_run(toy_npz: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny recipe on the toy data, to be read only."""
    import foveola

    return foveola.train(toy_npz, tiny, out=tmp_path_factory.mktemp("runs") / "toy", verbose=False).path


def bars(count: int, seed: int) -> ImageSet:
    """Grey images of 8×8 with up to three bright bars, which are their labels: left, in the middle, right."""
    random = np.random.default_rng(seed)
    labels = random.random((count, 3)) < (0.5, 0.4, 0.3)
    images = random.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
    for image, row in zip(images, labels, strict=True):
        for k in np.flatnonzero(row):
            image[2:6, 1 + 2 * k : 3 + 2 * k] += 180
    return ImageSet(images, labels, ("left", "middle", "right"))


@pytest.fixture(scope="session")
def make_bars() -> Callable[[int, int], ImageSet]:
    """Makes images with several labels, so many and with this seed."""
    return bars


@pytest.fixture(scope="session")
def bars_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with several labels as a file of arrays, with a test split."""
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    train, test = bars(160, 0), bars(60, 1)
    np.savez(
        path, x_train=train.images, y_train=train.labels.astype(np.uint8), x_test=test.images,
        y_test=test.labels.astype(float), class_names=np.array(train.class_names),
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def bars_run(bars_npz: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run on images with several labels, to be read only."""
    import foveola

    out = tmp_path_factory.mktemp("runs") / "bars"
    settings = {"epochs": 30, "label_smoothing": 0.02, "validation": 0.25}
    return foveola.train(bars_npz, tiny, out=out, overrides=settings, report=False, verbose=False)


@pytest.fixture
def foveola_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def peak_memory() -> Callable[..., int]:
    """Run code in a fresh Python process and return the process's peak memory in bytes."""
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc")

    def measure(code: str, *arguments: object) -> int:
        # Not getrusage: on Linux, ru_maxrss of a child starts at the memory of the process that started it
        report = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
        command = [sys.executable, "-c", f"{code}\n{report}", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return 1024 * int(done.stdout.split()[-1])

    return measure


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium that logs its console and its requests; without it the test is skipped, except in CI."""
    from selenium import webdriver

    driver = shutil.which("chromedriver")
    if driver is None and not os.environ.get("CI"):
        pytest.skip("no chromedriver: install chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()
