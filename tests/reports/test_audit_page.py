"""The page of an audit: images of the findings, a maximum size, no errors in a browser."""

import re

import numpy as np
import pytest

from foveola.documents import Audit
from foveola.images import ImageSet
from foveola.reports.audit import audit_page

ESTIMATE = {"value": 0.9, "low": 0.88, "high": 0.92, "n": 500, "method": "Wilson"}


def image_set(count, side=16, channels=1, names=("cat", "<b>dog</b>")):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % len(names), names)


def document(splits, suspects=0, groups=0, oddities=0, retrained=None):
    """Findings in the training images, one after the other."""
    names = splits["train"].class_names
    suspect = {"split": "train", "path": None, "given": names[1], "suggested": names[0], "score": 0.0123}
    contents = {
        "data": {"name": "pets & more", "fingerprint": "f" * 64, "splits": {k: len(v) for k, v in splits.items()}},
        "settings": {"recipe": "fast", "epochs": 5, "minimum_steps": 800, "folds": 3, "rounds": 3, "seed": 7},
        "cross_fitted_accuracy": ESTIMATE,
        "likely_label_errors": suspects,
        "label_suspects": [suspect | {"index": index} for index in range(suspects)],
        "duplicates": [[{"split": "train", "index": 0}, {"split": "train", "index": index}] for index in range(groups)],
        "duplicate_groups": groups
        * [{"kind": "near", "labels": [names[0], names[1]], "conflicting": True, "across_splits": False}],
        "oddities": [
            {"split": "train", "index": index, "path": f"pets/{index}.png", "kind": "blank", "label": names[0]}
            | {"detail": "0.0 % of its pixels are foreground", "score": 1.0}
            for index in range(oddities)
        ],
        "class_balance": {k: dict(zip(names, v.class_counts.tolist(), strict=True)) for k, v in splits.items()},
        "retrained": retrained,
        "files": [],
        "seconds": 1.0,
    }
    return Audit.model_validate(contents)


@pytest.fixture
def splits():
    return {"train": image_set(400), "test": image_set(100)}


def test_findings_are_shown_with_their_images(splits):
    text = audit_page(document(splits, suspects=3, groups=2, oddities=4), splits)
    assert text.count("<img ") == 3 + 4 + 4
    assert len(set(re.findall(r'<img src="([^"]+)"', text))) == 4  # images 0 to 3, however often
    assert "1.23 %" in text
    assert "pets/3.png" in text
    assert "conflicting labels" in text
    assert "pets &amp; more" in text


def test_names_are_escaped(splits):
    text = audit_page(document(splits, suspects=1), splits)
    assert "&lt;b&gt;dog&lt;/b&gt;" in text
    assert "<b>dog" not in text


def test_without_findings_the_page_says_so(splits):
    assert audit_page(document(splits), splits).count("<p>None.</p>") == 3


def test_accuracy_without_the_suspects_is_shown(splits):
    row = {"images": 390, "accuracy": ESTIMATE, "accuracy_without_suspects": ESTIMATE}
    rows = [row | {"trained_on": "all images"}, row | {"trained_on": "without suspects"}]
    text = audit_page(document(splits, retrained={"test_split": "test", "rows": rows}), splits)
    assert text.count("90.00 %") == 4
    assert "Effect of the label errors" not in audit_page(document(splits), splits)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (64, 3), (500, 3)])
def test_the_page_stays_under_4_mb_and_says_what_is_left_out(side, channels):
    splits = {"train": image_set(400 if side < 500 else 60, side, channels)}
    many = len(splits["train"])
    text = audit_page(document(splits, suspects=many, groups=many, oddities=many), splits)
    assert text.count("<img ") > 40
    assert len(text.encode()) < 4_000_000
    assert f"of {many} are shown" in text


def test_in_a_browser_on_a_phone(browser, splits, tmp_path):
    """No requests, no errors, and only tables scroll sideways."""
    text = audit_page(document(splits, suspects=30, groups=9, oddities=20), splits)
    (tmp_path / "audit.html").write_text(text, encoding="utf-8")
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "audit.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.execute_script("return [...document.images].every(image => image.naturalWidth == 16)")
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert browser.get_log("browser") == []
