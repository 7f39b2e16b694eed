"""docs/licences.md is what its script writes; what Foveola needs is under licences that let it be used anywhere."""

import re
import runpy
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0",
    "MIT-CMU", "PSF-2.0", "Python-2.0", "Unlicense", "ZPL-2.1", "Zlib", "LLVM-exception",
}  # fmt: skip
# Copyleft for their own files only, and never changed here
ALSO = {"certifi": {"MPL-2.0"}, "tqdm": {"MPL-2.0"}}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "docs" / "licences.py"))


def pinned():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_page_is_current(script):
    if metadata.version("numpy") != pinned()["numpy"]:
        pytest.skip("this environment does not hold the pinned versions")
    assert (ROOT / "docs" / "licences.md").read_text("utf-8") == script["page"](), "run make docs"


def test_licences_are_allowed(script):
    names = script["dependencies"]().union(*map(script["dependencies"], script["EXTRAS"]))
    assert {"numpy", "certifi", "torch", "matplotlib", "optuna"} <= names
    for name in sorted(names):
        terms = set(re.split(r" AND | OR | WITH |[()]", script["licence"](name)))
        assert terms <= ALLOWED | ALSO.get(name, set()), f"{name}: {script['licence'](name)}"


@pytest.mark.slow
def test_licences_of_every_extra_are_allowed(script):
    """In the environment that `make sbom` has just described; what PyTorch for GPUs brings is named on the page."""
    folders = list((ROOT / ".venv-full").glob("lib/python*/site-packages"))
    if not folders:
        pytest.skip("make sbom sets up the environment with all extras")
    documents = [distribution.metadata for distribution in metadata.distributions(path=list(map(str, folders)))]
    assert {"foveola", "mlflow-skinny", "wandb", "huggingface_hub"} <= {document["Name"] for document in documents}
    for document in documents:
        if document["Name"].startswith(script["FOR_GPUS"]):
            continue
        terms = set(re.split(r" AND | OR | WITH |[()]", script["licence_of"](document))) - {""}
        assert terms <= ALLOWED | ALSO.get(document["Name"], set()), f"{document['Name']}: {terms}"
