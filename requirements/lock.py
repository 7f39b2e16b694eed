"""Write the locks with hashes, and the lowest versions that pyproject.toml allows: `make lock`.

Files for GPUs are left out, and so is PyTorch from the locks: which of its files is right depends on the machine.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
# What users install, as far as the tests need it
FOR_USERS = ("notebook", "tables", "train", "tune", "tensorboard")
FOR_GPUS = "cuda-|nvidia-|triton=="

LOCK = """\
# {what}, with the hashes of every file: the versions of constraints.txt.
# Made by `make lock`. Use: pip install --require-hashes -r requirements/{name}
"""
LOWEST = """\
# The lowest versions that pyproject.toml allows, with the newest of what these need in turn, for Python 3.11 on Linux.
# PyTorch and tools for development have the versions of constraints.txt. Made by `make lock`, for `make test-lowest`.
"""


def write_lock(name: str, what: str, *extras: str) -> None:
    """Lock the base install or extras, for every system and Python from 3.11 on."""
    options = ["--universal", "--generate-hashes", "--constraint", "constraints.txt"]
    lines = _compile(*options, *(f"--extra={extra}" for extra in extras))
    text = _without(f"torch==|{FOR_GPUS}", lines)
    (ROOT / "requirements" / name).write_text(LOCK.format(what=what, name=name) + text, "utf-8")


def write_lowest() -> None:
    """Pin every direct dependency of users to its lower bound, and what the tests need to the tested version."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    # Those of the documentation need new versions of what users have
    tools = [one for one in map(Requirement, EXTRAS["dev"]) if not one.name.startswith(("foveola", "mkdocs"))]
    exact = [f"torch=={pins['torch']}"]
    for tool in tools:
        tool.specifier = SpecifierSet(f"=={pins[canonicalize_name(tool.name)]}")
        exact.append(str(tool))
    # The client for tests of old versions of Starlette needs httpx
    exact.append("httpx>=0.28")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(exact))
        file.flush()
        lines = _compile(file.name, "--resolution=lowest-direct", *(f"--extra={extra}" for extra in FOR_USERS))
    (ROOT / "constraints-lowest.txt").write_text(LOWEST + _without(FOR_GPUS, lines), "utf-8")


def _compile(*options: str) -> list[str]:
    """What uv chooses; its messages go to standard error."""
    quiet = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    command = [UV, "pip", "compile", "pyproject.toml", "--python-version=3.11", *quiet, *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def _without(unwanted: str, lines: list[str]) -> str:
    """The requirements, each with its hashes, but for those that a pattern matches."""
    entries = re.findall(r"^\S.*(?:\n\s+.*)*", "\n".join(lines), re.MULTILINE)
    return "".join(f"{entry}\n" for entry in entries if not re.match(unwanted, entry))


if __name__ == "__main__":
    write_lock("base.lock", "The base install")
    write_lock("train.lock", "Training, without PyTorch", "train")
    write_lowest()
