"""The tutorial programs in Keras (float32), as their authors wrote them; run by benchmarks/tutorials.py.

    .venv-peers/bin/python benchmarks/peers/keras_tutorials.py PROGRAM FILE SEED [EPOCHS]

Prints one JSON object: seconds of the fit, test accuracy. FILE is an .npz with x_train, y_train, x_val, y_val, x_test
and y_test; the images are uint8 N×28×28×1. Two things differ from the programs: the splits are made beforehand, and
LeNet-5 is evaluated on validation images every five batches, where its author used test images.
"""

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
    program, file, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    keras.utils.set_random_seed(seed)
    (x, y), validation, test = splits(file, pad=2 if program == "lenet5" else 0)
    model = {"lenet5": lenet5, "west": west, "eduonix": eduonix}[program]()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else {"lenet5": 1, "west": 10, "eduonix": 7}[program]
    start = time.perf_counter()
    if program == "lenet5":
        draw = np.random.default_rng(seed)
        for step in range(300):
            batch = draw.choice(len(x), 100, replace=False)
            model.train_on_batch(x[batch], y[batch])
            if step % 5 == 4:
                model.evaluate(*validation, batch_size=256, verbose=0)
    else:
        batch_size = {"west": 256, "eduonix": 32}[program]
        model.fit(x, y, batch_size=batch_size, epochs=epochs, validation_data=validation, verbose=0)
    seconds = time.perf_counter() - start
    accuracy = model.evaluate(*test, batch_size=256, verbose=0)[1]
    print(json.dumps({"seconds": seconds, "accuracy": float(accuracy), "parameters": model.count_params()}))


def splits(file: Path, pad: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training, validation and test split: images, float32 N×H×W×1 in 0..1, with a border of zeros; labels, N."""
    arrays = np.load(file, allow_pickle=False)
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return [
        (np.pad(arrays[f"x_{split}"].astype("float32") / 255, border), arrays[f"y_{split}"].astype("int64"))
        for split in ("train", "val", "test")
    ]


if __name__ == "__main__":
    main()
