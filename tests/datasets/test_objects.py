"""Data given as Python objects: every way in gives the data set of the files, and what cannot be used is refused."""

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet

torch = pytest.importorskip("torch")
random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (30, 7, 9), dtype=np.uint8)
LABELS = np.arange(30) % 3
NAMES = ("0", "1", "2")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The fingerprints of the IDX files and of the .npz file of these images, which are the same."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "idx").mkdir()
    images = struct.pack(">4B3I", 0, 0, 8, 3, *IMAGES.shape) + IMAGES.tobytes()
    labels = struct.pack(">4BI", 0, 0, 8, 1, len(LABELS)) + LABELS.astype(np.uint8).tobytes()
    (folder / "idx" / "train-images-idx3-ubyte").write_bytes(images)
    (folder / "idx" / "train-labels-idx1-ubyte").write_bytes(labels)
    np.savez(folder / "data.npz", x_train=IMAGES, y_train=LABELS)
    fingerprints = {foveola.load(folder / name).fingerprint for name in ("idx", "data.npz")}
    assert len(fingerprints) == 1
    return fingerprints.pop()


class Items:
    """A map-style data set as of PyTorch, without PyTorch's base class."""

    def __init__(self, images, labels, classes=None):
        self.images, self.labels = images, labels
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def tensors(images=IMAGES[:, None], labels=LABELS):
    return torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(labels))


def unit(images=IMAGES):
    """Floats from 0 to 1, as torchvision's ToTensor gives them."""
    return (images / 255).astype(np.float32)


