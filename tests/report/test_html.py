"""Pages: values escaped, pictures and drawings inside."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import jinja2
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from foveola.report.html import _environment, drawing, picture, render


def decoded(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_a_picture_is_lossless(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(picture(image)), image.squeeze())


def figure(text="axis"):
    drawn = Figure()
    axes = drawn.add_subplot()
    axes.plot([0, 1], [0, 1])
    axes.set_xlabel(text, parse_math=False)
    return drawn


def test_a_drawing_is_one_svg_with_text_as_text():
    svg = drawing(figure(), "a line")
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert root.tag.endswith("svg")
    assert root.get("aria-label") == "a line"
    assert "axis" in "".join(root.itertext())
    assert "metadata" not in svg


def test_equal_figures_are_equal_drawings():
    assert drawing(figure(), "a line") == drawing(figure(), "a line")


def test_text_and_label_of_a_drawing_cannot_break_out():
    svg = drawing(figure("</svg><script>"), '"><script>')
    assert "<script>" not in svg
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert root.get("aria-label") == '"><script>'


@pytest.fixture
def template(monkeypatch):
    def use(text):
        base = _environment().loader
        loader = jinja2.ChoiceLoader([jinja2.DictLoader({"page.html": text}), base])
        monkeypatch.setattr("foveola.report.html._environment", lambda: _environment().overlay(loader=loader))

    return use


def test_values_are_escaped_and_shares_are_percentages(template):
    template(
        "{% extends 'base.html' %}{% block main %}{{ name }} {{ share|percent }} {{ share|percent(0) }}{% endblock %}"
    )
    page = render("page.html", name="<b>&", share=0.1234)
    assert "&lt;b&gt;&amp; 12.3 % 12 %" in page
    assert "default-src 'none'" in page


def test_a_forgotten_value_is_an_error(template):
    template("{{ forgotten }}")
    with pytest.raises(jinja2.UndefinedError):
        render("page.html")
