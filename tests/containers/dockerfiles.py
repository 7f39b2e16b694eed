"""Dockerfiles without a container engine: their steps, run in a clean Debian; their images, run as Docker would.

It knows what our Dockerfiles use: FROM, COPY, RUN, ENV, USER, WORKDIR, EXPOSE, HEALTHCHECK, ENTRYPOINT, CMD. In the
place of the base image is Debian with its own Python, made by debootstrap. Needs root; pip finds packages inside as it
does outside.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SUITE = "bookworm"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SETTINGS = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")


@dataclass
class Image:
    """A root folder and how a container of it starts."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    user: str = "0:0"
    workdir: str = "/"
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile and what they are given, without comments."""
    lines = (line for line in dockerfile.read_text("utf-8").splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, value = line.strip().partition(" ")
            yield name, value.strip()


def context_files(context: Path) -> list[str]:
    """The files that an engine is sent, by .dockerignore: of the patterns that match a file, the last one counts."""
    lines = (context / ".dockerignore").read_text("utf-8").splitlines()
    patterns = [
        (not line.startswith("!"), re.compile(_pattern(line.strip().lstrip("!").strip("/"))))
        for line in lines
        if line.strip() and not line.startswith("#")
    ]
    sent = []
    for folder, folders, names in os.walk(context):
        folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            path = Path(folder, name).relative_to(context).as_posix()
            ignored = False
            for ignores, pattern in patterns:
                if pattern.fullmatch(path):
                    ignored = ignores
            if not ignored:
                sent.append(path)
    return sorted(sent)


def _pattern(text: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    known = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(part, re.escape(part)) for part in parts) + "(/.*)?"


def make_base(folder: Path) -> Path:
    """Debian with its own Python as `python`, in a new folder."""
    packages = "python3,python3-venv,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, folder],
        check=True, stdout=subprocess.DEVNULL, timeout=1200,
    )  # fmt: skip
    (folder / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
    return folder


def build(dockerfile: Path, base: Path, folder: Path) -> Image:
    """Run the steps of a Dockerfile; the image of its last stage, in a folder inside `folder`."""
    stages: dict[str, Image] = {}
    for name, value in instructions(dockerfile):
        if name == "FROM":
            image = Image(folder / f"stage-{len(stages)}")
            subprocess.run(["cp", "--archive", "--reflink=auto", base, image.root], check=True)
            stages[value.partition(" AS ")[2]] = image
        elif name == "COPY":
            _copy(value.split(), dockerfile.parent, stages, image)
        elif name == "RUN":
            _run_step(value, image)
        else:
            _set(image, name, value)
    return image


def _set(image: Image, name: str, value: str) -> None:
    """An instruction that says how a container starts."""
    match name:
        case "ENV":
            for setting in shlex.split(value):
                variable, _, text = setting.partition("=")
                image.env[variable] = text.replace("$PATH", image.env["PATH"])
        case "WORKDIR":
            image.workdir = value
            (image.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = value
        case "HEALTHCHECK":
            image.healthcheck = json.loads(value.partition("CMD ")[2])
        case "ENTRYPOINT" | "CMD":
            setattr(image, name.lower(), json.loads(value))
        case "EXPOSE":
            pass
        case _:
            raise NotImplementedError(name)


def _copy(words: list[str], context: Path, stages: dict[str, Image], image: Image) -> None:
    """COPY [--from=STAGE] SOURCE… TARGET: the content of a folder, or files; those that are not ignored."""
    *sources, target = [word for word in words if not word.startswith("--")]
    into = image.root / image.workdir.lstrip("/") / target if not target.startswith("/") else image.root / target[1:]
    if words[0].startswith("--from="):
        origin = stages[words[0].removeprefix("--from=")].root
        for source in sources:
            shutil.copytree(origin / source.lstrip("/"), into, symlinks=True, dirs_exist_ok=True)
        return
    sent = context_files(context)
    for source in sources:
        found = [path for path in sent if path == source or path.startswith(f"{source}/")]
        if not found:
            raise FileNotFoundError(f"COPY {source}: there is no such file, or .dockerignore leaves it out")
        for path in found:
            inner = path.removeprefix(f"{source}/") if path != source else Path(path).name
            to = into / inner if path != source or target.endswith("/") or len(sources) > 1 else into
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(context / path, to)


def _run_step(step: str, image: Image) -> None:
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    mounts = {path: path for path in _pip_folders()}
    with container(image, ["/bin/sh", "-c", step], mounts, env=pip, as_built=True) as process:
        out, _ = process.communicate(timeout=1800)
    if process.returncode:
        raise RuntimeError(f"RUN {step}\n{out[-3000:]}")


def _pip_folders() -> list[str]:
    """What lets pip find packages inside as it does here: network, certificates, its settings, folders named there."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    named = re.findall(r"(?:file://)?(/[^\s']+)", "\n".join(line.partition("=")[2] for line in listed.splitlines()))
    return [path for path in dict.fromkeys((*_SETTINGS, *named)) if Path(path).exists()]


@contextmanager
def container(
    image: Image,
    command: Sequence[str],
    mounts: dict[str, str],
    *,
    env: dict[str, str] | None = None,
    as_built: bool = False,
    writable: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Run a command in an image: its user, its environment and nothing else, as process 1, the root read-only.

    Parameters
    ----------
    mounts : path here → path inside; read-only, unless `writable` names the path inside
    as_built : as a step of the build instead: root, who may write
    """
    root = str(image.root)
    lines = ["set -e", f"mount --bind {root} {root}"]
    for here, inside in mounts.items():
        place = image.root / inside.lstrip("/")
        if Path(here).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        lines.append(f"mount --bind {shlex.quote(here)} {shlex.quote(str(place))}")
        if inside not in writable:
            lines.append(f"mount -o remount,bind,ro {shlex.quote(str(place))}")
    lines += [f"mount --bind /dev {root}/dev", f"mount -t proc proc {root}/proc"]
    if not as_built:
        lines.append(f"mount -o remount,bind,ro {root}")
    user = "0:0" if as_built else image.user
    settings = [f"{name}={value}" for name, value in (image.env | (env or {})).items()]
    inside = ["env", "-i", f"--chdir={image.workdir}", *settings, *command]
    lines.append(shlex.join(["exec", "chroot", f"--userspec={user}", root, *inside]))
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    with subprocess.Popen(
        [*unshare, "sh", "-c", "\n".join(lines)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def process_1(process: subprocess.Popen[str]) -> int:
    """The number here of what is process 1 inside."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8")
    return int(children.split()[0])


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def why_not() -> str | None:
    """Why images cannot be built here; None if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux, and root for debootstrap and chroot"
    missing = [name for name in ("debootstrap", "unshare", "chroot") if shutil.which(name) is None]
    if missing:
        return f"no {missing[0]}: apt-get install {missing[0]}"
    return None
