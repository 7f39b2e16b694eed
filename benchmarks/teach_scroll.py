"""Scroll the largest class of a project on the page of `foveola teach`: which frames are late, what does a frame cost?

    python benchmarks/teach_scroll.py FOLDER

Headless Chromium scrolls by 40 pixels a frame. At 60 frames a second, a frame that takes more than 25 ms was dropped.
Processor time is that of the page's main thread, so that other work on the machine hardly counts. `empty` is the
fraction of cells on the page, those just out of sight included, whose image is not there yet.
"""

import argparse
import shutil
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from teach_kills import start

FRAMES = 299
PIXELS = 40  # a frame
WIDTH, HEIGHT = 1500, 1000
COUNTS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration")

CHOOSE = """
const cards = [...document.querySelectorAll("#classes li")], count = card => parseInt(card.innerText.split("\\n").at(-1)
  .replaceAll(",", ""));
cards.sort((one, other) => count(other) - count(one))[0].firstChild.click();
return count(cards[0]);
"""
LOADED = """
const images = [...document.querySelectorAll(".cell img")];
return images.length > 0 && images.every(image => image.naturalWidth);
"""
SCROLL = """
const [frames, pixels, done] = arguments, box = document.getElementById("pictures"), times = [], long = [];
const observer = new PerformanceObserver(list => long.push(...list.getEntries()));
observer.observe({ type: "longtask" });
let cells = 0, empty = 0;
requestAnimationFrame(function step(time) {
  times.push(time);
  if (times.length % 10 === 0) {
    for (const cell of document.querySelectorAll(".cell")) {
      cells += 1;
      if (!cell.querySelector("img")?.naturalWidth) empty += 1;
    }
  }
  if (times.length > frames) {
    observer.disconnect();
    const took = times.slice(1).map((time, at) => time - times[at]);
    return done({ late: took.filter(one => one > 25).length, longest: Math.max(...took), long: long.length,
      empty: empty / cells });
  }
  box.scrollTop += pixels;
  requestAnimationFrame(step);
});
"""


@contextmanager
def teaching(folder: Path):
    """`foveola teach` of a folder; its URL."""
    process, url = start(folder)
    try:
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def chromium():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        browser.set_script_timeout(300)
        yield browser
    finally:
        browser.quit()


def measured(browser) -> dict[str, float]:
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics if metric["name"] in COUNTS}


def scroll(browser, what: str) -> None:
    """Scroll from the top, and print what that cost."""
    browser.execute_script("document.getElementById('pictures').scrollTop = 0")
    WebDriverWait(browser, 60).until(lambda _: browser.execute_script(LOADED))
    before = measured(browser)
    found = browser.execute_async_script(SCROLL, FRAMES, PIXELS)
    after = measured(browser)
    costs = {name.removesuffix("Duration"): 1000 * (after[name] - before[name]) / FRAMES for name in COUNTS}
    listed = ", ".join(f"{name} {value:.2f}" for name, value in costs.items())
    print(
        f"{what}: {found['late']} of {FRAMES} frames late, longest {found['longest']:.0f} ms, {found['long']} long "
        f"tasks, {found['empty']:.0%} empty; processor time of the main thread, ms a frame: {listed}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with teaching(arguments.folder) as url, chromium() as browser:
        browser.get(url)
        WebDriverWait(browser, 60).until(lambda _: browser.execute_script(LOADED))
        print(f"{browser.execute_script(CHOOSE):,} images")
        for number in range(1, arguments.rounds + 1):
            scroll(browser, f"round {number}")


if __name__ == "__main__":
    main()
