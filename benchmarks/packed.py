"""Data larger than memory: peak memory of a training on a packed data set, and its speed beside data in memory.

    python benchmarks/packed.py --gib 20

Made images of 64×64×3 are packed; a process trains one pass over all of them and measures, as `foveola train` does; its
peak memory (VmHWM, which counts pages of mapped files) is printed. Then the speed of the training loop is measured with
images that are read and with images in memory, in turn, each time in a process of its own. Linux only.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE = (64, 64, 3)
CLASSES = 10
IN_MEMORY_BYTES = 2**29

WORKER = """
import json, sys, time
from pathlib import Path
import torch
import foveola
from foveola.datasets.packed import Pack
from foveola.images import Dataset
from foveola.training.budget import _StepTimer
from foveola.training.build import build_classifier
from foveola.training.loop import choose_precision, fit

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

task, path, recipe, steps = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
start = time.perf_counter()
if task == "pass":
    dataset = Pack.open(path).load(in_memory=False)
    run = foveola.train(dataset, recipe, out=path.parent / "run", force=True, report=False,
                        overrides={"epochs": 1, "minimum_steps": 0})
    print(json.dumps({"peak": peak(), "seconds": run.status.seconds.training, "images": run.status.data.train,
                      "total": time.perf_counter() - start, "accuracy": run.evaluation.accuracy.value}))
else:
    train = Pack.open(path).load(in_memory=task == "memory").train
    loaded = foveola.load_recipe(recipe, {"steps": steps, "minimum_steps": 0})
    device = torch.device("cpu")
    timer = _StepTimer()
    fit(build_classifier(loaded, train.take(range(2000)), 0), train, None, loaded, seed=0, device=device,
        precision=choose_precision(loaded.precision, device), callbacks=[timer])
    seconds = sum(timer.seconds[5:])
    print(json.dumps({"peak": peak(), "rate": loaded.batch_size * len(timer.seconds[5:]) / seconds}))
"""


class MadeImages:
    """Noise with a bright bar whose place tells the class; the same for the same rows, if they are read in order."""

    image_shape, hashes = SHAPE, None

    def read(self, rows):
        random = np.random.default_rng(int(rows[0]))
        images = np.frombuffer(random.bytes(len(rows) * int(np.prod(SHAPE))), np.uint8).reshape(-1, *SHAPE) >> 1
        for label in range(CLASSES):
            images[rows % CLASSES == label, 6 * label : 6 * label + 4] += 40
        return images


def make(folder, size):
    from foveola.datasets import packed
    from foveola.images import Dataset, ImageSet
    from foveola.lazy import LazyImages

    count = size // int(np.prod(SHAPE))
    rows = np.arange(count)
    images = ImageSet(LazyImages(MadeImages(), rows), rows % CLASSES, tuple(map(str, range(CLASSES))))
    folder.mkdir()
    start = time.perf_counter()
    packed.write(folder, Dataset("made", images))
    print(
        f"{count:,} images of 64×64×3, {size / 2**30:.1f} GiB, made and packed in {time.perf_counter() - start:.0f} s"
    )


def work(*arguments):
    command = [sys.executable, "-c", WORKER, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=1.0, help="size of the packed data set")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--steps", type=int, default=200, help="steps of each measurement of speed")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of speed of each kind")
    parser.add_argument("--folder", type=Path, help="where to write, and remove again; a temporary folder by default")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        make(place / "large", int(options.gib * 2**30))
        make(place / "small", int(min(options.gib * 2**30, IN_MEMORY_BYTES)))
        whole = work("pass", place / "large", options.recipe, 0)
        print(
            f"one pass: {whole['images']:,} training images in {whole['seconds']:.0f} s "
            f"({whole['images'] / whole['seconds']:,.0f} a second), {whole['total']:.0f} s in all; "
            f"peak memory {whole['peak'] / 2**20:,.0f} MiB; accuracy {whole['accuracy']:.3f}"
        )
        rates = {"packed": [], "memory": []}
        for _ in range(options.rounds):
            for task, folder in (("packed", "large"), ("memory", "small")):
                found = work(task, place / folder, options.recipe, options.steps)
                rates[task].append(found["rate"])
                print(
                    f"{task}: {found['rate']:,.0f} images a second, peak {found['peak'] / 2**20:,.0f} MiB", flush=True
                )
        ratios = [packed / memory for packed, memory in zip(rates["packed"], rates["memory"], strict=True)]
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"speed beside data in memory: {median:.1%} (from {low:.1%} to {high:.1%})")
    finally:
        shutil.rmtree(place)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} at {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
