"""HiResCAM beside Grad-CAM: `fast` on Fashion-MNIST, heat maps for the predicted classes of test images.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/explanation.py [--epochs 3] [--images 500] [--seed 0] [--run RUN]

- all zero, not positive: heat maps without any value, and without any value above 0.
- occlusion: Spearman's rank correlation with the occlusion map, all pixels of an image; 0 where a heat map is constant.
- deletion, insertion (Petsiuk et al., 2018): the area under the class's probability while pixels are blacked out, or
  shown on black, the highest values first, 1/28 of the pixels at a time; pixels of one value in random order. Low
  deletion and high insertion are good. The row "random" has all pixels in random order.

± is the standard error over images. With --run, an existing run is explained instead of a new one.
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

import foveola
from foveola.explanation.cam import CAM_TITLES, class_activation_maps, enlarge_maps
from foveola.explanation.occlusion import occlusion
from foveola.images import Images, Labels
from foveola.models.classifier import Classifier
from foveola.tasks import softmax

STEPS = 28
Heat = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    data = foveola.load("fashion-mnist")
    classifier = foveola.open(options.run or train(data, options.epochs, options.seed))
    assert isinstance(classifier, Classifier) and data.test is not None
    images = data.test.images[: options.images]
    classes = classifier.predict_logits(images).argmax(axis=1)
    maps = {title: class_activation_maps(classifier, images, classes, name) for name, title in CAM_TITLES.items()}
    heats = {title: enlarge_maps(classifier, found, images.shape[1:3]) for title, found in maps.items()}
    drops = occlusion(classifier, classifier.metadata.polarity, images, classes)
    print("| heat map | all zero | not positive | occlusion | deletion | insertion |\n|---|---:|---:|---:|---:|---:|")
    for title, heat in (heats | {"occlusion": drops, "random": np.zeros_like(drops)}).items():
        zero, positive = (~heat.any(axis=(1, 2))).sum(), (heat > 0).any(axis=(1, 2)).sum()
        counts = f"{zero} | {len(heat) - positive}" if title != "random" else "– | –"
        figures = [np.array([agreement(*pair) for pair in zip(heat, drops, strict=True)])]
        figures += list(removal(classifier, images, classes, heat))
        cells = " | ".join(f"{values.mean():.3f} ± {values.std() / math.sqrt(len(values)):.3f}" for values in figures)
        print(f"| {title} | {counts} | {cells} |")


def train(data: foveola.Dataset, epochs: int, seed: int) -> Path:
    """A new run of `fast` in a temporary folder."""
    out = Path(tempfile.mkdtemp()) / "run"
    return foveola.train(data, "fast", overrides={"epochs": epochs}, seed=seed, out=out, report=False).path


def agreement(heat: Heat, drops: Heat) -> float:
    """Spearman's rank correlation of two heat maps, H×W; 0 if one is constant."""
    if np.ptp(heat) == 0 or np.ptp(drops) == 0:
        return 0.0
    return float(spearmanr(heat.ravel(), drops.ravel()).statistic)


def removal(classifier: Classifier, images: Images, classes: Labels, heat: Heat) -> tuple[Heat, Heat]:
    """Deletion and insertion, the mean probability of the class over all steps, for each image."""
    random = np.random.default_rng(0)
    areas = []
    for image, label, values in zip(images, classes, heat, strict=True):
        order = np.lexsort((random.random(values.size), -values.ravel()))
        rank = np.empty(values.size, int)
        rank[order] = np.arange(values.size)
        removed = rank < np.linspace(0, values.size, STEPS + 1)[:, None]
        deleted = np.where(removed.reshape(-1, *values.shape, 1), 0, image).astype(np.uint8)
        inserted = np.where(removed.reshape(-1, *values.shape, 1), image, 0).astype(np.uint8)
        curves = softmax(classifier.predict_logits(np.concatenate([deleted, inserted])))[:, label]
        areas.append([curve.mean() for curve in np.split(curves, 2)])
    deletion, insertion = np.transpose(areas).astype(np.float32)
    return deletion, insertion


if __name__ == "__main__":
    main()
