"""The pages of `explain` and `convolve` in a real browser."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.models.metadata import ModelMetadata
from foveola.reports.explanation import MAX_LAYERS, MIN_MAPS, maps_shown, shown_layers


@pytest.fixture
def open_page(browser):
    """Open a page at a width."""

    def open_(path, width=1200, motion="no-preference"):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-reduced-motion", "value": motion}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get_log("performance")
        browser.get(path.as_uri())
        return browser

    yield open_
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module")
def explained(toy, toy_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    image = folder / f"{'w' * 60}.png"
    Image.fromarray(toy.train.images[0, :, :, 0]).save(image)
    foveola.explain(toy_run, [image], classes=["right"], out=folder / "out", verbose=False)
    return folder / "out" / "explanation.html"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "lab.html"
    foveola.convolve("letter:A", "diagonal", padding="same", pool="max", position=(0, 0), out=path)
    return path


@pytest.fixture
def sound(open_page) -> Callable[..., None]:
    """Check that a page has no errors, sends no requests, and does not scroll sideways."""

    def check(path, width):
        browser = open_page(path, width)
        assert browser.get_log("browser") == []
        requests = [
            entry["message"] for entry in browser.get_log("performance") if 'requestWillBeSent"' in entry["message"]
        ]
        assert [
            message for message in requests if '"url":"file:' not in message and '"url":"data:' not in message
        ] == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        broken = "return [...document.images].filter(image => !image.naturalWidth).length"
        assert browser.execute_script(broken) == 0

    return check


@pytest.mark.parametrize("width", [1200, 360])
def test_the_explanation_opens(explained, sound, width):
    sound(explained, width)


@pytest.mark.parametrize("width", [1200, 360])
def test_the_lab_opens(lab, sound, width):
    sound(lab, width)


def sums(browser):
    return [element.text for element in browser.find_elements("class name", "sum")]


def test_the_lab_is_operated_with_the_keyboard(lab, open_page, tmp_path):
    from selenium.webdriver.common.keys import Keys

    browser = open_page(lab)
    expected = foveola.convolve("letter:A", "diagonal", padding="same", position=(0, 1), out=tmp_path / "lab.png")[
        "stages"
    ]
    assert sums(browser)[0].startswith("Row 0, column 0: ")
    browser.find_element("css selector", "[data-do=step]").send_keys(Keys.ENTER)
    assert sums(browser)[0] == f"Row 0, column 1: {expected[0]['sum']}"
    browser.find_element("css selector", "[data-do=back]").send_keys(Keys.SPACE)
    assert sums(browser)[0].startswith("Row 0, column 0: ")
    slider = browser.find_elements("css selector", "input[type=range]")[1]
    slider.send_keys(Keys.ARROW_RIGHT)
    assert sums(browser)[1].startswith("Row 0, column 1: largest of -1, -2, -2, 6 = 6")
    slider.send_keys(Keys.END)
    assert sums(browser)[1].startswith("Row 3, column 3: ")
    assert sums(browser)[0].startswith("Row 0, column 0: ")  # each stage moves by itself


def test_the_lab_writes_every_sum_as_python_does(open_page, tmp_path):
    """All positions of a convolution and a pooling with weights and outputs of many digits."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (7, 6), dtype=np.uint8)).save(tmp_path / "image.png")
    kernel = json.dumps((random.normal(size=(2, 3)) * [[1, 100, 40_000], [0.125, -0.01, 2]]).tolist())
    foveola.convolve(tmp_path / "image.png", kernel, padding="same", pool="average", out=tmp_path / "lab.html")
    browser = open_page(tmp_path / "lab.html")
    read = """const [section, index] = arguments, slider = section.querySelector("input");
        slider.value = index;
        slider.dispatchEvent(new Event("input"));
        return section.querySelector(".sum").textContent;"""
    convolution, pooling = browser.find_elements("class name", "stage")
    for row, column in np.ndindex(7, 6):
        place = {"padding": "same", "position": (row, column), "out": tmp_path / "lab.png"}
        (stage,) = foveola.convolve(tmp_path / "image.png", kernel, **place)["stages"]
        expected = f"Row {row}, column {column}: {stage['sum']}"
        assert browser.execute_script(read, convolution, 6 * row + column) == expected
    for row, column in np.ndindex(3, 3):
        place = {"padding": "same", "position": (2 * row, 2 * column), "out": tmp_path / "lab.png"}
        _, stage = foveola.convolve(tmp_path / "image.png", kernel, pool="average", **place)["stages"]
        expected = f"Row {row}, column {column}: {stage['sum']}"
        assert browser.execute_script(read, pooling, 3 * row + column) == expected


