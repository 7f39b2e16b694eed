"""The project: every change can be undone, nothing is lost or replaced, and only its folder is written to."""

import json
import os
import random
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from studio_pictures import encode, picture, tree

import foveola
from foveola.errors import DataError, OutputError, UserError
from foveola.serving.refusals import Refused
from foveola.teaching import changes, listing
from foveola.teaching import project as project_module
from foveola.teaching.project import Project


def ids(project, name):
    return [one.id for one in project.pictures(name)]


def reopened(project):
    project.close()
    return Project(project.folder)


# What it is


def test_a_project_is_an_image_folder(project, folder):
    project.add("mug", encode(picture(9)), ".png")
    project.delete(ids(project, "cup")[:1])
    data = foveola.load(folder)
    assert data.class_names == ("cup", "mug")
    assert data.train.labels.tolist() == [0, 0, 1]
    assert len(list((folder / ".foveola" / "bin").rglob("*.png"))) == 1


def test_an_image_folder_is_a_project(tmp_path):
    for name, seed in (("2", 0), ("10", 1), ("a:b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpeg").write_bytes(encode(picture(seed), "JPEG"))
    project = Project(tmp_path)
    assert project.counts() == {"2": 1, "10": 1, "a:b": 1}
    assert [one.path.name for one in project.pictures("10")] == ["photo.jpeg"]
    project.close()


def test_pictures_are_listed_oldest_first_and_then_by_name(tmp_path):
    (tmp_path / "cup").mkdir()
    for name, time in (("new.png", 30), ("b10.png", 20), ("b9.png", 20), ("old.png", 10)):
        (tmp_path / "cup" / name).write_bytes(b"")
        os.utime(tmp_path / "cup" / name, (time, time))
    project = Project(tmp_path)
    assert [one.path.name for one in project.pictures("cup")] == ["old.png", "b9.png", "b10.png", "new.png"]
    assert project.add("cup", encode(picture()), ".png") == project.pictures("cup")[-1]
    project.close()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["train/cup/a.png", "test/cup/b.png"], "has splits"),
        (["train/cup/a.png"], "has splits"),
        (["train/a.png", "test/b.png"], "not classes"),
        (["cup/deep/a.png", "mug/b.png"], "folder within a class folder"),
        (["labels.csv", "cup/a.png"], "labels may be in a table"),
        (["images.npz"], "labels may be in a table"),
    ],
)
def test_other_folders_are_refused_with_what_to_do(tmp_path, files, reason):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(picture()))
    before = tree(tmp_path)
    with pytest.raises(DataError, match=reason):
        Project(tmp_path)
    assert tree(tmp_path) == before
    assert not (tmp_path / ".foveola").exists()


def test_a_file_a_linked_class_and_a_linked_bin_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        Project(tmp_path / "file")
    (tmp_path / "elsewhere").mkdir()
    for link in ("classes/cup", "bin/.foveola", "deep/.foveola/bin"):
        (tmp_path / "links" / link).parent.mkdir(parents=True)
        (tmp_path / "links" / link).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        with pytest.raises(UserError, match="a link, which may lead out"):
            Project(tmp_path / "links" / link.partition("/")[0])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_process_has_it_open(project, folder):
    with pytest.raises(OutputError, match="Another `foveola teach` has"):
        Project(folder)
    project.close()
    Project(folder).close()


def test_links_and_other_files_are_not_shown_but_said(project, folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(encode(picture(8)))
    (folder / "cup" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    (folder / "stray.png").write_bytes(b"")
    (folder / "cup" / "notes.txt").write_text("")
    (folder / "cup" / "Thumbs.db").write_text("")
    project.refresh()
    assert project.counts() == {"cup": 3, "mug": 0}
    (note,) = project.notes
    assert note.startswith("Not shown, because only image files directly in class folders are: linked, stray.png")


# Names


@pytest.mark.parametrize("name", ["Tasse", "お茶", "cup 2", "x.y", "ü" * 127, "O'Neill", "-", "👩‍🔬"])
def test_names_that_a_class_can_have(project, name):
    project.add_class(name)
    assert name in project.counts()
    project.add(name, encode(picture(5)), ".png")
    project.delete_class("mug")
    assert set(foveola.load(project.folder).class_names) == {"cup", name}


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", ".hidden", "a/b", "../up", "/etc", "a\\b", "a\0b", "a\nb", "end.", " a", "a ", "a:b", "a*",
     "README", "copying", "__pycache__", "lost+found", "@eaDir", "ü" * 128, "a\x9bb", "a\u202eb", "\udc80",
     "test", "Train", "validation-set"],
)  # fmt: skip
def test_names_that_it_cannot_have(project, folder, name):
    before = tree(folder.parent)
    for change in (lambda: project.add_class(name), lambda: project.rename_class("cup", name)):
        with pytest.raises(UserError, match="cannot be called"):
            change()
    assert tree(folder.parent) == before


