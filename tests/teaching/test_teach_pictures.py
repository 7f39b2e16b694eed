"""Pictures that arrive: kept without loss, copies found, what is unusual said; thumbnails made once."""

import io

import numpy as np
import pytest
from PIL import Image
from studio_pictures import encode, picture

from foveola.errors import DataError
from foveola.inputs.decode import decode
from foveola.teaching.copies import Copies, fingerprint
from foveola.teaching.doctor import MIN_PICTURES, Doctor
from foveola.teaching.pictures import SIDES, Thumbnails, receive
from foveola.teaching.survey import Survey

PLACE = Image.Exif()
PLACE[0x0110] = "a camera"
TURNED = Image.Exif()
TURNED[0x0112] = 6


def noisy(pixels, amount, seed=0):
    noise = np.random.default_rng(seed).integers(-amount, amount + 1, pixels.shape)
    return np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8)


# What arrives


@pytest.mark.parametrize(
    ("kind", "options", "suffix"),
    [
        ("PNG", {"exif": PLACE}, ".png"),
        ("JPEG", {"exif": PLACE, "comment": b"a camera"}, ".jpg"),
        ("JPEG", {"progressive": True}, ".jpg"),
        ("JPEG", {"exif": TURNED}, ".png"),
        ("WEBP", {"lossless": True}, ".png"),
        ("BMP", {}, ".png"),
    ],
)
def test_a_picture_is_kept_without_loss_and_without_its_metadata(kind, options, suffix):
    data = encode(picture(), kind, **options)
    arrival = receive(data + b"appended", 10**6)
    assert arrival.suffix == suffix
    assert np.array_equal(arrival.pixels, decode(data, "x"))
    assert np.array_equal(decode(arrival.content, "x"), arrival.pixels)
    assert b"camera" not in arrival.content
    assert b"appended" not in arrival.content
    assert receive(arrival.content, 10**6).content == arrival.content


def test_pictures_of_16_bits_and_with_transparency_stay_what_they_are():
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(40, 30) * 50)
    clear = Image.fromarray(picture()).convert("RGBA")
    clear.putalpha(Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(40, 30)))
    for image in (deep, clear):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        with Image.open(io.BytesIO(receive(buffer.getvalue(), 10**6).content)) as kept:
            assert kept.mode == image.mode
            assert np.array_equal(np.asarray(kept), np.asarray(image))


