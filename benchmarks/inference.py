"""Throughput and latency of inference: West's network in Foveola and in Keras, and `fast`; all float32.

    make peers    # Keras in an environment of its own, once
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/inference.py [--rounds 3] [--json]

Trains `west` for an epoch and `fast` on Fashion-MNIST, exports them, and measures images a second over the 10,000 test
images, with all processors, and the latency of a single image, with one. The programs alternate, each in a fresh
process; results are medians over the rounds. Foveola starts from uint8 images, preprocessing and temperature included,
and gives a score of unfamiliarity, too; Keras starts from prepared float32 images. `fast` takes about three times as
many multiply-adds an image as West's network.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import foveola
from foveola.exports import onnx
from foveola.predictions import Predictor
from foveola.workflow.export import export

HERE = Path(__file__).parent
KERAS = HERE.parent / ".venv-peers" / "bin" / "python"
DATA = "fashion-mnist"
REPEATS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kind, run = options.worker
        print(json.dumps(measure_run(WORKERS[kind](Path(run)))))
        return
    if not KERAS.exists():
        sys.exit(f"{KERAS} is missing. Run make peers first.")
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(recipe, Path(folder)) for recipe in ("west", "fast")]
        rounds = [measure([run.path for run in runs]) for _ in range(options.rounds)]
        accuracies = {run.path.name: run.evaluation.accuracy.value for run in runs}
    figures = {
        name: {what: statistics.median(found[name][what] for found in rounds) for what in rounds[0][name]}
        for name in rounds[0]
    }
    if options.json:
        print(json.dumps({"accuracy": accuracies} | figures, indent=2))
        return
    print(f"test accuracy: {', '.join(f'`{name}` {value:.4f}' for name, value in accuracies.items())}\n")
    print("| | images a second | one image, ms |\n|---|---:|---:|")
    for name, figure in figures.items():
        batch = f"{figure['images_a_second']:,.0f}" if "images_a_second" in figure else "–"
        print(f"| {name} | {batch} | {figure['one_ms']:.3f} |")


def train(recipe: str, folder: Path) -> foveola.Run:
    settings = {"epochs": 1} if recipe == "west" else {}
    run = foveola.train(DATA, recipe, out=folder / recipe, overrides=settings, report=False, verbose=False)
    export(run.path, verbose=False)
    return run


def measure(runs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Every program once, each in a fresh process."""
    figures = {}
    for run in runs:
        for kind in WORKERS:
            figures[f"`{run.name}`, {kind}"] = answer([sys.executable, __file__, "--worker", kind, str(run)])
    keras = answer([str(KERAS), str(HERE / "peers" / "keras_inference.py"), "10000", str(REPEATS)])
    figures["`west`, Keras `predict`"] = {
        "images_a_second": keras["predict_images_a_second"], "one_ms": keras["predict_one_ms"],
    }  # fmt: skip
    figures["`west`, Keras `model(x)`"] = {"one_ms": keras["call_one_ms"]}
    print(figures, file=sys.stderr, flush=True)
    return figures


def answer(command: list[str]) -> dict[str, float]:
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measure_run(model: Predictor) -> dict[str, float]:
    images = foveola.load(DATA).test.images
    return {
        "images_a_second": len(images) / seconds(lambda: model.predict_logits(images), 5),
        "one_ms": 1000 * seconds(lambda: model.predict_logits(images[:1]), REPEATS),
    }


WORKERS: dict[str, Callable[[Path], Predictor]] = {
    "ONNX Runtime": lambda run: onnx.open(run / "exports" / "model.onnx"),
    "eager PyTorch": foveola.open,
}


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