pillows = [Image.fromarray(image) for image in IMAGES]
WAYS = {
    "uint8 N×H×W": ((IMAGES, LABELS), {}),
    "uint8 N×H×W×C": ((IMAGES[..., None], LABELS), {}),
    "float32 from 0 to 1": ((unit(), LABELS), {}),
    "float64 from 0 to 255": ((IMAGES.astype(float), LABELS), {}),
    "int64": ((IMAGES.astype(int), LABELS), {}),
    "nested lists": ((IMAGES.tolist(), LABELS.tolist()), {}),
    "channels first": ((IMAGES[:, None], LABELS), {"channels_first": True}),
    "tensors": ((torch.tensor(IMAGES), torch.tensor(LABELS)), {}),
    "tensors, channels first": ((torch.tensor(unit()[:, None]), torch.tensor(LABELS)), {}),
    "labels that are names": ((IMAGES, LABELS.astype(str)), {}),
    "labels that are objects": ((IMAGES, LABELS.astype(str).astype(object)), {}),
    "labels N×1": ((IMAGES, LABELS[:, None]), {}),
    "a memory map's view": ((IMAGES[::-1][::-1], LABELS), {}),
    "a pair": (((IMAGES, LABELS),), {}),
    "a dictionary": (({"train": (IMAGES, LABELS)},), {}),
    "an ImageSet": ((ImageSet(IMAGES[..., None], LABELS, NAMES),), {}),
    "a Dataset": ((Dataset("mine", ImageSet(IMAGES[..., None], LABELS, NAMES)),), {}),
    "a list of arrays": ((list(IMAGES), LABELS), {}),
    "a list of Pillow images": ((pillows, LABELS), {}),
    "an array of objects": ((np.array([*pillows, None], object)[:-1], LABELS), {}),
    "a TensorDataset": ((tensors(),), {}),
    "a TensorDataset of floats": ((tensors(unit()[:, None]),), {}),
    "a part of a torch data set": ((torch.utils.data.Subset(tensors(), range(30)),), {}),
    "a data set of Pillow images": ((Items(pillows, LABELS.tolist()),), {}),
    "a data set with classes": ((Items(pillows, LABELS.tolist(), list(NAMES)),), {}),
    "a data set with labels of one value": ((Items(IMAGES, LABELS[:, None]),), {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_fingerprint_of_the_files(way, files):
    arguments, options = WAYS[way]
    assert foveola.load(*arguments, **options).fingerprint == files


def test_dlpack_suffices(files):
    class Exchanged:
        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    assert foveola.load(Exchanged(IMAGES), Exchanged(LABELS)).fingerprint == files


def test_booleans_are_black_and_white():
    loaded = foveola.load(IMAGES > 99, LABELS)
    np.testing.assert_array_equal(loaded.train.images[..., 0], np.where(IMAGES > 99, 255, 0))


def test_splits_as_keras_returns_them_and_by_name():
    first, second = (IMAGES[:20], LABELS[:20]), (IMAGES[20:], LABELS[20:])
    keras = foveola.load((first, second))
    assert (len(keras.train), len(keras.test)) == (20, 10)
    named = foveola.load({"train": first, "val": second, "test": second})
    assert (len(named.train), len(named.validation), len(named.test)) == (20, 10, 10)


def test_class_names():
    named = foveola.load(IMAGES, LABELS, class_names=["a", "b", "c"], name="letters")
    assert (named.name, named.class_names) == ("letters", ("a", "b", "c"))
    from_one = foveola.load(IMAGES, LABELS + 1, class_names=["a", "b", "c"])
    np.testing.assert_array_equal(from_one.train.labels, LABELS)
    assert foveola.load(IMAGES, LABELS + 5).class_names == ("5", "6", "7")
    of_torch = foveola.load(torch.utils.data.Subset(Items(IMAGES, LABELS, ["a", "b", "c"]), range(30)))
    assert of_torch.class_names == ("a", "b", "c")
    renamed = foveola.load(ImageSet(IMAGES[..., None], LABELS, NAMES), class_names=["a", "b", "c"])
    assert renamed.class_names == ("a", "b", "c")


def test_groups_of_an_image_set_stay():
    grouped = ImageSet(IMAGES[..., None], LABELS, NAMES, groups=LABELS * 7)
    np.testing.assert_array_equal(foveola.load({"train": grouped}).train.groups, LABELS * 7)


def test_arrays_get_the_size_that_is_asked_for_as_files_do(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=IMAGES, y_train=LABELS)
    asked = {"image_size": (14, 12), "channels": 3}
    from_file = foveola.load(tmp_path / "data.npz", **asked)
    ways = {way: foveola.load(*arguments, **options, **asked) for way, (arguments, options) in WAYS.items()}
    assert [way for way, loaded in ways.items() if loaded.fingerprint != from_file.fingerprint] == []
    assert {loaded.originals.heights[0] for loaded in ways.values()} == {7}


def test_pillow_images_of_several_sizes_are_brought_to_one_as_an_image_folder_is(tmp_path):
    """Also those with a palette, transparency, 16 bits and an orientation."""
    images = []
    for number, (height, width) in enumerate([(70, 90), (40, 55), (64, 64), (20, 80), (90, 70), (33, 44)]):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        images.append(Image.fromarray(pixels))
        if number == 1:
            images[-1] = images[-1].convert("RGBA")
            images[-1].putalpha(Image.fromarray(pixels[..., 0]))
        if number == 2:
            images[-1] = images[-1].convert("P")
        if number == 3:
            images[-1] = Image.fromarray(pixels[..., 0].astype(np.uint16) * 16)
    labels = ["even", "odd"] * 3
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        image.save(tmp_path / label / f"{number}.png")
    folder = foveola.load(tmp_path)
    order = np.argsort(labels, kind="stable")
    given = foveola.load([images[index] for index in order], np.array(labels)[order])
    assert given.fingerprint == folder.fingerprint
    assert (given.resize, given.fill, given.notes) == (folder.resize, folder.fill, folder.notes)
    np.testing.assert_array_equal(given.originals.widths, folder.originals.widths)
    assert given.originals.white_level == folder.originals.white_level == 4095


def test_the_orientation_of_a_pillow_image_is_applied():
    image = Image.fromarray(IMAGES[0])
    exif = image.getexif()
    exif[0x0112] = 6
    content = io.BytesIO()
    image.save(content, "PNG", exif=exif)
    turned = Image.open(content)
    upright = foveola.load([turned, turned.copy()], ["a", "b"]).train.images[0, ..., 0]
    np.testing.assert_array_equal(upright, np.rot90(IMAGES[0], -1))


def test_a_torch_data_set_of_one_large_size_keeps_it():
    images = [random.integers(0, 256, (96, 80, 3), dtype=np.uint8) for _ in range(4)]
    assert foveola.load(images, [0, 1, 0, 1]).image_shape == (96, 80, 3)


def test_progress_is_reported():
    calls = []
    foveola.load(tensors(), progress=lambda *call: calls.append(call))
    assert calls[-1] == (30, 30, "images")


def test_labels_that_are_numbers_count_the_classes_of_a_model():
    from foveola.datasets import as_source, read
    from foveola.datasets.reader import ReadOptions

    source = as_source((IMAGES, LABELS), known_names=("cat", "dog", "eel"))
    assert read(source, ReadOptions()).class_names == ("cat", "dog", "eel")
    source = as_source((IMAGES, LABELS), known_names=("0", "1", "2", "3"))
    assert read(source, ReadOptions()).class_names == ("0", "1", "2")


def test_tensors_that_need_gradients():
    images = torch.tensor(unit()).requires_grad_()
    assert foveola.load(images, torch.tensor(LABELS)).fingerprint == foveola.load(IMAGES, LABELS).fingerprint


def test_lists_of_pairs_can_be_unzipped(files):
    images, labels = zip(*zip(IMAGES, LABELS, strict=True), strict=True)
    assert foveola.load(images, labels).fingerprint == files


def test_what_was_assumed_is_noted():
    assert "multiplied by 255" in foveola.load(unit(), LABELS).notes[0]
    assert "multiplied by 255" in foveola.load(tensors(unit()[:, None])).notes[0]
    assert "above 1, and 255 is white" in foveola.load(IMAGES // 255, LABELS).notes[0]
    assert "multiply them by 255 / 15" in foveola.load(IMAGES // 17.0, LABELS).notes[0]  # as load_digits has them
    assert foveola.load(IMAGES, LABELS).notes == ()


class Broken(Items):
    def __getitem__(self, index):
        if index == 3:
            raise OSError("image file is truncated")
        return super().__getitem__(index)


class Endless:
    def __iter__(self):
        return iter([])


REFUSED = {
    "no labels": ((IMAGES,), {}, "no labels: give them as the next argument, y"),
    "a list of images": ((list(IMAGES),), {}, "no labels"),
    "flat rows": ((IMAGES.reshape(30, -1), LABELS), {}, "not 30×63"),
    "flat rows of squares": ((np.zeros((30, 784)), LABELS), {}, r"images.reshape\(-1, 28, 28, 1\)"),
    "channels first": ((IMAGES[:, None], LABELS), {}, "channels_first=True"),
    "not channels first": ((IMAGES[..., None], LABELS), {"channels_first": True}, "Leave out channels_first"),
    "standardised": ((unit() - 0.5, LABELS), {}, "values from 0 to 255, or floats from 0 to 1"),
    "fractions above 1": ((IMAGES * 0.5, LABELS), {}, "rounded"),
    "16 bits": ((IMAGES.astype(np.uint16) * 16, LABELS), {}, "If 4095 is white"),
    "texts": ((IMAGES.astype(str), LABELS), {}, "images must be numbers"),
    "complex numbers": ((IMAGES.astype(complex), LABELS), {}, "not complex128"),
    "NaN": ((np.full((30, 7, 9), np.nan), LABELS), {}, "not finite"),
    "no images": ((IMAGES[:0], LABELS[:0]), {}, "no images"),
    "paths": ((["a.png", "b.png"], [0, 1]), {}, "not paths"),
    "an array of paths": ((np.array(["a.png", "b.png"]), [0, 1]), {}, "not paths"),
    "an object array of paths": ((np.array(["a.png", "b.png"], object), [0, 1]), {}, "not paths"),
    "a list of two arrays": (([IMAGES, LABELS],), {}, r"a tuple: \(images, labels\)"),
    "a list of pairs": ((list(zip(IMAGES, LABELS, strict=True)),), {}, r"images, labels = zip\(\*pairs\)"),
    "what train_test_split returns": ((([IMAGES] * 2 + [LABELS] * 2),), {}, "no labels"),
    "the tuple of it": (((IMAGES, IMAGES, LABELS, LABELS),), {}, r"'train': \(data\[0\], data\[2\]\)"),
    "a tuple of three": (((IMAGES, LABELS, LABELS),), {}, "a tuple of 3, not of two"),
    "bytes": ((b"images",), {}, "type bytes cannot be used as data"),
    "masked values": ((np.ma.masked_equal(IMAGES, IMAGES[0, 0, 0]), LABELS), {}, "masked values"),
    "too few labels": ((IMAGES, LABELS[:-1]), {}, "30 images but 29 labels"),
    "one-hot": ((IMAGES, np.eye(3)[LABELS]), {}, r"one-hot, 30×3.*labels.argmax\(axis=1\)"),
    "missing labels": ((IMAGES, ["a", None] * 15), {}, "15 of 30 labels are missing, the first that of image 1"),
    "NaN as label": ((IMAGES, np.where(LABELS == 2, np.nan, 1.0)), {}, "10 of 30 labels are missing"),
    "mixed labels": ((IMAGES, np.array(["a", 1] * 15, object)), {}, "partly texts and partly int"),
    "fractions as labels": ((IMAGES, LABELS + 0.5), {}, "whole numbers or names"),
    "one label": ((IMAGES, 3), {}, "The labels are of type int"),
    "a name and labels": (("digits", LABELS), {}, "its own labels"),
    "a Dataset and labels": ((Dataset("mine", ImageSet(IMAGES[..., None], LABELS, NAMES)), LABELS), {}, "own labels"),
    "a name and class names": (("digits",), {"class_names": ["a"]}, "Leave out class_names"),
    "too few class names": ((IMAGES, LABELS), {"class_names": ["a", "b"]}, "there are 2 classes"),
    "class names in one text": ((IMAGES, LABELS), {"class_names": "abc"}, "list of texts"),
    "a number": ((5,), {}, "type int cannot be used as data"),
    "a loader": ((torch.utils.data.DataLoader(tensors()),), {}, "loader.dataset"),
    "a stream": ((Endless(),), {}, "has no length"),
    "an unknown split": (({"first": (IMAGES, LABELS)},), {}, "'first' is not the name of a split"),
    "no training images": (({"test": (IMAGES, LABELS)},), {}, "no key 'train'"),
    "the same split twice": (({"train": (IMAGES, LABELS), "training": (IMAGES, LABELS)},), {}, "Two keys"),
    "a split of something": (({"train": IMAGES},), {}, "The train split: There are images"),
    "groups by name": ((IMAGES, LABELS), {"groups": "folder"}, "reads the groups from file names"),
    "a broken data set": ((Broken(IMAGES, LABELS),), {}, "image 3 cannot be read: image file is truncated"),
    "an empty data set": ((Items([], []),), {}, "is empty"),
    "items that are no pairs": ((Items(IMAGES, LABELS).__class__(IMAGES, None),), {}, "image 0 cannot be read"),
    "normalised tensors": ((tensors(unit()[:, None] - 0.5),), {}, "If a transform normalises the images, leave it out"),
    "flat tensors": ((tensors(unit().reshape(30, 63)),), {}, r"image 0 has the shape 63"),
    "labels that are vectors": ((tensors(labels=np.eye(3)[LABELS]),), {}, "label of image 0 is a Tensor"),
    "ranges that differ": (
        ([unit(IMAGES[0]), IMAGES[1].astype(float)], [0, 1]),
        {},
        "image 0 has floats from 0 to 1, and image 1 has larger ones",
    ),
    "ranges of splits that differ": (
        ({"train": (unit(), LABELS), "test": (IMAGES.astype(float), LABELS)},),
        {},
        "train has floats from 0 to 1, and arrays, test has larger",
    ),
    "Pillow's mode F": (([Image.new("F", (8, 8))] * 2, [0, 1]), {}, "mode F"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(case):
    arguments, options, message = REFUSED[case]
    with pytest.raises(DataError) as refused:
        foveola.load(*arguments, **options)
    assert re.search(message, str(refused.value), re.DOTALL), str(refused.value)
    assert refused.value.exit_code == 2


def test_splits_with_other_classes_are_refused():
    with pytest.raises(DataError, match="different classes"):
        foveola.load({"train": Items(IMAGES, LABELS, ["a", "b", "c"]), "test": Items(IMAGES, LABELS, ["d", "e", "f"])})
    with pytest.raises(DataError, match="same form"):
        foveola.load({"train": ImageSet(IMAGES[..., None], LABELS, NAMES), "test": (IMAGES, LABELS)})


# Hugging Face data sets


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Column:
    """A feature called Image: its values are dictionaries with a file's content, once it is not decoded."""

    def __init__(self, decode=True):
        self.decode = decode


Column.__name__ = "Image"


class Hub:
    """A data set of the library datasets, as far as it is used."""

    def __init__(self, columns, features):
        self.columns, self.features, self.column_names = columns, features, list(features)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return (
            self.columns[key] if isinstance(key, str) else {name: column[key] for name, column in self.columns.items()}
        )

    def with_format(self, form):
        return self

    def cast_column(self, name, feature):
        assert not feature.decode
        return Hub(self.columns, self.features | {name: feature})

    def select_columns(self, names):
        return Hub({name: self.columns[name] for name in names}, {name: self.features[name] for name in names})


def content(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def hub(label="label", **more):
    columns = {"image": [content(image) for image in IMAGES], label: LABELS.tolist()}
    return Hub(columns, {"image": Column(), label: ClassLabel(list(NAMES))} | more)


def test_a_hub_data_set_gives_the_fingerprint_of_the_files(files):
    assert foveola.load(hub()).fingerprint == files
    assert foveola.load({"train": hub("fine_label")}).fingerprint == files


def test_columns_that_are_not_clear_are_refused():
    with pytest.raises(DataError, match="label and coarse may each be the column of the label"):
        foveola.load(hub(coarse=ClassLabel(["a"])))
    with pytest.raises(DataError, match="none of the columns text is that of the image"):
        foveola.load(Hub({"text": ["a"]}, {"text": object()}))


# Data frames


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames_of_pixels(library, files):
    made = pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    square = random.integers(0, 256, (12, 6, 6), dtype=np.uint8)
    labels = np.arange(12) % 3
    columns = {"label": labels} | {f"pixel{number}": square.reshape(12, 36)[:, number] for number in range(36)}
    frame = made.table(columns) if library == "pyarrow" else made.DataFrame(columns)
    loaded = foveola.load(frame, name="squares")
    assert loaded.fingerprint == foveola.load(square, labels).fingerprint
    assert loaded.name == "squares"
    larger = foveola.load(frame, image_size=12, label_column="label")
    assert larger.fingerprint == foveola.load(square, labels, image_size=12).fingerprint
    with pytest.raises(DataError, match="Leave out class_names"):
        foveola.load(frame, class_names=["a", "b", "c"])
    with pytest.raises(DataError, match="column"):
        foveola.load(frame, label_column="nothing")
    with pytest.raises(DataError, match="is for tables"):
        foveola.load(IMAGES, LABELS, label_column="label")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library itself
def test_the_library_datasets(files, monkeypatch):
    pytest.importorskip("datasets.fingerprint")  # tests/datasets is importable as datasets, too
    import datasets

    # Its hashes of tables fail with some versions of pyarrow
    monkeypatch.setattr(datasets.fingerprint.Hasher, "hash", classmethod(lambda cls, value: "0" * 16))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    data = datasets.Dataset.from_dict({"image": pillows, "label": LABELS.tolist()}, features=features)
    assert foveola.load(data).fingerprint == files
    assert foveola.load(datasets.DatasetDict(train=data)).fingerprint == files
    assert foveola.load(data.with_format("torch")).fingerprint == files


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torchvision(files, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    for number, (image, label) in enumerate(zip(pillows, LABELS.tolist(), strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        image.save(tmp_path / str(label) / f"{number:02}.png")
    from_folder = foveola.load(tmp_path).fingerprint
    for transform in (None, torchvision.transforms.ToTensor()):
        loaded = foveola.load(torchvision.datasets.ImageFolder(tmp_path, transform=transform), channels=1)
        assert loaded.fingerprint == from_folder
        assert loaded.name == "ImageFolder"
