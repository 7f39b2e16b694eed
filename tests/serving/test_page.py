"""The page of `foveola serve` in a real browser, against the real server."""

import base64
import io
import json
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from math import cos, pi, sin
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets import load
from foveola.explanation.convolution import KERNELS, convolve, pool
from foveola.reports.filter_lab import _sum, number_text

SMALL = """
name = "small"
epochs = 30
validation = 0.2
precision = "float32"
layers = [
  { type = "Conv2D", filters = 8, padding = "same", activation = "relu" },
  { type = "MaxPool2D" },
  { type = "Flatten" },
  { type = "Dense", units = "classes" },
]
"""


def arc(x, y, width, height, start, end, steps=24):
    """Points of an ellipse around x, y; angles in turns, 0 to the right, clockwise."""
    angles = [2 * pi * (start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + width * cos(angle) / 2, y + height * sin(angle) / 2) for angle in angles]


# How people write digits: strokes as points in a square with sides of 1, y downwards
STROKES = {
    "0": [arc(0.5, 0.5, 0.52, 0.8, -0.25, 0.77)],
    "1": [[(0.42, 0.22), (0.54, 0.1), (0.52, 0.5), (0.5, 0.9)]],
    "2": [[*arc(0.5, 0.32, 0.46, 0.44, -0.5, 0.08), (0.5, 0.68), (0.26, 0.88), (0.45, 0.86), (0.78, 0.87)]],
    "3": [[*arc(0.48, 0.3, 0.42, 0.4, -0.45, 0.2), (0.46, 0.49), *arc(0.48, 0.69, 0.5, 0.42, -0.24, 0.42)]],
    "4": [
        [(0.36, 0.12), (0.28, 0.36), (0.22, 0.57), (0.5, 0.56), (0.8, 0.55)],
        [(0.62, 0.3), (0.6, 0.6), (0.58, 0.92)],
    ],
    "5": [
        [(0.36, 0.13), (0.34, 0.3), (0.33, 0.46), *arc(0.47, 0.66, 0.46, 0.44, -0.33, 0.42)],
        [(0.36, 0.13), (0.55, 0.12), (0.72, 0.11)],
    ],
    "6": [[(0.62, 0.1), (0.46, 0.24), (0.34, 0.46), (0.3, 0.66), *arc(0.5, 0.68, 0.4, 0.42, 0.5, -0.5)]],
    "7": [[(0.24, 0.15), (0.5, 0.14), (0.76, 0.14), (0.62, 0.42), (0.5, 0.66), (0.42, 0.92)]],
    "8": [[*arc(0.5, 0.3, 0.36, 0.38, 0.2, -0.76), *arc(0.5, 0.7, 0.44, 0.42, -0.26, 0.74), (0.56, 0.48)]],
    "9": [[*arc(0.5, 0.32, 0.42, 0.42, 0.0, -1.0), (0.7, 0.5), (0.66, 0.72), (0.6, 0.92)]],
}
# Where each digit is drawn: left, top and size, in fractions of the drawing area
PLACES = [(0.2, 0.2, 0.6), (0.15, 0.1, 0.7), (0.3, 0.3, 0.6), (0.05, 0.1, 0.65), (0.25, 0.15, 0.7)]


class Server(NamedTuple):
    """A running server: where its page is, and the folder that it keeps images in."""

    url: str
    kept: Path


@contextmanager
def serving(run, *options, kept=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).with_name("foveola"),
        "serve",
        run,
        "--quiet",
        "--port",
        str(port),
        *map(str, options),
    ]
    if kept is not None:
        command += ["--collect", str(kept)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}/"
        while True:
            try:
                urlopen(f"{url}v2/health/ready").close()  # noqa: S310
                break
            except (URLError, ConnectionError):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.05)
        yield Server(url, kept)
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A small network of the embedded digits."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "small.toml").write_text(SMALL)
    return foveola.train("digits", folder / "small.toml", out=folder / "run", verbose=False).path


