"""The web export in a real browser: the same results as in Python, and no requests to other hosts."""

import base64
import io
import json
import os
import shutil
import threading
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import PIL
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from selenium.webdriver import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

import foveola
from foveola.errors import DownloadError
from foveola.explanation.occlusion import occlusion
from foveola.exports import web, web_runtime
from foveola.inputs.decode import FirstFrame, decode_first_frame
from foveola.inputs.prepare import prepare, requested_fixes
from foveola.inputs.resize import letterbox, resize
from foveola.tasks import sigmoid, softmax
from foveola.workflow.export import export
from own_networks import AttentionNetwork, ResidualNetwork

RECIPE = """
name = "small"
epochs = 5
batch_size = 64
learning_rate = 0.01
validation = 0.2
precision = "float32"
reject = 0.01
reject_mode = "average"
layers = [
  { type = "Conv2D", filters = 70, padding = "same", activation = "relu" },
  { type = "MaxPool2D" },
  { type = "Conv2D", filters = 8 },
  { type = "BatchNorm" },
  { type = "Activation", function = "silu" },
  { type = "Flatten" },
  { type = "Dense", units = 20, activation = "relu" },
  { type = "Dense", units = "classes" },
]
"""


@pytest.fixture(scope="module")
def runtime():
    """The real one is downloaded once; without a network these tests are skipped, but not in CI."""
    try:
        web_runtime.fetch_runtime()
    except DownloadError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(runtime, tmp_path_factory):
    """A small model of the embedded digits, exported."""
    place = tmp_path_factory.mktemp("web")
    (place / "small.toml").write_text(RECIPE)
    run = foveola.train("digits", place / "small.toml", out=place / "run", report=False, verbose=False)
    return export(run.path, "web", verbose=False).path


class Host(ThreadingHTTPServer):
    """A host of static pages as plain as they come."""

    def __init__(self, folder):
        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def host(folder):
    with Host(folder) as host:
        yield host


@pytest.fixture
def page(browser, host):
    """The page, opened, with its model."""
    return opened(browser, host.url)


def opened(browser, url):
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(url)
    WebDriverWait(browser, 60).until(lambda _: shown(browser, "#bench"))
    return browser


def shown(browser, selector):
    return browser.find_element("css selector", selector).is_displayed()


def text(browser, selector):
    return browser.find_element("css selector", selector).text


def ask(browser, code, *arguments):
    """What the body of an async function gives; in it, `load` imports a script of the page, `blob` decodes a file."""
    script = f"""
const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);
const load = name => import(new URL(name, document.baseURI));
const bytes = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));
const blob = text => new Blob([bytes(text)]);
const base64 = values => btoa(Array.from(values, value => String.fromCharCode(value)).join(""));
(async () => {{ {code} }})().then(value => done({{ value }}), error => done({{ error: String(error) }}));
"""
    result = browser.execute_async_script(script, *arguments)
    assert "error" not in result, result["error"]
    return result["value"]


def encoded(content):
    return base64.b64encode(content).decode()


def pixels(seen):
    return np.frombuffer(base64.b64decode(seen["pixels"]), np.uint8).reshape(seen["shape"])


def levels(found):
    """The numbers that stand for 0 to 255 from low to high."""
    values = np.frombuffer(base64.b64decode(found["values"]), np.uint8).reshape(found["shape"])
    return found["low"] + (found["high"] - found["low"]) * values / 255


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


# The same numbers


def logits_in(page, images):
    """Logits of images, computed by the runtime in the page."""
    found = ask(
        page,
        """
        const ort = await load("runtime/ort.wasm.bundle.min.js");
        const file = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
        const session = await ort.InferenceSession.create(file);
        const images = new ort.Tensor("uint8", bytes(given[0]), given[1]);
        return [...(await session.run({ images })).logits.data];
        """,
        encoded(images.tobytes()),
        list(images.shape),
    )
    return np.reshape(found, (len(images), -1))