def test_of_an_animation_the_first_frame_is_kept_and_that_is_said():
    frames = [Image.fromarray(picture(seed)).convert("P") for seed in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    arrival = receive(buffer.getvalue(), 10**6)
    assert arrival.notes == ("animated; only its first frame is used",)
    assert np.array_equal(decode(arrival.content, "x"), decode(buffer.getvalue(), "x"))


@pytest.mark.parametrize(
    "data", [b"", b"no picture", encode(picture())[:500], encode(picture(), "JPEG")[:400], b"<svg/>"]
)
def test_what_is_no_whole_picture_is_refused(data):
    with pytest.raises(DataError):
        receive(data, 10**6)


def test_a_picture_with_too_many_pixels_is_refused():
    with pytest.raises(DataError, match="1 to 1,000 pixels"):
        receive(encode(picture()), 1000)


# Copies


@pytest.fixture
def copies(project):
    copies = Copies(project.hidden / "fingerprints", project.picture_with)
    for one in project.pictures("cup"):
        copies.add(one, fingerprint(decode(one.path.read_bytes(), "x")))
    return copies


def add(project, copies, pixels, recording=None):
    """A picture that is not compared before it is added; the one that is nearly the same."""
    one = project.add("cup", encode(pixels), ".png", recording)
    return one, copies.add(one, fingerprint(pixels))


def test_the_same_pixels_are_found_in_any_file(project, copies):
    first = project.pictures("cup")[0]
    pixels = decode(encode(picture(0), "BMP"), "x")
    assert copies.same(fingerprint(pixels)) == first
    grey = picture(4)[..., :1]
    kept, _ = add(project, copies, np.repeat(grey, 3, axis=2))
    assert copies.same(fingerprint(grey)) == kept
    changed = pixels.copy()
    changed[5, 5, 1] ^= 1
    assert copies.same(fingerprint(changed)) is None
    assert copies.same(fingerprint(pixels.transpose(1, 0, 2))) is None


def test_nearly_the_same_pixels_are_found_and_others_are_not(project, copies):
    first = project.pictures("cup")[0]
    one, near = add(project, copies, noisy(picture(0), 8))
    assert near == first
    assert copies.near(one) == first
    assert copies.near(first) is None
    _, near = add(project, copies, decode(encode(picture(0), "JPEG", quality=60), "x"))
    assert near in (first, one)
    for pixels in (picture(50), picture(0)[:, ::-1], np.clip(picture(0).astype(int) + 9, 0, 255).astype(np.uint8)):
        assert add(project, copies, pixels)[1] is None


def test_drawings_that_differ_are_not_nearly_the_same(project, copies):
    drawings = []
    for column in range(4, 24, 2):
        drawing = np.zeros((28, 28, 1), np.uint8)
        drawing[4:24, column : column + 2] = 255
        drawings.append(drawing)
    assert [add(project, copies, np.repeat(drawing, 3, axis=2))[1] for drawing in drawings] == [None] * 10


def test_frames_of_a_recording_are_compared_with_others_only(project, copies):
    assert add(project, copies, picture(20), "a")[1] is None
    assert add(project, copies, noisy(picture(20), 4), "a")[1] is None
    assert add(project, copies, noisy(picture(20), 4, 1), "b")[1] is not None
    assert add(project, copies, noisy(picture(20), 4, 2))[1] is not None


def test_a_picture_that_is_gone_is_no_copy_until_that_is_undone(project, copies):
    first = project.pictures("cup")[0]
    found = fingerprint(decode(first.path.read_bytes(), "x"))
    project.delete([first.id])
    assert copies.same(found) is None
    _, near = add(project, copies, noisy(picture(0), 4))
    assert near is None
    project.undo()
    assert copies.same(found) == first
    project.rename_class("cup", "glass")
    assert copies.same(found).class_name == "glass"


def test_fingerprints_are_kept_in_a_file_that_may_be_damaged(project, copies):
    near, _ = add(project, copies, noisy(picture(0), 8))
    path, first = project.hidden / "fingerprints", project.pictures("cup")[0]
    again = Copies(path, project.picture_with)
    assert again.near(near) == first
    assert all(map(again.knows, project.all_pictures()))
    content = bytearray(path.read_bytes())
    content[100] ^= 1  # of the first row
    path.write_bytes(content[:-5])  # of the last one
    again = Copies(path, project.picture_with)
    assert [again.knows(one) for one in project.pictures("cup")] == [False, True, True, False]
    path.write_bytes(b"nonsense" * 1000)
    assert Copies(path, project.picture_with).same(fingerprint(picture(0))) is None
    path.unlink()
    assert not Copies(path, project.picture_with).knows(first)


def test_many_pictures_are_compared(project, copies):
    many = [project.add("mug", encode(picture(seed, (16, 16))), ".png") for seed in range(100, 240)]
    for one in many:
        assert copies.add(one, fingerprint(decode(one.path.read_bytes(), "x"))) is None
    assert copies._nearest(project.pictures("cup")[0], fingerprint(noisy(picture(170, (16, 16)), 3))) == many[70]


def test_pictures_that_were_there_are_surveyed(project, folder):
    (folder / "mug" / "copy.jpg").write_bytes(encode(picture(1), "JPEG", quality=95))
    (folder / "mug" / "broken.png").write_bytes(b"broken")
    project.refresh()
    copies = Copies(project.hidden / "fingerprints", project.picture_with)
    survey = Survey(project, copies, Doctor())
    survey.look()
    assert [copies.knows(one) for one in project.pictures("cup")] == [True] * 3
    known = {one.path.name: copies.near(one) for one in project.pictures("mug") if copies.knows(one)}
    assert known == {"copy.jpg": project.pictures("cup")[1]}


# What is unusual


def test_what_differs_from_a_project_of_drawings_is_said(project, toy):
    doctor = Doctor()
    project.delete_class("cup")
    for image in toy.train.images[: MIN_PICTURES - 1]:
        project.add("mug", encode(np.kron(image[..., 0], np.ones((4, 4), np.uint8))), ".png")
    assert not doctor.is_outdated(project.count)
    project.add("mug", encode(np.kron(toy.train.images[40, ..., 0], np.ones((4, 4), np.uint8))), ".png")
    assert doctor.is_outdated(project.count)
    drawing = np.kron(toy.train.images[0], np.ones((4, 4, 1), np.uint8))
    assert doctor.findings(255 - drawing) == ()
    doctor.learn(project.all_pictures())
    assert not doctor.is_outdated(project.count)
    assert doctor.findings(drawing) == ()
    (inverted, *_) = doctor.findings(255 - drawing)
    assert inverted == "dark on light, but the training images are light on dark; invert it"
    assert doctor.findings(np.repeat(drawing, 3, axis=2) // np.array([1, 2, 3], np.uint8))[0].startswith("in colour")


def test_a_blank_picture_is_said_from_the_start():
    assert Doctor().findings(np.full((40, 30, 3), 128, np.uint8)) == ("blank: nearly all of it has one colour",)
    assert Doctor().findings(picture()) == ()


def test_pictures_that_cannot_be_read_do_not_stop_the_doctor(project, folder):
    doctor = Doctor()
    for number in range(MIN_PICTURES):
        (folder / "mug" / f"{number}.png").write_bytes(b"broken")
    project.refresh()
    doctor.learn(project.all_pictures())
    assert doctor.findings(picture()) == ()


# Thumbnails


def test_a_thumbnail_is_made_once(project, folder, monkeypatch):
    thumbnails = Thumbnails(project.hidden / "thumbnails")
    one = project.add("cup", encode(picture(3, (300, 900))), ".png")
    for size, shape in (("small", (64, 192)), ("large", (213, 640))):
        content = thumbnails.read(one, size)
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size[::-1]) == ("JPEG", shape)
        assert max(shape) == SIDES[size]
    content = thumbnails.read(one, "small")
    project.move([one.id], "mug")
    (moved,) = project.pictures("mug")
    moved.path.unlink()
    assert thumbnails.read(moved, "small") == content
    (kept,) = (project.hidden / "thumbnails").glob("*-small.jpg")
    kept.write_bytes(content[:100])
    with pytest.raises(DataError):
        thumbnails.read(moved, "small")


def test_a_small_picture_is_not_enlarged(project):
    one = project.add("cup", encode(picture(3, (8, 8))), ".png")
    with Image.open(io.BytesIO(Thumbnails(project.hidden / "thumbnails").read(one, "small"))) as image:
        assert image.size == (8, 8)


def test_a_thumbnail_that_cannot_be_kept_is_shown(project, folder):
    one = project.pictures("cup")[0]
    assert Thumbnails(folder / "nowhere").read(one, "small").startswith(b"\xff\xd8")


def test_thumbnails_of_pictures_that_are_gone_are_removed_if_there_are_many(project, monkeypatch):
    from foveola.teaching import pictures

    place = project.hidden / "thumbnails"
    thumbnails = Thumbnails(place)
    first, second, _ = project.pictures("cup")
    for one in (first, second):
        thumbnails.read(one, "small")
    thumbnails.remove_stale({first.key})
    assert len(list(place.iterdir())) == 2
    monkeypatch.setattr(pictures, "_MAX_STALE_THUMBNAILS", 0)
    thumbnails.remove_stale({first.key})
    assert [path.name for path in place.iterdir()] == [f"{first.key}-small.jpg"]
