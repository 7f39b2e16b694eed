"""Probabilities of imported Keras files beside Keras' own: the tutorials' networks, on 1,000 test images.

Each network is built in Keras from the layers of its recipe, trained on 2,000 images for an epoch, saved in both forms
and imported. Needs keras and h5py beside foveola and torch, best in an environment of their own:

    KERAS_BACKEND=torch python benchmarks/keras_parity.py [mnist]
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

import foveola
from foveola.models.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D
from foveola.tasks import softmax

RECIPES = ("lenet5", "west", "eduonix", "kmnist")
TRAINING, MEASURED = 2000, 1000


def main(data_name: str = "mnist") -> None:
    data = foveola.load(data_name)
    assert data.test is not None, "the published data sets have one"
    pixels, labels = data.train.images[:TRAINING] / np.float32(255), data.train.labels[:TRAINING]
    images = data.test.images[:MEASURED]
    print(f"Keras {keras.__version__} on {keras.backend.backend()}; largest differences on {len(images)} images")
    for name in RECIPES:
        keras.utils.set_random_seed(0)
        model = build(name, data.train.image_shape, len(data.class_names))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(pixels, labels, batch_size=64, epochs=1, verbose=0)
        expected = model.predict(images / np.float32(255), verbose=0)
        accuracy = (expected.argmax(axis=1) == data.test.labels[:MEASURED]).mean()
        for suffix in (".keras", ".h5"):
            difference = import_difference(model, suffix, images, expected)
            print(f"{name:8} {suffix:6} {difference:.1e}  (accuracy {accuracy:.3f})", flush=True)


def build(name: str, image_shape: tuple[int, ...], classes: int) -> keras.Sequential:
    """The network of a recipe in Keras."""
    recipe = foveola.load_recipe(name)
    model = keras.Sequential([keras.Input(image_shape)])
    if recipe.pad:
        model.add(layers.ZeroPadding2D(recipe.pad))
    for layer in recipe.layers:
        match layer:
            case Conv2D():
                windows = {"padding": layer.padding, "activation": layer.activation}
                model.add(layers.Conv2D(layer.filters, layer.kernel, **windows))
            case MaxPool2D():
                model.add(layers.MaxPooling2D(layer.size))
            case Dropout():
                model.add(layers.Dropout(layer.rate))
            case Flatten():
                model.add(layers.Flatten())
            case Dense(units="classes"):
                model.add(layers.Dense(classes, activation="softmax"))
            case Dense():
                model.add(layers.Dense(layer.units, activation=layer.activation))
            case _:
                raise ValueError(f"{layer.type} is in none of {RECIPES}")
    return model


def import_difference(model: keras.Model, suffix: str, images: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of probabilities between a model and the run that its file is imported to."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{suffix}"
        model.save(path)
        run = foveola.import_model(path, out=Path(folder) / "run", verbose=False)
        found = softmax(foveola.open(run.path).predict_logits(images))
    return float(np.abs(found - expected).max())


main(*sys.argv[1:])