def test_names_that_differ_in_case_or_unicode_form_only_are_one(project):
    project.add_class(unicodedata.normalize("NFD", "Tüte"))
    assert "Tüte" in project.counts()
    for name in ("CUP", "tüte", unicodedata.normalize("NFD", "Tüte")):
        with pytest.raises(UserError, match="There is a class"):
            project.add_class(name)
    project.rename_class("cup", "Cup")
    assert project.counts() == {"Cup": 3, "mug": 0, "Tüte": 0}


def test_a_name_that_something_else_has_is_not_replaced(project, folder):
    (folder / "beaker").write_text("not a class")
    with pytest.raises(UserError, match="nothing is replaced"):
        project.rename_class("cup", "beaker")
    assert (folder / "beaker").read_text() == "not a class"
    assert project.counts()["cup"] == 3
    assert project.undo_text == "add class mug"


@pytest.mark.parametrize("name", ["glass", "../cup", "", ".foveola", "cup/"])
def test_classes_that_there_are_not(project, name):
    for change in (
        lambda: project.delete_class(name),
        lambda: project.rename_class(name, "glass"),
        lambda: project.move(ids(project, "cup"), name),
        lambda: project.add(name, b"", ".png"),
        lambda: project.pictures(name),
    ):
        with pytest.raises(UserError, match="Unknown class"):
            change()


# Changes and undoing them

CHANGES = {
    "add class glass": lambda project: project.add_class("glass"),
    "rename class cup to glass": lambda project: project.rename_class("cup", "glass"),
    "delete class cup (3 images)": lambda project: project.delete_class("cup"),
    "move 2 images to mug": lambda project: project.move(ids(project, "cup")[:2], "mug"),
    "delete 1 image": lambda project: project.delete(ids(project, "cup")[1:2]),
}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("text", CHANGES)
def test_every_change_is_undone(project, folder, text, restart):
    before, identities = tree(folder), project.all_pictures()
    CHANGES[text](project)
    assert project.undo_text == text
    assert tree(folder) != before
    if restart:
        project = reopened(project)
    assert project.undo_text == text
    assert project.undo() == text
    assert tree(folder) == before
    assert project.all_pictures() == identities
    assert list((folder / ".foveola" / "bin").glob(f"*{text[-1]}/*")) == []
    project.close()


def test_any_changes_are_undone_in_reverse(project, folder):
    random_changes = random.Random(0)  # noqa: S311
    states = []
    for step in range(40):
        states.append(tree(folder))
        names = list(project.counts())
        filled = [name for name in names if project.pictures(name)]
        kind = random_changes.choice(("add", "rename", "delete", "move", "move", "remove"))
        if kind == "add" or not filled:
            project.add_class(f"class {step}")
        elif kind == "rename":
            project.rename_class(random_changes.choice(names), f"class {step}")
        elif kind == "delete" and len(names) > 3:
            project.delete_class(random_changes.choice(names))
        elif kind == "move" and len(names) > 1:
            source, target = random_changes.choice(filled), random_changes.choice(names)
            project.move(ids(project, source)[:1], target)
            if source == target:
                assert tree(folder) == states.pop()
        else:
            project.delete(ids(project, random_changes.choice(filled))[-1:])
        if step % 20 == 7:
            project = reopened(project)
    while states:
        project.undo()
        assert tree(folder) == states.pop()
    project.close()


def test_what_came_later_stays_when_a_change_is_undone(project, folder):
    before = set(tree(folder).values())
    project.delete_class("cup")
    project.add_class("cup")
    later = project.add("cup", encode(picture(7)), ".png")
    project.undo()
    assert project.counts() == {"cup": 4, "mug": 0}
    assert set(tree(folder).values()) == before | {later.path.read_bytes()}
    project.undo()  # the class mug, which is empty
    project.undo()  # the class cup, which has pictures, is not undone
    assert project.counts() == {"cup": 4}


