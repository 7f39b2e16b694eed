"""What is published: metadata, locks, lowest versions, workflows; slowly: two builds give the same bytes."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import foveola

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKS = ("requirements/base.lock", "requirements/train.lock")


def read(name):
    return (ROOT / name).read_text("utf-8")


def pins(name):
    """Versions that a file of constraints or a lock names, by distribution."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", read(name), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def direct(*extras):
    """The requirements of the base install, and of extras with those that they include."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == "foveola":
            found |= direct(*requirement.extras)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_tested_versions_and_hashes(lock):
    tested = pins("constraints.txt")
    assert {name: tested.get(name) for name in pins(lock)} == pins(lock), "run make lock"
    entries = re.split(r"^(?=\w)", read(lock), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in read(lock)


def test_locks_are_complete():
    assert set(direct()) <= set(pins(LOCKS[0]))
    assert set(direct("train")) - {"torch"} <= set(pins(LOCKS[1]))
    assert pins(LOCKS[0]).items() <= pins(LOCKS[1]).items()


def test_every_lower_bound_is_tested():
    lowest = pins("constraints-lowest.txt")
    assert {"numpy", "ipykernel", "torch", "optuna"} <= set(runtime())
    for name, requirement in runtime().items():
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        # Only one version of PyTorch is at hand where the tests run
        if name != "torch":
            assert release(lowest[name]) == release(bound.version), f"{requirement}: run make lock, or raise the bound"


def runtime():
    """What users install, as far as an environment for development holds it."""
    (extras,) = [Requirement(line).extras for line in PROJECT["optional-dependencies"]["dev"] if "foveola[" in line]
    return direct(*extras - {"docs"})


def release(version):
    return [int(part) for part in version.removesuffix(".0").removesuffix(".0").split(".")]


def test_documents_name_the_version():
    minor = foveola.__version__.rpartition(".")[0]
    assert f"\nversion: {foveola.__version__}\n" in read("CITATION.cff")
    assert f"\n| {minor} | yes |\n" in read("SECURITY.md")
    assert f"foveola=={foveola.__version__}\n" in read("docs/versions.md")


@pytest.mark.parametrize("workflow", ["ci.yml", "release.yml"])
def test_workflows_call_targets_that_exist(workflow):
    text = read(f".github/workflows/{workflow}")
    targets = {word for line in re.findall(r"make ([a-z -]+)", text) for word in line.split()}
    assert targets
    assert targets <= set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert all(re.search(r"@v\d+\.\d+\.\d+$", action) for action in re.findall(r"uses: (\S+)", text))


# Slowly: a wheel and an sdist are built


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """Two folders with a wheel and an sdist each: of the same files, at another place, time and umask."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: the files to be packaged are those that git knows")
    return [build(tmp_path_factory.mktemp(name), seconds, umask) for name, seconds, umask in SETTINGS]


SETTINGS = (("one", 1_700_000_000, 0o022), ("a much longer name", 1_750_000_000, 0o077))


def build(folder, seconds, umask):
    """Build in a folder what git knows of the working tree, with other times than the files have."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, names.split("\0")):
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
        os.utime(copy, (seconds, seconds))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1790000000", "TZ": f"UTC{umask % 12}"}
    subprocess.run(command, env=environment, umask=umask, check=True, capture_output=True, timeout=300)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(builds):
    (file,) = builds[0].glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


@pytest.mark.slow
def test_two_builds_give_the_same_bytes(builds):
    contents = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in builds]
    assert set(contents[0]) == {
        f"foveola-{foveola.__version__}.tar.gz", f"foveola-{foveola.__version__}-py3-none-any.whl",
    }  # fmt: skip
    assert all(one == other for one, other in pairwise(contents))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_the_licence(wheel):
    package = ROOT / "src" / "foveola"
    files = {f"foveola/{path.relative_to(package).as_posix()}" for path in package.rglob("*") if path.is_file()}
    names = set(wheel.namelist())
    assert {name for name in names if name.startswith("foveola/")} == {n for n in files if "__pycache__" not in n}
    (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_links_of_the_packages_page_lead_somewhere(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    page = message_from_bytes(wheel.read(name))
    links = re.findall(r"\]\(([^)]+)\)", page.get_payload(decode=True).decode())
    assert len(links) > 20
    for link in links:
        match = re.match(r"https://[a-z.]+/foveola/foveola/(?:blob/)?v([^/]+)/([^#]+)", link)
        assert match is None or (match[1] == foveola.__version__ and (ROOT / match[2]).exists()), link
        assert link.startswith("https://"), link
    assert page["License-Expression"] == "Apache-2.0"
    assert len(page.get_all("Project-URL")) == 5


@pytest.mark.slow
def test_the_sdist_holds_what_its_tests_need(builds):
    (file,) = builds[0].glob("*.tar.gz")
    with tarfile.open(file) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"LICENSE", "README.md", "Makefile", "tests/conftest.py", "docs/design.md", "constraints.txt"} <= names
    assert not any(name.startswith((".venv", "build/", "dist/")) for name in names)