@pytest.fixture(scope="module")
def digits(digits_run, tmp_path_factory):
    with serving(digits_run, kept=tmp_path_factory.mktemp("kept")) as server:
        yield server


@pytest.fixture(scope="module")
def photographs(tiny, tmp_path_factory):
    """A model of 15 classes of colour noise, without statistics, whose predictions are always uncertain."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (90, 12, 16, 3), dtype=np.uint8)
    names = np.array([f"kind <{number}>" for number in range(15)])
    np.savez(folder / "noise.npz", x_train=images, y_train=np.arange(90) % 15, class_names=names)
    run = foveola.train(folder / "noise.npz", tiny, overrides={"reject": 0.001}, out=folder / "run", verbose=False)
    with serving(run.path) as server:
        yield server


class Page:
    """The page as a user operates it."""

    def __init__(self, browser):
        self.browser = browser
        # Fragments of messages that the browser may log in this test
        self.expected = []

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def script(self, code, *arguments):
        return self.browser.execute_script(code, *arguments)

    def until(self, condition):
        """The result of the condition, once it is true; read again if an element was replaced meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(self.browser, 60, 0.03, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def open(self, url, width=1200, dark=False):
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.browser.get(url)
        self.until(lambda: self.find("#model").text.startswith("A model") or self.find("#key").is_displayed())
        return self

    def draw(self, strokes, left=0.2, top=0.15, size=0.65):
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.find("#drawing")
        width, height = canvas.size["width"], canvas.size["height"]
        actions = ActionChains(self.browser, duration=4)
        for stroke in strokes:
            places = [((left + size * x - 0.5) * width, (top + size * y - 0.5) * height) for x, y in stroke]
            for number, (x, y) in enumerate(places):
                actions.move_to_element_with_offset(canvas, round(x), round(y))
                if number == 0:
                    actions.click_and_hold()
            actions.release()
        actions.perform()

    def settled(self):
        """The predicted class, once it is announced to screen readers."""
        self.until(lambda: self.find("#said").get_attribute("textContent"))
        return self.until(lambda: self.find("#answer b").text)

    def clear(self):
        self.find("#clear").click()
        self.until(lambda: not self.all("#answer b"))

    def upload(self, path):
        self.find("#file").send_keys(str(path))

    def give(self, kind, content, name="image.png"):
        """Paste or drop an image."""
        self.script(
            """const [kind, content, name] = arguments, transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), each => each.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
            document.body.dispatchEvent(kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
                : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));""",
            kind,
            base64.b64encode(content).decode(),
            name,
        )

    def pixels(self, selector):
        """The pixels of a canvas, uint8 H×W×3."""
        width, height, values = self.script(
            """const canvas = document.querySelector(arguments[0]), { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            return [width, height, [...copy.getImageData(0, 0, width, height).data]];""",
            selector,
        )
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    def pressed(self):
        return [button.text for button in self.all("#fixes button") if button.get_attribute("aria-pressed") == "true"]

    def choose(self, selector, name):
        from selenium.webdriver.support.select import Select

        Select(self.find(selector)).select_by_visible_text(name)


@pytest.fixture
def page(browser):
    """A page; after the test, it must have logged nothing unexpected and sent requests to its server only."""
    browser.get_log("browser")
    browser.get_log("performance")
    page = Page(browser)
    yield page
    origin = page.script("return location.origin")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith((origin + "/", "data:", f"blob:{origin}/"))} == set()
    assert any(url.startswith(origin) for url in asked)
    logged = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in logged if not any(part in message for part in page.expected)] == []
    browser.get("about:blank")


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def seven():
    """A seven of the embedded digits, enlarged, light on dark, uint8 H×W."""
    data = load("digits").train
    image = data.images[np.flatnonzero(data.labels == 7)[0], ..., 0]
    return image.repeat(20, axis=0).repeat(20, axis=1)


