"""Pages in a real browser: no errors, no requests, usable on a phone and from the keyboard."""

import json

import pytest

import foveola

RECIPE = """
name = "small"
epochs = 2
validation = 0.2
precision = "float32"
layers = [
  { type = "Conv2D", filters = 8, padding = "same", activation = "relu" },
  { type = "Flatten" },
  { type = "Dense", units = "classes" },
]
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a small model of the embedded digits, as a URL."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "small.toml").write_text(RECIPE)
    run = foveola.train("digits", folder / "small.toml", out=folder / "run", verbose=False)
    return foveola.report(run.path, verbose=False).as_uri()


@pytest.fixture
def opened(browser, page):
    def at(width):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get_log("performance")
        browser.get(page)
        return browser

    return at


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_has_no_errors_no_requests_and_no_sideways_scrolling(opened, page, width):
    browser = opened(width)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in requested if not url.startswith("data:")} == {page}
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert browser.execute_script("return document.images.length") > 100


def column(browser, number):
    rows = browser.find_elements("css selector", f"#quality table.sortable tbody tr > :nth-child({number})")
    return [row.text for row in rows]


def test_the_table_of_classes_is_sorted_by_click_and_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    browser = opened(1200)
    recall, name = (
        browser.find_element("css selector", f"#quality table.sortable th:nth-child({number}) button")
        for number in (3, 1)
    )
    recall.click()
    values = column(browser, 3)
    assert values == sorted(values)
    assert len(set(values)) > 1
    recall.send_keys(Keys.ENTER)
    assert column(browser, 3) == sorted(values, reverse=True)
    name.send_keys(Keys.SPACE)
    assert column(browser, 1) == [str(digit) for digit in range(10)]


def test_rows_and_columns_of_the_confusion_matrix_have_the_same_order(opened, page):
    from selenium.webdriver.support.select import Select

    browser = opened(1200)
    read = """return [...document.querySelectorAll("#matrix tr")].map(
        row => [...row.cells].map(cell => [cell.textContent.trim(), cell.classList.contains("hit")]))"""
    before = browser.execute_script(read)
    counts = {
        (row[0][0], head[0]): cell[0] for row in before[1:] for head, cell in zip(before[0][1:], row[1:], strict=True)
    }
    for order in range(3):
        Select(browser.find_element("id", "order")).select_by_index(order)
        head, *rows = browser.execute_script(read)
        names = [name for name, _ in head[1:]]
        assert [row[0][0] for row in rows] == names
        assert sorted(names) == [str(digit) for digit in range(10)]
        for number, row in enumerate(rows):
            assert [hit for _, hit in row[1:]].index(True) == number
            assert [counts[row[0][0], name] for name in names] == [cell for cell, _ in row[1:]]
