"""Routes of classes, pictures and thumbnails: what the page relies on, and what attackers send."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from starlette.testclient import TestClient
from studio_pictures import encode, picture, tree

from foveola.serving.settings import Settings
from foveola.teaching.app import create_app
from foveola.teaching.project import Project
from foveola.teaching.studio import Studio

POSTS = ("classes", "classes/rename", "classes/delete", "undo", "bin/empty", "pictures/move", "pictures/delete")


def send(client, pixels, query="class=cup", kind="PNG"):
    return client.post(f"/project/pictures?{query}", content=encode(pixels, kind), headers={"Content-Type": "image/x"})


def listed(client, name="cup", **query):
    return client.get("/project/pictures", params={"class": name, **query}).json()


# What the page relies on


def test_the_project_document(client, folder):
    assert client.get("/project").json() == {
        "name": "pictures",
        "folder": str(folder),
        "classes": [{"name": "cup", "count": 3}, {"name": "mug", "count": 0}],
        "pictures": 3,
        "undo": "add class mug",
        "bin": {"images": 0, "bytes": 0},
        "notes": [],
        "model": None,
        "job": None,
        "summary": None,
        "commands": {},
        "unfinished": None,
    }


def test_classes_are_made_renamed_deleted_and_undone(client, folder):
    before = tree(folder)
    answers = [
        client.post("/project/classes", json={"name": "glass"}),
        client.post("/project/classes/rename", json={"name": "cup", "to": "Tasse"}),
        client.post("/project/classes/delete", json={"name": "Tasse"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[-1].json()["classes"] == [{"name": "glass", "count": 0}, {"name": "mug", "count": 0}]
    assert answers[-1].json()["undo"] == "delete class Tasse (3 images)"
    for text in ("rename class cup to Tasse", "add class glass", "add class mug"):
        document = client.post("/project/undo", json={}).json()
        assert document["undo"] == text
    assert tree(folder) == before
    assert document == client.get("/project").json()


def test_a_picture_is_added_and_listed_with_its_thumbnail(client, project):
    answer = send(client, picture(5), "class=mug&recording=1")
    document = answer.json()
    assert answer.status_code == 201
    assert document.keys() == {"id", "count", "near", "findings"}
    assert (document["count"], document["near"], document["findings"]) == (1, None, [])
    (one,) = listed(client, "mug")["pictures"]
    assert (one["id"], one["near"]) == (document["id"], None)
    assert one["recording"] == project.pictures("mug")[0].recording is not None
    shown = client.get("/project/thumbnail", params={"id": one["id"]})
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.size == (30, 40)
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["cache-control"] == "private, max-age=3600"
    again = client.get(f"/project/thumbnail?id={one['id']}", headers={"If-None-Match": shown.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_copy_is_not_taken_and_one_that_is_nearly_the_same_is_marked(client, project):
    first = send(client, picture(5)).json()["id"]
    for kind in ("PNG", "BMP"):
        answer = send(client, picture(5), "class=mug", kind)
        assert (answer.status_code, answer.json()) == (200, {"copy": {"class": "cup", "id": first}})
    near = send(client, picture(5) ^ 1, "class=mug").json()
    assert (near["near"], near["count"]) == (first, 1)
    assert listed(client, "mug")["pictures"][0]["near"] == first
    client.post("/project/pictures/delete", json={"ids": [first]})
    assert listed(client, "mug")["pictures"][0]["near"] is None
    assert send(client, picture(5)).status_code == 201


def test_pictures_are_listed_in_parts(client, project):
    for seed in range(10, 15):
        send(client, picture(seed))
    everything = [one["id"] for one in listed(client)["pictures"]]
    assert everything == [one.id for one in project.pictures("cup")]
    assert [one["id"] for one in listed(client, **{"from": 3, "count": 2})["pictures"]] == everything[3:5]
    assert listed(client, **{"from": 100}) == {"total": 8, "pictures": []}


def test_pictures_are_moved_and_deleted(client, folder):
    before = tree(folder)
    wanted = [one["id"] for one in listed(client)["pictures"]]
    document = client.post("/project/pictures/move", json={"ids": wanted[:2], "to": "mug"}).json()
    assert document["classes"] == [{"name": "cup", "count": 1}, {"name": "mug", "count": 2}]
    document = client.post("/project/pictures/delete", json={"ids": wanted[2:]}).json()
    assert (document["classes"][0]["count"], document["undo"]) == (0, "delete 1 image")
    for _ in range(2):
        document = client.post("/project/undo", json={}).json()
    assert tree(folder) == before


def test_the_bin_is_emptied(client, folder):
    wanted = [one["id"] for one in listed(client)["pictures"]][:2]
    client.post("/project/pictures/delete", json={"ids": wanted})
    size = sum(path.stat().st_size for path in (folder / ".foveola" / "bin").rglob("*.png"))
    assert client.get("/project").json()["bin"] == {"images": 2, "bytes": size}
    document = client.post("/project/bin/empty", json={}).json()
    assert (document["bin"], document["undo"], document["pictures"]) == ({"images": 0, "bytes": 0}, None, 1)
    assert document == client.get("/project").json()


def test_what_others_change_is_in_the_next_document(client, folder):
    (folder / "glass").mkdir()
    (folder / "glass" / "a.png").write_bytes(encode(picture(7)))
    assert client.get("/project").json()["classes"][1] == {"name": "glass", "count": 1}


def test_names_that_no_text_can_hold_are_shown_escaped(client, folder):
    (folder / "caf\udce9").mkdir()
    assert {"name": r"caf\xe9", "count": 0} in client.get("/project").json()["classes"]
    assert send(client, picture(7), r"class=caf\xe9").status_code == 201
    assert len(list((folder / "caf\udce9").iterdir())) == 1


def test_the_page_and_what_it_shares_with_the_server(client):
    for path, kind in (("/", "text/html"), ("/page/style.css", "text/css"), ("/page/drawing.js", "text/javascript")):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]


# What cannot be


@pytest.mark.parametrize(
    "query",
    ["", "class=", "class=glass", "class=../cup", "class=cup/../cup", "class=/etc", "class=cup%00", "class=.foveola",
     "class=cup&class=mug", "class=cup&name=x", "class=cup&recording=", "class=cup&recording=" + "r" * 201],
)  # fmt: skip
def test_classes_and_parameters_that_are_refused(client, folder, query):
    before = tree(folder.parent)
    answer = send(client, picture(5), query)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert tree(folder.parent) == before


@pytest.mark.parametrize("identifier", ["", "x", "0" * 15, "0" * 17, "../../etc/passwd", "0123456789ABCDEF", "0" * 16])
def test_ids_that_are_refused(client, folder, identifier):
    before = tree(folder)
    assert client.get("/project/thumbnail", params={"id": identifier}).status_code in (404, 422)
    for path, body in (("move", {"to": "mug"}), ("delete", {})):
        answer = client.post(f"/project/pictures/{path}", json={"ids": [identifier], **body})
        assert answer.status_code == 422
    assert tree(folder) == before


@pytest.mark.parametrize("size", ["huge", "", "../large", "small.jpg"])
def test_sizes_of_thumbnails_that_there_are_not(client, project, size):
    one = project.pictures("cup")[0]
    assert client.get("/project/thumbnail", params={"id": one.id, "size": size}).status_code == 422


@pytest.mark.parametrize("path", POSTS)
def test_json_that_is_refused(client, folder, path):
    before = tree(folder)
    for body in (b"", b"{", b"null", b"[]", b'"cup"', b'{"name": 1}', b'{"name": "glass", "path": "/etc"}', b"\xff",
                 b"[" * 100_000, b'{"ids": "all", "to": "mug"}', b'{"ids": [], "to": "mug"}',
                 b'{"name": "\\ud800", "to": "\\ud800"}'):  # fmt: skip
        answer = client.post(f"/project/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]
    assert tree(folder) == before


@pytest.mark.parametrize("path", POSTS)
def test_bodies_of_other_types_are_refused(client, path):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/png"):
        answer = client.post(f"/project/{path}", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415
    long = json.dumps({"ids": ["0" * 16] * 70_000, "to": "mug"})
    answer = client.post(f"/project/{path}", content=long, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_pictures_that_are_refused(client, folder):
    before = tree(folder)
    bomb = io.BytesIO()
    Image.new("1", (5_000, 5_000)).save(bomb, "PNG")
    bodies = (b"", b"GIF89a", b"<svg/>", encode(picture())[:-30], bomb.getvalue())
    for body in bodies:
        answer = client.post("/project/pictures?class=cup", content=body, headers={"Content-Type": "image/png"})
        assert answer.status_code == 422
    assert client.post("/project/pictures?class=cup", json={}).status_code == 415
    assert tree(folder) == before


def test_a_body_that_is_too_long_is_refused(project, serve, folder):
    client = serve(project, max_body_bytes=1000)
    assert send(client, picture(5, (200, 200))).status_code == 413
    assert project.counts()["cup"] == 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403)],
)
def test_pages_from_elsewhere_reach_nothing(client, folder, headers, status):
    before = tree(folder)
    for path in POSTS:
        assert client.post(f"/project/{path}", json={}, headers=headers).status_code == status
    for path in ("/project", "/project/pictures?class=cup", "/"):
        assert client.get(path, headers=headers).status_code == status
    assert tree(folder) == before


def test_a_key_is_asked_for_everywhere_but_for_the_page(project, serve):
    client = serve(project, api_key="secret")
    assert client.get("/").status_code == 200
    assert client.get("/project").status_code == 401
    assert send(client, picture(5)).status_code == 401
    assert client.get("/project", headers={"X-API-Key": "secret"}).status_code == 200


# Faults


def test_a_full_disk_is_said(client, folder, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr("foveola.teaching.project.write_atomically", full)
        answer = send(client, picture(5))
    assert answer.status_code == 507
    assert answer.json()["error"] == (
        "The change cannot be written: No space left on device. Nothing was changed; make room on the disk or change "
        "the folder's permissions, and try again."
    )
    assert tree(folder) == before
    assert send(client, picture(5)).status_code == 201


def test_a_folder_that_vanishes_is_said_and_comes_back(client, folder):
    folder.rename(folder.with_name("moved"))
    answers = [client.get("/project"), send(client, picture(5)), client.post("/project/undo", json={})]
    assert [answer.status_code for answer in answers] == [410] * 3
    assert not folder.exists()
    folder.with_name("moved").rename(folder)
    assert client.get("/project").json()["pictures"] == 3
    assert send(client, picture(5)).status_code == 201


def test_a_picture_that_cannot_be_read_has_no_thumbnail(client, project, folder):
    (folder / "mug" / "broken.png").write_bytes(b"broken")
    client.get("/project")
    (one,) = listed(client, "mug")["pictures"]
    answer = client.get("/project/thumbnail", params={"id": one["id"]})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("mug/broken.png is not an image of an accepted format")


def test_more_thumbnails_than_can_wait_are_put_off(client, project, monkeypatch):
    studio = client.app.state.studio
    monkeypatch.setattr(studio.thumbnailing, "_room", 0)
    answer = client.get("/project/thumbnail", params={"id": project.pictures("cup")[0].id})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_equal_pictures_that_arrive_together_are_taken_once(client, project):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: send(client, picture(20 + number % 3)), range(24)))
    assert sorted(answer.status_code for answer in answers) == [200] * 21 + [201] * 3
    assert project.counts()["cup"] == 6


def test_at_the_end_the_folder_can_be_opened_again(project, serve):
    serve(project).__exit__(None, None, None)
    Project(project.folder).close()


def test_a_part_adds_to_the_document_and_ends_with_the_server(project, serve):
    told = []

    class Part:
        def fields(self):
            return {"job": "a job"}

        async def start(self):
            told.append("start")

        async def stop(self):
            told.append("stop")

    studio = Studio(project, Settings())
    studio.parts["job"] = Part()
    with TestClient(create_app(studio), base_url="http://localhost") as client:
        assert told == ["start"]
        assert client.get("/project").json()["job"] == "a job"
    assert told == ["start", "stop"]
