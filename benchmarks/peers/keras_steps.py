"""Milliseconds a training step of a tutorial's network in Keras; run by benchmarks/equal_precision.py.

    .venv-peers/bin/python benchmarks/peers/keras_steps.py PROGRAM FILE BATCH STEPS PRECISION THREADS

FILE is an .npz with x_train, uint8 N×28×28×1, and y_train. PRECISION is float32 or bf16, which is Keras's
mixed_bfloat16. STEPS come before the first measured one, and as many are measured.
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras_tutorials import eduonix, lenet5, west


def main() -> None:
    program, file, batch, steps, precision, threads = sys.argv[1:]
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
    keras.mixed_precision.set_global_policy({"float32": "float32", "bf16": "mixed_bfloat16"}[precision])
    arrays = np.load(file, allow_pickle=False)
    x, y = arrays["x_train"].astype("float32") / 255, arrays["y_train"]
    if program == "lenet5":
        x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    model = {"lenet5": lenet5, "west": west, "eduonix": eduonix}[program]()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock()
    model.fit(x, y, batch_size=int(batch), epochs=2, steps_per_epoch=int(steps), verbose=0, callbacks=[clock])
    print(1000 * (clock.ends[1] - clock.ends[0]) / int(steps))


class Clock(keras.callbacks.Callback):
    """Notes when each epoch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.ends.append(time.perf_counter())


if __name__ == "__main__":
    main()
