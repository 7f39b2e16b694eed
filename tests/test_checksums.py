"""SHA256SUMS is what sha256sum reads, and a file that is not the one it names is refused."""

import os
import shutil
import subprocess

import pytest

from foveola import checksums
from foveola.checksums import SUMS
from foveola.errors import ModelError

ODD_NAMES = ["two words", "back\\slash", "two\nlines", "return\r", "*star", "Größe"]


def sha256sum(folder):
    """What the published tool says."""
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum: install GNU coreutils")
    return subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path):
    """Two files, both listed."""
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
        checksums.record(tmp_path / name)
    return tmp_path


def test_the_published_tool_accepts_what_is_written(folder):
    assert sha256sum(folder).returncode == 0
    (folder / "first").write_text("altered")
    assert sha256sum(folder).returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="these are no names there")
def test_odd_names_are_written_as_the_published_tool_does(tmp_path):
    for name in ODD_NAMES:
        (tmp_path / name).write_text(name)
        checksums.record(tmp_path / name)
    assert sha256sum(tmp_path).returncode == 0
    for name in ODD_NAMES:
        checksums.check(tmp_path / name)
        (tmp_path / name).write_text("altered")
        with pytest.raises(ModelError):
            checksums.check(tmp_path / name)


def test_what_the_published_tool_writes_is_read(folder):
    (folder / SUMS).write_bytes(subprocess.check_output(["sha256sum", "--binary", "first"], cwd=folder))
    assert checksums.is_listed(folder / "first")
    assert not checksums.is_listed(folder / "second")
    (folder / "first").write_text("altered")
    with pytest.raises(ModelError):
        checksums.check(folder / "first")


def test_the_lines_of_others_stay(folder):
    lines = (folder / SUMS).read_text().splitlines()
    foreign = ["# a comment", "SHA256 (file) = abc", f"{'0' * 64}  third"]
    (folder / SUMS).write_bytes("\n".join([*foreign, *lines, ""]).encode() + b"\xff\n")
    (folder / "first").write_text("new")
    checksums.record(folder / "first")
    found = (folder / SUMS).read_bytes().split(b"\n")
    assert found[:5] == [*(line.encode() for line in foreign), lines[1].encode(), b"\xff"]
    assert found[5].endswith(b"  first") and found[5] != lines[0].encode()
    checksums.check(folder / "first")


def test_other_bytes_are_refused(folder):
    checksums.check(folder / "first")
    checksums.check(folder / "first", b"first")
    with pytest.raises(ModelError, match=r"first is not the file that SHA256SUMS names.*Export the run again"):
        checksums.check(folder / "first", b"second")
    (folder / "first").write_text("second")
    with pytest.raises(ModelError, match="first is not the file"):
        checksums.check(folder / "first")


def test_what_is_not_listed_passes(folder):
    (folder / "third").write_text("third")
    checksums.check(folder / "third")
    (folder / SUMS).unlink()
    (folder / "first").write_text("altered")
    checksums.check(folder / "first")


def test_a_missing_file_is_left_to_who_opens_it(folder):
    (folder / "first").unlink()
    checksums.check(folder / "first")


def test_an_endless_list_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(checksums, "_MAX_BYTES", 100)
    with pytest.raises(ModelError, match="more than 100 bytes"):
        checksums.check(folder / "first")


# A whole folder


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("outer", "inner/file"):
        (tmp_path / name).write_text(name)
    checksums.record_all(tmp_path)
    return tmp_path


def test_a_folder_is_listed_at_every_depth(tree):
    assert sha256sum(tree).stdout.splitlines() == [b"inner/file: OK", b"outer: OK"]
    checksums.record_all(tree)
    checksums.check_all(tree)
    (tree / "more").write_text("unlisted")
    checksums.check_all(tree)


def test_a_folder_with_another_file_or_without_one_is_refused(tree):
    (tree / "inner" / "file").write_text("altered")
    with pytest.raises(ModelError, match="file is not the file"):
        checksums.check_all(tree)
    (tree / "inner" / "file").unlink()
    with pytest.raises(ModelError, match=r"lacks inner/file.*Export it again"):
        checksums.check_all(tree)
    (tree / SUMS).unlink()
    with pytest.raises(ModelError, match="no SHA256SUMS"):
        checksums.check_all(tree)


def test_names_that_lead_elsewhere_are_only_missing(tree, monkeypatch):
    (tree.parent / "secret").write_text("secret")
    (tree / SUMS).write_text(f"{'0' * 64}  ../secret\n")
    read = []
    monkeypatch.setattr(checksums, "_digest", lambda path: read.append(path) or "0" * 64)
    with pytest.raises(ModelError, match=r"lacks \.\./secret"):
        checksums.check_all(tree)
    assert not read
