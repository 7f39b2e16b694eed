"""docs/recipes.md is what its script writes."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current():
    script = runpy.run_path(str(DOCS / "recipes.py"))
    assert (DOCS / "recipes.md").read_text("utf-8") == script["page"](), "run make docs"
