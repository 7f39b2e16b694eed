"""The page of `foveola teach` in a real browser, with a made film in place of the camera, against the real server.

With FOVEOLA_SCREENSHOTS=FOLDER, each step leaves a screenshot there: those of docs/teach.md were made so.
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytestmark = pytest.mark.slow

FRAMES = 75  # of a film that is repeated
WIDTH = int(os.environ.get("FOVEOLA_FILM_WIDTH", "64"))  # in pixels; above 64, trainings take pretrained networks
BUDGET = 10  # seconds of a training


def frame(shape, step, colour, ground=(214, 210, 200), width=WIDTH):
    """A disc or a square that wanders and turns."""
    image = Image.new("RGB", (width, 3 * width // 4), ground)
    angle = 2 * np.pi * step / FRAMES
    x, y = width * (0.5 + 0.22 * np.cos(angle)), width * (0.375 + 0.12 * np.sin(2 * angle))
    size = width * (0.13 + 0.03 * np.sin(3 * angle))
    corners = np.pi / 4 + angle + np.pi / 2 * np.arange(4)
    if shape == "disc":
        ImageDraw.Draw(image).ellipse((x - size, y - size, x + size, y + size), fill=colour)
    else:
        points = [(x + 1.25 * size * np.cos(corner), y + 1.25 * size * np.sin(corner)) for corner in corners]
        ImageDraw.Draw(image).polygon(points, fill=colour)
    return image


def film(path, shape, colours):
    """Write a film as Motion JPEG; a camera that is opened afterwards shows it."""
    content = io.BytesIO()
    for step in range(FRAMES):
        frame(shape, step, colours[step * len(colours) // FRAMES]).save(content, "JPEG", quality=90)
    new = path.with_suffix(".new")
    new.write_bytes(content.getvalue())
    new.replace(path)


DISCS = [(190, 50, 40), (200, 90, 30), (160, 40, 70)]
SQUARES = [(40, 80, 170), (40, 120, 110), (80, 60, 160)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film(path, "disc", DISCS)
    return path


@pytest.fixture(scope="module")
def chromium(video):
    """Headless Chromium whose camera is a film."""
    from selenium import webdriver

    driver = shutil.which("chromedriver")
    if driver is None and not os.environ.get("CI"):
        pytest.skip("no chromedriver: install chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def teaching(folder, port, *options):
    """`foveola teach` of a folder; its URL."""
    program = Path(sys.executable).with_name("foveola")
    command = [program, "teach", folder, "--port", str(port), "--no-browser", "--quiet", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urlopen(url).close()
                break
            except (URLError, ConnectionError):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


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

    def text(self, selector):
        return self.find(selector).text

    def script(self, code, *arguments):
        return self.browser.execute_script(code, *arguments)

    def until(self, condition, seconds=60):
        """The result of the condition, once it is true; read again if an element was replaced meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(self.browser, seconds, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def resize(self, width, dark=False):
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, url, width=1500):
        self.resize(width)
        self.browser.get(url)
        self.until(lambda: self.find("#studio").is_displayed())
        return self

    def click(self, selector):
        self.find(selector).click()

    def choose(self, selector, name):
        from selenium.webdriver.support.select import Select

        Select(self.find(selector)).select_by_visible_text(name)

    def screenshot(self, name):
        folder = os.environ.get("FOVEOLA_SCREENSHOTS")
        if folder:
            options = {"format": "png", "captureBeyondViewport": True}
            shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", options)
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    # Collect

    def add_class(self, name):
        self.find("#add-class-name").send_keys(name)
        self.click("#add-class button")
        self.until(lambda: self.text("#chosen-name") == name)

    def classes(self):
        """The numbers of images of the classes."""
        cards = self.script(
            """return [...document.querySelectorAll("#classes li")].map(
                card => [card.dataset.name, parseInt(card.querySelector("span").textContent)])"""
        )
        return dict(cards)

    def source(self, group, name):
        self.script("document.querySelector(`input[name=${arguments[0]}][value=${arguments[1]}]`).click()", group, name)

    def open_camera(self, group="collect-source", video="#collect-video"):
        """Open the camera anew, so that it shows the film as it is now."""
        self.source(group, "camera")
        self.until(lambda: self.script("return document.querySelector(arguments[0]).readyState", video) == 4)

    def hold_to_record(self, images):
        """Hold the button until the class has so many images more."""
        from selenium.webdriver.common.action_chains import ActionChains

        name = self.text("#chosen-name")
        before = self.classes()[name]
        ActionChains(self.browser).move_to_element(self.find("#record")).click_and_hold().perform()
        self.until(lambda: self.classes()[name] >= before + images)
        ActionChains(self.browser).release().perform()
        self.sent()

    def sent(self):
        """Wait until no image waits for the server, and the list shows as many as there are."""
        self.until(lambda: "waiting" not in self.text("#taken"))

    def give(self, files, target="body", kind="drop"):
        """Paste or drop files, by their names."""
        encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
        self.script(
            """const [files, target, kind] = arguments, transfer = new DataTransfer();
            for (const [name, content] of Object.entries(files)) {
              const bytes = Uint8Array.from(atob(content), each => each.charCodeAt(0));
              const type = /png$/.test(name) ? "image/png" : "text/plain";
              transfer.items.add(new File([bytes], name, { type }));
            }
            document.querySelector(target).dispatchEvent(kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
                : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));""",
            encoded,
            target,
            kind,
        )

    # Train

    def train(self):
        """Train for BUDGET seconds; the name of the run."""
        self.script(
            """const option = new Option(`${arguments[0]} seconds`, arguments[0]);
            document.getElementById("seconds").append(option);
            option.selected = true;""",
            BUDGET,
        )
        before = self.text("#model")
        self.click("#start-training")
        self.until(lambda: self.find("#stop").is_displayed())
        yield
        self.until(lambda: not self.find("#stop").is_displayed(), 900)
        assert self.text("#job-error") == ""
        self.until(lambda: self.text("#model") != before and self.all("#probabilities tr"))

    def answer(self):
        return self.until(lambda: self.all("#answer b") and self.text("#answer b"))


