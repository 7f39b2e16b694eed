"""Accuracy on simulated photographs of handwriting, without and with the fixes that the input checks propose.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/doctor.py [--run RUN] [--pictures 200] [--json]

Without --run, trains on MNIST for 400 steps first. Each image renders a digit of the test split as if drawn with a pen
on paper: rotated by up to 8 degrees, with thin to thick strokes, in black, blue, red or pencil, off center on a larger
sheet of tinted paper, with uneven light, grain, blur and JPEG compression. Prints how often the checks report the
polarity and the position, and the accuracy without and with the proposed fixes.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import foveola
from foveola.images import Images
from foveola.inputs.prepare import Prediction

INKS = {"black": (25, 25, 30), "blue": (25, 45, 140), "red": (170, 25, 35), "pencil": (95, 95, 100)}
STEPS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run on MNIST; by default one is trained")
    parser.add_argument("--pictures", type=int, default=200, help="number of images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or train(Path(folder) / "run")
        figures = measure(run, Path(folder), options.pictures, options.seed)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print("| what | share |\n|---|---:|")
    for name, value in figures.items():
        print(f"| {name.replace('_', ' ')} | {value:.3f} |")


def train(out: Path) -> Path:
    return foveola.train("mnist", overrides={"steps": STEPS}, out=out, verbose=False).path


def measure(run: Path, folder: Path, count: int, seed: int) -> dict[str, float]:
    """Accuracy without and with fixes, and how often the checks report polarity and centering."""
    test = foveola.load("mnist").test
    assert test is not None
    chosen = np.random.default_rng(seed).choice(len(test), count, replace=False)
    paths, labels = [], test.labels[chosen]
    for index in chosen:
        paths.append(folder / f"{index}.jpg")
        photograph(test.images[index, :, :, 0], paths[-1], np.random.default_rng((seed, index)))
    model = foveola.open(run)
    without = foveola.predict(model, paths, fix=["grey"], verbose=False)
    fixed = foveola.predict(model, paths, fix=["auto"], verbose=False)
    named = [{finding.code for finding in answer.findings} for answer in without]

    def accuracy(answers: list[Prediction]) -> float:
        return float(np.mean([int(answer.class_name) == label for answer, label in zip(answers, labels, strict=True)]))

    return {
        "polarity_named": float(np.mean(["polarity" in codes for codes in named])),
        "centring_named": float(np.mean(["centring" in codes for codes in named])),
        "accuracy_without_fixes": accuracy(without),
        "accuracy_with_fixes": accuracy(fixed),
    }


def photograph(digit: Images, path: Path, random: np.random.Generator) -> None:
    """Render a digit, uint8 28×28, on paper, and save it as JPEG."""
    width, height = int(random.integers(260, 520)), int(random.integers(260, 520))
    ink = _pen(digit, round(min(width, height) * random.uniform(0.3, 0.85)), random)
    sheet = np.zeros((height, width), np.float32)
    # Whole, but never near the middle: the checks should report the position
    rows, columns = (side - length for side, length in zip(sheet.shape, ink.shape, strict=True))
    top, left = (
        round(room * random.choice([random.uniform(0, 0.3), random.uniform(0.7, 1)])) for room in (rows, columns)
    )
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    paper = random.uniform(150, 245) * np.array([1.0, random.uniform(0.94, 1), random.uniform(0.82, 1)])
    colour = np.array(INKS[str(random.choice(list(INKS)))])
    picture = paper + (colour - paper) * sheet[..., None] * random.uniform(0.8, 1)
    picture = picture * _light(height, width, random)[..., None] + random.normal(
        0, random.uniform(1, 8), (height, width, 1)
    )
    image = Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.2)))
    image.save(path, quality=int(random.integers(40, 96)))


def _pen(digit: Images, side: int, random: np.random.Generator) -> np.ndarray:
    """Foreground of the digit, float 0 to 1, side × side, with the sharp edges of a pen."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    large = large.rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(side / 60))
    threshold = random.uniform(60, 190)  # low: thick strokes
    edge = 500 / side
    return ((np.asarray(large, np.float32) - threshold) / (8 * edge) + 0.5).clip(0, 1)


def _light(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Brightness of each pixel, as a factor: it falls off to one side and towards the corners."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0, 0.25) * (np.cos(angle) * x + np.sin(angle) * y)
    return 1 - random.uniform(0, 0.2) * (x**2 + y**2) / 2 - slope


if __name__ == "__main__":
    main()
