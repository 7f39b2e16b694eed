"""Features of photographs a second: Foveola's, beside PyTorch's plain float32 and ONNX Runtime's of the same network.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/features.py [--sides 160 224] [--rounds 5] [--json]

The network is EfficientNet-Lite0 with its published weights. Foveola computes features as a training with `head_views`
does: batch normalisation folded, channels last, in bf16 where the processor has it, and once in float32; plain PyTorch
runs the same module in eager float32; ONNX Runtime runs the export in float32, whose logits add 0.3 % of work. All take
uint8 images in batches of 32, in one process, in turns; figures are medians over the rounds. The share is that of the
processor's rate for bf16 matrix products, as `rate.py` measures it; a multiply-add counts as two operations.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foveola.datasets.weights import find_weights
from foveola.exports import onnx
from foveola.images import ImageSet
from foveola.models.classifier import Classifier
from foveola.models.shapes import count_multiply_adds
from foveola.recipe import load_recipe
from foveola.training.build import build_classifier
from foveola.training.head import features_of_view, folded_body
from foveola.training.loop import choose_precision
from rate import matrix_rate

NAME = "efficientnet-lite0"
IMAGES = 256
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[160, 224], help="of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = [row for side in options.sides for row in measure(side, options.rounds)]
    if options.json:
        print(json.dumps({"rounds": options.rounds, "rows": figures}, indent=2))
        return
    print("| pixels | features by | images a second | of the bf16 rate |\n|---:|---|---:|---:|")
    for row in figures:
        print(f"| {row['side']} | {row['name']} | {row['images_a_second']:.0f} | {row['share']:.0%} |")


def measure(side: int, rounds: int) -> list[dict[str, object]]:
    """A row for each program at this size."""
    recipe = load_recipe(NAME, {"image_size": side})
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(IMAGES) % 2, ("a", "b"))
    classifier = build_classifier(recipe, images, seed=0, pretrained=find_weights(recipe)).eval()
    work = 2 * count_multiply_adds(recipe.layers, (side, side, 3), 2)
    with tempfile.TemporaryDirectory() as folder:
        programs = ways(classifier, images, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        rates = []
        for program in programs.values():
            program()  # warm up
        for _ in range(rounds):
            rates.append(matrix_rate())
            for name, program in programs.items():
                start = time.perf_counter()
                program()
                seconds[name].append(time.perf_counter() - start)
    found = {name: IMAGES / statistics.median(values) for name, values in seconds.items()}
    print(side, {name: round(value, 1) for name, value in found.items()}, file=sys.stderr, flush=True)
    rate = statistics.median(rates)
    return [
        {"side": side, "name": name, "images_a_second": value, "share": value * work / rate}
        for name, value in found.items()
    ]


def ways(classifier: Classifier, images: ImageSet, folder: Path) -> dict[str, Callable[[], object]]:
    """Each program by its name."""
    recipe = load_recipe(NAME)
    classifier.save(folder / "model.safetensors")
    onnx.write(folder / "model.safetensors", classifier, folder / "model.onnx")
    export = onnx.open(folder / "model.onnx")
    plain = classifier.network[:-1]
    assert isinstance(plain, torch.nn.Module)
    body = folded_body(classifier.network)

    def foveola(precision: torch.dtype) -> Callable[[], object]:
        return lambda: consume(features_of_view(classifier, body, images, recipe, 0, 0, precision, False))

    def pytorch() -> None:
        with torch.inference_mode():
            for batch in batches(images.images):
                plain(classifier.normalize(torch.from_numpy(batch)))

    fast = choose_precision("auto", torch.device("cpu"))
    programs: dict[str, Callable[[], object]] = {}
    if fast != torch.float32:
        programs["Foveola, bf16"] = foveola(fast)
    programs["Foveola, float32"] = foveola(torch.float32)
    programs["PyTorch, float32"] = pytorch
    programs["ONNX Runtime, float32"] = lambda: consume(export.predict_logits(b) for b in batches(images.images))
    return programs


def batches(pixels: NDArray[np.uint8]) -> Iterable[NDArray[np.uint8]]:
    return (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))


def consume(values: Iterable[object]) -> None:
    for _ in values:
        pass


if __name__ == "__main__":
    main()
