"""The documentation site: built without warnings, asks for nothing elsewhere, and its generated pages are current."""

import doctest
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Warnings are errors: links that lead nowhere, pages that the navigation leaves out."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"([^\"]+)\"|<link[^>]+href=\"([^\"]+)\"", text)
        addresses = [address for pair in loaded for address in pair if re.match(r"(?:https?:)?//", address)]
        assert not addresses, f"{page.relative_to(site)} loads {addresses}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text("utf-8")), style


def test_the_search_finds_pages_by_their_words(site):
    index = (site / "search" / "search_index.json").read_text("utf-8")
    assert "Wilson" in index
    assert "class_weights" in index


def test_links_to_files_of_the_root_lead_to_pages(site):
    contributing = (site / "contributing.html").read_text("utf-8")
    assert 'href="design.html"' in contributing
    assert 'href="docs/' not in contributing


def test_generated_pages_are_current():
    script = runpy.run_path(str(DOCS / "reference.py"))
    for name, text in script["pages"]().items():
        assert (DOCS / "reference" / name).read_text("utf-8") == text, f"reference/{name}: run make docs"


def test_the_examples_of_the_scripts_run():
    script = runpy.run_path(str(DOCS / "site_pages.py"))
    found = doctest.DocTestFinder().find(script["relink"], "relink", globs=script)
    assert all(doctest.DocTestRunner().run(test).failed == 0 for test in found)


def test_the_animation_is_small():
    assert (DOCS / "images" / "drawing.webp").stat().st_size < 2_000_000