def draw_all(page):
    """Draw the ten digits; at least nine are predicted correctly."""
    predicted = {}
    for number, (digit, strokes) in enumerate(STROKES.items()):
        page.clear()
        page.draw(strokes, *PLACES[number % len(PLACES)])
        predicted[digit] = page.settled()
    assert sum(digit == name for digit, name in predicted.items()) >= 9, predicted


@pytest.mark.slow
def test_ten_drawn_digits_are_predicted_correctly(page, real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))
    run = foveola.train("mnist", "fast", overrides={"steps": 400}, out=tmp_path / "run", verbose=False)
    with serving(run.path) as server:
        page.open(server.url)
        draw_all(page)


@pytest.mark.slow
def test_ten_drawn_digits_are_predicted_correctly_by_the_recipe_strong(page, real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEOLA_DATA", str(real_data))
    run = foveola.train("mnist", "strong", out=tmp_path / "run", verbose=False)
    with serving(run.path) as server:
        page.open(server.url)
        draw_all(page)


def percentages(page):
    """The probabilities on the page, in percent, by class; NaN without a prediction."""
    return page.script(
        """return Object.fromEntries([...document.querySelectorAll("#probabilities tbody tr")].map(
            row => [row.cells[0].textContent, parseFloat(row.cells[2].textContent)]))"""
    )


def test_the_prediction_changes_while_drawing(page, digits):
    from selenium.webdriver.common.action_chains import ActionChains

    page.open(digits.url)
    canvas = page.find("#drawing")
    hand = ActionChains(page.browser, duration=4)
    hand.move_to_element_with_offset(canvas, 0, -100).click_and_hold().move_to_element_with_offset(canvas, 0, 100)
    hand.perform()
    page.settled()
    before = percentages(page)
    assert list(before) == [str(digit) for digit in range(10)]
    assert sum(before.values()) == pytest.approx(100, abs=1)
    ActionChains(page.browser, duration=4).move_to_element_with_offset(canvas, 100, 100).perform()
    page.until(lambda: percentages(page) != before)
    ActionChains(page.browser).release().perform()
    page.clear()
    page.draw(STROKES["0"])
    answer = page.settled()
    assert max(percentages(page), key=percentages(page).get) == answer


def test_fingers_draw_and_pens_press(page, digits):
    page.open(digits.url, width=360)
    box = page.find("#drawing").rect
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 3
    send = page.browser.execute_cdp_cmd
    send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(5):
        send(
            "Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x + 20 * step, "y": y + 9 * step}]}
        )
    send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.settled()
    drawn = page.pixels("#drawing")[..., 0] > 128
    assert drawn.any(axis=0).sum() / drawn.shape[1] > 80 / box["width"]

    ink = []
    for pressure in (0.2, 0.8):
        page.clear()
        pen = {"x": x, "y": y, "button": "left", "buttons": 1, "pointerType": "pen", "force": pressure, "clickCount": 1}
        for kind in ("mousePressed", "mouseMoved", "mouseReleased"):
            send("Input.dispatchMouseEvent", {**pen, "type": kind, "x": x + 40 * (kind != "mousePressed")})
        page.settled()
        ink.append((page.pixels("#drawing")[..., 0] > 128).sum())
    assert ink[1] > 1.5 * ink[0] > 0


def test_one_request_at_a_time_and_the_latest_wins(page, digits):
    page.open(digits.url)
    asked, failures, abandoned = page.browser.execute_async_script(
        """const done = arguments[0], asked = [], failures = [];
        import("./page/latest.js").then(async ({ latestOnly }) => {
            let state = 0, running = 0, most = 0, abandoned = 0;
            const pause = () => new Promise(resolve => setTimeout(resolve, 20));
            const ask = latestOnly(async (signal, superseded) => {
                const mine = state;
                most = Math.max(most, ++running);
                await pause();
                running--;
                if (signal.aborted) abandoned++;
                signal.throwIfAborted();
                asked.push([mine, superseded(), most]);
                if (mine === 3) throw Object.assign(new Error("busy"), { retryAfter: 0.01 });
            }, error => { failures.push(error.message); state = 4; });
            for (state of [1, 2, 3]) { ask(); await null; }
            await pause(); await pause(); await pause(); await pause(); await pause(); await pause();
            state = 5; ask();
            state = 6; await ask({ abandon: true });
            await pause(); await pause(); await pause();
            done([asked, failures, abandoned]);
        });"""
    )
    assert asked == [[1, True, 1], [3, False, 1], [4, False, 1], [6, False, 1]]
    assert failures == ["busy"]
    assert abandoned == 1


def test_a_server_that_is_gone_is_reported(page, digits_run):
    page.expected = ["net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE"]
    with serving(digits_run) as server:
        page.open(server.url)
    page.draw(STROKES["0"])
    page.until(lambda: "The server does not respond" in page.find("#trouble").text)


def test_strokes_are_undone_by_button_and_key(page, digits):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open(digits.url)
    empty = page.pixels("#drawing")
    assert (empty == 0).all()
    page.draw([[(0.5, 0), (0.5, 1)]])
    one = page.pixels("#drawing")
    page.draw([[(0, 0.5), (1, 0.5)]])
    both = page.pixels("#drawing")
    assert (empty != one).any()
    assert (one != both).any()
    page.clear()
    page.find("#undo").click()
    np.testing.assert_array_equal(page.pixels("#drawing"), both)
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    np.testing.assert_array_equal(page.pixels("#drawing"), one)
    page.find("#undo").click()
    page.find("#undo").click()
    np.testing.assert_array_equal(page.pixels("#drawing"), empty)


@pytest.mark.parametrize("way", ["choose", "paste", "drop"])
def test_an_image_is_predicted_as_on_the_command_line(page, digits, digits_run, seven, tmp_path, way):
    path = tmp_path / "seven.png"
    path.write_bytes(png(seven))
    (expected,) = foveola.predict(digits_run, [path], verbose=False)
    page.open(digits.url)
    if way == "choose":
        page.upload(path)
    else:
        page.give(way, path.read_bytes())
    assert page.settled() == expected.class_name
    assert page.find("#answer span").text == f"{100 * expected.probability:.1f} %"
    assert page.find("#given").is_displayed()
    assert not page.find("#drawing").is_displayed()


def test_findings_are_shown_and_fixed(page, digits, digits_run, seven, tmp_path):
    path = tmp_path / "inverted.png"
    path.write_bytes(png(255 - seven))
    plain, fixed = (foveola.predict(digits_run, [path], fix=fix, verbose=False)[0] for fix in ([], ["auto"]))
    page.open(digits.url).upload(path)
    page.settled()
    assert page.find("#answer span").text == f"{100 * plain.probability:.1f} %"
    assert page.pressed() == []
    assert [line.text.split(". ")[0].lower() for line in page.all("#findings li")] == [
        finding.text.lower() for finding in plain.findings
    ]
    unfixed = page.pixels("#after")

    page.find("#fixes [data-fix=invert]").click()
    page.until(lambda: page.pressed() == ["invert"])
    page.until(lambda: page.find("#before").is_displayed())
    np.testing.assert_array_equal(page.pixels("#before"), unfixed)
    # Inverted before it is reduced, which rounds once more
    np.testing.assert_allclose(page.pixels("#after"), 255 - unfixed.astype(float), atol=1)

    page.find("#all-fixes").click()
    page.until(lambda: page.pressed() == list(fixed.fixes))
    assert page.settled() == fixed.class_name == "7"
    page.find("#all-fixes").click()
    page.until(lambda: page.pressed() == [])


def test_drawings_are_fixed_at_once(page, digits):
    page.open(digits.url).draw([[(0, 0), (1, 1)]], left=0.02, top=0.02, size=0.2)
    page.settled()
    assert page.find("#all-fixes").get_attribute("aria-pressed") == "true"
    assert {"crop", "center"} <= set(page.pressed())
    assert page.pixels("#after").sum() > 2 * page.pixels("#before").sum()
    page.find("#fixes [data-fix=crop]").click()
    page.until(lambda: "crop" not in page.pressed())
    assert page.find("#all-fixes").get_attribute("aria-pressed") == "false"
    assert "center" in page.pressed()


def test_feature_maps_and_occlusion_map_are_those_of_this_image(page, digits, digits_run, seven, tmp_path):
    from foveola.explanation.activations import feature_maps

    path = tmp_path / "seven.png"
    path.write_bytes(png(seven))
    page.open(digits.url).upload(path)
    page.settled()
    page.find("#inside summary").click()
    page.until(lambda: page.all("#maps canvas"))
    seen = page.pixels("#after")[..., :1]
    expected = feature_maps(foveola.open(digits_run), seen)
    chips = [chip.text for chip in page.all("#layers label")]
    assert [chip.split()[-1] for chip in chips] == ["8×8×8", "4×4×8", "10"]

    page.all("#layers label")[1].click()
    page.until(lambda: len(page.pixels("#maps figure:nth-child(3) canvas")) == 4)
    (pooled,) = (maps for maps in expected.values() if maps.shape == (4, 4, 8))
    shown = page.pixels("#maps figure:nth-child(3) canvas")[..., 0]
    np.testing.assert_allclose(shown, 255 * pooled[..., 2] / pooled.max(), atol=2)
    assert len(page.all("#maps canvas")) == 8
    assert all("by 4; maximum" in canvas.get_attribute("aria-label") for canvas in page.all("#maps canvas"))

    heat = page.pixels("#saliency")
    assert heat.shape == (8, 8, 3)
    page.choose("#saliency-class", "3")
    page.until(lambda: "probability of 3" in page.find("#saliency-said").text)
    changes = r"Covering a pixel changes the probability of 3 by ([+−]?[\d.]+ to [+−]?[\d.]+|less than 0\.01) points\."
    assert re.fullmatch(changes, page.find("#saliency-said").text)
    assert (page.pixels("#saliency") != heat).any()


def table(page):
    """The table of the filter lab's outputs, with the two decimals that the page shows."""
    rows = page.script(
        """return [...document.querySelectorAll("#lab-numbers tbody tr")].map(
            row => [...row.querySelectorAll("td")].map(cell => Number(cell.textContent)))"""
    )
    return np.array(rows)


def set_number(page, selector, value):
    page.script(
        """const field = document.querySelector(arguments[0]);
        field.value = arguments[1];
        field.dispatchEvent(new Event("input", { bubbles: true }));
        field.dispatchEvent(new Event("change", { bubbles: true }));""",
        selector,
        value,
    )


def test_the_filter_lab_computes_what_foveola_does(page, digits, seven):
    page.open(digits.url)
    page.give("paste", png(seven))
    page.settled()
    page.find("#lab > summary").click()
    page.find("#lab-numbers summary").click()
    image = page.pixels("#after")[..., 0] / 255
    for name, kernel in KERNELS.items():
        page.choose("#lab-what", name)
        for stride, padding in ((1, "valid"), (2, "same"), (3, "valid")):
            set_number(page, "#lab-stride", stride)
            page.choose("#lab-padding", padding)
            output = convolve(image, kernel, stride, padding).output
            np.testing.assert_allclose(table(page), output, atol=0.0051)
            assert page.find("#lab-output-caption").text == f"Output, {output.shape[0]}×{output.shape[1]}"
    for name, how in (("max pooling", "max"), ("average pooling", "average")):
        page.choose("#lab-what", name)
        set_number(page, "#lab-size", 3)
        set_number(page, "#lab-stride", 2)
        page.choose("#lab-padding", "same")
        np.testing.assert_allclose(table(page), pool(image, how, 3, 2, "same").output, atol=0.0051)

    own = np.array([[2, 0], [-1.5, 0.25]])
    page.choose("#lab-what", "own weights")
    set_number(page, "#lab-size", 2)
    set_number(page, "#lab-stride", 1)
    for number, weight in enumerate(own.flat, start=1):
        set_number(page, f"#lab-kernel input:nth-child({number})", float(weight))
    page.choose("#lab-padding", "valid")
    sliding = convolve(image, own)
    np.testing.assert_allclose(table(page), sliding.output, atol=0.0051)
    set_number(page, "#lab-place", 7 * 2 + 3)
    cells = [float(cell.text) for cell in page.all("#lab-window b")]
    np.testing.assert_allclose(cells, sliding.products(2, 3).ravel(), atol=0.0051)
    set_number(page, "#lab-kernel input", "")
    assert "not a number" in page.find("#lab-trouble").text


def test_the_filter_lab_computes_and_writes_what_python_does(page, digits):
    """Every setting, values and sums in words: the page's module against foveola.explanation and foveola.reports."""
    page.open(digits.url)
    random = np.random.default_rng(1)
    image, kernel = random.random((9, 7)), random.normal(size=(3, 2))
    compute = """const [rows, kernel, how, size, stride, padding, done] = arguments;
        import("./page/sliding.js").then(({ arithmetic, convolve, field, pool, matrix }) => {
            const sliding = how === "convolution" ? convolve(matrix(rows), matrix(kernel), stride, padding)
                : pool(matrix(rows), how, size, stride, padding), { columns, values } = sliding.output;
            const sums = values.map((value, at) =>
                arithmetic(sliding, field(sliding, Math.floor(at / columns), at % columns), value));
            done([values, sliding.edges, sums]);
        });"""
    for stride in (1, 2, 3):
        for padding in ("valid", "same"):
            for how, size in (("convolution", 0), ("max", 3), ("average", 4)):
                expected = (
                    convolve(image, kernel, stride, padding)
                    if how == "convolution"
                    else pool(image, how, size, stride, padding)
                )
                values, edges, sums = page.browser.execute_async_script(
                    compute, image.tolist(), kernel.tolist(), how, size, stride, padding
                )
                np.testing.assert_allclose(values, expected.output.ravel(), rtol=1e-12, atol=1e-12)
                assert tuple(edges) == expected.pad_widths
                assert sums == [_sum(expected, *position) for position in np.ndindex(expected.output.shape)]
    kernels = page.browser.execute_async_script(
        'const done = arguments[0]; import("./page/sliding.js").then(({ KERNELS }) => done(KERNELS));'
    )
    assert {name: kernel["values"] for name, kernel in kernels.items()} == {
        name: kernel.ravel().tolist() for name, kernel in KERNELS.items()
    }


def test_numbers_have_the_text_that_python_gives_them(page, digits):
    page.open(digits.url)
    eighths = np.arange(-40, 41) / 8  # with ties, such as 0.125, which go to the even digit
    random = np.random.default_rng(2).normal(size=200) * 10.0 ** np.arange(-4, 6).repeat(20)
    values = [*eighths, *random, 1.115, 0.285, -0.001, 9999.996, 10_000, 12_500, 13_500, -14_500, 99_500, 1e7, 2.5e11]
    texts = page.browser.execute_async_script(
        """const [values, done] = arguments;
        import("./page/pixels.js").then(({ numberText }) => done(values.map(numberText)));""",
        [float(value) for value in values],
    )
    assert texts == [number_text(value) for value in values]


def test_the_window_slides_under_the_pointer_and_by_keyboard(page, digits, seven):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open(digits.url)
    page.give("paste", png(seven))
    page.settled()
    page.find("#lab > summary").click()
    ActionChains(page.browser).move_to_element(page.find("#lab-output")).perform()
    output = page.find("#lab-output")
    output.send_keys(*[Keys.ARROW_UP] * 8, *[Keys.ARROW_LEFT] * 8, Keys.ARROW_DOWN)
    assert page.find("#lab-sum").text.startswith("Row 1, column 0 (pixels from row 1, column 0)")
    assert page.find("#lab-sum").get_attribute("aria-live") == "polite"
    corner = output.size["width"] / 2 - 5
    ActionChains(page.browser).move_to_element_with_offset(output, corner, corner).perform()
    assert page.find("#lab-sum").text.startswith("Row 5, column 5 (")
    assert page.find("#lab-sum").get_attribute("aria-live") == "off"
    inside = page.find("#lab-input")
    ActionChains(page.browser).move_to_element_with_offset(inside, -inside.size["width"] / 2 + 3, 0).perform()
    assert page.find("#lab-sum").text.startswith("Row 2, column 0 (") or page.find("#lab-sum").text.startswith(
        "Row 3, column 0 ("
    )


def test_an_image_is_kept_with_its_true_class(page, digits, seven):
    page.open(digits.url)
    page.give("paste", png(seven))
    page.settled()
    page.choose("#keep-name", "7")
    page.find("#keep-here").click()
    page.until(lambda: page.find("#kept").text.startswith("Kept as 7; this class has 1 image"))
    page.find("#keep-here").click()
    page.until(lambda: "2 images" in page.find("#kept").text)
    page.find("input[value=drawing]").find_element("xpath", "..").click()
    page.draw(STROKES["1"])
    page.settled()
    page.choose("#keep-name", "1")
    page.find("#keep-here").click()
    page.until(lambda: page.find("#kept").text.startswith("Kept as 1"))
    kept = load(digits.kept).train
    assert sorted(kept.class_names) == ["1", "7"]
    assert (kept.class_counts[list(kept.class_names).index("7")]) == 2


def test_an_image_is_downloaded_as_png_named_by_its_class(page, photographs, tmp_path):
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.open(photographs.url)
    content = io.BytesIO()
    pixels = np.random.default_rng(2).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "WEBP", lossless=True)
    (tmp_path / "given.webp").write_bytes(content.getvalue())
    page.upload(tmp_path / "given.webp")
    page.settled()
    assert not page.find("#keep-here").is_displayed()
    page.choose("#keep-name", "kind <3>")
    page.find("#download").click()
    page.until((tmp_path / "kind _3_.png").exists)
    page.until(lambda: not list(tmp_path.glob("*.crdownload")))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "kind _3_.png").convert("RGB")), pixels)