@pytest.fixture
def page(chromium):
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get_log("performance")
    return Page(chromium)


@contextmanager
def opened(page, folder):
    """The page of a folder; at the end, it must have logged nothing unexpected and sent requests to its server only."""
    with teaching(folder, free_port()) as url:
        yield page.open(url)
        page.browser.get("about:blank")
        messages = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
        asked = {each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"}
        assert {one for one in asked if not one.startswith((url, "data:", "about:", f"blob:{url}"))} == set()
        logged = [entry["message"] for entry in page.browser.get_log("browser")]
        assert [message for message in logged if not any(part in message for part in page.expected)] == []


def png(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def test_collected_trained_tried_corrected_and_taken_away(page, video, tmp_path):
    folder = tmp_path / "shapes"
    with opened(page, folder):
        assert "Add two or more" in page.text("#collect-hint")
        page.screenshot("1-empty")
        for name, shape, colours in [("disc", "disc", DISCS), ("square", "square", SQUARES)]:
            page.add_class(name)
            film(video, shape, colours)
            page.open_camera()
            for _ in range(5):
                page.hold_to_record(6)
            page.screenshot(f"2-recorded-{name}")
            page.source("collect-source", "files")
        assert all(count >= 30 for count in page.classes().values())
        page.until(lambda: {name: len(list((folder / name).iterdir())) for name in page.classes()} == page.classes())
        files = {name: sorted(path.name for path in (folder / name).iterdir()) for name in page.classes()}
        assert len({file[:18] for file in files["disc"]}) == 5, "five recordings"

        training = page.train()
        next(training)
        page.until(lambda: page.all("#curve polyline"), 900)
        page.screenshot("3-training")
        next(training, None)
        assert page.text("#accuracy-said").startswith("Accuracy ")
        assert len(page.all("#sentences p")) == 3
        page.screenshot("4-trained")

        page.open_camera("source", "#try-video")
        assert page.answer() == "square"
        page.until(lambda: "answers a second" in page.text("#answers"))
        page.screenshot("5-tried")
        page.source("source", "picture")
        page.give({"image.png": png(frame("square", 30, (190, 120, 40)))}, "#try")
        page.answer()
        before = page.classes()["square"]
        page.screenshot("6-wrong")
        page.click("#correct-classes button:last-child")
        page.until(lambda: page.text("#corrected") == "Added to square. The next training uses it.")
        page.until(lambda: page.classes()["square"] == before + 1)
        page.screenshot("6-corrected")

        training = page.train()
        next(training)
        next(training, None)
        page.screenshot("7-trained-again")
        assert (tmp_path / "runs" / "shapes-2" / "run.json").exists()

        page.script("document.getElementById('takeaway').open = true")
        page.click("#export-web")
        page.until(lambda: "The page is in" in page.text("#export-said"), 900)
        assert list((tmp_path / "runs" / "shapes-2").glob("**/index.html"))
        page.screenshot("8-exported")
        page.resize(360)
        page.screenshot("9-narrow")
        assert page.script("return document.documentElement.scrollWidth") <= 360
        page.resize(1500, dark=True)
        page.screenshot("10-dark")


@pytest.fixture
def folder(tmp_path):
    """A project with two classes, of 30 and 3 discs."""
    for name, count in [("disc", 30), ("other", 3)]:
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for step in range(count):
            image = frame("disc", step, (20 * len(name), 90, 200 - 5 * step))
            image.save(tmp_path / "shapes" / name / f"{step:02}.png")
    return tmp_path / "shapes"


def names(folder):
    """The files of a class by their number."""
    return sorted(path.name for path in folder.iterdir())


def cells(page):
    """The visible thumbnails, once all of them are loaded."""
    page.until(
        lambda: page.script(
            """const all = [...document.querySelectorAll(".cell")].map(cell => cell.querySelector("img"));
            return all.length > 0 && all.every(image => image?.src && image.complete)"""
        )
    )
    return page.all(".cell")


def test_classes_are_added_renamed_deleted_and_brought_back(page, folder):
    page.expected = ["422"]
    with opened(page, folder):
        assert page.classes() == {"disc": 30, "other": 3}
        page.find("#add-class-name").send_keys("DISC")
        page.click("#add-class button")
        page.until(lambda: "disc" in page.text("#trouble").lower())
        page.find("#add-class-name").clear()
        page.add_class("it's & co")
        assert page.text("#trouble") == ""
        page.click("#rename")
        page.find("#rename-name").clear()
        page.find("#rename-name").send_keys("square\n")
        page.until(lambda: "square" in page.classes())
        page.until(lambda: page.text("#chosen-name") == "square")
        page.script("document.querySelector('#classes li button').click()")
        page.click("#delete-class")
        page.until(lambda: "disc" not in page.classes())
        assert "disc" in page.text("#undo-what")
        assert not (folder / "disc").exists()
        page.click("#undo-change")
        page.until(lambda: page.classes().get("disc") == 30)
        assert len(names(folder / "disc")) == 30


def test_files_and_folders_are_added_and_exact_copies_are_not(page, folder, tmp_path):
    page.expected = ["422"]
    with opened(page, folder):
        new = {f"{step}.png": png(frame("square", step, (0, 0, 0))) for step in range(4)}
        page.give(new)
        page.until(lambda: page.classes()["disc"] == 34)
        page.sent()
        assert page.text("#taken").startswith("4 images added")
        page.give({"again.png": new["0.png"], "notes.txt": b"notes", "broken.png": new["1.png"][:120]}, kind="paste")
        page.until(lambda: "1 exact copy not added, 1 image refused" in page.text("#taken"))
        page.sent()
        assert "0 images added" in page.text("#taken")
        page.click("#batch summary")
        assert "broken.png" in page.text("#batch-notes")
        page.give({"notes.txt": b"notes"})
        assert page.text("#trouble").startswith("None of these files is an image.")

        given = tmp_path / "given" / "triangles"
        given.mkdir(parents=True)
        for step in range(3):
            frame("square", step, (0, 200, 0)).save(given / f"{step}.png")
        page.find("#folders").send_keys(str(given))
        page.until(lambda: page.find("#import").is_displayed())
        assert page.text("#import-folders").startswith("triangles, 3 images")
        page.screenshot("collect-folder")
        page.click("#import [value=add]")
        page.until(lambda: page.classes().get("triangles") == 3)
        assert len(names(folder / "triangles")) == 3


def test_images_are_selected_moved_and_deleted_by_pointer_and_keyboard(page, folder):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    with opened(page, folder):
        found = cells(page)
        found[1].click()
        ActionChains(page.browser).key_down(Keys.SHIFT).click(found[4]).key_up(Keys.SHIFT).perform()
        assert page.text("#selected") == "4 selected"
        page.screenshot("collect-selected")
        page.choose("#move-to", "other")
        page.until(lambda: page.classes() == {"disc": 26, "other": 7})
        assert not page.find("#delete-pictures").is_displayed()
        page.click("#undo-change")
        page.until(lambda: page.classes() == {"disc": 30, "other": 3})

        cells(page)
        box = page.find("#pictures")
        box.send_keys(Keys.HOME, Keys.SPACE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.SPACE)
        page.until(lambda: page.text("#selected") == "2 selected")
        active = box.get_attribute("aria-activedescendant")
        assert page.find(f"#{active}").get_attribute("aria-selected") == "true"
        assert page.find(f"#{active}").get_attribute("aria-posinset") == "3"
        box.send_keys(Keys.DELETE)
        page.until(lambda: page.classes()["disc"] == 28)
        page.until(lambda: "2 " in page.text("#undo-what"))
        box.send_keys(Keys.CONTROL, "a")
        page.until(lambda: page.text("#selected") == "28 selected")
        box.send_keys(Keys.ESCAPE)
        assert page.text("#selected") == ""
        box.send_keys(Keys.ENTER)
        page.until(lambda: page.script("return document.querySelector('#enlarged img').naturalWidth") > 0)
        page.screenshot("collect-enlarged")


def test_the_bin_is_emptied_after_a_question(page, folder):
    with opened(page, folder):
        assert not page.find("#bin").is_displayed()
        cells(page)[0].click()
        page.click("#delete-pictures")
        page.until(lambda: page.text("#bin-said").startswith("In the bin: 1 image, "))
        page.click("#empty-bin")
        assert page.text("#bin-title").startswith("Delete 1 image (")
        page.click("#bin-question [value=cancel]")
        assert page.find("#bin").is_displayed()
        page.click("#empty-bin")
        page.click("#bin-question [value=empty]")
        page.until(lambda: not page.find("#bin").is_displayed())
        assert not page.find("#undo-bar").is_displayed()
        assert list((folder / ".foveola" / "bin").rglob("*.png")) == []
        assert page.classes() == {"disc": 29, "other": 3}


def test_an_interrupted_training_is_continued(page, folder):
    with opened(page, folder):
        # What the server would say of a training that was killed
        page.script(
            """const real = window.fetch;
            window.sent = [];
            window.fetch = async (path, options) => {
              if (path === "project/train") {
                sent.push(JSON.parse(options.body));
                const job = { kind: "training", state: "running", message: "Training", history: [], seconds: 0 };
                return new Response(JSON.stringify(job), { status: 202 });
              }
              const response = await real(path, options);
              if (path !== "project") return response;
              return new Response(JSON.stringify({ ...await response.json(), unfinished: "shapes-3" }));
            };"""
        )
        page.add_class("third")
        page.until(lambda: page.text("#unfinished p") == "The training shapes-3 was interrupted before its end.")
        page.click("#resume")
        page.until(lambda: page.script("return sent") == [{"resume": True, "replace": False}])


def test_of_thousands_only_the_visible_ones_are_on_the_page(page, tmp_path):
    many = tmp_path / "many" / "dots"
    many.mkdir(parents=True)
    (tmp_path / "many" / "none").mkdir()
    for number in range(3000):
        Image.new("RGB", (8, 8), (number % 251, number % 241, number % 239)).save(many / f"{number:04}.png")
    with opened(page, tmp_path / "many"):
        assert len(cells(page)) < 100
        page.script("document.getElementById('pictures').scrollTop = 1e9")
        page.until(lambda: page.all(".cell[aria-posinset='3000']"))
        assert len(cells(page)) < 100
        assert page.find(".cell[aria-posinset='3000']").get_attribute("aria-label") == "Image 3000"
        page.click("#select-all")
        page.until(lambda: page.text("#selected") == "3,000 selected")
        page.script("document.getElementById('pictures').scrollTop = 0")
        page.until(lambda: page.all(".cell[aria-posinset='1'][aria-selected=true]"))


def test_images_wait_while_the_server_is_away(page, folder):
    page.expected = ["ERR_", "Failed to load resource"]
    port = free_port()
    with teaching(folder, port) as url:
        page.open(url)
    page.until(lambda: "does not respond" in page.text("#connection"))
    page.give({"new.png": png(frame("square", 1, (0, 0, 0)))})
    page.until(lambda: "1 image waiting" in page.text("#taken"))
    page.screenshot("collect-away")
    with teaching(folder, port):
        page.until(lambda: page.text("#connection") == "")
        page.until(lambda: page.classes()["disc"] == 31)
        assert page.text("#taken") == "1 image added."


def test_a_key_is_asked_for(page, folder):
    page.expected = ["401"]
    with teaching(folder, free_port(), "--api-key", "open-sesame") as url:
        page.resize(1500)
        page.browser.get(url)
        page.until(lambda: page.find("#key").is_displayed())
        page.find("#key-text").send_keys("open-sesame")
        page.click("#key [value=use]")
        page.until(lambda: page.classes() == {"disc": 30, "other": 3})
        cells(page)
        page.script("sessionStorage.clear()")


def test_a_camera_that_is_refused_is_told(page, folder):
    with opened(page, folder):
        page.script(
            "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }"
        )
        page.source("collect-source", "camera")
        page.until(lambda: page.text("#trouble") == "There is no camera. Connect one, or choose image files.")
        page.source("collect-source", "files")
        assert page.text("#trouble") == ""


def test_a_drawing_is_added(page, folder):
    from selenium.webdriver.common.action_chains import ActionChains

    with opened(page, folder):
        page.source("collect-source", "drawing")
        page.click("#add-drawing")
        assert page.text("#trouble") == "Draw something first."
        canvas = page.find("#collect-drawing")
        hand = ActionChains(page.browser, duration=4).move_to_element(canvas)
        hand.click_and_hold().move_by_offset(60, 40).release().perform()
        page.click("#add-drawing")
        page.until(lambda: page.classes()["disc"] == 31)


@pytest.mark.parametrize("dark", [False, True])
def test_every_control_has_a_name(page, folder, dark):
    with opened(page, folder):
        page.resize(360, dark)
        page.script("for (const part of document.querySelectorAll('details')) part.open = true")
        for source in ("files", "camera", "drawing"):
            page.source("collect-source", source)
            unnamed = [
                each.get_attribute("outerHTML")
                for each in page.all("button, input, select, canvas, video, progress, [role=listbox], [role=img]")
                if each.is_displayed() and not each.accessible_name
            ]
            assert unnamed == []
            assert page.script("return document.documentElement.scrollWidth") <= 360
        page.source("collect-source", "files")
