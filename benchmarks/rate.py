"""Computing rate of training steps, as a share of the processor's rate for bf16 matrix products.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/rate.py [--rounds 5] [--json]

The processor's rate is the fastest of several products of two 2048×2048 matrices. Each round measures it again and then
times 25 steps of every recipe on Fashion-MNIST, augmentation and optimizer included; results are medians over the
rounds. The work of a step is three times the multiply-adds of its forward pass (outputs, gradients of weights and of
inputs), less the gradient of the images, which is not computed.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch

from foveola import datasets
from foveola.images import ImageSet
from foveola.models.shapes import infer_shapes
from foveola.recipe import load_recipe
from foveola.training.budget import measure_speed
from foveola.training.memory import keep_freed_memory

RECIPES = ("fast", "strong", "best")
SIZE = 2048
PRODUCTS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    train = datasets.load("fashion-mnist").train
    rounds = [measure_round(train) for _ in range(options.rounds)]
    figures = {name: median([found[name] for found in rounds]) for name in RECIPES}
    if options.json:
        print(json.dumps({"rounds": options.rounds, "recipes": figures}, indent=2))
        return
    print("| recipe | ms a step | TFLOP/s | of the bf16 rate | share |\n|---|---:|---:|---:|---:|")
    for name, figure in figures.items():
        print(
            f"| {name} | {1000 * figure['step']:.1f} | {figure['computed'] / 1e12:.3f} "
            f"| {figure['rate'] / 1e12:.3f} | {figure['share']:.0%} |"
        )


def measure_round(train: ImageSet) -> dict[str, dict[str, float]]:
    """For each recipe: seconds a step, operations a second, the processor's rate, and their ratio."""
    figures = {}
    for name in RECIPES:
        recipe, rate = load_recipe(name), matrix_rate()
        step = measure_speed(recipe, train, torch.device("cpu"), flip=True).step
        layers = infer_shapes(recipe.layers, train.images.shape[1:], len(train.class_names))
        products = 3 * sum(layer.multiply_adds for layer in layers) - layers[0].multiply_adds
        work = 2 * products * recipe.batch_size
        figures[name] = {"step": step, "computed": work / step, "rate": rate, "share": work / step / rate}
    print({name: round(figure["share"], 3) for name, figure in figures.items()}, file=sys.stderr, flush=True)
    return figures


def matrix_rate() -> float:
    """Operations a second of the fastest bf16 product; a multiply-add counts as two."""
    left, right = (torch.randn(SIZE, SIZE, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)


def median(figures: list[dict[str, Any]]) -> dict[str, float]:
    """Median of each metric over the rounds."""
    return {name: statistics.median(figure[name] for figure in figures) for name in figures[0]}


if __name__ == "__main__":
    main()
