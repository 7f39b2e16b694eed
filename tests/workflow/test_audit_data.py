"""An audit: planted faults are listed by split, index and path, in the document, the table and the page."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.documents import Audit, ImagePlace
from foveola.errors import DataError, OutputError
from foveola.images import Dataset, ImageSet


@pytest.fixture(scope="module")
def planted(toy):
    """The toy data with a test split of 9 images a class, a wrong label (training image 12), a blank image (30), and
    training image 3 repeated as test image 4 with another label.
    """
    test = np.flatnonzero(np.arange(60) % 20 < 9)
    train, test = toy.train.take(np.setdiff1d(np.arange(60), test)), toy.train.take(test)
    images, labels = train.images.copy(), train.labels.copy()
    labels[12] = 0
    images[30] = 0
    test_images, test_labels = test.images.copy(), test.labels.copy()
    test_images[4], test_labels[4] = images[3], 2
    return Dataset(
        "planted",
        ImageSet(images, labels, toy.class_names),
        test=ImageSet(test_images, test_labels, toy.class_names),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audit") / "new" / "findings"


@pytest.fixture(scope="module")
def document(planted, tiny, folder):
    return foveola.audit(planted, out=folder, recipe=tiny, epochs=40, verbose=False, retrain=True)


def test_images_of_one_class_cannot_be_audited(toy, tiny):
    with pytest.raises(DataError, match="training images of arrays have one class"):
        foveola.audit(toy.train.images, np.zeros(60, int), recipe=tiny, verbose=False)


def test_the_document_is_written(document, folder):
    assert Audit.from_json((folder / "audit.json").read_bytes(), "audit.json") == document
    assert document.files == [str(folder / name) for name in ("audit.html", "findings.csv", "audit.json")]
    assert document.data.splits == {"train": 33, "test": 27}


def test_wrong_labels_are_ranked_first(document):
    first = {(row.split, row.index): row for row in document.label_suspects[:3]}
    assert first.keys() >= {("train", 12), ("test", 4)}
    suspect = first["train", 12]
    assert suspect.model_dump().keys() == {"split", "index", "path", "given", "suggested", "score"}
    assert (suspect.given, suspect.suggested, suspect.path) == ("left", "middle", None)
    scores = [row.score for row in document.label_suspects]
    assert scores == sorted(scores)
    assert document.likely_label_errors <= len(scores)


def test_a_duplicate_across_splits_with_another_label_is_listed(document):
    assert document.duplicates == [[ImagePlace(split="train", index=3), ImagePlace(split="test", index=4)]]
    (group,) = document.duplicate_groups
    assert group.model_dump() == {
        "kind": "exact", "labels": ["left", "right"], "conflicting": True, "across_splits": True,
    }  # fmt: skip


def test_a_blank_image_is_an_outlier(document):
    (blank,) = [row for row in document.oddities if row.kind == "blank"]
    assert (blank.split, blank.index, blank.label) == ("train", 30, "right")


def test_class_balance_counts_each_split(document, planted):
    counts = {name: getattr(planted, name).class_counts.tolist() for name in ("train", "test")}
    assert {name: list(classes.values()) for name, classes in document.class_balance.items()} == counts


def test_retraining_leaves_the_likely_errors_out(document):
    everything, without = document.retrained.rows
    likely = document.label_suspects[: document.likely_label_errors]
    left_out = {split: sum(row.split == split for row in likely) for split in ("train", "test")}
    assert left_out["train"] > 0 and left_out["test"] > 0
    assert (everything.images, without.images) == (33, 33 - left_out["train"])
    for row in (everything, without):
        assert row.accuracy.n == 27
        assert row.accuracy_without_suspects.n == 27 - left_out["test"]
    assert document.retrained.test_split == "test"


def test_the_table_has_a_row_for_each_finding(document, folder):
    with (folder / "findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    members = sum(map(len, document.duplicates))
    assert len(rows) == len(document.label_suspects) + members + len(document.oddities)
    assert rows[0]["finding"] == "label"
    assert int(rows[0]["index"]) == document.label_suspects[0].index
    assert float(rows[0]["score"]) == document.label_suspects[0].score
    copies = [row for row in rows if row["finding"] == "exact duplicate"]
    assert [(row["split"], row["index"], row["group"]) for row in copies] == [("train", "3", "0"), ("test", "4", "0")]
    assert copies[0]["detail"] == "conflicting, across splits"


def test_the_same_seed_gives_the_same_suspects(document, planted, tiny, tmp_path):
    again = foveola.audit(planted, out=tmp_path, recipe=tiny, epochs=40, verbose=False)
    assert again.label_suspects == document.label_suspects
    assert again.retrained is None


def test_files_of_an_image_folder_are_listed_by_path(toy, tiny, tmp_path):
    root = tmp_path / "bars"
    for index, (image, label) in enumerate(zip(toy.train.images, toy.train.labels, strict=True)):
        path = root / ("train" if index % 4 else "test") / toy.class_names[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    Image.fromarray(toy.train.images[4, :, :, 0]).save(root / "train" / "right" / "copy.png")
    (root / "train" / "left" / "broken.png").write_bytes(b"not an image")
    document = foveola.audit(root, out=tmp_path / "out", recipe=tiny, skip_bad=1, verbose=False)
    (group,) = document.duplicates
    data = foveola.load(root, skip_bad=1)
    images = [getattr(data, place.split).images[place.index] for place in group]
    assert (images[0] == images[1]).all()
    suspect = next(row for row in document.label_suspects if row.path == str(root / "train/right/copy.png"))
    assert suspect.index == group[0].index
    with Path(document.files[1]).open(encoding="utf-8", newline="") as file:
        copies = [row for row in csv.DictReader(file) if row["finding"] == "exact duplicate"]
    assert [row["path"] for row in copies] == [str(root / "train/right/copy.png"), str(root / "test/left/4.png")]


def test_data_without_a_test_split_is_split_to_retrain(toy, tiny, tmp_path):
    document = foveola.audit(toy, out=tmp_path, recipe=tiny, retrain=True, verbose=False)
    (everything, _) = document.retrained.rows
    assert (everything.images, everything.accuracy.n) == (48, 12)
    assert document.retrained.test_split == "held out of train"


def test_copies_of_undivided_data_are_said_to_leak(toy, tiny, tmp_path):
    """Two copies of one class of 20, four held out: one is and the other is not with probability 2 · 4/20 · 16/19."""
    images = toy.train.images.copy()
    images[5] = images[4]
    doubled = Dataset("doubled", ImageSet(images, toy.train.labels, toy.class_names))
    document = foveola.audit(doubled, out=tmp_path, recipe=tiny, epochs=1, verbose=False)
    assert document.random_split.groups == pytest.approx(2 * 4 / 20 * 16 / 19)
    assert document.random_split.held_out == 0.2


def test_given_splits_and_data_without_copies_need_no_such_sentence(document, toy, tiny, tmp_path):
    assert document.random_split is None
    assert foveola.audit(toy, out=tmp_path, recipe=tiny, epochs=1, verbose=False).random_split is None


def test_a_placeholder_is_named_by_its_copies(toy, tiny, tmp_path):
    images = toy.train.images.copy()
    images[[1, 25, 47]] = np.random.default_rng(7).integers(0, 256, toy.image_shape)
    document = foveola.audit(
        Dataset("pets", ImageSet(images, toy.train.labels, toy.class_names)),
        out=tmp_path, recipe=tiny, epochs=1, verbose=False,
    )  # fmt: skip
    found = [row for row in document.oddities if row.kind == "placeholder"]
    assert [row.index for row in found] == [1, 25, 47]
    assert {row.detail for row in found} == {"3 copies in 3 classes"}


@pytest.fixture
def series(toy, tmp_path):
    """The toy images as files: in each class, ten objects of two frames each."""
    root = tmp_path / "series"
    for index, (image, label) in enumerate(zip(toy.train.images, toy.train.labels, strict=True)):
        path = root / toy.class_names[label] / f"thing{index % 20 // 2}_{index % 2:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return root


def test_series_are_recognised_and_the_proposed_groups_are_taken(series, tiny, tmp_path):
    document = foveola.audit(series, out=tmp_path / "out", recipe=tiny, epochs=1, verbose=False)
    assert document.series is not None and document.data.groups is None
    grouped = foveola.audit(series, out=tmp_path / "out", recipe=tiny, epochs=1, groups=document.series, verbose=False)
    assert (grouped.series, grouped.data.groups) == (None, 10)


def test_more_folds_than_groups_are_refused(series, tiny, tmp_path):
    with pytest.raises(DataError, match=r"in 10 group.* cannot make 11 folds\. Use --folds 10"):
        foveola.audit(series, out=tmp_path / "out", recipe=tiny, folds=11, groups=r"(.+)_\d+", verbose=False)
    assert not (tmp_path / "out").exists()


def test_groups_of_a_loaded_dataset_are_its_own(toy, tiny, tmp_path):
    with pytest.raises(DataError, match="ImageSet"):
        foveola.audit(toy, out=tmp_path / "out", recipe=tiny, groups="folder", verbose=False)
    split = toy.train
    grouped = ImageSet(split.images, split.labels, split.class_names, np.arange(60) % 20)
    document = foveola.audit(Dataset("own", grouped), out=tmp_path, recipe=tiny, epochs=1, verbose=False)
    assert document.data.groups == 20


def test_groups_in_several_splits_are_counted(toy, tiny, tmp_path):
    groups = np.arange(60) % 20
    train, test = (
        ImageSet(toy.train.images[part], toy.train.labels[part], toy.class_names, groups[part])
        for part in (groups < 15, groups >= 13)
    )
    document = foveola.audit(Dataset("own", train, test=test), out=tmp_path, recipe=tiny, epochs=1, verbose=False)
    assert document.leaked_by_group == 6
    assert "6 images of the other splits belong to groups that are also in training" in Path(
        document.files[0]
    ).read_text("utf-8")


def test_networks_that_guess_are_said_to(toy, tiny, tmp_path):
    random = ImageSet(toy.train.images, np.random.default_rng(0).permutation(toy.train.labels), toy.class_names)
    document = foveola.audit(Dataset("random", random), out=tmp_path, recipe=tiny, epochs=1, verbose=False)
    assert document.label_certainty == "no better than guessing"
    assert document.guessing == pytest.approx(1 / 3)


def test_too_many_folds_write_nothing(toy, tiny, tmp_path):
    with pytest.raises(DataError, match="cannot make 61 folds"):
        foveola.audit(toy, out=tmp_path / "out", recipe=tiny, folds=61, verbose=False)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder(toy, tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="not a folder that you may write to"):
        foveola.audit(toy, out=tmp_path / "file", recipe=tiny, verbose=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_of_a_network_with_a_fitted_last_layer_only_that_is_trained(toy, tmp_path, monkeypatch):
    """Unless epochs are given."""
    trained = []
    monkeypatch.setattr("foveola.training.cross_fit.fit", lambda *arguments, **options: trained.append(1))
    recipe = tmp_path / "head.toml"
    recipe.write_text(
        'name = "head"\nhead_views = 1\nlayers = [{ type = "Flatten" }, { type = "Dense", units = "classes" }]\n'
    )
    document = foveola.audit(toy, out=tmp_path / "out", recipe=recipe, verbose=False)
    assert (document.settings.epochs, document.settings.minimum_steps, trained) == (0, 0, [])
    assert document.cross_fitted_accuracy.value > 0.9
    document = foveola.audit(toy, out=tmp_path / "out", recipe=recipe, epochs=2, verbose=False)
    assert (document.settings.epochs, len(trained)) == (2, 9)


def test_the_recipe_that_suits_the_data_is_chosen(toy, tmp_path):
    document = foveola.audit(toy, out=tmp_path, recipe="auto", epochs=1, verbose=False)
    assert document.settings.recipe == "fast"