def test_two_pictures_of_one_name_are_both_kept(project, folder):
    for name, seed in (("cup", 5), ("mug", 6)):
        (folder / name / "same.png").write_bytes(encode(picture(seed)))
    project.refresh()
    before = tree(folder)
    (moved,) = (one.id for one in project.pictures("cup") if one.path.name == "same.png")
    project.move([moved], "mug")
    assert (folder / "mug" / "same-2.png").read_bytes() == before["cup/same.png"]
    (folder / "cup" / "same.png").write_bytes(b"a third")
    project.undo()
    assert (folder / "cup" / "same-2.png").read_bytes() == before["cup/same.png"]
    assert tree(folder) == before | {"cup/same.png": b"a third", "cup/same-2.png": before["cup/same.png"]}


def test_pictures_change_all_or_none(project, folder):
    before = tree(folder)
    wanted = [*ids(project, "cup"), "0123456789abcdef"]
    for change in (lambda: project.move(wanted, "mug"), lambda: project.delete(wanted), lambda: project.keep(wanted)):
        with pytest.raises(UserError, match="1 of these 4 images are not there any more"):
            change()
    assert tree(folder) == before


def test_moving_pictures_where_they_are_changes_nothing(project, folder):
    before, text = tree(folder), project.undo_text
    project.move(ids(project, "cup"), "cup")
    assert (tree(folder), project.undo_text) == (before, text)


def test_a_suspect_that_is_kept_stays_kept_when_its_class_is_renamed(project):
    first, _, _ = ids(project, "cup")
    project.keep([first])
    project.rename_class("cup", "glass")
    project = reopened(project)
    assert [project.is_kept(one) for one in ids(project, "glass")] == [True, False, False]
    project.move(ids(project, "glass"), "mug")
    assert not any(map(project.is_kept, ids(project, "mug")))
    project.close()


# Interruptions and faults


class Killed(BaseException):
    """The process ends here."""


def fail_at(monkeypatch, number, error):
    """Let the renaming with this number fail."""
    rename, calls = Path.rename, []

    def renaming(path, target):
        calls.append(path)
        if len(calls) == number:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renaming)


@pytest.mark.parametrize("change", [lambda p: p.move(ids(p, "cup"), "mug"), lambda p: p.delete(ids(p, "cup"))])
def test_a_change_that_fails_half_way_leaves_everything_as_it_was(project, folder, monkeypatch, change):
    before, text = tree(folder), project.undo_text
    fail_at(monkeypatch, 3, OSError(28, "No space left on device"))
    with pytest.raises(Refused, match=r"No space left on device\. Nothing was changed"):
        change(project)
    assert (tree(folder), project.undo_text) == (before, text)
    assert project.counts() == {"cup": 3, "mug": 0}
    change(project)
    assert project.counts()["cup"] == 0


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("change", [lambda p: p.move(ids(p, "cup"), "mug"), lambda p: p.delete(ids(p, "cup"))])
def test_a_change_that_was_killed_half_way_is_undone_after_a_restart(project, folder, monkeypatch, change, number):
    before = tree(folder)
    with monkeypatch.context() as patch:
        fail_at(patch, number, Killed())
        with pytest.raises(Killed):
            change(project)
    project = reopened(project)
    assert project.undo() in ("move 3 images to mug", "delete 3 images")
    assert tree(folder) == before
    project.close()


def test_undoing_that_was_killed_half_way_goes_on(project, folder, monkeypatch):
    before = tree(folder)
    project.delete(ids(project, "cup"))
    with monkeypatch.context() as patch:
        fail_at(patch, 2, Killed())
        with pytest.raises(Killed):
            project.undo()
    project = reopened(project)
    project.undo()
    assert tree(folder) == before
    project.close()


