"""Accuracy, log loss and calibration error on held-out training images, to choose settings without the test split.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/held_out.py [--seeds 2] fashion-mnist \
        -- --recipe strong --epochs 12 --set augment.shift=1

A sixth of the training images (drawn once, the same for every setting) replaces the test split, and `foveola train`
trains on the others with the arguments after `--`. The copy is not recognised as a data set of the catalog, so that
`augment.flip = "auto"` mirrors nothing: pass `--set augment.flip=true` for flips. Prints accuracy, log loss and
calibration error (after temperature) as mean ± standard deviation over the seeds, and the seconds of training.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from foveola import datasets
from runs import DATA, spread, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="name of a data set, or of a folder in $FOVEOLA_DATA such as folders/trashnet-150")
    parser.add_argument("--image-size", type=int, help="of pictures in folders")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("arguments", nargs="*", help="arguments of `foveola train`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{Path(options.data).name}-held-out.npz"
        hold_out(options.data, options.image_size, copy)
        documents = [train((str(copy), *options.arguments), seed) for seed in range(options.seeds)]
    figures = {
        name: spread([document["evaluation"][name]["value"] for document in documents])
        for name in ("accuracy", "log_loss", "ece")
    }
    seconds = spread([document["seconds"]["training"] for document in documents])
    setting = " ".join((options.data, *options.arguments))
    columns = " | ".join(f"{figure['mean']:.4f} ± {figure['sd']:.4f}" for figure in figures.values())
    print(f"| `{setting}` | {options.seeds} | {columns} | {seconds['mean']:.1f} |")


def hold_out(name: str, side: int | None, path: Path) -> None:
    """Write the training images of a data set to `path`, a sixth of them as the test split."""
    train = datasets.load(str(DATA / name) if (DATA / name).is_dir() else name, image_size=side).train
    order = np.random.default_rng(0).permutation(len(train.images))
    test, rest = np.split(order, [len(order) // 6])
    arrays = {"x_train": train.images[rest], "y_train": train.labels[rest]}
    np.savez(path, **arrays, x_test=train.images[test], y_test=train.labels[test], allow_pickle=False)


if __name__ == "__main__":
    main()
