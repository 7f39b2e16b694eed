"""POST /keep: what is kept is an image folder that Foveola reads, and nothing else is ever written."""

import numpy as np
import pytest

import foveola
from foveola.errors import OutputError
from foveola.serving import collect
from foveola.serving.collect import Collection


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept" / "pictures"


@pytest.fixture
def keeping(serve, kept):
    return serve(collect=kept)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_can_be_learnt_from(keeping, kept, toy, encoded):
    for image, label in zip(toy.train.images, toy.train.labels, strict=True):
        name = toy.class_names[label]
        answer = keeping.post(f"/keep?class={name}", content=encoded(image, "BMP"))
        assert answer.status_code == 201
        assert answer.json()["class"] == name
    assert answer.json()["kept"] == 20
    data = foveola.load(kept)
    assert data.class_names == tuple(sorted(toy.class_names))
    found = {
        image.tobytes(): data.class_names[label]
        for image, label in zip(data.train.images, data.train.labels, strict=True)
    }
    assert found == {
        image.tobytes(): toy.class_names[label] for image, label in zip(toy.train.images, toy.train.labels, strict=True)
    }


def test_the_same_picture_twice_overwrites_nothing(keeping, kept, images, encoded):
    for count in (1, 2):
        assert keeping.post("/keep?class=left", content=encoded(images[0])).json()["kept"] == count
    names = [path.name for path in files(kept)]
    assert len(set(names)) == 2


def test_what_is_written_is_not_what_came(keeping, kept, encoded):
    photograph = encoded(np.full((9, 7, 3), 200, np.uint8), "JPEG", comment=b"<script>alert(1)</script>")
    keeping.post("/keep?class=left", content=photograph + b"appended")
    (path,) = files(kept)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"script" not in content
    assert b"appended" not in content


def test_no_folder_no_route(client, images, encoded):
    assert client.post("/keep?class=left", content=encoded(images[0])).status_code == 404
    assert "/keep" not in client.get("/openapi.json").json()["paths"]
    assert client.get("/model").json()["collect"] is False


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "class: Field required"),
        ("?class=", "Unknown class ''"),
        ("?class=lef", "Unknown class 'lef'. Did you mean 'left'?"),
        ("?class=../../left", "Unknown class '../../left'"),
        ("?class=left%00", "Unknown class"),
        ("?class=/etc", "Unknown class '/etc'"),
    ],
)
def test_only_classes_of_the_model(keeping, kept, images, encoded, query, reason):
    answer = keeping.post(f"/keep{query}", content=encoded(images[0]))
    assert answer.status_code == 422
    assert reason in answer.json()["error"]
    assert files(kept.parent) == []


def test_only_pictures(keeping, kept, images):
    assert keeping.post("/keep?class=left", content=b"no picture").status_code == 422
    assert keeping.post("/keep?class=left", json=images[0].tolist()).status_code == 415
    assert files(kept.parent) == []


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 2), ("MAX_BYTES", 250)])
def test_a_full_folder_takes_no_more(keeping, kept, images, encoded, monkeypatch, limit, value):
    monkeypatch.setattr(collect, limit, value)
    statuses = [keeping.post("/keep?class=left", content=encoded(images[0])).status_code for _ in range(5)]
    assert statuses[0] == 201
    assert statuses[-1] == 507
    assert len(files(kept)) == statuses.count(201)


def test_every_file_in_the_folder_counts(keeping, kept, images, encoded, monkeypatch):
    monkeypatch.setattr(collect, "MAX_BYTES", 100_000)
    (kept / "deeper" / "still").mkdir(parents=True)
    (kept / "deeper" / "still" / "notes.txt").write_bytes(bytes(100_000))
    answer = keeping.post("/keep?class=left", content=encoded(images[0]))
    assert (answer.status_code, list(kept.rglob("*.png"))) == (507, [])


def test_the_folder_is_not_counted_for_every_picture(keeping, kept, images, encoded, monkeypatch):
    counts = []
    monkeypatch.setattr(collect, "_SECONDS_BETWEEN_COUNTS", 1e9)
    monkeypatch.setattr(type(kept), "rglob", lambda folder, pattern: counts.append(folder) or [])
    answers = [keeping.post("/keep?class=left", content=encoded(images[0])).json() for _ in range(4)]
    assert [answer["kept"] for answer in answers] == [1, 2, 3, 4]
    assert counts == [kept]


def test_a_class_folder_that_is_a_link_is_refused(keeping, kept, images, encoded, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (kept / "left").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    answer = keeping.post("/keep?class=left", content=encoded(images[0]))
    assert answer.status_code == 507
    assert "is a link" in answer.json()["error"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_disk_that_is_full_leaves_nothing_half_written(keeping, kept, images, encoded, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collect, "write_atomically", full)
    answer = keeping.post("/keep?class=left", content=encoded(images[0]))
    assert answer.status_code == 507
    assert "No space left on device" in answer.json()["error"]
    assert str(kept) not in answer.text
    assert files(kept) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "end.", " a", "a ", "a:b", "a*", "README", "licence.txt",
     "Thumbs.db", "__MACOSX", "ü" * 128],
)  # fmt: skip
def test_names_that_no_class_folder_can_have(tmp_path, name):
    with pytest.raises(OutputError, match="Rename the class"):
        Collection(tmp_path, ("good", name))


@pytest.mark.parametrize("name", ["T-shirt", "お", "train", "1", "a b", "x.y", "ü" * 127])
def test_names_that_one_can_have(tmp_path, name):
    Collection(tmp_path, ("good", name))


def test_names_that_are_one_for_some_file_systems(tmp_path):
    with pytest.raises(OutputError, match="differ in case only"):
        Collection(tmp_path, ("a", "A"))


def test_folders_that_cannot_be_collected_into(tmp_path):
    (tmp_path / "splits" / "Train" / "left").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"has splits.*Train"):
        Collection(tmp_path / "splits", ("left",))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Collection(tmp_path / "file", ("left",))
