"""What a teacher brings: students with and without one, for as many steps, on the same images.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/distill.py fashion-mnist [--teacher-recipe strong] [--student fast] \
        [--seeds 3] [--held-out] [--teacher RUN] [--teacher-set KEY=VALUE] [--set KEY=VALUE] [--distill-set KEY=VALUE]

Training, validation and test images are divided once, with seed 0. A teacher is trained, or given; then for each seed a
student that learns from the labels only, and one that learns from the teacher, too. `--held-out` puts a sixth of the
training images in the place of the test split, to choose settings by. Prints mean ± standard deviation over the seeds,
and the seconds of training and of everything, in which the teacher answers.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import foveola
from foveola.datasets.splits import divide
from foveola.images import Dataset
from foveola.recipe import parse_override
from foveola.runs import Run
from runs import DATA, spread

FIGURES = ("accuracy", "log_loss", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="name of a data set, or of a folder in $FOVEOLA_DATA such as folders/trashnet-150")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--teacher", type=Path, help="a run of this benchmark on the same data")
    parser.add_argument("--teacher-recipe", default="strong")
    parser.add_argument("--student", default="fast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="where to keep the teacher's run")
    for option in ("teacher-set", "set", "distill-set"):
        parser.add_argument(f"--{option}", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    data = divided(options.data, options.image_size, options.held_out)
    common = dict(map(parse_override, options.set))
    with tempfile.TemporaryDirectory() as folder:
        teacher = options.teacher or options.keep or Path(folder) / "teacher"
        if options.teacher is None:
            changes = dict(map(parse_override, options.teacher_set))
            train(data, options.teacher_recipe, changes, out=teacher)
        print("| student | seeds | accuracy | log loss | ECE | seconds of training | seconds in all |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        print(row(f"teacher `{options.teacher_recipe}`", [Run.open(teacher)]), flush=True)
        taught = common | dict(map(parse_override, options.distill_set))
        for name, changes, model in (("labels only", common, None), ("and teacher", taught, teacher)):
            runs = [
                train(data, options.student, changes, seed=seed, teacher=model, out=Path(folder) / f"{name} {seed}")
                for seed in range(options.seeds)
            ]
            settings = "".join(f" {key}={value}" for key, value in changes.items())
            print(row(f"`{options.student}{settings}`, {name}", runs), flush=True)


def divided(name: str, side: int | None, held_out: bool) -> Dataset:
    """The data with all its splits; the test split is none of its own if settings are to be chosen by it."""
    path = DATA / name
    dataset = foveola.load(str(path) if path.is_dir() else name, image_size=side)
    if held_out:
        test, rest = np.split(np.random.default_rng(0).permutation(len(dataset.train)), [len(dataset.train) // 6])
        dataset = replace(dataset, train=dataset.train.take(np.sort(rest)), test=dataset.train.take(np.sort(test)))
    splits, _ = divide(dataset, 0.05, 0.2, 0)
    return replace(dataset, train=splits.train, validation=splits.validation, test=splits.test)


def train(data: Dataset, recipe: str, overrides: dict[str, Any], **options: Any) -> Run:
    return foveola.train(data, recipe, overrides=overrides, report=False, verbose=False, **options)


def row(name: str, runs: list[Run]) -> str:
    """A line of the table."""
    evaluations = [run.evaluation.metrics for run in runs]
    cells = [spread([metrics[figure].value for metrics in evaluations]) for figure in FIGURES]
    seconds = [spread([getattr(run.status.seconds, part) for run in runs]) for part in ("training", "total")]
    shown = [f"{cell['mean']:.4f} ± {cell['sd']:.4f}" for cell in cells] + [f"{part['mean']:.1f}" for part in seconds]
    return f"| {name} | {len(runs)} | {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