def test_upload_comes_first_for_a_model_of_photographs(page, photographs):
    page.open(photographs.url)
    assert page.find("#empty").is_displayed()
    assert not page.find("#drawing").is_displayed()
    page.find("input[value=drawing]").find_element("xpath", "..").click()
    page.find("#colours input[value='#d62728']").click()
    page.draw([[(0, 0), (1, 1)]])
    page.settled()
    assert (page.pixels("#drawing") == [0xD6, 0x27, 0x28]).all(axis=2).any()
    assert page.find("#drawing").size["width"] == pytest.approx(page.find("#drawing").size["height"] * 16 / 12, abs=2)
    assert [button.text for button in page.all("#fixes button")] == ["grey", "invert"]


def test_uncertainty_is_shown_and_many_classes_are_ranked(page, photographs):
    page.open(photographs.url)
    page.give("drop", png(np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)))
    page.settled()
    assert page.find("#answer").text.startswith("Uncertain, most likely")
    assert page.find("#said").get_attribute("textContent").startswith("Uncertain, most likely kind <")
    visible = [row.text for row in page.all("#probabilities tbody tr") if row.is_displayed()]
    shares = [float(row.removesuffix(" %").split()[-1]) for row in visible]
    assert len(visible) == 10
    assert shares == sorted(shares, reverse=True)
    page.find("#all-classes").click()
    assert len([row for row in page.all("#probabilities tbody tr") if row.is_displayed()]) == 15


