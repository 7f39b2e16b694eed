"""The readable tutorial programs in Keras, as their authors wrote them; run by benchmarks/tutorials.py.

    .venv-peers/bin/python benchmarks/peers/keras_tutorials.py PROGRAM DATA_FOLDER SEED [EPOCHS]

Prints one JSON object: seconds of the fit, test accuracy. DATA_FOLDER holds the four IDX files of the MNIST family.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers


def lenet5() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(6, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def west() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def eduonix() -> keras.Model:
    stack: list[layers.Layer] = [keras.Input((28, 28, 1))]
    for first, second in ((64, 32), (32, 16), (16, 8)):
        stack += [layers.Conv2D(filters, 3, padding="same", activation="relu") for filters in (first, second)]
        stack.append(layers.MaxPooling2D())
    stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")]
    return keras.Sequential(stack)


def main() -> None:
    program, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    keras.utils.set_random_seed(seed)
    (x, y), (x_test, y_test) = (images_and_labels(folder, split) for split in ("train", "t10k"))
    model = {"lenet5": lenet5, "west": west, "eduonix": eduonix}[program]()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else {"lenet5": 1, "west": 10, "eduonix": 7}[program]
    start = time.perf_counter()
    if program == "lenet5":
        x, x_test = (np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) for images in (x, x_test))
        start = time.perf_counter()
        draw = np.random.default_rng(seed)
        for step in range(300):
            batch = draw.choice(len(x), 100, replace=False)
            model.train_on_batch(x[batch], y[batch])
            if step % 5 == 4:
                model.evaluate(x_test[:1200], y_test[:1200], batch_size=256, verbose=0)
    elif program == "west":
        model.fit(x, y, batch_size=256, epochs=epochs, validation_split=0.2, verbose=0)
    else:
        model.fit(x[:54000], y[:54000], batch_size=32, epochs=epochs, validation_data=(x[54000:], y[54000:]), verbose=0)
    seconds = time.perf_counter() - start
    accuracy = model.evaluate(x_test, y_test, batch_size=256, verbose=0)[1]
    print(json.dumps({"seconds": seconds, "accuracy": float(accuracy), "parameters": model.count_params()}))


def images_and_labels(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 N×28×28×1 in 0..1, and labels, N."""
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    return pixels.astype("float32") / 255, np.frombuffer(labels, np.uint8, offset=8).astype("int64")


if __name__ == "__main__":
    main()
