"""Fixtures that several tests share."""

import os
from pathlib import Path

import pytest

_BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data sets; the test is skipped, and says so, where there is none."""
    folder = Path(os.environ.get("FOVEOLA_DATA") or _BESIDE_THE_CHECKOUT)
    if not (folder / "mnist").is_dir():
        pytest.skip(f"no real data: set FOVEOLA_DATA to the folder that holds mnist/ (looked in {folder})")
    return folder
