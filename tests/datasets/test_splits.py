"""Splits: what is drawn, what stays on one side, and what is found on both."""

from dataclasses import replace

import numpy as np
import pytest

from foveola.datasets.splits import divide, restore_splits, select_split
from foveola.errors import DataError
from foveola.images import Dataset, ImageSet
from foveola.models.learnt import LearntImages
from foveola.models.metadata import DataOrigin, ModelMetadata


def pictures(count, seed=0, side=8):
    """Different images, with labels of four classes."""
    images = np.random.default_rng(seed).integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % 4, tuple("abcd"))


def repeated(images, copies):
    """Every image as often as `copies` says, N."""
    return images.take(np.repeat(np.arange(len(images)), copies))


def near(images, seed=0):
    """Nearly the same images: a little noise, and shifted by a pixel."""
    noise = np.random.default_rng(seed).integers(-3, 4, images.images.shape)
    noisy = np.clip(images.images.astype(int) + noise, 0, 255).astype(np.uint8)
    return replace(images, images=np.roll(noisy, 1, axis=2))


def joined(*parts):
    images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    return ImageSet(images, labels, parts[0].class_names)


def contents(images):
    return {image.tobytes() for image in images.images}


def apart(splits):
    parts = [contents(images) for images in splits.by_name.values()]
    return sum(map(len, parts)) == len(set.union(*parts))


def origin(dataset, splits, overlap, **changes):
    learnt = LearntImages.of(splits.train, splits.validation)
    fields = {"validation": 0.1, "test": None if dataset.test else 0.2, "seed": 3, "learnt": learnt} | changes
    return DataOrigin(name="x", fingerprint=dataset.fingerprint, together=overlap.together, **fields)


def same(first, second):
    return {name: part.fingerprint for name, part in first.by_name.items()} == {
        name: part.fingerprint for name, part in second.by_name.items()
    }


def test_data_without_copies_is_split_as_ever():
    dataset = Dataset("x", pictures(200))
    rest, test = dataset.train.split(0.2, 0)
    train, validation = rest.split(0.1, 3)
    splits, overlap = divide(dataset, 0.1, 0.2, 3)
    assert (overlap.together, overlap.different) == ("near copies", 200)
    assert [part.fingerprint for part in splits.by_name.values()] == [
        part.fingerprint for part in (train, validation, test)
    ]
    old = DataOrigin(name="x", fingerprint=dataset.fingerprint, validation=0.1, test=0.2, seed=3)
    assert same(restore_splits(dataset, old), splits)


@pytest.mark.parametrize("copies", [3, np.array([1, 2] * 100), np.array([1] * 190 + [5] * 10)])
@pytest.mark.parametrize("seed", range(3))
def test_copies_stay_on_one_side_and_classes_in_proportion(copies, seed):
    images = repeated(pictures(200), copies)
    images = images.take(np.random.default_rng(seed).permutation(len(images)))
    splits, overlap = divide(Dataset("x", images), 0.1, 0.2, seed)
    assert apart(splits)
    assert overlap.different == 200
    assert not overlap.test.any.any()
    assert np.abs(splits.test.class_counts - 0.2 * images.class_counts).max() <= 3
    assert sum(map(len, splits.by_name.values())) == len(images)


def test_near_copies_stay_on_one_side():
    first = pictures(60)
    images = joined(first, near(first))
    splits, overlap = divide(Dataset("x", images), 0.1, 0.2, 0)
    assert (overlap.together, overlap.different) == ("near copies", 60)
    number = {image.tobytes(): index % 60 for index, image in enumerate(images.images)}
    sides = [{number[image] for image in contents(part)} for part in splits.by_name.values()]
    assert sum(map(len, sides)) == 60


def test_near_copies_are_found_among_large_images_too(monkeypatch):
    monkeypatch.setattr("foveola.datasets.splits.MAX_SEARCHED_VALUES", 120 * 32 * 32)
    small = pictures(60, side=32)
    both = joined(small, near(small))
    images = replace(both, images=both.images.repeat(2, axis=1).repeat(2, axis=2))
    _, overlap = divide(Dataset("x", images), 0.2, 0.2, 0)
    assert (overlap.together, overlap.different) == ("near copies", 60)
    monkeypatch.setattr("foveola.datasets.splits.MAX_SEARCHED_VALUES", 120 * 31 * 31)
    assert divide(Dataset("x", images), 0.2, 0.2, 0)[1].together == "copies"