def test_an_image_unlike_anything_trained_on_is_called_so(page, digits):
    page.open(digits.url)
    page.give("drop", png(np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)))
    page.settled()
    assert page.find("#answer").text.startswith("Unfamiliar, most likely")
    assert page.find("#remark").text == (
        "This image is unlike anything the model was trained on. Class and probability mean little."
    )
    assert page.find("#said").get_attribute("textContent").startswith("Unfamiliar, most likely")
    assert "The image looks like the training images." not in page.find("#findings").text


def test_a_file_that_is_not_an_image_is_reported(page, digits, tmp_path):
    page.expected = ["status of 4"]
    (tmp_path / "text.png").write_text("not an image")
    page.open(digits.url).upload(tmp_path / "text.png")
    page.until(lambda: "is not an image of an accepted format" in page.find("#trouble").text)
    assert page.find("#trouble").get_attribute("role") == "status"
    page.script(
        "document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: new DataTransfer(), bubbles: true }))"
    )
    assert "no image on the clipboard" in page.find("#trouble").text


def test_colour_images_reach_a_grey_model(page, digits):
    pixels = np.zeros((80, 80, 3), np.uint8)
    pixels[10:70, 30:50] = 255, 200, 0
    page.open(digits.url)
    page.give("paste", png(pixels))
    page.settled()
    assert page.find("#trouble").text == ""
    assert "Fixed by grey" in page.find("#findings").text