def test_the_runtime_gives_the_same_logits(page, folder):
    images = foveola.load("digits").train.images[:60]
    np.testing.assert_allclose(logits_in(page, images), web.open(folder).predict_logits(images), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("network", [AttentionNetwork, ResidualNetwork])
def test_a_network_of_ones_own_gives_the_same_logits(browser, runtime, tmp_path, network):
    overrides = {"epochs": 1, "pad": 0}
    run = foveola.train(
        "digits", network=network(), overrides=overrides, out=tmp_path / "run", report=False, verbose=False
    )
    images = foveola.load("digits").train.images[:60]
    with Host(export(run.path, "web", verbose=False).path) as host:
        page = opened(browser, host.url)
        expected = foveola.open(run.path, network=network()).predict_logits(images)
        np.testing.assert_allclose(logits_in(page, images), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((300, 200, 3), (28, 28)),
        ((9, 31, 1), (32, 8)),
        ((8, 8, 3), (21, 30)),
        ((1, 1, 1), (5, 5)),
        ((77, 28, 1), (28, 28)),
    ],
)
def test_resizing_is_pillows_to_the_last_bit(page, shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image[: shape[0] // 2] = image[: shape[0] // 2] // 128 * 255  # the ends of the range as well
    found = ask(
        page,
        """
        const [height, width, channels] = given[1], { resize } = await load("page/decoding.js");
        return base64(resize({ height, width, channels, data: bytes(given[0]) }, ...given[2]).data);
        """,
        encoded(image.tobytes()),
        shape,
        size,
    )
    assert base64.b64decode(found) == resize(image, *size).tobytes()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((100, 300, 3), (64, 64)), ((31, 9, 1), (8, 32)), ((400, 1, 1), (28, 28)), ((50, 41, 3), (21, 30))],
)
def test_a_letterbox_is_that_of_python(page, shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = ask(
        page,
        """
        const [height, width, channels] = given[1], { fit } = await load("page/decoding.js");
        return base64(fit({ height, width, channels, data: bytes(given[0]) }, ...given[2], "letterbox", 77).data);
        """,
        encoded(image.tobytes()),
        shape,
        size,
    )
    expected = letterbox(image, *size, 77)
    difference = np.frombuffer(base64.b64decode(found), np.uint8).reshape(expected.shape) - expected.astype(int)
    # Pillow rounds as the page does from 13 on
    assert np.abs(difference).max() <= (0 if int(PIL.__version__.split(".")[0]) >= 13 else 1)


def files():
    """Files of several kinds, and how far their pixels may lie apart."""
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    smooth = colour.filter(ImageFilter.GaussianBlur(3))
    clear = colour.copy()
    clear.putalpha(Image.fromarray(random.integers(0, 256, (20, 30), dtype=np.uint8)))
    strokes = Image.new("LA", (30, 20), (255, 0))
    strokes.paste((255, 180), (5, 5, 9, 15))
    dark = Image.merge("LA", (Image.new("L", strokes.size), strokes.getchannel("A")))
    deep = random.integers(0, 4000, (20, 30)).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "grey PNG": (colour.convert("L"), "PNG", {}, 0),
        "colour PNG": (colour, "PNG", {}, 0),
        "PNG with alpha": (clear, "PNG", {}, 2),
        "palette PNG": (colour.quantize(8), "PNG", {}, 0),
        "grey BMP": (colour.convert("L"), "BMP", {}, 0),
        "white strokes on a transparent ground": (strokes, "PNG", {}, 1),
        "black strokes on a transparent ground": (dark, "PNG", {}, 1),
        "PNG of 12 bits": (Image.fromarray(deep), "PNG", {}, 0),
        "PNG of 16 bits": (Image.fromarray(deep * 16), "PNG", {"transparency": int(deep[0, 0]) * 16}, 0),
        "turned JPEG": (smooth, "JPEG", {"exif": turned, "quality": 95, "subsampling": 0}, 2),
    }


@pytest.mark.parametrize("kind", files())
def test_files_are_decoded_alike(page, kind):
    image, format, options, apart = files()[kind]
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    found = ask(
        page,
        """
        const { decode } = await load("page/decoding.js");
        const { image: { height, width, channels, data }, onBlack, peak } = await decode(blob(given[0]), 1e6, 4095);
        return { shape: [height, width, channels], pixels: base64(data), onBlack, peak };
        """,
        encoded(buffer.getvalue()),
    )
    expected = decode_first_frame(buffer.getvalue(), kind, white_level=4095)
    assert found["shape"] == list(expected.pixels.shape)
    assert np.abs(pixels(found).astype(int) - expected.pixels).max() <= apart
    assert (found["onBlack"], found["peak"]) == (expected.on_black, expected.peak)