def test_a_disk_that_is_full_leaves_nothing_half_written(project, folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for change in (lambda: project.add("cup", encode(picture(6)), ".png"), lambda: project.delete_class("cup")):
            with pytest.raises(Refused, match="No space left on device") as refused:
                change()
            assert refused.value.status == 507
            assert str(folder) not in refused.value.message
    assert tree(folder) == before
    assert project.counts() == {"cup": 3, "mug": 0}


def test_a_picture_of_which_a_part_can_be_written_is_not_kept(project, folder):
    resource = pytest.importorskip("resource", reason="Windows has no limit for the size of files")
    before, limit = tree(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))
    try:
        with pytest.raises(Refused, match="File too large"):
            project.add("cup", encode(picture(6, (200, 200))), ".png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert tree(folder) == before


def test_a_folder_that_vanishes_is_said_and_not_made_again(project, folder):
    folder.rename(folder.with_name("moved"))
    wanted = ids(project, "cup")
    for change in (
        project.refresh,
        project.undo,
        lambda: project.add_class("glass"),
        lambda: project.add("cup", encode(picture(6)), ".png"),
        lambda: project.delete(wanted),
    ):
        with pytest.raises(Refused, match="not there any more") as refused:
            change()
        assert refused.value.status == 410
    assert not folder.exists()
    folder.with_name("moved").rename(folder)
    project.refresh()
    project.add("cup", encode(picture(6)), ".png")
    assert project.counts() == {"cup": 4, "mug": 0}


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(project, folder):
    left = [".picture-0123456789abcdef.png.77.tmp", ".recording-01234567_0003.jpg.8.tmp"]
    others = [".hidden.tmp", ".DS_Store", ".picture-mine.tmp"]
    for name in left + others:
        (folder / "cup" / name).write_bytes(b"half")
    project = reopened(project)
    assert project.counts()["cup"] == 3
    assert {path.name for path in (folder / "cup").glob(".*")} == set(others)
    project.close()


@pytest.mark.parametrize(
    "record",
    [
        {"text": "x", "moves": [["../outside", "cup/a.png"]], "made": []},
        {"text": "x", "moves": [["cup/a.png", "/etc/passwd"]], "made": []},
        {"text": "x", "moves": [["cup", ".foveola/bin/000009/../../../up"]], "made": []},
        {"text": "x", "moves": [[".foveola/kept.json", "cup/a.png"]], "made": []},
        {"text": "x", "moves": [], "made": ["../outside"]},
        {"text": "x", "moves": [["cup"]], "made": []},
        {"moves": []},
        [],
        "text",
    ],
)
def test_a_record_that_names_anything_else_is_ignored(project, folder, record):
    (folder.parent / "outside").mkdir()
    place = folder / ".foveola" / "bin" / "000009"
    place.mkdir()
    (place / "change.json").write_text(json.dumps(record))
    project = reopened(project)
    assert project.undo_text == "add class mug"
    project.close()


def test_a_bin_of_many_changes_undoes_the_last_ones(project, monkeypatch):
    monkeypatch.setattr(changes, "MAX_UNDO", 3)
    for number in range(5):
        project.rename_class(next(iter(project.counts())), f"class {number}")
    assert [project.undo() for _ in range(4)][-2:] == ["rename class class 1 to class 2", None]


# The bin


def test_what_was_deleted_for_good_is_gone_and_changes_since_can_be_undone(project, folder):
    place = folder / ".foveola" / "bin"
    first, second, third = project.pictures("cup")
    project.delete([first.id])
    project.move([second.id], "mug")
    project.delete([third.id])
    assert project.bin_size.images == 2
    assert project.bin_size.bytes == sum(path.stat().st_size for path in place.rglob("*.png"))
    project.rename_class("mug", "glass")
    project.add_class("bowl")
    project.empty_bin()
    assert project.bin_size == (0, 0)
    assert list(place.rglob("*.png")) == []
    project = reopened(project)
    assert [project.undo() for _ in range(3)] == ["add class bowl", "rename class mug to glass", None]
    assert project.counts() == {"cup": 0, "mug": 1}
    project.delete_class("mug")
    assert project.undo() == "delete class mug (1 image)"
    assert project.counts() == {"cup": 0, "mug": 1}
    project.close()


def test_a_bin_that_cannot_be_emptied_says_so_and_undoes_nothing_by_halves(project, folder, monkeypatch):
    project.delete_class("cup")
    with monkeypatch.context() as patch:
        patch.setattr(changes.shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError(13, "Permission denied")))
        with pytest.raises(Refused, match=r"^The bin cannot be emptied: Permission denied\. What is left is still"):
            project.empty_bin()
    assert project.undo() is None
    assert project.bin_size.images == 3
    project.empty_bin()
    assert (project.bin_size, project.counts()) == ((0, 0), {"mug": 0})


# Additions


def test_frames_of_a_recording_are_numbered_and_never_replaced(project, folder):
    frames = [project.add("cup", encode(picture(seed)), ".png", "Monday 10:00").path for seed in range(10, 13)]
    assert [path.name[-8:] for path in frames] == ["0001.png", "0002.png", "0003.png"]
    assert len({path.name[:18] for path in frames}) == 1
    binned = project.pictures("cup")[-1]
    project.delete([binned.id])
    project = reopened(project)
    again = project.add("cup", encode(picture(13)), ".png", "Monday 10:00")
    project.undo()
    kept = {one.path.name for one in project.pictures("cup") if one.recording == again.recording}
    assert len(kept) == 4
    other = project.add("mug", encode(picture(14)), ".png", "Monday 10:01")
    assert other.recording != again.recording
    groups = foveola.load(folder, groups=r"((?:recording-[0-9a-f]{8}(?=_))|.+)").train.groups
    assert sorted(map(int, (groups[:, None] == groups).sum(axis=1))) == [1, 1, 1, 1, 4, 4, 4, 4]
    project.close()


