"""Image files classified: of any size, with findings reported and fixes applied only on request."""

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.errors import DataError, OutputError
from foveola.tasks import softmax


@pytest.fixture(scope="module")
def trained(toy, tiny, tmp_path_factory):
    """A model that classifies the toy images correctly."""
    out = tmp_path_factory.mktemp("runs") / "good"
    return foveola.open(foveola.train(toy, tiny, out=out, overrides={"epochs": 60}, verbose=False).path)


def save(pixels, path):
    Image.fromarray(pixels).save(path)
    return path


def test_probabilities_are_those_of_the_logits(trained, toy, tmp_path):
    image = toy.train.images[25]
    (prediction,) = foveola.predict(trained, [save(image[:, :, 0], tmp_path / "a.png")])
    expected = softmax(trained.predict_logits(image[None]))[0]
    assert dict(prediction.top) == {name: pytest.approx(p) for name, p in zip(toy.class_names, expected, strict=True)}
    assert [probability for _, probability in prediction.top] == sorted(expected, reverse=True)
    assert (prediction.class_name, prediction.probability) == prediction.top[0]
    assert prediction.class_name == "middle"
    assert prediction.findings == []


@pytest.mark.parametrize("size", [(8, 8), (80, 80), (120, 40), (3, 5), (1, 1)])
def test_any_size(trained, tmp_path, toy, size):
    path = tmp_path / "a.png"
    Image.fromarray(toy.train.images[0, :, :, 0]).resize(size, Image.Resampling.NEAREST).save(path)
    (prediction,) = foveola.predict(trained, [path])
    if min(size) >= 8:
        assert prediction.class_name == "left"
    assert sum(probability for _, probability in prediction.top) == pytest.approx(1)


def test_dark_on_light_is_reported_and_not_inverted(trained, toy, tmp_path):
    inverted = 255 - toy.train.images[0]
    (prediction,) = foveola.predict(trained, [save(inverted[:, :, 0], tmp_path / "dark.png")])
    (finding,) = prediction.findings
    assert (finding.code, finding.fix) == ("polarity", "invert")
    assert finding.text.startswith("dark on light, but the training images are light on dark; invert it")
    expected = softmax(trained.predict_logits(inverted[None]))[0]
    assert prediction.top[0] == (toy.class_names[expected.argmax()], pytest.approx(expected.max()))


def test_predictions_are_in_the_order_of_the_images(trained, toy, tmp_path):
    chosen = (50, 0, 30)
    paths = [save(toy.train.images[i, :, :, 0], tmp_path / f"{i}.png") for i in chosen]
    predictions = foveola.predict(trained, paths, top=1)
    assert [prediction.image for prediction in predictions] == [str(path) for path in paths]
    assert [prediction.class_name for prediction in predictions] == ["right", "left", "middle"]
    assert [len(prediction.top) for prediction in predictions] == [1, 1, 1]


def test_grey_saved_as_rgb_is_grey(trained, toy, tmp_path):
    grey = toy.train.images[0]
    paths = [save(grey[:, :, 0], tmp_path / "l.png"), save(grey.repeat(3, axis=2), tmp_path / "rgb.png")]
    one, two = foveola.predict(trained, paths)
    assert one.top == two.top


def test_colour_is_refused_unless_converted(trained, tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :, 0] = 200
    path = save(pixels, tmp_path / "red.png")
    with pytest.raises(DataError, match=r"red\.png is a colour image .*--grey"):
        foveola.predict(trained, [path])
    (prediction,) = foveola.predict(trained, [path], grey=True)
    luma = np.asarray(Image.open(path).convert("L"))
    expected = softmax(trained.predict_logits(luma[None, :, :, None])).max()
    assert prediction.probability == pytest.approx(expected)


