"""Pages: values are escaped, images and plots embedded."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import jinja2
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from foveola.reports.html import _environment, image_uri, render, signed, svg


def decoded(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", "a�[31mb"),
        ("\u202egnp.exe", "�gnp.exe"),  # would turn the direction of the text that follows
        ("\u2067abc\u2069", "�abc�"),
        ("caf\udce9", "caf\\xe9"),
        ("a\nb <i>", "a\nb &lt;i&gt;"),
        ("שלום é 字", "שלום é 字"),
    ],
)
def test_a_page_shows_a_name_with_characters_that_html_cannot_hold(name, shown):
    page = render("explanation.html", model=name, image_shape="", network_shape="", pad=0, scaling="",
                  filters=[], explanations=[])  # fmt: skip
    assert f"<h1>Explanations of {shown}</h1>" in page
    page.encode()


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "+1.23"), (-1.235, "−1.24"), (-0.004, "+0.00"), (0.0, "+0.00"), (-12, "−12.00")]
)
def test_a_number_with_its_sign(value, text):
    assert signed(value) == text


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_an_image_is_lossless(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(image_uri(image)), image.squeeze())


def figure(text="axis"):
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1])
    axes.set_xlabel(text, parse_math=False)
    return figure


def test_a_plot_is_one_svg_with_text_as_text():
    drawn = svg(figure(), "a line")
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
    assert root.tag.endswith("svg")
    assert root.get("aria-label") == "a line"
    assert "axis" in "".join(root.itertext())
    assert "metadata" not in drawn


def test_equal_figures_give_equal_svg():
    assert svg(figure(), "a line") == svg(figure(), "a line")


def test_text_and_label_of_a_plot_are_escaped():
    drawn = svg(figure("</svg><script>"), '"><script>')
    assert "<script>" not in drawn
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
    assert root.get("aria-label") == '"><script>'


@pytest.fixture
def template(monkeypatch):
    def use(text):
        base = _environment().loader
        loader = jinja2.ChoiceLoader([jinja2.DictLoader({"page.html": text}), base])
        monkeypatch.setattr("foveola.reports.html._environment", lambda: _environment().overlay(loader=loader))

    return use


def test_values_are_escaped_and_fractions_are_percentages(template):
    values = "{{ name }} {{ fraction|percent }} {{ fraction|percent(0) }}"
    template("{% extends 'base.html' %}{% block main %}" + values + "{% endblock %}")
    page = render("page.html", name="<b>&", fraction=0.1234)
    assert "&lt;b&gt;&amp; 12.3 % 12 %" in page
    assert "default-src 'none'" in page


def test_a_missing_value_is_an_error(template):
    template("{{ missing }}")
    with pytest.raises(jinja2.UndefinedError):
        render("page.html")
