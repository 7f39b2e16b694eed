import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from foveola.images import ImageSet
from foveola.predictions import Predictions
from foveola.reports.plots import plot_confusion, plot_curves, plot_mistakes, plot_samples
from foveola.reports.style import RED, drawable_names


def toy(n=30, names=("cat", "dog", "owl"), channels=1, size=8):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    return ImageSet(images, np.arange(n) % len(names), names)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def close_to(image, colour, tolerance=8):
    """How many pixels have this colour, given as #rrggbb."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=2) <= tolerance).sum())


def row(epoch, **more):
    return {"epoch": epoch, "steps": 10 * epoch, "loss": 1 / epoch, "accuracy": 1 - 0.5 / epoch, "seconds": 1.0, **more}


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves_of_one_and_of_many_epochs(tmp_path, epochs):
    plot_curves(
        [row(e, val_loss=1.2 / e, val_accuracy=1 - 0.6 / e) for e in range(1, epochs + 1)], tmp_path / "curves.png"
    )
    image = pixels(tmp_path / "curves.png")
    assert close_to(image, "#0072b2") > 20
    assert close_to(image, "#e69f00") > 20
    assert image.shape[1] > 2 * image.shape[0], "loss and accuracy side by side"


def test_curves_have_a_panel_for_each_recorded_metric(tmp_path):
    plot_curves([row(1), row(2)], tmp_path / "two.png")
    plot_curves([row(1, learning_rate=0.1), row(2, learning_rate=0.1)], tmp_path / "three.png")
    both = {"learning_rate": 0.1, "val_auc": 0.9}
    plot_curves([row(1, **both), row(2, **both)], tmp_path / "four.png")
    two, three, four = (pixels(tmp_path / f"{name}.png").shape for name in ("two", "three", "four"))
    assert three[1] == pytest.approx(1.5 * two[1], abs=2)
    assert four == (2 * two[0], two[1], 3)
    assert close_to(pixels(tmp_path / "two.png"), "#e69f00") == 0, "no validation, no line"


def test_curves_over_steps_skip_missing_values(tmp_path):
    history = [
        {"steps": 5, "loss": 2.0, "val_loss": None},
        {"steps": 10, "loss": float("nan"), "val_loss": 1.5},
        {"steps": 15, "loss": 1.0},
    ]
    plot_curves(history, tmp_path / "curves", x="steps")
    assert close_to(pixels(tmp_path / "curves"), "#0072b2") > 100, "the line joins the finite points"


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_show_the_images(tmp_path, channels):
    image_set = toy(channels=channels)
    image_set.images[:] = 255
    image_set.images[..., 0] = 90
    plot_samples(image_set, tmp_path / "samples.png")
    image = pixels(tmp_path / "samples.png")
    shown = "#5affff" if channels == 3 else "#5a5a5a"
    assert close_to(image, shown) > 0.3 * image.shape[0] * image.shape[1]
    assert 900 < image.shape[0] < 1300


def test_samples_repeat_with_their_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        plot_samples(toy(), tmp_path / name, count=4, seed=seed)
    first, second, third = (pixels(tmp_path / name) for name in "abc")
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()


def test_samples_of_fewer_images_than_requested(tmp_path):
    plot_samples(toy(3), tmp_path / "three.png")
    plot_samples(toy(3).take([0]), tmp_path / "one.png")
    assert pixels(tmp_path / "three.png").shape[0] == pytest.approx(2 * pixels(tmp_path / "one.png").shape[0], abs=2)


def test_only_wrong_predictions_are_red(tmp_path):
    image_set = toy(4)
    names = [image_set.class_names[label] for label in image_set.labels]
    plot_samples(image_set, tmp_path / "right.png", predicted=names)
    plot_samples(image_set, tmp_path / "wrong.png", predicted=["owl", *names[1:]])
    assert close_to(pixels(tmp_path / "right.png"), RED) == 0
    assert close_to(pixels(tmp_path / "wrong.png"), RED) > 10


def test_mistakes_are_shown_in_order(tmp_path):
    image_set = toy(9)
    image_set.images[:] = 200
    image_set.images[[2, 5, 7]] = 90
    given = image_set.labels.copy()
    given[[2, 5, 7]] = (given[[2, 5, 7]] + 1) % 3
    predictions = Predictions(np.eye(3, dtype=np.float32)[given], image_set.labels, image_set.class_names, True)
    plot_mistakes(image_set, predictions, tmp_path / "wrong.png", count=2)
    image = pixels(tmp_path / "wrong.png")
    assert close_to(image, "#5a5a5a") > 10_000
    assert close_to(image, "#c8c8c8", tolerance=0) < 100, "correct predictions are left out"
    plot_samples(
        image_set.take([2, 5]), tmp_path / "same.png", predicted=[image_set.class_names[i] for i in given[[2, 5]]]
    )
    np.testing.assert_array_equal(image, pixels(tmp_path / "same.png"))


def test_without_mistakes_the_plot_says_so(tmp_path):
    image_set = toy(6)
    predictions = Predictions(np.eye(3, dtype=np.float32)[image_set.labels], image_set.labels, ("a", "b", "c"), True)
    plot_mistakes(image_set, predictions, tmp_path / "none.png")
    assert pixels(tmp_path / "none.png").std() > 5


@pytest.mark.parametrize("classes", [2, 10, 49, 120])
def test_confusion_matrix_is_dark_where_the_images_are(tmp_path, classes):
    confusion = np.roll(np.eye(classes, dtype=int) * 7, 1, axis=1)
    confusion[0] = 0  # a class without images must not divide by zero
    plot_confusion(confusion.tolist(), [f"name {index}" for index in range(classes)], tmp_path / "confusion.png")
    image = pixels(tmp_path / "confusion.png")
    dark = close_to(image, "#08306b", tolerance=3)
    cells = close_to(image, "#f7fbff", tolerance=3) + dark
    assert dark / cells == pytest.approx((classes - 1) / classes**2, rel=0.25)


def test_names_in_any_script_and_with_any_sign(tmp_path):
    names = ("お", "漢字", "$x_1$", "a\nb", "🦉", "Ж", "a very long name, longer than its image is wide", "")
    image_set = toy(8, names)
    plot_samples(image_set, tmp_path / "samples.png", predicted=names[::-1])
    plot_confusion(np.eye(8, dtype=int), names, tmp_path / "confusion.png")
    assert pixels(tmp_path / "samples.png").std() > 5
    assert pixels(tmp_path / "confusion.png").std() > 5


def test_names_are_kept_if_a_font_has_their_letters():
    assert drawable_names(["Ankle boot", "Ж"]) == ({"Ankle boot": "Ankle boot", "Ж": "Ж"}, ["DejaVu Sans"])
    # A letter that DejaVu Sans lacks and STIXGeneral, bundled with matplotlib as well, has.
    names, fonts = drawable_names(["\u1d81"])
    assert names == {"\u1d81": "\u1d81"}
    assert len(fonts) == 2


def test_names_are_romanised_or_numbered_if_no_font_has_their_letters(monkeypatch):
    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", [])
    names = [*"おきすつなはまやれを", "カシ", "漢字", "plain"]
    romanised = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo", "kashi", "#11", "plain"]
    assert drawable_names(names) == (dict(zip(names, romanised, strict=True)), ["DejaVu Sans"])


def test_missing_fonts_are_skipped(monkeypatch, tmp_path):
    from matplotlib.font_manager import FontEntry

    gone = FontEntry(fname=str(tmp_path / "gone.ttf"), name="Gone")
    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", [gone])
    assert drawable_names(["き"]) == ({"き": "ki"}, ["DejaVu Sans"])


def test_pyplot_is_not_imported(tmp_path):
    code = f"""
import sys
from foveola.reports import plots
assert "matplotlib" not in sys.modules, "importing is quick"
plots.plot_confusion([[1, 0], [0, 1]], ("a", "b"), {str(tmp_path / "confusion.png")!r})
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
