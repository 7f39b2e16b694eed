"""Functions of the package take arrays and other objects wherever they take data."""

import inspect

import numpy as np
import pytest

import foveola
from foveola.errors import DataError, RecipeError, UserError
from foveola.images import Dataset, ImageSet


@pytest.fixture
def train(tiny, tmp_path):
    """Train the tiny recipe into a new folder."""
    numbers = iter(range(100))

    def train(*arguments, **options):
        options = {"out": tmp_path / str(next(numbers)), "report": False, "verbose": False} | options
        return foveola.train(*arguments, **options)

    return train


@pytest.fixture
def arrays(toy):
    return toy.train.images, toy.train.labels


@pytest.mark.slow
def test_the_recipe_comes_after_the_data(train, tiny, toy, toy_npz, arrays):
    """As second argument of data with its own labels, as third one after labels, or by its name."""
    images, labels = arrays
    runs = [
        train(toy_npz, tiny),
        train(toy.train, tiny),
        train((images, labels), tiny, class_names=toy.class_names),
        train(images, y=labels, recipe=tiny, class_names=toy.class_names),
        train(images, np.array(toy.class_names)[labels], tiny),
    ]
    assert {run.status.recipe.name for run in runs} == {"tiny"}
    assert len({run.status.data.fingerprint for run in runs[:-1]}) == 1  # the last one has its classes sorted
    weights = {run.model_path.read_bytes()[-100:] for run in runs[:-1]}
    assert len(weights) == 1
    assert runs[-1].status.data.classes == ["left", "middle", "right"]