@pytest.mark.parametrize("kernel", ["vertical-edge", "[[-1.25, 0.333], [-12.5, 1]]", "blur"])
@pytest.mark.parametrize("width", [1200, 360])
def test_every_product_fits_into_its_cell(open_page, tmp_path, kernel, width):
    Image.fromarray(np.arange(100, 136, dtype=np.uint8).reshape(6, 6)).save(tmp_path / "image.png")
    foveola.convolve(tmp_path / "image.png", kernel, pool="max", out=tmp_path / "lab.html")
    browser = open_page(tmp_path / "lab.html", width)
    wide = """return [...document.querySelectorAll(".window span")].filter(cell => {
        const text = document.createRange();
        text.selectNodeContents(cell);
        return text.getBoundingClientRect().width > cell.clientWidth;
    }).map(cell => cell.textContent)"""
    assert browser.execute_script(wide) == []
    assert browser.execute_script("return document.querySelector('.window span').textContent").startswith("0.")


def test_the_receptive_field_is_marked_and_follows_a_click(lab, open_page):
    browser = open_page(lab)
    stage = browser.find_element("class name", "stage")
    outputs = stage.find_elements("css selector", ".output span")
    outputs[9 * 4 + 5].click()  # row 4, column 5
    marked = "return [...arguments[0].querySelectorAll('.input span')].map(cell => cell.classList.contains('marked'))"
    field = [11 * row + column for row in (4, 5, 6) for column in (5, 6, 7)]
    assert [at for at, inside in enumerate(browser.execute_script(marked, stage)) if inside] == field


def test_it_plays_until_paused(lab, open_page):
    from selenium.webdriver.support.wait import WebDriverWait

    browser = open_page(lab)
    play = browser.find_element("css selector", "[data-do=play]")
    play.click()
    assert play.text == "Pause"
    WebDriverWait(browser, 20).until(lambda _: not sums(browser)[0].startswith("Row 0, column 0:"))
    play.click()
    assert play.text == "Play"


def test_there_is_no_play_button_with_reduced_motion(lab, open_page):
    browser = open_page(lab, motion="reduce")
    assert not browser.find_element("css selector", "[data-do=play]").is_displayed()
    assert browser.find_element("class name", "still").is_displayed()
    browser.find_element("css selector", "[data-do=step]").click()
    assert sums(browser)[0].startswith("Row 0, column 1: ")


def test_of_a_deep_network_the_maps_of_evenly_spread_layers_are_drawn():
    metadata = ModelMetadata(class_names=("a", "b"), image_shape=(4, 4, 1))
    maps = {f"layer_{number}": np.full((4, 4, 40), float(number), np.float32) for number in range(60)}
    layers = shown_layers(metadata, maps, maps_shown(20))
    drawn = [layer.number for layer in layers if layer.tiles]
    assert (len(layers), len(drawn), drawn[0], drawn[-1]) == (60, MAX_LAYERS, 1, 60)
    assert {len(layer.tiles) for layer in layers} == {0, MIN_MAPS}
    assert layers[1].note == "Not drawn: 24 of the 60 layers are, evenly spread."
    assert all(layer.tiles for layer in shown_layers(metadata, dict(list(maps.items())[:20]), maps_shown(1)))