def test_a_model_of_colour_images_takes_grey_ones(toy, tiny, tmp_path):
    run = foveola.train(
        foveola.Dataset("rgb", foveola.ImageSet(toy.train.images.repeat(3, axis=3), toy.train.labels, toy.class_names)),
        tiny,
        out=tmp_path / "run",
        overrides={"epochs": 60},
        verbose=False,
    )
    (prediction,) = foveola.predict(run.path, [save(toy.train.images[0, :, :, 0], tmp_path / "a.png")])
    assert prediction.class_name == "left"


def test_a_damaged_image_is_named(trained, toy, tmp_path):
    good = save(toy.train.images[0, :, :, 0], tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    with pytest.raises(DataError, match=r"bad\.png"):
        foveola.predict(trained, [good, tmp_path / "bad.png"])


@pytest.mark.parametrize("fix", [["invert"], ["auto"], ["auto", "invert"]])
def test_requested_fixes_are_applied(trained, toy, tmp_path, fix):
    image = toy.train.images[25]
    path = save(255 - image[:, :, 0], tmp_path / "dark.png")
    (prediction,) = foveola.predict(trained, [path], fix=fix)
    assert prediction.fixes == ("invert",)
    assert [finding.code for finding in prediction.findings] == ["polarity"], "of the image as it was given"
    assert prediction.top[0][1] == pytest.approx(softmax(trained.predict_logits(image[None])).max())


def test_the_networks_input_is_written_before_and_after_fixes(trained, toy, tmp_path):
    image = toy.train.images[0, :, :, 0]
    dark, light = save(255 - image, tmp_path / "bar.png"), save(image, tmp_path / "bar.bmp")
    foveola.predict(trained, [dark, light], fix=["auto"], show=tmp_path / "seen" / "here")
    names = sorted(path.name for path in (tmp_path / "seen" / "here").iterdir())
    assert names == ["1-bar-after.png", "1-bar-before.png", "2-bar-before.png"]
    before, after = (np.asarray(Image.open(tmp_path / "seen" / "here" / name)) for name in (names[1], names[0]))
    assert before.shape == (224, 224)
    np.testing.assert_array_equal(before[::28, ::28], 255 - image)
    np.testing.assert_array_equal(after[14::28, 14::28], image)


def test_a_folder_that_cannot_be_written_is_refused(trained, toy, tmp_path):
    file = save(toy.train.images[0, :, :, 0], tmp_path / "a.png")
    with pytest.raises(OutputError, match="--show"):
        foveola.predict(trained, [file], show=file)


def test_the_first_frame_of_an_animation_is_classified_with_a_finding(trained, toy, tmp_path):
    first, second = (Image.fromarray(toy.train.images[index, :, :, 0]) for index in (0, 50))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "still.gif")
    moving, still = foveola.predict(trained, [tmp_path / "moving.gif", tmp_path / "still.gif"])
    assert moving.top == still.top
    assert [finding.code for finding in moving.findings] == ["animation"]
    assert still.findings == []


def test_a_single_pixel_is_classified_and_reported_as_blank(trained, tmp_path):
    (prediction,) = foveola.predict(trained, [save(np.full((1, 1), 90, np.uint8), tmp_path / "dot.png")], fix=["auto"])
    assert [finding.code for finding in prediction.findings] == ["resolution", "blank"]
    assert prediction.fixes == ()


def test_sixty_megapixels_are_classified_and_a_few_more_are_refused(trained, tmp_path):
    pixels = np.full((7500, 8000), 250, np.uint8)
    pixels[2000:5000, 1100:3000] = 10
    (prediction,) = foveola.predict(trained, [save(pixels, tmp_path / "large.bmp")], fix=["invert"])
    assert "polarity" in {finding.code for finding in prediction.findings}
    assert prediction.class_name == "left"
    with pytest.raises(DataError, match=r"huge\.bmp is refused because of its size.*64,000,000"):
        foveola.predict(trained, [save(np.zeros((8001, 8000), np.uint8), tmp_path / "huge.bmp")])
