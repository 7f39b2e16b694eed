"""Image files by name, folder, pattern and standard input."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from foveola.errors import DataError
from foveola.inputs.find import find_images


@pytest.fixture
def folder(tmp_path):
    """a.png, sub/B.JPG and sub/deeper/c.png, among files that are no pictures."""
    for name in ("a.png", "sub/B.JPG", "sub/deeper/c.png", "@eaDir/a.png", ".hidden/x.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    for name in ("notes.txt", "._a.png", "sub/Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(found, folder):
    return [image.name.removeprefix(f"{folder}/") for image in found]


def test_a_folder_stands_for_its_pictures_at_every_depth(folder):
    assert names(find_images([folder]), folder) == ["a.png", "sub/B.JPG", "sub/deeper/c.png"]


def test_files_keep_their_order_and_may_be_of_any_name(folder):
    given = [folder / "sub" / "B.JPG", folder / "notes.txt", folder / "a.png"]
    assert names(find_images(given), folder) == ["sub/B.JPG", "notes.txt", "a.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("sub/**/*.*", ["sub/B.JPG", "sub/Thumbs.db", "sub/deeper/c.png"]),
        ("sub/?.JP[A-Z]", ["sub/B.JPG"]),
    ],
)
def test_a_pattern_stands_for_the_files_that_match(folder, monkeypatch, pattern, expected):
    assert names(find_images([f"{folder}/{pattern}"]), folder) == expected
    monkeypatch.chdir(folder)
    assert [image.name for image in find_images([pattern])] == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "a.png").rename(folder / "scan[1].png")
    assert names(find_images([folder / "scan[1].png"]), folder) == ["scan[1].png"]


def test_one_name_needs_no_list(folder):
    """A text is one name, not a sequence of letters: "/" would be everything on the machine."""
    for name in (folder / "a.png", str(folder / "a.png")):
        assert names(find_images(name), folder) == ["a.png"]


@pytest.mark.parametrize("given", [np.zeros((2, 8, 8), np.uint8), [np.zeros((8, 8))], None, 3, [None]])
def test_what_is_not_a_name_is_refused(given):
    with pytest.raises(DataError, match=r"named by paths here.*foveola.open\(run\).predict\(images\)"):
        find_images(given)


def test_an_empty_name_is_not_the_working_folder():
    with pytest.raises(DataError, match="name of an image is empty"):
        find_images([""])


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(DataError, match="Images cannot be looked for: File name too long"):
        find_images(["a" * 300])


def test_the_home_folder_may_be_abbreviated(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert names(find_images(["~/a.png", "~/sub"]), folder) == ["a.png", "sub/B.JPG", "sub/deeper/c.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "holds no image files"), ("*.tiff", r"No file matches .*\*\.tiff"), ("-", "Standard input is empty")],
)
def test_names_of_nothing_are_refused(tmp_path, monkeypatch, name, message):
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b" \n")))
    with pytest.raises(DataError, match=message):
        find_images([name])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF"])
def test_a_picture_comes_from_standard_input(monkeypatch, kind):
    buffer = io.BytesIO()
    Image.new("L", (5, 4), 200).save(buffer, kind)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(buffer.getvalue())))
    (image,) = find_images(["-"])
    assert image.name == "standard input"
    assert image.read().pixels.shape[:2] == (4, 5)


def test_names_come_from_standard_input(folder, monkeypatch):
    text = f"{folder}/sub/B.JPG\n\n{folder}/a.png\r\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    assert names(find_images(["-"]), folder) == ["sub/B.JPG", "a.png"]
