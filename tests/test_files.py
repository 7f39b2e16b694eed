"""Files: checked before they are written, and against SHA256SUMS, which sha256sum reads."""

import os
import shutil
import subprocess

import pytest

from foveola import files
from foveola.errors import ModelError, OutputError
from foveola.files import CHECKSUM_FILE, check_writable, is_empty_folder, new_folder, writing

UNUSUAL_NAMES = ["two words", "back\\slash", "two\nlines", "return\r", "*star", "Größe"]


def sha256sum(folder):
    """The published tool, run on the folder's SHA256SUMS."""
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum: install GNU coreutils")
    return subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUM_FILE], cwd=folder, capture_output=True, check=False
    )


# What is written


def test_a_failed_write_names_path_reason_and_cure(tmp_path):
    path = tmp_path / "missing" / "file"
    message = r"missing/file cannot be written: .*No such file.* Choose another with --out\.$"
    with pytest.raises(OutputError, match=message), writing(path):
        path.write_text("text")
    with pytest.raises(OutputError, match=r"Rename it\.$"), writing(path, "Rename it."):
        path.write_text("text")


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        _ = 1 / 0


def test_checking_a_folder_creates_nothing(tmp_path):
    check_writable(tmp_path)
    check_writable(tmp_path / "deep" / "folder")
    assert is_empty_folder(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OutputError, match=r"cannot be written: .*file is not a folder .* with --out\."):
            check_writable(folder)


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="not a folder that you may write to"):
        check_writable(tmp_path / "folder")


def test_a_new_folder_takes_the_first_free_number(tmp_path):
    names = []
    for _ in range(3):
        folder = new_folder(tmp_path / "run")
        folder.mkdir()
        names.append(folder.name)
    (tmp_path / "run-2").rmdir()
    assert [*names, new_folder(tmp_path / "run").name] == ["run", "run-2", "run-3", "run-2"]


def test_only_an_empty_folder_is_an_empty_folder(tmp_path):
    assert is_empty_folder(tmp_path)
    (tmp_path / "file").touch()
    assert not is_empty_folder(tmp_path)
    assert not is_empty_folder(tmp_path / "file")
    assert not is_empty_folder(tmp_path / "missing")


# Checksums


@pytest.fixture
def folder(tmp_path):
    """Two files, both listed."""
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
        files.record_checksum(tmp_path / name)
    return tmp_path


def test_the_published_tool_accepts_what_is_written(folder):
    assert sha256sum(folder).returncode == 0
    (folder / "first").write_text("altered")
    assert sha256sum(folder).returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows does not allow these names")
def test_unusual_names_are_escaped_as_by_the_published_tool(tmp_path):
    for name in UNUSUAL_NAMES:
        (tmp_path / name).write_text(name)
        files.record_checksum(tmp_path / name)
    assert sha256sum(tmp_path).returncode == 0
    for name in UNUSUAL_NAMES:
        files.verify_checksum(tmp_path / name)
        (tmp_path / name).write_text("altered")
        with pytest.raises(ModelError):
            files.verify_checksum(tmp_path / name)


def test_what_the_published_tool_writes_is_read(folder):
    (folder / CHECKSUM_FILE).write_bytes(subprocess.check_output(["sha256sum", "--binary", "first"], cwd=folder))
    assert files.has_checksum(folder / "first")
    assert not files.has_checksum(folder / "second")
    (folder / "first").write_text("altered")
    with pytest.raises(ModelError):
        files.verify_checksum(folder / "first")


def test_lines_of_other_files_are_kept(folder):
    lines = (folder / CHECKSUM_FILE).read_text().splitlines()
    foreign = ["# a comment", "SHA256 (file) = abc", f"{'0' * 64}  third"]
    (folder / CHECKSUM_FILE).write_bytes("\n".join([*foreign, *lines, ""]).encode() + b"\xff\n")
    (folder / "first").write_text("new")
    files.record_checksum(folder / "first")
    written = (folder / CHECKSUM_FILE).read_bytes().split(b"\n")
    assert written[:5] == [*(line.encode() for line in foreign), lines[1].encode(), b"\xff"]
    assert written[5].endswith(b"  first") and written[5] != lines[0].encode()
    files.verify_checksum(folder / "first")


def test_a_file_with_other_content_is_refused(folder):
    files.verify_checksum(folder / "first")
    files.verify_checksum(folder / "first", b"first")
    with pytest.raises(ModelError, match=r"first is not the file that SHA256SUMS names.*Export the run again"):
        files.verify_checksum(folder / "first", b"second")
    (folder / "first").write_text("second")
    with pytest.raises(ModelError, match="first is not the file"):
        files.verify_checksum(folder / "first")


def test_a_file_that_is_not_listed_passes(folder):
    (folder / "third").write_text("third")
    files.verify_checksum(folder / "third")
    (folder / CHECKSUM_FILE).unlink()
    (folder / "first").write_text("altered")
    files.verify_checksum(folder / "first")


def test_a_missing_file_is_not_an_error_here(folder):
    (folder / "first").unlink()
    files.verify_checksum(folder / "first")


def test_a_huge_checksum_file_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(files, "_MAX_CHECKSUM_BYTES", 100)
    with pytest.raises(ModelError, match="more than 100 bytes"):
        files.verify_checksum(folder / "first")


# A whole folder


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("outer", "inner/file"):
        (tmp_path / name).write_text(name)
    files.record_checksums(tmp_path)
    return tmp_path


def test_a_folder_is_listed_at_every_depth(tree):
    assert sha256sum(tree).stdout.splitlines() == [b"inner/file: OK", b"outer: OK"]
    files.record_checksums(tree)
    files.verify_checksums(tree)
    (tree / "more").write_text("unlisted")
    files.verify_checksums(tree)


def test_a_folder_with_another_file_or_without_one_is_refused(tree):
    (tree / "inner" / "file").write_text("altered")
    with pytest.raises(ModelError, match="file is not the file"):
        files.verify_checksums(tree)
    (tree / "inner" / "file").unlink()
    with pytest.raises(ModelError, match=r"lacks inner/file.*Export it again"):
        files.verify_checksums(tree)
    (tree / CHECKSUM_FILE).unlink()
    with pytest.raises(ModelError, match="no SHA256SUMS"):
        files.verify_checksums(tree)


def test_a_listed_path_outside_the_folder_is_not_opened(tree, monkeypatch):
    (tree.parent / "secret").write_text("secret")
    (tree / CHECKSUM_FILE).write_text(f"{'0' * 64}  ../secret\n")
    read = []
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path) or "0" * 64)
    with pytest.raises(ModelError, match=r"lacks \.\./secret"):
        files.verify_checksums(tree)
    assert not read