def test_explanations_are_those_of_python(page, folder):
    model = web.open(folder)
    image = foveola.load("digits").train.images[3]
    found = ask(page, 'return (await load("page/backend.js")).look(blob(given[0]), { fixes: [] })', encoded(png(image)))
    np.testing.assert_array_equal(pixels(found["seen"]), image)
    label = int(model.predict_logits(image[None]).argmax())
    assert found["class"] == model.class_names[label]

    drop = occlusion(model, model.metadata.polarity, image[None], np.array([label]))[0]
    assert (found["saliency"]["low"], found["saliency"]["high"]) == pytest.approx((drop.min(), drop.max()), abs=1e-4)
    np.testing.assert_allclose(levels(found["saliency"]), drop, atol=np.ptp(drop) / 255 + 1e-4)

    maps = model.feature_maps(image[None])
    assert [layer["name"] for layer in found["layers"]] == list(maps)
    assert found["layers"][0]["shape"] == [8, 8, 64], "of 70 maps the first 64"
    for layer in found["layers"]:
        expected = maps[layer["name"]][0][..., :64] if len(layer["shape"]) == 3 else maps[layer["name"]][0]
        np.testing.assert_allclose(levels(layer), expected, atol=np.ptp(expected) / 255 + 1e-3)


def test_another_class_can_be_explained(page, folder):
    model = web.open(folder)
    image = foveola.load("digits").train.images[3]
    code = 'return (await load("page/backend.js")).look(blob(given[0]), { class: "8" })'
    found = ask(page, code, encoded(png(image)))
    drop = occlusion(model, model.metadata.polarity, image[None], np.array([8]))[0]
    assert found["class"] == "8"
    np.testing.assert_allclose(levels(found["saliency"]), drop, atol=np.ptp(drop) / 255 + 1e-4)


@pytest.fixture(scope="module", params=["data", "grey"])
def colour_folder(request, runtime, tiny, tmp_path_factory):
    """Models of colour images without a common background, one of which sees them as grey."""
    place = tmp_path_factory.mktemp("colour")
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 160, (60, 12, 9, 3), dtype=np.uint8)
    images[np.arange(60), :, :, labels] += 60
    np.savez(place / "colour.npz", x_train=images, y_train=labels, class_names=np.array(["red", "green", "blue"]))
    settings = {"channels": request.param}
    run = foveola.train(place / "colour.npz", tiny, out=place / "run", overrides=settings, report=False, verbose=False)
    return export(run.path, "web", verbose=False).path


def test_models_of_colour_images_predict_alike(browser, colour_folder):
    model = web.open(colour_folder)
    assert model.metadata.polarity == "mixed"
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with Host(colour_folder) as host:
        opened(browser, host.url)
        found = ask(browser, 'return (await load("page/backend.js")).predict(blob(given[0]))', encoded(png(image)))
        looked = ask(browser, 'return (await load("page/backend.js")).look(blob(given[0]))', encoded(png(image)))
    expected = prepare(FirstFrame(image), model.metadata, (), name="it")
    assert found["findings"] == [asdict(finding) for finding in expected.findings]
    np.testing.assert_array_equal(pixels(found["seen"]), expected.pixels)
    probabilities = softmax(model.predict_logits(expected.pixels[None]))[0]
    assert {each["class"]: each["probability"] for each in found["top"]} == pytest.approx(
        dict(zip(model.class_names, probabilities, strict=True)), abs=1e-4
    )
    drop = occlusion(model, "mixed", expected.pixels[None], probabilities.argmax()[None])[0]
    np.testing.assert_allclose(levels(looked["saliency"]), drop, atol=np.ptp(drop) / 255 + 1e-4)


def test_models_of_several_labels_predict_alike(browser, runtime, bars_run, make_bars, tmp_path):
    model = web.open(export(bars_run.path, "web", out=tmp_path / "labels", verbose=False).path)
    images = make_bars(6, 5).images
    with Host(tmp_path / "labels") as host:
        opened(browser, host.url)
        code = 'return (await load("page/backend.js")).predict(blob(given[0]))'
        found = [ask(browser, code, encoded(png(image))) for image in images]
    probabilities = sigmoid(model.predict_logits(images))
    given = probabilities >= np.array(model.metadata.thresholds)
    for document, row, has in zip(found, probabilities, given, strict=True):
        assert {each["class"]: each["probability"] for each in document["top"]} == pytest.approx(
            dict(zip(model.class_names, row, strict=True)), abs=1e-4
        )
        assert set(document["labels"]) == set(np.array(model.class_names)[has])
    assert given.any()
    assert not given.all()