def test_what_is_nearly_the_same_throughout_is_split_by_copies():
    base = pictures(4).images
    noise = np.random.default_rng(0).integers(-2, 3, (120, 8, 8, 1))
    images = ImageSet(
        np.clip(base[np.arange(120) % 4] + noise, 0, 255).astype(np.uint8), np.arange(120) % 4, tuple("abcd")
    )
    splits, overlap = divide(Dataset("x", images), 0.1, 0.2, 0)
    assert (overlap.together, overlap.different, overlap.scattered) == ("copies", 120, 116)
    assert len(splits.test) == 24


def test_a_class_of_one_image_has_its_copies_on_both_sides_and_they_are_counted():
    many = pictures(100)
    one = replace(repeated(pictures(1, seed=9), 20), labels=np.full(20, 3))
    images = joined(replace(many, labels=many.labels % 3), one)
    splits, overlap = divide(Dataset("x", images), 0.1, 0.2, 0)
    assert (splits.test.class_counts[3], overlap.test.training.sum()) == (4, 4)
    assert (splits.validation.class_counts[3], overlap.validation.sum()) == (2, 2)


def test_copies_with_several_labels_stay_together_too():
    images = repeated(pictures(150), 2)
    images = replace(images, labels=np.random.default_rng(0).integers(4, size=300))
    splits, overlap = divide(Dataset("x", images), 0.1, 0.2, 0)
    assert apart(splits)
    assert overlap.conflicting == 2 * sum(images.labels[::2] != images.labels[1::2])


@pytest.mark.parametrize(
    "copy",
    [
        lambda images: repeated(images, 3),
        lambda images: repeated(images, 1 + np.arange(len(images)) % 2),
        lambda images: joined(images, near(images), images),
        lambda images: joined(images, replace(images, images=np.roll(images.images, 1, axis=1))),
    ],
    ids=["three times", "half of them twice", "nearly", "shifted by a pixel"],
)
def test_random_labels_cannot_be_predicted_from_copies(copy):
    """The nearest training image gives the label of a test image: right for every copy that is on the other side."""
    from sklearn.neighbors import KNeighborsClassifier

    right = total = 0
    for seed in range(6):
        images = pictures(240, seed, side=12)
        images = copy(replace(images, labels=np.random.default_rng(seed).integers(4, size=240)))
        splits = divide(Dataset("x", images), 0.1, 0.2, seed)[0]
        nearest = KNeighborsClassifier(1).fit(splits.train.images.reshape(len(splits.train), -1), splits.train.labels)
        for part in (splits.test, splits.validation):
            right += (nearest.predict(part.images.reshape(len(part), -1)) == part.labels).sum()
            total += len(part)
    assert right / total < 0.25 + 3 * (0.25 * 0.75 / (total / 3)) ** 0.5  # each image counts up to three times


