"""Windows, as far as Linux can play it: open files that stay, descriptors that cannot be flushed, missing calls."""

import asyncio
import errno
import fcntl
import os
import shutil
import signal
import stat
import sys
from pathlib import Path

import pytest

from foveola import files

# What Python has on Linux and not on Windows, as far as Foveola could use it
_MISSING_IN_OS = (
    "getpgrp", "killpg", "nice", "posix_fadvise", "preadv", "sched_getaffinity", "sched_setaffinity",
    "O_DIRECTORY", "O_NOFOLLOW",
)  # fmt: skip
_MISSING_IN_SIGNAL = ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "siginterrupt")


@pytest.fixture
def windows(monkeypatch, tmp_path):
    """Have this process's system calls answer as those of Windows do; the names of paths stay those of Linux."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("OPEN_FILES_STAY", True), ("flush_folder", lambda folder: None)):
        for module in [
            one for title, one in sys.modules.items() if title.startswith("foveola.") and hasattr(one, name)
        ]:
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(files, "_PAUSES", ())
    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, _refusing_open_files(getattr(os, name)))
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.setattr(os, "fsync", _fsync(os.fsync))
    monkeypatch.setattr(os, "open", _open(os.open))
    monkeypatch.setattr(os, "kill", _kill)
    for name in _MISSING_IN_OS:
        monkeypatch.delattr(os, name)
    for name in _MISSING_IN_SIGNAL:
        monkeypatch.delattr(signal, name)
    for name in ("add_reader", "add_signal_handler"):
        monkeypatch.setattr(asyncio.SelectorEventLoop, name, _not_implemented)


def _refusing_open_files(call):
    def refusing(path, *others, **options):
        for place in (path, *others):
            _refuse_open_files(place)
        if call.__name__ == "rename" and os.path.lexists(others[0]) and not Path(path).samefile(others[0]):
            raise FileExistsError(errno.EEXIST, "exists", str(others[0]))
        return call(path, *others, **options)

    refusing.__name__ = call.__name__
    return refusing


def _refuse_open_files(path):
    whole = str(Path(path).parent.resolve() / Path(path).name)
    for opened in _open_files():
        if opened == whole or opened.startswith(whole + os.sep):
            raise PermissionError(errno.EACCES, f"{opened} is open", str(path))


def _open_files():
    """The paths of the files that this process has open, or mapped into its memory."""
    for link in Path("/proc/self/fd").iterdir():
        try:
            if stat.S_ISREG(os.fstat(int(link.name)).st_mode):
                yield str(link.readlink())
        except OSError:  # that of the listing itself
            continue
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        place = line.split(maxsplit=5)
        if len(place) == 6:
            yield place[5]


def _fsync(call):
    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        call(descriptor)

    return fsync


def _open(call):
    def open_file(path, flags, *others, **options):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path, flags, *others, **options)

    return open_file


def _kill(process, number):
    raise AssertionError("On Windows, os.kill ends a process, or sends Ctrl+C to all of a console")


def _not_implemented(*given, **options):
    raise NotImplementedError