# Letterboxes


@pytest.fixture(scope="module")
def letterbox_folder(runtime, tiny, tmp_path_factory):
    """A model of dark shapes on light paper, wide and high sheets in a letterbox."""
    place = tmp_path_factory.mktemp("letterbox")
    for number in range(40):
        path = place / "sheets" / ("disc", "bar")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet_of(number, number % 2 == 1, wide=number % 4 < 2).save(path)
    run = foveola.train(place / "sheets", tiny, out=place / "run", report=False, verbose=False)
    return export(run.path, "web", verbose=False).path


def sheet_of(seed, bar, wide, paper=240, ink=20):
    x, y = np.random.default_rng(seed).integers(60, 90, 2)
    sheet = Image.new("L", (150, 60) if wide else (60, 150), paper)
    center = (x, 30) if wide else (30, y)
    sides = (12, 24) if bar else (20, 20)
    ImageDraw.Draw(sheet).ellipse(
        [center[0] - sides[0], center[1] - sides[1], center[0] + sides[0], center[1] + sides[1]], fill=ink
    )
    return sheet


@pytest.mark.parametrize("fixes", [[], "auto", ["crop"], ["center"], ["contrast", "crop", "center"]])
@pytest.mark.parametrize("kind", ["training", "wider", "dark", "small"])
def test_letterboxed_pictures_are_prepared_alike(browser, letterbox_folder, kind, fixes):
    sheet = {
        "training": sheet_of(0, bar=False, wide=True),
        "wider": sheet_of(1, bar=True, wide=True).resize((300, 60)),
        "dark": sheet_of(2, bar=False, wide=False, paper=15, ink=230),
        "small": ImageOps.expand(sheet_of(3, bar=True, wide=True), 60, fill=240),
    }[kind]
    image, model = np.asarray(sheet)[..., None], web.open(letterbox_folder)
    assert (model.metadata.resize, model.metadata.fill) == ("letterbox", 240)
    requested = requested_fixes([] if fixes == "auto" else fixes, False, model.metadata)
    expected = prepare(FirstFrame(image), model.metadata, requested, auto=fixes == "auto", name="it")
    if kind == "training":
        assert expected.findings == []
    assert "shape" not in {finding.code for finding in expected.findings}
    with Host(letterbox_folder) as host:
        opened(browser, host.url)
        code = 'return (await load("page/backend.js")).predict(blob(given[0]), { fixes: given[1] })'
        found = ask(browser, code, encoded(png(image)), fixes)
    assert found["findings"] == [asdict(finding) for finding in expected.findings]
    assert found["fixes"] == list(expected.fixes)
    assert np.abs(pixels(found["seen"]).astype(int) - expected.pixels).max() <= 1


# Findings and fixes