@pytest.mark.parametrize("sizes", [[10] * 20, [40, 2, 2, 6, 10] * 4, list(range(1, 21))])
def test_groups_stay_on_one_side(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    images = replace(pictures(len(groups)), labels=groups % 4, groups=groups)
    splits, _ = divide(Dataset("x", images), 0.1, 0.2, 0)
    sides = [set(part.groups.tolist()) for part in splits.by_name.values()]
    assert sum(map(len, sides)) == len(sizes)
    assert all((part.class_counts > 0).all() for part in splits.by_name.values())


def test_groups_with_several_classes_keep_them_in_proportion():
    random = np.random.default_rng(0)
    groups = random.integers(60, size=1200)
    images = replace(pictures(1200), labels=random.integers(4, size=1200), groups=groups)
    splits, _ = divide(Dataset("x", images), 0.1, 0.2, 0)
    assert set(splits.test.groups).isdisjoint(splits.train.groups)
    assert np.abs(splits.test.class_counts - 60).max() <= 15


def test_copies_join_groups():
    images = pictures(80)
    images = replace(joined(images, images), groups=np.arange(160) // 4)
    splits, _ = divide(Dataset("x", images), 0.1, 0.2, 0)
    assert apart(splits)
    assert set(splits.test.groups).isdisjoint(splits.train.groups)


def test_a_class_with_too_few_groups_is_refused():
    images = pictures(80)
    groups = np.arange(80)
    groups[images.labels == 2] = 100
    with pytest.raises(DataError, match=r"'c' are of a single group.* Add images of another group"):
        divide(Dataset("x", replace(images, groups=groups)), 0.1, 0.2, 0)
    groups[np.flatnonzero(images.labels == 2)[:5]] = 101
    with pytest.raises(DataError, match="'c' has 2 groups of images, too few"):
        divide(Dataset("x", replace(images, groups=groups)), 0.1, 0.2, 0)
    assert divide(Dataset("x", replace(images, groups=groups)), 0.0, 0.2, 0)[0].test is not None


def test_given_splits_are_compared():
    train, other = pictures(100), pictures(40, seed=1)
    test = joined(train.take(range(10)), near(train.take(range(10, 15))), other.take(range(20)))
    validation = joined(train.take(range(15, 18)), other.take(range(18, 30)))
    splits, overlap = divide(Dataset("x", train, validation=validation, test=test), 0.1, 0.2, 0)
    assert (splits.train, splits.validation, splits.test) == (train, validation, test)
    assert (overlap.test.training.sum(), overlap.test.validation.sum()) == (15, 2)
    assert overlap.validation.sum() == 3
    assert overlap.different == 100 + 30


def test_groups_on_both_sides_of_given_splits_are_counted():
    train = replace(pictures(40), groups=np.arange(40) // 4)
    test = replace(pictures(12, seed=1), groups=np.arange(12) // 4 + 8)
    assert divide(Dataset("x", train, test=test), 0, 0, 0)[1].test_groups == 8


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("given", [(), ("test",), ("validation",), ("test", "validation")])
def test_a_model_file_knows_its_splits(copies, given):
    extra = {name: pictures(30, seed=number + 1) for number, name in enumerate(given)}
    dataset = Dataset("x", repeated(pictures(100), copies), **extra)
    splits, overlap = divide(dataset, 0.1, 0.2, 3)
    assert same(restore_splits(dataset, origin(dataset, splits, overlap)), splits)
    assert same(restore_splits(dataset, origin(dataset, splits, overlap, learnt=None)), splits)


def test_an_export_of_grouped_data_needs_the_groups():
    images = replace(pictures(80), groups=np.arange(80) // 4)
    images = replace(images, labels=images.groups % 4)
    dataset, without = (Dataset("x", part) for part in (images, replace(images, groups=None)))
    splits, overlap = divide(dataset, 0.1, 0.2, 3)
    known = origin(dataset, splits, overlap, groups="array")
    assert same(restore_splits(without, known), splits)
    export = known.model_copy(update={"learnt": None})
    assert same(restore_splits(dataset, export), splits)
    with pytest.raises(DataError, match="Give the run instead of its export"):
        restore_splits(without, export)


def test_what_a_colour_model_has_learnt_is_found_in_grey_images():
    grey = pictures(60)
    colour = Dataset("x", replace(grey, images=np.repeat(grey.images, 3, axis=3)))
    splits, overlap = divide(colour, 0.1, 0.2, 3)
    metadata = ModelMetadata(class_names=grey.class_names, image_shape=(8, 8, 3), data=origin(colour, splits, overlap))
    selected = select_split(Dataset("grey", grey), metadata, "test")
    assert (selected.name, len(selected.images), selected.held_out) == ("unseen", len(splits.test), True)


def test_weights_stay_with_their_images_and_a_split_that_weighs_nothing_is_refused():
    images = pictures(40)
    images = replace(images, weights=np.arange(40) / 10)
    splits = divide(Dataset("weighted", images), 0.25, 0.25, 0)[0]
    for part in splits.by_name.values():
        for image, weight in zip(part.images, part.weights, strict=True):
            assert weight == images.weights[[image.tobytes() == other.tobytes() for other in images.images]]
    joined_weights = replace(splits, test=replace(splits.test, weights=None)).together.weights
    assert joined_weights[-len(splits.test) :].tolist() == [1.0] * len(splits.test)
    with pytest.raises(DataError, match="The 8 test images all weigh 0"):
        nothing = images.take(range(8))
        object.__setattr__(nothing, "weights", np.zeros(8))
        divide(Dataset("nothing", images, test=nothing), 0.25, 0.0, 0)[0]
