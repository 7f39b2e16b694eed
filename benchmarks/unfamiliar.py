"""Images that the classes are not: how well a model tells them from its own test images, beside softmax alone.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/unfamiliar.py [--recipe fast] [--seeds 3] [--json FILE] [NAME…]

The recipe is trained on each data set: 5,000 training images at most, and 32×32 pixels for photographs. Own
images are those of the test split (2,000 at most); the validation images gave the threshold. Foreign images are other
data sets, the own images inverted, and noise. AUROC: of an own and a foreign image, how often the foreign one has the
higher score. Alarms: how many foreign images exceed the threshold. Softmax alone, 1 - the highest probability, gets a
threshold from the same validation images in the same way.
"""

import argparse
import dataclasses
import json
import math
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import foveola
from foveola.datasets.splits import divide
from foveola.images import Dataset, Images
from foveola.predictions import predict_outputs
from foveola.tasks import softmax
from runs import DATA, spread

# Data set → the folder under DATA (None: a name of the catalog), side of its images, other data sets
PAIRS: dict[str, tuple[str | None, int | None, tuple[str, ...]]] = {
    "mnist": (None, None, ("fashion-mnist", "kmnist-from-test")),
    "fashion-mnist": (None, None, ("mnist", "kmnist-from-test")),
    "kmnist-from-test": ("kmnist-from-test", None, ("mnist", "fashion-mnist")),
    "digits": (None, None, ("fashion-mnist", "mnist")),
    "trashnet-150": ("folders/trashnet-150", 32, ("sign-language-digits",)),
    "sign-language-digits": ("folders/sign-language-digits", 32, ("trashnet-150",)),
}
MAX_TRAINING, MAX_TEST, NOISE = 5000, 2000, 500

Scores = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PAIRS), metavar="NAME", help="data sets; all by default")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = [
        row for name in options.names for seed in range(options.seeds) for row in measure(name, options.recipe, seed)
    ]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    print_table(rows)


def measure(name: str, recipe_name: str, seed: int) -> list[dict[str, str | float]]:
    """A row for each kind of foreign images."""
    dataset = load(name)
    train = dataset.train.take(np.random.default_rng(0).permutation(len(dataset.train))[:MAX_TRAINING])
    dataset = dataclasses.replace(dataset, train=train)
    with tempfile.TemporaryDirectory() as folder:
        run = foveola.train(dataset, recipe_name, seed=seed, out=f"{folder}/run", report=False, verbose=False)
        recipe, model = run.recipe, foveola.open(run.path)
    threshold = model.metadata.unfamiliarity.threshold
    splits = divide(dataset, recipe.validation, recipe.test, seed)[0]
    own = splits.test.images[:MAX_TEST]

    def scores(images: Images) -> tuple[Scores, Scores]:
        outputs = predict_outputs(model, images)
        return outputs.unfamiliarity, 1 - softmax(outputs.logits).max(axis=1)

    validation = np.sort(scores(splits.validation.images)[1])
    rank = min(math.ceil((len(validation) + 1) * 0.99), len(validation))
    thresholds = threshold, validation[rank - 1]
    own_scores = scores(own)
    rows = []
    for what, images in foreign(name, own).items():
        row: dict[str, str | float] = {"trained on": name, "foreign": what, "seed": seed}
        for method, own_score, other, limit in zip(
            ("unfamiliarity", "softmax"), own_scores, scores(images), thresholds, strict=True
        ):
            labels = np.repeat([0, 1], [len(own_score), len(other)])
            row[f"{method} auroc"] = float(roc_auc_score(labels, np.concatenate([own_score, other])))
            row[f"{method} alarms"] = float((other > limit).mean())
            row[f"{method} false alarms"] = float((own_score > limit).mean())
        rows.append(row)
    print(json.dumps(rows), flush=True)
    return rows


def foreign(name: str, own: Images) -> dict[str, Images]:
    """Foreign images by what they are, with as many channels as the own ones."""
    others = {}
    for other in PAIRS[name][2]:
        dataset = load(other)
        images = (dataset.test or dataset.train).images[:MAX_TEST]
        others[other] = images
    noise = np.random.default_rng(1).integers(0, 256, (NOISE, *own.shape[1:]), dtype=np.uint8)
    return {**others, "inverted": 255 - own, "noise": noise}


def load(name: str) -> Dataset:
    """A data set in the size that it is trained in."""
    folder, side, _ = PAIRS[name]
    return foveola.load(DATA / folder if folder else name, image_size=side)


def print_table(rows: list[dict[str, str | float]]) -> None:
    """Means and standard deviations over the seeds."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["trained on"], row["foreign"]].append(row)
    print("| trained on | foreign | AUROC | softmax | alarms | softmax | false alarms | softmax |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for (name, what), found in groups.items():
        cells = [
            f"{spread_['mean']:.3f} ± {spread_['sd']:.3f}"
            for figure in ("auroc", "alarms", "false alarms")
            for spread_ in (
                spread([row[f"{method} {figure}"] for row in found]) for method in ("unfamiliarity", "softmax")
            )
        ]
        print(f"| {name} | {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
