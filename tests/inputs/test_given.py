"""Images in any form that a user has them in: the answers are those of `foveola.predict` on the same files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import foveola
from foveola.errors import DataError
from foveola.inputs import decode
from foveola.inputs.given import network_inputs
from foveola.lazy import LazyImages
from foveola.tasks import softmax
from foveola.workflow.export import export


@pytest.fixture(scope="module")
def classifier(toy_run):
    return foveola.open(toy_run)


@pytest.fixture(scope="module", params=["run", "onnx", "safetensors"])
def model(request, classifier, toy_run, toy, tmp_path_factory):
    """What `foveola.open` gives, of every format that needs no network connection."""
    if request.param == "run":
        return classifier
    out = tmp_path_factory.mktemp("export") / f"model.{request.param}"
    return foveola.open(export(toy_run, request.param, data=toy, out=out, verbose=False).path)


def files(images, folder):
    """Images, H×W, saved as PNG files."""
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def resized(image, size):
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST))


@pytest.mark.parametrize("size", [(8, 8), (80, 80), (120, 40), (4, 5)])
def test_answers_are_those_of_foveola_predict(model, toy, tmp_path, size):
    images = [resized(toy.train.images[index, :, :, 0], size) for index in (0, 25, 50)]
    paths = files(images, tmp_path)
    expected = foveola.predict(model, paths, top=3, verbose=False)
    for given in (paths, np.stack(images), images):
        assert model.predict(given).tolist() == [prediction.class_name for prediction in expected]
        probabilities = model.predict_proba(given)
        for row, prediction in zip(probabilities, expected, strict=True):
            assert dict(zip(model.class_names, row.tolist(), strict=True)) == pytest.approx(dict(prediction.top))


def test_probabilities_are_those_of_the_logits(model, toy):
    images = toy.train.images
    expected = softmax(model.predict_logits(images))
    probabilities = model.predict_proba(images)
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(probabilities, expected)
    names = model.predict(images)
    assert names.dtype.kind == "U"
    assert names.tolist() == [toy.class_names[label] for label in expected.argmax(axis=1)]


def forms(images, folder):
    """Images, uint8 N×H×W, in every form."""
    paths = files(images, folder)
    return {
        "N×H×W×C": images[..., None],
        "N×H×W": images,
        "floats from 0 to 1": images / 255,
        "floats from 0 to 255": images.astype(np.float32),
        "int64": images.astype(np.int64),
        "list of H×W": list(images),
        "list of H×W×C": list(images[..., None]),
        "list of floats": list(images / np.float32(255)),
        "nested lists": images.tolist(),
        "generator": (image for image in images),
        "array of objects": np.array([*map(str, paths), None], dtype=object)[:-1],
        "PIL": [Image.fromarray(image) for image in images],
        "PIL of files": [Image.open(path) for path in paths],
        "grey saved as RGB": images[..., None].repeat(3, axis=3),
        "paths": paths,
        "strings": list(map(str, paths)),
        "array of strings": np.array(list(map(str, paths))),
        "mixed": [paths[0], images[1], Image.fromarray(images[2]), images[3] / 255, *map(str, paths[4:])],
        "ImageSet": foveola.ImageSet(images[..., None], np.zeros(len(images), np.int64), ("any",)),
        "torch": torch.from_numpy(images),
        "lists of torch": [torch.from_numpy(image) / 255 for image in images],
    }


@pytest.mark.parametrize("size", [(8, 8), (20, 12)])
def test_every_form_gives_the_same(classifier, toy, tmp_path, size):
    images = np.stack([resized(image, size) for image in toy.train.images[::7, :, :, 0]])
    given = forms(images, tmp_path)
    expected = classifier.predict_proba(given["N×H×W×C"])
    for name, form in given.items():
        np.testing.assert_array_equal(classifier.predict_proba(form), expected, err_msg=name)


@pytest.mark.parametrize("size", [(8, 8), (20, 12)])
def test_one_image_gives_one_answer(classifier, toy, tmp_path, size):
    image = resized(toy.train.images[0, :, :, 0], size)
    (path,) = files([image], tmp_path)
    expected = classifier.predict_proba(image[None])
    for form in (image, image[..., None], image[..., None].repeat(3, axis=2), Image.fromarray(image), path, str(path)):
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
        assert classifier.predict(form).shape == (1,)


def saved(image, **options):
    content = io.BytesIO()
    image.save(content, "png", **options)
    return content.getvalue()


def test_an_image_of_pillow_is_as_its_file(classifier, tmp_path):
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (9, 12), dtype=np.uint8)
    grey = Image.fromarray(values)
    transparent = Image.merge("LA", [grey, Image.fromarray(values.T.copy().reshape(9, 12))])
    deep = Image.fromarray(random.integers(0, 65536, (9, 12), dtype=np.uint16))
    palette = grey.convert("P")
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = [saved(grey), saved(transparent), saved(deep), saved(palette), saved(grey, exif=turned)]
    paths = [tmp_path / f"{number}.png" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    opened = [Image.open(path) for path in paths]
    np.testing.assert_array_equal(classifier.predict_proba(opened), classifier.predict_proba(paths))


def test_pillow_images_have_the_limit_of_files(classifier, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 99)
    with pytest.raises(DataError, match=r"images\[1\] is refused because of its size: .* 1 to 99 pixels"):
        classifier.predict([Image.new("L", (9, 11)), Image.new("L", (10, 10))])


def test_floats_of_a_list_have_one_range(classifier, toy):
    images = toy.train.images[:2].astype(np.float32)
    images[1] = np.eye(8, dtype=np.float32)[..., None]  # grey level 1 of 255, not white
    expected = classifier.predict_proba(images.astype(np.uint8))
    np.testing.assert_array_equal(classifier.predict_proba(images), expected)
    np.testing.assert_array_equal(classifier.predict_proba(list(images)), expected)


def test_colour_is_refused_by_a_model_of_grey_images(classifier, tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    with pytest.raises(DataError, match=r'images\[1\] is a colour image .*image\.convert\("L"\)'):
        classifier.predict([red[..., :1], red])
    Image.fromarray(red).save(tmp_path / "red.png")
    with pytest.raises(DataError, match=r"red\.png is a colour image"):
        classifier.predict(tmp_path / "red.png")
    with pytest.raises(DataError, match=r"images\[0\] is a colour image"):
        classifier.predict_proba(red)


def test_images_that_are_read_when_they_are_indexed(classifier, toy):
    class Source:
        image_shape, hashes = (8, 8, 1), None

        def read(self, rows):
            return toy.train.images[rows]

    lazy = LazyImages(Source(), np.arange(60))
    np.testing.assert_allclose(classifier.predict_proba(lazy), classifier.predict_proba(toy.train.images), rtol=1e-6)


def test_many_images_are_prepared_in_batches(classifier):
    images = np.zeros((300, 4, 4), np.uint8)
    assert [batch.shape for batch in network_inputs(images, classifier.metadata)] == [(256, 8, 8, 1), (44, 8, 8, 1)]


def test_a_data_frame_is_refused_with_a_cure(classifier):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match=r"frame\['path'\].*frame.to_numpy\(\).reshape\(-1, 8, 8, 1\)"):
        classifier.predict(pandas.DataFrame({"path": ["a.png"]}))


def test_tensors_may_have_their_channels_first(classifier, toy):
    expected = classifier.predict_proba(toy.train.images)
    tensor = torch.tensor(toy.train.images).permute(0, 3, 1, 2)
    for images in (tensor, tensor.float().requires_grad_() / 255, list(tensor)):
        np.testing.assert_allclose(classifier.predict_proba(images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "There are no images: the list is empty"),
        (np.empty((0, 8, 8, 1), np.uint8), "There are no images"),
        (np.empty((5, 0)), "There are no images"),
        (None, "images cannot be of the type NoneType. Give an array, a PIL image"),
        (7, "of the type int"),
        (b"\x89PNG", "of the type bytes"),
        ({"image": 1}, "of the type dict"),
        ([np.zeros((8, 8)), None], r"images\[1\] cannot be of the type NoneType"),
        ([[0, 1], [2]], "images cannot become an array"),
        (np.zeros((5, 64), np.uint8), r"rows of flattened images of 8×8×1.*images.reshape\(-1, 8, 8, 1\)"),
        (np.zeros((1000, 784), np.uint8), r"1000×784: .* or rows of pixels\? If this is one .*\(-1, 28, 28, 1\)"),
        (np.zeros((5, 784), np.uint8), r"5×784: .* or rows of pixels\? If this is one .*\(-1, 28, 28, 1\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), r"2×1×8×8.*transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), "transparency"),
        (np.zeros(64, np.uint8), "the shape 64"),
        ([np.zeros((1, 8, 8))], r"images\[0\] has the shape 1×8×8.*transpose\(1, 2, 0\)"),
        (np.full((2, 8, 8), -0.5), "values from 0 to 255"),
        (np.full((2, 8, 8), np.nan), "not finite"),
        (np.array(["a", "b"]).reshape(1, 2), "images must be numbers"),
        ("missing.png", r"missing\.png does not exist"),
        (["."], "is not a file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_cure(classifier, images, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(DataError, match=message):
            method(images)


def test_three_images_or_one_in_colour(toy, tiny, tmp_path):
    colour = foveola.ImageSet(toy.train.images.repeat(3, axis=3), toy.train.labels, toy.class_names)
    run = foveola.train(foveola.Dataset("rgb", colour), tiny, out=tmp_path / "run", report=False, verbose=False)
    with pytest.raises(DataError, match=r"3×8×8.*transpose\(1, 2, 0\)"):
        run.model.predict(np.zeros((3, 8, 8), np.uint8))
    assert run.model.predict(np.zeros((4, 8, 8), np.uint8)).shape == (4,)


def test_a_damaged_file_is_named(classifier, toy, tmp_path):
    (good,) = files([toy.train.images[0, :, :, 0]], tmp_path)
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    with pytest.raises(DataError, match=r"bad\.png"):
        classifier.predict([good, tmp_path / "bad.png"])
    with Image.open(tmp_path / "bad.png") as opened, pytest.raises(DataError, match=r"images\[0\] cannot be decoded"):
        classifier.predict([opened])


def test_predict_logits_takes_uint8_only(classifier, toy):
    with pytest.raises(DataError, match="uint8"):
        classifier.predict_logits(toy.train.images / 255)
