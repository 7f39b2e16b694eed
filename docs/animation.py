"""Film the page of `foveola serve` at work into docs/images/drawing.webp.

    foveola train mnist --epochs 2 --set augment.shift=2 --out runs/drawing
    python docs/animation.py runs/drawing

The page is the real one, in headless Chromium: strokes are drawn with the mouse, and each frame is a screenshot.
"""

import io
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

import foveola

OUT = Path(__file__).parent / "images" / "drawing.webp"
WINDOW, WIDTH = (1240, 860), 860
FRAME_MS, LAST_FRAME_MS = 90, 1800
MAX_BYTES = 2_000_000

# Strokes as corners, from (0, 0), top left, to (1, 1)
SEVEN = [[(0.3, 0.25), (0.5, 0.25), (0.7, 0.25), (0.6, 0.45), (0.5, 0.62), (0.43, 0.8)]]
THREE = [
    [(0.33, 0.27), (0.42, 0.2), (0.55, 0.2), (0.65, 0.3), (0.6, 0.42), (0.47, 0.48)],
    [(0.47, 0.48), (0.62, 0.54), (0.68, 0.66), (0.6, 0.78), (0.45, 0.81), (0.32, 0.74)],
]
FOUR = [
    [(0.42, 0.2), (0.35, 0.38), (0.28, 0.56), (0.5, 0.56), (0.74, 0.56)],
    [(0.62, 0.32), (0.62, 0.58), (0.62, 0.84)],
]


def main() -> None:
    (run,) = sys.argv[1:]
    with foveola.serve(run, port=0, background=True) as server:
        frames, durations = zip(*film(server.url), strict=True)
    kinds = {"save_all": True, "append_images": frames[1:], "duration": list(durations), "loop": 0, "quality": 70}
    frames[0].save(OUT, method=6, **kinds)
    size = OUT.stat().st_size
    assert size < MAX_BYTES, f"{OUT} has {size:,} bytes"
    print(f"{OUT}: {len(frames)} frames, {size:,} bytes")


def film(url: str) -> Iterator[tuple[Image.Image, int]]:
    """Screenshots of the page with the milliseconds that each is shown."""
    browser = open_browser()
    try:
        browser.get(url)
        canvas = browser.find_element(By.ID, "drawing")
        wait_for(lambda: canvas.is_displayed() and canvas.size["width"] > 50)
        for strokes in (SEVEN, THREE, FOUR):
            for corners in strokes:
                for start, end in pairwise(with_middles(corners)):
                    draw(browser, canvas, start, end)
                    yield screenshot(browser), FRAME_MS
            before = None
            while before is None or before.tobytes() != (after := screenshot(browser)).tobytes():  # until it is still
                before = screenshot(browser)
                time.sleep(0.5)
            yield after, LAST_FRAME_MS
            browser.find_element(By.ID, "clear").click()
    finally:
        browser.quit()


def open_browser() -> Any:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.set_window_size(*WINDOW)
    return browser


def with_middles(corners: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a stroke with the points half-way between them."""
    middles = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairwise(corners)]
    return [corners[0], *(point for pair in zip(middles, corners[1:], strict=True) for point in pair)]


def draw(browser: Any, canvas: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A straight stroke with the mouse; the page joins strokes that touch."""
    width, height = canvas.size["width"], canvas.size["height"]
    hand = ActionChains(browser, duration=20)
    for number, (x, y) in enumerate((start, end)):
        hand.move_to_element_with_offset(canvas, round((x - 0.5) * width), round((y - 0.5) * height))
        if number == 0:
            hand.click_and_hold()
    hand.release().perform()
    time.sleep(0.4)  # the prediction arrives


def screenshot(browser: Any) -> Image.Image:
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return shot.resize((WIDTH, round(shot.height * WIDTH / shot.width)), Image.Resampling.LANCZOS)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the page did not open"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