@pytest.fixture(scope="module")
def mnist(real_data, runtime, tmp_path_factory):
    """A model of MNIST, exported, and some of the test digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEOLA_DATA", str(real_data))
        place = tmp_path_factory.mktemp("mnist")
        run = foveola.train("mnist", overrides={"steps": 100}, out=place / "run", report=False, verbose=False)
        return export(run.path, "web", verbose=False).path, foveola.load("mnist").test.images[:6]


def drawn(digit, side, canvas, corner):
    """The digit, that large, on a black canvas."""
    top, left = corner
    sheet = np.zeros((*canvas, 1), np.uint8)
    sheet[top : top + side, left : left + side] = resize(digit, side, side)
    return sheet


def on_paper(digit, random):
    """Blue ink on tinted paper under a lamp, off centre, with grain."""
    ink = drawn(digit, 140, (300, 260), (random.integers(0, 150), random.integers(0, 110))) / 255
    y, x = np.meshgrid(np.linspace(-1, 1, 300), np.linspace(-1, 1, 260), indexing="ij")
    light = (1 - 0.1 * (x**2 + y**2) - 0.1 * x)[..., None]
    paper, colour = np.array([225, 220, 205]), np.array([30, 50, 140])
    picture = (paper + (colour - paper) * ink) * light + random.normal(0, 3, (300, 260, 1))
    return picture.clip(0, 255).astype(np.uint8)


def made_images(digits):
    """Each digit with every difference that findings name."""
    random = np.random.default_rng(0)
    for digit in digits:
        yield digit
        yield 255 - digit
        yield np.roll(digit, random.integers(-5, 6, 2), axis=(0, 1))
        yield drawn(digit, 60, (200, 200), random.integers(0, 140, 2))
        yield drawn(digit, 280, (280, 280), (0, 0))
        yield digit // 4
        yield 255 - drawn(digit, 90, (100, 240), (5, random.integers(0, 150)))
        yield on_paper(digit, random)
    yield np.full((50, 60, 3), 200, np.uint8)
    yield digits[0][::3, ::3]


def test_findings_and_fixes_are_those_of_python(browser, mnist):
    folder, digits = mnist
    model, pictures = web.open(folder), [png(picture) for picture in made_images(digits)]
    code = """
        const { predict } = await load("page/backend.js"), answers = [];
        for (const file of given[0]) answers.push(await predict(blob(file), { fixes: "auto" }));
        return answers;
    """
    with Host(folder) as host:
        found = ask(opened(browser, host.url), code, [encoded(picture) for picture in pictures])
    expected = [
        prepare(decode_first_frame(picture, "it"), model.metadata, (), auto=True, name="it") for picture in pictures
    ]
    logits = model.predict_logits(np.stack([prepared.pixels for prepared in expected]))

    planted = ["channels", "polarity", "size", "centring", "contrast", "background", "blank", "shape", "resolution"]
    assert {finding.code for prepared in expected for finding in prepared.findings} >= set(planted)
    pairs = list(zip(found, expected, strict=True))
    assert (
        np.mean([said["findings"] == [asdict(each) for each in prepared.findings] for said, prepared in pairs]) >= 0.95
    )
    apart = [np.abs(pixels(said["seen"]).astype(int) - prepared.pixels).max() for said, prepared in pairs]
    assert np.mean(np.array(apart) <= 2) >= 0.95
    classes = [model.class_names[best] for best in logits.argmax(axis=1)]
    assert np.mean([said["class"] == name for said, name in zip(found, classes, strict=True)]) >= 0.95


@pytest.mark.parametrize(
    "fixes", ["grey", "grey invert", "grey crop", "grey center", "grey contrast", "grey contrast crop center"]
)
def test_the_chosen_fixes_are_applied_and_no_others(page, folder, fixes):
    metadata, names = web.open(folder).metadata, fixes.split()
    picture = png(on_paper(foveola.load("digits").train.images[5], np.random.default_rng(1)))
    code = 'return (await load("page/backend.js")).predict(blob(given[0]), { fixes: given[1] })'
    found = ask(page, code, encoded(picture), names)
    expected = prepare(decode_first_frame(picture, "it"), metadata, requested_fixes(names, False, metadata), name="it")
    assert found["fixes"] == list(expected.fixes) == names
    np.testing.assert_allclose(pixels(found["seen"]), expected.pixels, atol=2)


# Predictions


def test_a_prediction_has_every_class_and_says_if_it_is_uncertain(page, folder):
    model, images = web.open(folder), foveola.load("digits").train.images[:40]
    code = """
        const { predict } = await load("page/backend.js"), answers = [];
        for (const file of given[0]) answers.push(await predict(blob(file)));
        return answers;
    """
    found = ask(page, code, [encoded(png(image // divisor)) for image in images for divisor in (1, 3)])
    for answer in found:
        assert sorted(each["class"] for each in answer["top"]) == sorted(model.class_names)
        chances = [each["probability"] for each in answer["top"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1)
        assert (answer["class"], answer["probability"]) == (answer["top"][0]["class"], chances[0])
        assert answer["uncertain"] == (chances[0] < model.metadata.reject.threshold)
    assert {answer["uncertain"] for answer in found} == {True, False}


def test_what_is_unlike_anything_trained_on_is_what_python_says(page, folder):
    model, images = web.open(folder), foveola.load("digits").train.images[:20]
    images = np.concatenate([images, 255 - images])
    code = """
        const { predict } = await load("page/backend.js"), answers = [];
        for (const file of given[0]) answers.push(await predict(blob(file)));
        return answers;
    """
    found = ask(page, code, [encoded(png(image)) for image in images])
    scores, threshold = model.predict_outputs(images).unfamiliarity, model.metadata.unfamiliarity.threshold
    np.testing.assert_allclose([answer["unfamiliarity"]["score"] for answer in found], scores, atol=0.01)
    assert {answer["unfamiliarity"]["threshold"] for answer in found} == {threshold}
    assert [answer["unfamiliar"] for answer in found] == (scores > threshold).tolist()
    assert {answer["unfamiliar"] for answer in found} == {True, False}


def test_concurrent_requests_do_not_disturb_each_other(page):
    code = """
        const { look, predict } = await load("page/backend.js"), files = given[0].map(blob);
        const alone = [];
        for (const file of files) alone.push(await predict(file), await look(file));
        return [alone, await Promise.all(files.flatMap(file => [predict(file), look(file)]))];
    """
    alone, together = ask(page, code, [encoded(png(image)) for image in foveola.load("digits").train.images[:5]])
    assert together == alone


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"not an image", "not an image that this browser can read"),
        (png(np.full((5, 5, 3), (200, 30, 30), np.uint8)), "colour image (3 channels)"),
        (png(np.zeros((4001, 4000, 1), np.uint8)), "more than the maximum of 16000000"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(page, given, says):
    code = """
        const { predict } = await load("page/backend.js");
        return predict(blob(given[0]), { fixes: [] }).catch(error => error.message);
    """
    assert says in ask(page, code, encoded(given))


def test_a_request_can_be_aborted(page):
    code = """
        const { look } = await load("page/backend.js"), control = new AbortController();
        const asked = look(blob(given[0]), { signal: control.signal });
        control.abort();
        return asked.then(() => "answered", error => error.name);
    """
    assert ask(page, code, encoded(png(np.zeros((8, 8, 1), np.uint8)))) == "AbortError"


# The page


def draw(browser):
    """A bar down the middle."""
    canvas = browser.find_element("css selector", "#drawing")
    third = canvas.size["height"] // 3
    actions = ActionChains(browser).move_to_element_with_offset(canvas, 0, -third).click_and_hold()
    actions.move_by_offset(0, third).move_by_offset(0, third).release().perform()


def answered(browser):
    WebDriverWait(browser, 30).until(lambda _: any(name in text(browser, "#answer") for name in "0123456789"))
    return text(browser, "#answer")


def look_inside(browser):
    browser.find_element("css selector", "#inside > summary").click()
    WebDriverWait(browser, 30).until(lambda _: browser.find_elements("css selector", "#maps canvas"))


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def asked_urls(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return {each["request"]["url"] for each in sent if not each["request"]["url"].startswith(("data:", "blob:"))}


def test_a_drawing_is_predicted_and_explained_without_another_host(page, host):
    draw(page)
    answered(page)
    look_inside(page)
    assert len(page.find_elements("css selector", "#maps canvas")) == 64
    assert text(page, "#trouble") == ""
    asked = asked_urls(page)
    assert {url for url in asked if not url.startswith(host.url)} == set()
    assert f"{host.url}runtime/ort-wasm-simd-threaded.wasm" in asked
    assert complaints(page) == []


def test_an_image_is_predicted(page, tmp_path):
    image = foveola.load("digits").train.images[0]
    (tmp_path / "digit.png").write_bytes(png(image.repeat(20, axis=0).repeat(20, axis=1)))
    page.find_element("css selector", "#file").send_keys(str(tmp_path / "digit.png"))
    answered(page)
    assert complaints(page) == []


def test_once_open_the_page_needs_no_network(browser, folder):
    with Host(folder) as host:
        opened(browser, host.url)
    browser.get_log("performance")
    draw(browser)
    answered(browser)
    look_inside(browser)
    assert asked_urls(browser) == set()
    assert complaints(browser) == []


def test_the_policy_keeps_the_page_to_its_own_host(page, folder):
    with Host(folder) as other:
        code = "return fetch(given[0]).then(() => 'asked', error => error.name)"
        assert ask(page, code, other.url) == "TypeError"
        assert ask(page, code, "model.json") == "asked"
    said = complaints(page)
    assert said
    assert all("Content Security Policy" in line for line in said)


def test_a_missing_model_file_is_reported(browser, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "web")
    (tmp_path / "web" / "model.onnx").unlink()
    with Host(tmp_path / "web") as host:
        browser.get(host.url)
        WebDriverWait(browser, 30).until(lambda _: "model.onnx could not be loaded (404)" in text(browser, "#trouble"))
    browser.get_log("browser")
