"""Inference with West's network in Keras, float32: images a second of `predict`, and the latency of one image.

    .venv-peers/bin/python benchmarks/peers/keras_inference.py IMAGES REPEATS

The weights are untrained: speed does not depend on them. Prints one JSON object.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from keras_tutorials import west


def main() -> None:
    count, repeats = int(sys.argv[1]), int(sys.argv[2])
    model = west()
    images = np.random.default_rng(0).random((count, 28, 28, 1), dtype=np.float32)
    batch = seconds(lambda: model.predict(images, batch_size=256, verbose=0), 5)
    one = images[:1]
    document = {
        "predict_images_a_second": count / batch,
        "predict_one_ms": 1000 * seconds(lambda: model.predict(one, verbose=0), repeats),
        "call_one_ms": 1000 * seconds(lambda: np.asarray(model(one, training=False)), repeats),
    }
    print(json.dumps(document))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of the repeats, after three that warm up."""
    found = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found[3:])


if __name__ == "__main__":
    main()