def test_calls_that_mean_nothing_are_refused(train, tiny, toy, arrays):
    images, labels = arrays
    for arguments, message in [
        ((images, tiny, tiny), "There are two recipes"),
        ((images, "fast", labels), "Labels come before the recipe"),
        (((images, labels), None, 5), "recipe is of type int"),
        ((images, "fast"), "no labels"),
        ((toy, labels), "has its own labels"),
    ]:
        with pytest.raises(UserError, match=message):
            train(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": "a"}, "seed is 'a'; it must be a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"budget": "60s"}, "budget is '60s'; from Python, it is a number of seconds"),
        ({"device": "gpu"}, "Unknown device 'gpu'"),
        ({"weights": np.ones(60)}, r"foveola.ImageSet\(images, labels, class_names, weights=…\)"),
        ({"sample_weight": np.ones(60)}, "The parameter weights is a file of pretrained weights"),
        ({"callbacks": foveola.Callback()}, r"a list: callbacks=\[Callback"),
        ({"callbacks": [foveola.Callback]}, r"the class Callback. Give an object of it: Callback\(\)"),
        ({"callbacks": [print]}, "which is not a callback"),
        ({"groups": [None] * 60}, "groups cannot be compared with each other"),
    ],
)
def test_arguments_that_only_python_can_give_are_checked(train, tiny, arrays, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        train(*arrays, tiny, **settings)
    assert not list(tmp_path.iterdir())


def test_data_that_a_run_does_not_hold_has_to_be_given_again(train, tiny, toy, arrays):
    run = train(*arrays, tiny)
    for function in (foveola.export, foveola.report):
        with pytest.raises(DataError, match=r"trained on Python objects \(arrays\).*data=\(images, labels\)"):
            function(run, verbose=False)
    assert foveola.export(run, data=arrays, verbose=False).path.is_file()


def test_settings_of_the_recipe_are_keywords(train, tiny, arrays):
    run = train(arrays, tiny, epochs=1, learning_rate=0.1, augment={"shift": 1, "flip": False})
    assert (run.recipe.epochs, run.recipe.learning_rate, run.recipe.augment.shift) == (1, 0.1, 1)
    both = train(arrays, tiny, epochs=1, overrides={"augment.shift": 2}, augment={"zoom": 0.1})
    assert (both.recipe.augment.shift, both.recipe.augment.zoom) == (2, 0.1)
    for function in (foveola.train, foveola.find_rate, foveola.tune):
        with pytest.raises(RecipeError, match=r"epochs is given as a keyword and in overrides"):
            function(arrays, tiny, epochs=1, overrides={"epochs": 2})
        with pytest.raises(
            RecipeError, match=rf"keyword of foveola.{function.__name__} 'epoch'. Did you mean 'epochs'"
        ):
            function(arrays, tiny, epoch=1)
        with pytest.raises(RecipeError, match="Did you mean 'channels_first'"):
            function(arrays, tiny, channel_first=True)
        assert inspect.signature(function).parameters["settings"].kind is inspect.Parameter.VAR_KEYWORD
    with pytest.raises(RecipeError, match="Did you mean 'shift'"):
        train(arrays, tiny, augment={"shifts": 1})
    with pytest.raises(RecipeError, match=r"augment.shift is given as a keyword and in overrides"):
        train(arrays, tiny, augment={"shift": 1}, overrides={"augment": {"shift": 2}})


def test_arrays_are_brought_to_the_size_of_the_recipe_as_files_are(train, tiny, toy, toy_npz, arrays):
    """A loaded Dataset and an ImageSet, too; the model knows what the images were."""
    settings = {"image_size": 6, "channels": "rgb"}
    from_file = train(toy_npz, tiny, **settings)
    for data in (arrays, toy, toy.train):
        options = {"class_names": toy.class_names} if data is arrays else {}
        run = train(data, tiny, **settings, **options)
        assert run.status.data.fingerprint == from_file.status.data.fingerprint
        assert run.status.data.image_shape == [6, 6, 3]
        metadata = foveola.open(run.path).metadata
        assert (metadata.originals.height.middle, metadata.resize) == (8, "stretch")
    evaluation = foveola.evaluate(run.path, toy, verbose=False)
    assert evaluation.metrics == foveola.evaluate(run.path, toy_npz, verbose=False).metrics
    assert (evaluation.split, evaluation.n) == ("test", run.status.data.test)


def test_groups_of_arrays_stay_together(train, tiny, arrays):
    run = train(arrays, tiny, groups=np.repeat(np.arange(20), 3), test=0.3)
    assert run.status.data.groups == "array"
    with pytest.raises(DataError, match="Groups must be one integer an image"):
        train(arrays, tiny, groups=[1, 2])


def test_a_model_is_measured_on_arrays(train, tiny, toy, arrays):
    images, labels = arrays
    run = train(toy, tiny)
    known = foveola.evaluate(run.path, toy, verbose=False)
    names = np.array(toy.class_names)[labels]
    assert foveola.evaluate(run.path, images, labels, verbose=False).metrics == known.metrics
    for data in [(images, names), (images / 255, names), (list(images[..., 0]), list(names))]:
        assert foveola.evaluate(run.path, data, split="all", verbose=False).n == len(images)
        assert foveola.evaluate(run.path, *data, split="all", verbose=False).n == len(images)
    with pytest.raises(DataError, match="classes that the model does not know: up"):
        foveola.evaluate(run.path, images, np.where(labels == 0, "up", names), verbose=False)


def test_an_interrupted_training_goes_on_with_the_same_arrays(train, tiny, toy, arrays, tmp_path):
    images, labels = arrays

    class Interrupt(foveola.Callback):
        def on_epoch_end(self, fit):
            if fit.epoch == 1 and interrupting:
                raise KeyboardInterrupt

    named = {"class_names": toy.class_names}
    interrupting = False
    whole = train(arrays, tiny, callbacks=[Interrupt()], **named)
    interrupting = True
    with pytest.raises(KeyboardInterrupt):
        train(images, labels, tiny, out=tmp_path / "run", callbacks=[Interrupt()], **named)
    interrupting, again = False, {"callbacks": [Interrupt()], "verbose": False}
    with pytest.raises(UserError, match=r"foveola.resume\(run, data=…\)"):
        foveola.resume(tmp_path / "run", **again)
    with pytest.raises(DataError, match="has changed since the training began"):
        foveola.resume(tmp_path / "run", data=(images, labels[::-1]), **named, **again)
    run = foveola.resume(tmp_path / "run", data=(images, labels), **named, **again)
    assert run.model_path.read_bytes() == whole.model_path.read_bytes()


def test_other_functions_take_the_run_s_arrays_again(train, tiny, toy, arrays, tmp_path):
    """Their labels count the run's classes."""
    runs = [train(arrays, tiny, class_names=toy.class_names, seed=seed) for seed in (0, 1)]
    assert foveola.report(runs[0].path, data=arrays, verbose=False).is_file()
    comparison = foveola.compare(runs[0].path, runs[1].path, data=arrays, verbose=False)
    assert comparison.n == runs[0].status.data.test
    with pytest.raises(DataError, match="is not the data that"):
        foveola.report(runs[0].path, data=(arrays[0][::-1], arrays[1]), verbose=False)
    packed = foveola.pack(arrays, tmp_path / "packed", verbose=False)
    assert packed.name == "arrays"
    loaded = foveola.load(tmp_path / "packed", class_names=None)
    assert loaded.fingerprint == foveola.load(arrays).fingerprint


def test_audit_and_find_rate_take_arrays(tiny, toy, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = arrays
    audit = foveola.audit(images, labels, recipe=tiny, epochs=1, groups=np.arange(60) % 20, verbose=False, name="bars")
    assert (audit.data.name, audit.data.groups) == ("bars", 20)
    assert foveola.find_rate(images, labels, tiny, verbose=False).data == "arrays"


def test_a_data_frame_is_trained_on_and_known_again(train, tiny, arrays):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    images, labels = arrays
    columns = {f"pixel{number}": images.reshape(60, 64)[:, number] for number in range(64)}
    frame = pandas.DataFrame(columns | {"kind": labels, "label": labels[::-1]})
    run = train(frame, tiny, columns={"label": "kind"})
    assert (run.status.data.fingerprint, run.status.data.name) == (foveola.load(arrays).fingerprint, "frame")
    evaluation = foveola.evaluate(run.path, frame, verbose=False)
    assert (evaluation.split, evaluation.n) == ("test", run.status.data.test)
    assert foveola.report(run.path, data=frame, verbose=False).is_file()


@pytest.mark.slow
def test_names_go_into_folders(tiny, toy, arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"recipe": tiny, "report": False, "verbose": False}
    assert foveola.train(*arrays, **options).path.name == "arrays-tiny"
    assert foveola.train(*arrays, name="bars", **options).path.name == "bars-tiny"
    assert foveola.train(toy, name="other", **options).path.name == "other-tiny"
    with pytest.raises(DataError, match="Leave out name"):
        foveola.train("digits", name="mine", **options)


def test_a_letterboxed_data_set_stays_so_when_it_gets_smaller():
    """A Dataset that was letterboxed when it was loaded has no other aspect any more."""
    images = ImageSet(np.full((4, 8, 8, 1), 200, np.uint8), np.array([0, 1, 0, 1]), ("a", "b"))
    dataset = Dataset("boxed", images, resize="letterbox", fill=7, picture_polarity="mixed")
    smaller = foveola.load(dataset, image_size=4)
    assert (smaller.resize, smaller.fill, smaller.picture_polarity) == ("letterbox", 7, "mixed")