def test_a_file_that_others_have_put_in_the_way_is_not_replaced(project, folder):
    first = project.add("cup", encode(picture(10)), ".png", "r").path
    (folder / "cup" / first.name.replace("0001", "0002")).write_bytes(b"somebody's")
    assert project.add("cup", encode(picture(11)), ".png", "r").path.name.endswith("_0003.png")


def test_a_full_project_takes_no_more(project, monkeypatch):
    monkeypatch.setattr(project_module, "MAX_PICTURES", 3)
    with pytest.raises(Refused, match="The project is full: it has 3 images"):
        project.add("cup", encode(picture(6)), ".png")
    project.delete(ids(project, "cup")[:1])
    project.add("cup", encode(picture(6)), ".png")


def test_a_project_that_is_too_large_is_not_opened(project, monkeypatch):
    monkeypatch.setattr(listing, "MAX_OPENED", 2)
    with pytest.raises(DataError, match=r"holds 3 images; up to 2 can be shown\. Train from the command line"):
        reopened(project)
    monkeypatch.undo()
    Project(project.folder).close()


def test_a_class_folder_that_becomes_a_link_is_not_followed(project, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "mug").rmdir()
    (folder / "mug").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(Refused, match="has become a link"):
        project.add("mug", encode(picture(6)), ".png")
    project.refresh()
    assert project.counts() == {"cup": 3}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_many_at_once(project, folder):
    def work(number):
        added = [project.add("cup", encode(picture(100 + 10 * number + one)), ".png", "r") for one in range(4)]
        project.move([added[0].id], "mug")
        project.delete([added[1].id])
        return added

    told = threading.Event()
    project.on_change.append(told.set)
    with ThreadPoolExecutor(6) as pool:
        added = [one for some in pool.map(work, range(6)) for one in some]
    assert told.is_set()
    assert len({one.path.name for one in added}) == 24
    assert project.counts() == {"cup": 3 + 12, "mug": 6}
    found = {path.name for path in folder.rglob("*.png")}
    assert {one.path.name for one in added} <= found
    while project.undo() is not None:
        pass
    assert sum(project.counts().values()) == 27


# What others change


def test_what_others_change_is_seen(project, folder):
    told = []
    project.on_change.append(lambda: told.append(project.counts()))
    project.refresh()
    assert told == []
    (folder / "glass").mkdir()
    (folder / "glass" / "a.png").write_bytes(encode(picture(5)))
    (folder / "cup" / ids_to_names(project)[0]).unlink()
    project.refresh()
    assert told == [{"cup": 2, "glass": 1, "mug": 0}]
    old = project.pictures("glass")[0]
    (folder / "new.png").write_bytes(encode(picture(6)))
    (folder / "new.png").replace(folder / "glass" / "a.png")
    project.refresh()
    (new,) = project.pictures("glass")
    assert new.id == old.id
    assert new.key != old.key


def ids_to_names(project):
    return [one.path.name for one in project.pictures("cup")]


def test_ten_thousand_pictures_are_read_once(tmp_path, monkeypatch):
    (tmp_path / "cup").mkdir()
    (tmp_path / "mug").mkdir()
    for number in range(10_000):
        (tmp_path / "cup" / f"{number}.png").touch()
    read, listed = [], []
    make, scan = listing.read_picture, os.scandir
    monkeypatch.setattr(listing, "read_picture", lambda name, path: read.append(path) or make(name, path))
    project = Project(tmp_path)
    assert (project.count, len(read)) == (10_000, 10_000)
    read.clear()
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scan(path))
    monkeypatch.setattr(listing, "_RECENT_NANOSECONDS", 0)
    for _ in range(5):
        project.refresh()
        project.counts()
        project.pictures("cup")
    assert (read, listed) == ([], [])
    project.add("mug", encode(picture()), ".png")
    project.refresh()
    assert (len(read), listed) == (1, [])
    project.move(ids(project, "mug"), "cup")
    assert project.counts() == {"cup": 10_001, "mug": 0}
    assert len(read) <= 3
    project.close()


def test_a_picture_is_found_by_its_path(project, folder):
    one = project.pictures("cup")[0]
    for path in (one.path, str(one.path), f"cup/{one.path.name}", Path("cup", one.path.name)):
        assert project.picture_at(path) == one
    for path in ("cup", "mug/" + one.path.name, "/etc/passwd", folder.parent / "cup" / one.path.name):
        assert project.picture_at(path) is None
