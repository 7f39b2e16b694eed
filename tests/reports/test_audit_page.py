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


def document(splits, suspects=0, groups=0, oddities=0, retrained=None, **more):
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
        **more,
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
    text = audit_page(document(splits), splits)
    assert text.count("<p>None.</p>") == 2
    assert "The networks contradict no label." in text


def test_the_accuracy_comes_before_every_finding(splits):
    text = audit_page(document(splits, suspects=3, groups=2, oddities=4), splits)
    body = text[text.index("<main>") :]
    places = [body.index(word) for word in ("90.0 %", "groups of duplicates", "<h2", "Likely label errors</h2>")]
    assert places == sorted(places)
    assert "88.0 % – 92.0 %" in body


def test_hard_images_are_ranked_but_not_counted_as_errors(splits):
    text = audit_page(document(splits, suspects=30, label_certainty="hard or mislabelled"), splits)
    assert "Hard or mislabelled</h2>" in text
    assert "How many labels are wrong cannot be said" in text
    assert "ikely label errors" not in text
    assert text.count("<img ") == 30


def test_networks_that_guess_accuse_no_image(splits):
    text = audit_page(document(splits, suspects=30, label_certainty="no better than guessing"), splits)
    assert "No better than guessing" in text
    assert "<img " not in text


def test_the_accuracy_says_what_the_networks_have_not_seen(splits):
    def text(**more):
        return audit_page(document(splits, **more), splits)

    assert "trained without an image and its copies give" in text()
    assert "trained without an image and its exact copies give" in text(near_copies_apart=True)
    data = {"name": "pets", "fingerprint": "f" * 64, "splits": {"train": 400, "test": 100}, "groups": 9}
    assert "trained without an image, its copies and its group give" in text(data=data)


def test_series_leaks_and_unjudged_images_are_said(splits):
    text = audit_page(
        document(
            splits,
            groups=1,
            series=r"(.+)_\d+",
            unjudged=1,
            random_split={"held_out": 0.2, "groups": 12.3, "images": 1.25},
        ),
        splits,
    )
    assert "--groups &#39;(.+)_" in text
    assert "The label of 1 image cannot be judged" in text
    assert "A random 80/20 split would put about 12 groups" in text
    assert "about 1.2 test images" in text


def test_accuracy_without_the_suspects_is_shown(splits):
    row = {"images": 390, "accuracy": ESTIMATE, "accuracy_without_suspects": ESTIMATE}
    rows = [row | {"trained_on": "all images"}, row | {"trained_on": "without suspects"}]
    text = audit_page(document(splits, retrained={"test_split": "test", "rows": rows}), splits)
    assert text.count("90.00 %") == 4
    assert "Effect of the first suspects" not in audit_page(document(splits), splits)


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
