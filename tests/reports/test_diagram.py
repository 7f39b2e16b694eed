import re
import subprocess
import sys
from xml.etree import ElementTree  # the files read here were written a moment before

import numpy as np
import pytest
from PIL import Image

from foveola.errors import OutputError
from foveola.models.shapes import infer_shapes
from foveola.recipe import load_recipe, recipe_names
from foveola.reports.diagram import _width, draw

SHAPE = (28, 28, 1)


def steps(name="west", shape=SHAPE):
    return infer_shapes(load_recipe(name).layers, shape, 10)


def texts(path):
    """The texts of an SVG by matplotlib, which keeps each as a comment, in drawing order."""
    return re.findall(r"<!-- (.+?) -->", path.read_text("utf-8"))


def test_every_layer_is_drawn_with_its_settings_shape_and_parameters(tmp_path):
    draw("west", SHAPE, steps(), tmp_path / "west.svg")
    ElementTree.parse(tmp_path / "west.svg")  # noqa: S314
    # fmt: off
    assert texts(tmp_path / "west.svg") == [
        "west", "693,962 parameters",
        "input", "height × width × channels", "28×28×1",
        "conv2d_1", "32 filters 3×3, valid, relu", "26×26×32", "320 parameters",
        "maxpool2d_1", "2×2, valid", "13×13×32",
        "dropout_1", "0.25", "13×13×32",
        "flatten_1", "5408",
        "dense_1", "128 units, relu", "128", "692,352 parameters",
        "dense_2", "10 units", "10", "1,290 parameters",
    ]
    # fmt: on


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".SVG"])
def test_equal_networks_give_equal_files(tmp_path, suffix):
    for name in ("first", "second"):
        draw("lenet5", (32, 32, 1), steps("lenet5", (32, 32, 1)), tmp_path / f"{name}{suffix}")
    draw("other", (32, 32, 1), steps("lenet5", (32, 32, 1)), tmp_path / f"other{suffix}")
    first, second, other = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("first", "second", "other"))
    assert first == second
    assert first != other


def test_the_format_follows_the_ending(tmp_path):
    for kind in ("svg", "png", "pdf"):
        draw("west", SHAPE, steps(), tmp_path / f"west.{kind}")
    with Image.open(tmp_path / "west.png") as image:
        assert image.format == "PNG"
    assert (tmp_path / "west.pdf").read_bytes().startswith(b"%PDF-")
    assert b"<svg" in (tmp_path / "west.svg").read_bytes()[:1000]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_drawn_with_a_margin(tmp_path, name):
    draw(name, (2160, 4096, 3), steps(name, (2160, 4096, 3)), tmp_path / "network.png")
    with Image.open(tmp_path / "network.png") as opened:
        image = np.asarray(opened.convert("L"))
    assert image[:20].min() == image[-20:].min() == image[:, :20].min() == image[:, -20:].min() == 255
    assert image.std() > 5


@pytest.mark.parametrize(
    "text", ["13,589,545,472 parameters", "128 filters 11×11, stride 2, same, leaky-relu", "MMMMm"]
)
def test_texts_fit_their_width(text):
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    wide = TextPath((0, 0), text, size=10, prop=FontProperties("DejaVu Sans")).get_extents().width / 72
    assert wide < _width(text, 10, "", 10)


def test_a_tall_network_is_reduced_to_the_maximum_height(tmp_path, monkeypatch):
    draw("west", SHAPE, steps(), tmp_path / "usual.png")
    monkeypatch.setattr("foveola.reports.diagram.MAX_PIXELS", 500)
    draw("west", SHAPE, steps(), tmp_path / "tall.png")
    with Image.open(tmp_path / "usual.png") as usual, Image.open(tmp_path / "tall.png") as tall:
        assert usual.height > 900
        assert tall.height == pytest.approx(500, abs=1)
        assert tall.width / tall.height == pytest.approx(usual.width / usual.height, rel=0.01)


def test_the_name_is_not_read_as_a_formula(tmp_path):
    draw("$x_1 & <b>", SHAPE, steps(), tmp_path / "signs.svg")
    ElementTree.parse(tmp_path / "signs.svg")  # noqa: S314


@pytest.mark.parametrize(("name", "found"), [("west.gif", "the ending .gif"), ("west", "no ending")])
def test_another_ending_is_refused(tmp_path, name, found):
    with pytest.raises(OutputError, match=rf"{found}.*\.svg, \.png, \.pdf"):
        draw("west", SHAPE, steps(), tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_an_unwritable_path_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"nowhere.*No such file or directory.*another place"):
        draw("west", SHAPE, steps(), tmp_path / "nowhere" / "west.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(OutputError, match=r"folder\.svg cannot be written"):
        draw("west", SHAPE, steps(), tmp_path / "folder.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]


def test_settings_of_matplotlib_are_ignored_and_kept(tmp_path):
    import matplotlib

    draw("west", SHAPE, steps(), tmp_path / "plain.svg")
    with matplotlib.rc_context({"font.family": "DejaVu Serif", "svg.hashsalt": "mine"}):
        draw("west", SHAPE, steps(), tmp_path / "set.svg")
        assert matplotlib.rcParams["svg.hashsalt"] == "mine"
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "set.svg").read_bytes()


def test_importing_is_quick_and_pyplot_is_not_imported(tmp_path):
    code = f"""
import sys
from pathlib import Path
from foveola.reports import diagram
assert "matplotlib" not in sys.modules and "torch" not in sys.modules
diagram.draw("nothing", (1, 1, 1), [], Path({str(tmp_path / "nothing.svg")!r}))
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