def test_an_api_key_is_requested_and_remembered(page, digits_run):
    page.expected = ["status of 401"]
    with serving(digits_run, "--api-key", "open-sesame") as server:
        page.open(server.url)
        field = page.find("#key-text")
        field.send_keys("wrong")
        page.find("#key [value=use]").click()
        page.until(lambda: page.find("#key-refused").is_displayed())
        page.find("#key-text").send_keys("open-sesame")
        page.find("#key [value=use]").click()
        page.until(lambda: page.find("#drawing").is_displayed())
        page.draw(STROKES["0"])
        page.settled()
        page.open(server.url)
        assert not page.find("#key").is_displayed()
        page.script("sessionStorage.clear()")
        page.open(server.url)
        page.find("#key [value=cancel]").click()
        page.until(lambda: "API key" in page.find("#trouble").text)


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("model", ["digits", "photographs"])
def test_nothing_scrolls_sideways(page, request, seven, model, width):
    page.open(request.getfixturevalue(model).url, width)
    page.give("paste", png(255 - seven))
    page.settled()
    for part in ("#inside > summary", "#lab > summary", "#lab-numbers > summary"):
        page.script("document.querySelector(arguments[0]).click()", part)
    page.until(lambda: page.all("#maps canvas"))
    assert page.script("return document.documentElement.scrollWidth") <= width


