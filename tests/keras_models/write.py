"""Write the small Keras models beside this file, and what Keras itself predicts with them: python write.py.

It was run with Keras 3.15.1 on PyTorch (KERAS_BACKEND=torch), and with Keras 2.15.0 on TensorFlow 2.15.1. The weights
are random. NAME.npz holds images, uint8 N×H×W×C, and Keras' own probabilities of them.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
VERSION = f"keras{keras.__version__[0]}"


def chain():
    """Every layer with weights, and the activations in all the ways that Keras takes them."""
    return keras.Sequential(
        [
            keras.Input((14, 13, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(5, 3, padding="same", activation="leaky_relu"),
            layers.Conv2D(3, (2, 2), strides=2, padding="same", use_bias=False, activation=layers.ReLU(max_value=6)),
            layers.BatchNormalization(scale=False, epsilon=0.01, momentum=0.9),
            layers.DepthwiseConv2D(3, padding="same", activation="elu"),
            layers.Activation("gelu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(center=False),
            layers.Dense(3, activation="softmax"),
        ]
    )


def functional():
    """A functional chain on colour images, with what surrounds a network: Rescaling, augmentation, ZeroPadding2D."""
    x = images = keras.Input((9, 10, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.RandomFlip("horizontal")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(4, 3, activation="swish")(x)
    x = layers.ZeroPadding2D(((1, 1), (0, 1)))(x)
    x = layers.Conv2D(5, 3, strides=2)(x)
    x = layers.ReLU(negative_slope=0.25)(x)
    x = layers.AveragePooling2D(3, strides=2, padding="same")(x)
    x = layers.ELU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(4)(x)
    return keras.Model(images, layers.Softmax()(x))


def binary():
    """One sigmoid for two classes, zeros around the images, and the largest value of each channel."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.ZeroPadding2D(2),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(6, 3, activation="sigmoid"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def rows():
    """Images without an axis for channels, as many tutorials give them to Flatten."""
    return keras.Sequential([keras.Input((6, 6)), layers.Flatten(), layers.Dense(3)])


def values():
    """Images as vectors."""
    return keras.Sequential(
        [keras.Input((48,)), layers.Dense(5, activation="relu"), layers.Dense(3, activation="softmax")]
    )


def reshaped():
    """Images as vectors that the network itself gives their shape."""
    return keras.Sequential(
        [
            keras.Input((36,)),
            layers.Reshape((6, 6, 1)),
            layers.Conv2D(2, 3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def labels():
    """Several sigmoids: any number of labels for an image."""
    return keras.Sequential([keras.Input((6, 5, 1)), layers.Flatten(), layers.Dense(4, activation="sigmoid")])


def randomize(model, random):
    """Other weights than the initial ones, so that a statistic or bias in the wrong place shows."""
    for layer in model.layers:
        if layer.weights and "seed" not in layer.weights[0].name:
            shapes = [tuple(weight.shape) for weight in layer.weights]
            scale = 3 / np.sqrt(max(np.prod(shapes[0][:-1]), 1)) if len(shapes[0]) > 1 else 0.5
            values = [random.normal(0, scale, shape) for shape in shapes]
            if isinstance(layer, layers.BatchNormalization):
                values = [random.uniform(0.3, 2, shape) for shape in shapes]
            layer.set_weights(values)


def main():
    random = np.random.default_rng(20)
    for build in (chain, functional, binary, rows, values, reshaped, labels):
        model = build()
        randomize(model, random)
        shape = {"values": (6, 8, 1), "reshaped": (6, 6, 1), "rows": (6, 6, 1)}.get(
            build.__name__, model.input_shape[1:]
        )
        images = random.integers(0, 256, (20, *shape), dtype=np.uint8)
        taken = images.reshape(20, *model.input_shape[1:]) / (1 if build is functional else 255)
        outputs = np.asarray(model.predict(taken.astype(np.float32), verbose=0), np.float64)
        if build is rows:
            outputs = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        if build is binary:
            outputs = np.concatenate([1 - outputs, outputs], axis=1)
        name = f"{VERSION}-{build.__name__}"
        model.compile("adam", "binary_crossentropy" if build in (binary, labels) else "categorical_crossentropy")
        model.save(HERE / f"{name}.keras")
        model.save(HERE / f"{name}.h5")
        np.savez_compressed(HERE / f"{name}.npz", images=images, probabilities=outputs)


main()
