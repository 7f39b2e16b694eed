"""A real browser for the pages."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium that logs its console and its requests; it may be missing, but not in CI."""
    from selenium import webdriver

    driver = shutil.which("chromedriver")
    if driver is None and not os.environ.get("CI"):
        pytest.skip("no chromedriver: install chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()
