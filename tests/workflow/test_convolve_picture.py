"""The filter lab: what it computes, what it writes, and what it refuses."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.errors import DataError, OutputError, UserError
from foveola.explanation.convolution import KERNELS, LETTERS


@pytest.fixture
def convolve(tmp_path):
    def run(image, kernel=None, out="lab.png", **options):
        return foveola.convolve(image, kernel, out=tmp_path / out, **options)

    return run


def save(pixels, path):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def test_the_diagonal_filter_on_the_letter_a_step_by_step(convolve):
    (stage,) = convolve("letter:A", "diagonal", position=(0, 2))["stages"]
    assert stage["title"] == "Convolution 3×3, stride 1, valid: 9×9 → 7×7"
    assert stage["values"] == LETTERS["A"][0:3, 2:5].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert stage["products"] == [[0, 0, 2], [0, 2, 0], [2, 0, 0]]
    assert stage["sum"].endswith("= 6")
    assert stage["sum"].startswith("0×(-1) + 0×(-1) + 1×2 + ")
    assert (stage["output"][0][2], stage["output_size"]) == (6, [7, 7])
    assert stage["receptive_field"] == {"top": 0, "left": 2}


def test_the_output_of_largest_absolute_value_is_shown_by_default(convolve):
    (stage,) = convolve("letter:E")["stages"]
    assert stage["kernel"] == KERNELS["vertical-edge"].tolist()
    row, column = stage["position"]
    assert abs(stage["output"][row][column]) == np.abs(stage["output"]).max() == 3


def test_pooling_follows_the_kernel_and_keeps_the_position(convolve):
    first, second = convolve("letter:A", "diagonal", padding="same", pool="max", position=(8, 8))["stages"]
    assert (first["output_size"], second["image_size"], second["output_size"]) == ([9, 9], [9, 9], [4, 4])
    assert second["output"][0][1] == np.array(first["output"])[0:2, 2:4].max() == 6
    assert second["position"] == [3, 3]  # the last row and column lie in no window
    assert second["sum"].startswith("largest of ")
    assert second["products"] is None


def test_pooling_without_a_kernel_pools_the_image(convolve):
    (stage,) = convolve("letter:A", pool="average", size=3, padding="same", stride=4, position=(0, 0))["stages"]
    assert stage["title"] == "Average pooling 3×3, stride 4, same: 9×9 → 3×3"
    assert stage["edges"] == [1, 1, 1, 1]
    assert stage["values"] == [[None, None, None], [None, 0, 0], [None, 0, 0]]
    assert stage["sum"] == "(0 + 0 + 0 + 0) / 4 = 0"


def test_images_are_converted_and_reduced_with_a_note(convolve, tmp_path):
    pixels = np.zeros((100, 50, 3), np.uint8)
    pixels[..., 1] = 255
    document = convolve(save(pixels, tmp_path / "green.png"), "[[1]]")
    assert document["notes"] == [
        "Colours were converted to grey.", "The image was reduced from 100×50 to 32×16 pixels.",
    ]  # fmt: skip
    (stage,) = document["stages"]
    np.testing.assert_allclose(stage["output"], np.full((32, 16), 150 / 255))  # luma of green, ITU-R 601


def test_the_first_frame_of_an_animation_is_used_with_a_note(convolve, tmp_path):
    first, second = Image.new("L", (4, 4), 255), Image.new("L", (4, 4), 0)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    document = convolve(tmp_path / "a.gif", "[[1]]")
    assert document["notes"] == ["The file is an animation; this is its first frame."]
    assert np.array(document["stages"][0]["output"]).min() == 1


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_by_name(convolve, name):
    (stage,) = convolve("letter:E", name)["stages"]
    assert stage["kernel"] == KERNELS[name].tolist()


# What is written


def test_the_animation_shows_every_position_once(convolve, tmp_path):
    convolve("letter:E", "[[1, 0], [0, 1]]", stride=2, pool="max", out="lab.gif")
    with Image.open(tmp_path / "lab.gif") as animation:
        assert animation.n_frames == 4 * 4 + 2 * 2
        assert animation.info["loop"] == 0


def test_a_long_animation_shows_fewer_positions(convolve, tmp_path, monkeypatch):
    monkeypatch.setattr("foveola.reports.filter_lab.MAX_FRAMES", 10)
    convolve("letter:E", out="lab.gif")
    with Image.open(tmp_path / "lab.gif") as animation:
        assert animation.n_frames == 10


def test_the_png_shows_the_image_cell_by_cell(convolve, tmp_path):
    convolve("letter:E", "vertical-edge", out="lab.png")
    drawn = np.asarray(Image.open(tmp_path / "lab.png").convert("L"))
    side = 300 // 9
    corners = drawn[60 + 4 : 60 + 9 * side : side, 24 + 4 : 24 + 9 * side : side]  # inside of cells, beside the digits
    np.testing.assert_array_equal(corners > 128, LETTERS["E"] == 1)


def test_the_page_is_self_contained_and_holds_the_numbers(convolve, tmp_path):
    document = convolve("letter:A", "diagonal", pool="max", out="lab.html")
    page = (tmp_path / "lab.html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    stages = json.loads(re.search(r'id="stages">(.*?)</script>', page, re.DOTALL)[1])
    assert [stage["output"] for stage in stages] == [stage["output"] for stage in document["stages"]]
    assert stages[0]["image"] == LETTERS["A"].tolist()
    assert "function matrixColours" in page


def test_the_page_colours_the_cells_of_the_image(convolve, tmp_path, browser):
    convolve("letter:A", "diagonal", out="lab.html")
    browser.get((tmp_path / "lab.html").as_uri())
    cells = browser.find_elements("css selector", ".input span")
    colours = [cell.value_of_css_property("background-color") for cell in cells[3:6]]
    assert [re.findall(r"\d+", colour)[:3] for colour in colours] == [["0"] * 3, ["255"] * 3, ["0"] * 3]


def test_a_file_name_is_escaped(convolve, tmp_path):
    convolve(save(np.eye(4) * 255, tmp_path / "<img src=x>.png"), out="lab.html")
    page = (tmp_path / "lab.html").read_text("utf-8")
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;.png" in page


# What is refused, with nothing written


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        ("letter:a", {}, DataError, "Unknown letter 'a'"),
        ("none.png", {}, DataError, "does not exist"),
        ("letter:A", {"kernel": "sobel"}, UserError, "Unknown kernel 'sobel'"),
        ("letter:A", {"kernel": str([[1] * 10])}, UserError, "kernel is 1×10, but the image is only 9×9"),
        ("letter:A", {"stride": 0}, UserError, "stride is 0"),
        ("letter:A", {"pool": "max", "size": 10}, UserError, "window is 10×10, but the image is only 9×9"),
        (
            "letter:A",
            {"kernel": "blur", "pool": "max", "size": 8},
            UserError,
            "window is 8×8, but the image is only 7×7",
        ),
        ("letter:A", {"position": (7, 0)}, UserError, "no output 7,0: the output is 7×7"),
        ("letter:A", {"out": "lab.jpg"}, OutputError, r"lab\.jpg does not end in .* \.html, \.gif, \.png"),
        ("letter:A", {"out": "none/lab.gif"}, OutputError, "cannot be written"),
    ],
)
def test_bad_input_is_named_and_nothing_written(convolve, tmp_path, image, options, error, message):
    with pytest.raises(error, match=message):
        convolve(tmp_path / image if image.endswith("png") else image, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_one_pixel_is_too_small_for_the_kernel(convolve, tmp_path):
    path = save([[7]], tmp_path / "a.png")
    with pytest.raises(UserError, match="kernel is 3×3, but the image is only 1×1"):
        convolve(path)
    (stage,) = convolve(path, "[[2]]")["stages"]
    assert stage["output"] == [[pytest.approx(14 / 255)]]
