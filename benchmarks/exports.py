"""Exports of runs: parity, size, speed, and what a server answers a second with each.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/exports.py RUN… [--seconds 10] [--json]

Each run is exported as ONNX, as ONNX in 8-bit integers and as a web page. Parity is the largest difference of a logit
from the live model's, on training images; of integers, the accuracy on the validation images. Speed is that of ONNX
Runtime with all processors: one image, and batches of 64. Then `foveola serve` runs on the first processor, and eight
clients on the second send training images as PNG files, each as soon as it has an answer; every answer is compared with
the model's own.
"""

import argparse
import http.client
import io
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import foveola
from foveola.datasets.reload import load_for_model
from foveola.errors import ExportError
from foveola.progress import no_progress
from foveola.runs import Run
from foveola.tasks import softmax
from foveola.workflow.export import export
from load import served

CLIENTS = 8
PICTURES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--seconds", type=float, default=10, help="duration of the load on each server")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [row for run in options.runs for row in measure(run, options.seconds)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| run | export | parity | MB | one image, ms | images a second | answers a second | p50, ms | wrong |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| " + " | ".join(str(row.get(key, "–")) for key in KEYS) + " |")


KEYS = ("run", "export", "parity", "mb", "one_ms", "images_a_second", "answers_a_second", "p50_ms", "wrong")


def measure(path: Path, seconds: float) -> list[dict[str, Any]]:
    """A row for each export of a run."""
    run = Run.open(path)
    source, metadata = run.status.data.path or run.status.data.name, foveola.open(path).metadata
    images = load_for_model(metadata, source, 0, no_progress).train.images[:PICTURES]
    rows = []
    for name, how in (("ONNX", {}), ("ONNX, 8-bit integers", {"int8": True}), ("web page", {"format": "web"})):
        row: dict[str, Any] = {"run": path.name, "export": name}
        try:
            report = export(path, **how, verbose=False)
        except ExportError as error:
            rows.append(row | {"parity": str(error)})
            continue
        row["parity"] = parity_text(report)
        row["mb"] = round(size(report.path) / 1e6, 1)
        if report.path.is_file():
            row |= speed(report.path, images) | answers(report.path, images, seconds)
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def parity_text(report: Any) -> str:
    parity, gain = report.parity, report.gain
    text = f"{parity.largest_difference:.1e} of {parity.images} images"
    return text if gain is None else f"{gain.accuracy:.2%} instead of {gain.accuracy_float32:.2%}"


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def speed(path: Path, images: np.ndarray) -> dict[str, float]:
    model = foveola.open(path)
    return {
        "one_ms": round(1000 * seconds_of(lambda: model.predict_logits(images[:1]), 50), 2),
        "images_a_second": round(len(images) / seconds_of(lambda: model.predict_logits(images), 10)),
    }


def seconds_of(function: Callable[[], object], count: int) -> float:
    """The median of so many calls, after two others."""
    found = []
    for _ in range(count + 2):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])


def answers(path: Path, images: np.ndarray, seconds: float) -> dict[str, float]:
    """What a server answers a second, how long an answer takes, and how many are not the model's own."""
    model = foveola.open(path)
    probabilities = softmax(model.predict_logits(images))
    expected = [(model.class_names[row.argmax()], float(row.max())) for row in probabilities]
    pictures = [png(image) for image in images]
    taken: list[float] = []
    wrong: list[object] = []

    def ask(port: int, first: int, end: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        number = first
        while time.perf_counter() < end:
            which, start = number % len(pictures), time.perf_counter()
            connection.request("POST", "/predict", pictures[which], {"Content-Type": "image/png"})
            document = json.loads(connection.getresponse().read())
            taken.append(time.perf_counter() - start)
            best = document["predictions"][0]
            if best["class"] != expected[which][0] or abs(best["probability"] - expected[which][1]) > 1e-4:
                wrong.append(document)
            number += CLIENTS

    with served("foveola", path) as (port, _):
        ask(port, 0, time.perf_counter() + 1)  # warm up
        taken.clear()
        end = time.perf_counter() + seconds
        threads = [threading.Thread(target=ask, args=(port, first, end)) for first in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {
        "answers_a_second": round(len(taken) / seconds),
        "p50_ms": round(1000 * statistics.median(taken), 1),
        "wrong": len(wrong),
    }


def png(image: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(target, "PNG")
    return target.getvalue()


if __name__ == "__main__":
    main()