def test_on_a_phone_the_prediction_is_above_the_drawing(page, digits):
    page.open(digits.url, width=360).draw(STROKES["1"])
    answer = page.settled()
    assert page.find("#glance").text.split()[0] == answer
    assert page.find("#glance").rect["y"] < page.find("#drawing").rect["y"]
    page.clear()
    assert page.find("#glance").text == ""


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_in_light_and_dark(page, digits, dark):
    """Contrasts of at least 4.5 (WCAG 2.2, 1.4.3)."""
    page.open(digits.url, dark=dark)
    colours = page.script(
        """const style = getComputedStyle(document.documentElement);
        return Object.fromEntries(["ink", "soft", "paper", "panel", "accent", "on-accent", "bad", "good"].map(
            name => [name, style.getPropertyValue(`--${name}`).trim()]))"""
    )

    def luminance(name):
        levels = [int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert (luminance("paper") < 0.2) is dark
    pairs = [(text, ground) for text in ("ink", "soft", "accent", "bad", "good") for ground in ("paper", "panel")]
    for text, ground in [*pairs, ("on-accent", "accent")]:
        dim, bright = sorted((luminance(text), luminance(ground)))
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


def test_every_control_has_a_name(page, digits):
    page.open(digits.url)
    page.script("for (const part of document.querySelectorAll('details')) part.open = true")
    unnamed = [
        each.get_attribute("outerHTML")
        for each in page.all("button, input, select, canvas")
        if each.is_displayed() and not each.accessible_name
    ]
    assert unnamed == []
