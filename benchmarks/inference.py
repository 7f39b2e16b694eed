"""Throughput and latency of inference: the `fast` export, eager PyTorch, and West's network in Keras; all float32.

    make peers    # Keras in an environment of its own, once
    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/inference.py [--rounds 3] [--json]

Trains `fast` on Fashion-MNIST, exports it, and measures images a second over the 10,000 test images, with all
processors, and the latency of a single image, with one. The programs alternate, each in a fresh process; results are
medians over the rounds. Foveola starts from uint8 images, preprocessing and temperature included; Keras from prepared
float32 images. The networks differ: `fast` takes about three times as many multiply-adds an image as West's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import foveola
from foveola.exports import onnx
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
        print(json.dumps(WORKERS[options.worker[0]](Path(options.worker[1]))))
        return
    if not KERAS.exists():
        sys.exit(f"{KERAS} is missing. Run make peers first.")
    with tempfile.TemporaryDirectory() as folder:
        run = foveola.train(DATA, "fast", out=Path(folder) / "run", verbose=False)
        export(run.path)
        rounds = [measure(run.path) for _ in range(options.rounds)]
        accuracy = run.evaluation.accuracy.value
    figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    if options.json:
        print(json.dumps({"accuracy_of_fast": accuracy} | figures, indent=2))
        return
    print(f"`fast` on {DATA}: test accuracy {accuracy:.4f}\n")
    print("| | images a second | one image, ms |\n|---|---:|---:|")
    for name, batch, one in (
        ("`fast` export, ONNX Runtime", "onnx_images_a_second", "onnx_one_ms"),
        ("`fast`, eager PyTorch", "torch_images_a_second", "torch_one_ms"),
        ("West's network, Keras `predict`", "predict_images_a_second", "predict_one_ms"),
    ):
        print(f"| {name} | {figures[batch]:,.0f} | {figures[one]:.3f} |")
    print(f"| West's network, Keras `model(x)` | – | {figures['call_one_ms']:.3f} |")


def measure(run: Path) -> dict[str, float]:
    """Every program once, each in a fresh process."""
    keras = [str(KERAS), str(HERE / "peers" / "keras_inference.py"), "10000", str(REPEATS)]
    ours = [[sys.executable, __file__, "--worker", kind, str(run)] for kind in WORKERS]
    figures: dict[str, float] = {}
    for command in (*ours, keras):
        figures |= json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(figures, file=sys.stderr, flush=True)
    return figures


def with_onnx(run: Path) -> dict[str, float]:
    path = run / "exports" / "model.onnx"
    images, model = foveola.load(DATA).test.images, onnx.open(path)
    return {
        "onnx_images_a_second": len(images) / seconds(lambda: model.predict_logits(images), 5),
        "onnx_one_ms": 1000 * seconds(lambda: model.predict_logits(images[:1]), REPEATS),
    }


def with_torch(run: Path) -> dict[str, float]:
    images, model = foveola.load(DATA).test.images, foveola.open(run)
    return {
        "torch_images_a_second": len(images) / seconds(lambda: model.predict_logits(images), 5),
        "torch_one_ms": 1000 * seconds(lambda: model.predict_logits(images[:1]), REPEATS),
    }


WORKERS: dict[str, Callable[[Path], dict[str, float]]] = {"onnx": with_onnx, "torch": with_torch}


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
