"""Recall of `foveola audit` for label errors and duplicates planted in Fashion-MNIST, time and memory.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/audit.py [--seed 0] [--json]

The seed draws what is planted: 1 % of the training labels are replaced by another class, each equally likely; and 800
test images are replaced by copies of training images: 200 exact ones, 200 shifted by one pixel (edges filled with
black), 200 with uniform noise of ±3, and 200 with both. The audit runs in a fresh process with its default settings.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from foveola import datasets
from foveola.documents import Audit
from foveola.images import Images
from foveola.workflow.environment import describe_environment
from recipes import peak_mib

COPIES = 200
KINDS = ("exact", "shifted", "noisy", "shifted and noisy")
FIRST = 1200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planted.npz"
        planted = plant(options.data, path, options.seed)
        program = str(Path(sys.executable).with_name("foveola"))
        command = [program, "audit", str(path), "--out", f"{folder}/audit", "--seed", str(options.seed), "--json"]
        start = time.perf_counter()
        document = Audit.model_validate_json(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        seconds = time.perf_counter() - start
        page = (Path(folder) / "audit" / "audit.html").stat().st_size
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = score(document, planted) | {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "page_bytes": page,
        "peak_mib": peak_mib(usage),
    }
    if options.json:
        print(json.dumps({"machine": describe_environment().model_dump(), "seed": options.seed, **found}, indent=2))
        return
    print(f"{describe_environment().platform}; {options.data}, seed {options.seed}\n\n| what | value |\n|---|---:|")
    for name, value in found.items():
        print(f"| {name.replace('_', ' ')} | {value:,.4g} |")


def plant(data: str, path: Path, seed: int) -> dict[str, Any]:
    """Write the data with planted label errors and duplicates; return which they are."""
    dataset, random = datasets.load(data), np.random.default_rng(seed)
    assert dataset.test is not None, "the data needs a test split: it receives the copies"
    train, test = dataset.train, dataset.test
    labels = train.labels.copy()
    flipped = random.choice(len(train), len(train) // 100, replace=False)
    labels[flipped] = (labels[flipped] + random.integers(1, len(train.class_names), len(flipped))) % len(
        train.class_names
    )
    sources = random.choice(len(train), COPIES * len(KINDS), replace=False)
    places = random.choice(len(test), COPIES * len(KINDS), replace=False)
    images, test_labels = test.images.copy(), test.labels.copy()
    for number, (source, place) in enumerate(zip(sources, places, strict=True)):
        images[place] = copy(train.images[source], KINDS[number // COPIES], random)
        test_labels[place] = train.labels[source]
    names = np.array(train.class_names)
    np.savez(path, x_train=train.images, y_train=labels, x_test=images, y_test=test_labels, class_names=names)
    return {"flipped": set(flipped.tolist()), "pairs": list(zip(sources.tolist(), places.tolist(), strict=True))}


def copy(image: Images, kind: str, random: np.random.Generator) -> Images:
    """A copy of an image: exact, shifted, noisy, or both, according to `kind`."""
    wide = np.pad(image.astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    down, right = 0, 0
    while "shifted" in kind and not (down or right):
        down, right = random.integers(-1, 2, 2)
    moved = wide[1 + down : 1 + down + image.shape[0], 1 + right : 1 + right + image.shape[1]]
    noise = random.integers(-3, 4, image.shape) if "noisy" in kind else 0
    return np.clip(moved + noise, 0, 255).astype(np.uint8)


def score(document: Audit, planted: dict[str, Any]) -> dict[str, float]:
    """Share of the planted label errors and duplicates that the audit has found."""
    suspects = [(row.split, row.index) for row in document.label_suspects]
    in_train = [index for split, index in suspects if split == "train"][:FIRST]
    in_all = [index for split, index in suspects[:FIRST] if split == "train"]
    groups = {
        (member.split, member.index): number for number, group in enumerate(document.duplicates) for member in group
    }
    together = [
        groups.get(("train", source), -1) == groups.get(("test", place), -2) for source, place in planted["pairs"]
    ]
    shares = dict(zip(KINDS, np.reshape(together, (len(KINDS), COPIES)).mean(axis=1), strict=True))
    members = {("train", source) for source, _ in planted["pairs"]} | {("test", place) for _, place in planted["pairs"]}
    others = sum(all((m.split, m.index) not in members for m in group) for group in document.duplicates)
    flipped = planted["flipped"]
    return {
        f"flipped_labels_in_the_first_{FIRST}_training_suspects": len(flipped.intersection(in_train)) / len(flipped),
        f"flipped_labels_in_the_first_{FIRST}_suspects_of_all_splits": len(flipped.intersection(in_all)) / len(flipped),
        "likely_label_errors": document.likely_label_errors,
        **{f"{kind.replace(' ', '_')}_copies_found": float(share) for kind, share in shares.items()},
        "groups_of_duplicates_that_were_not_planted": others,
        "odd_images": len(document.oddities),
    }


if __name__ == "__main__":
    main()
