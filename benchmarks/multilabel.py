"""Several labels an image: pairs of MNIST's digits side by side, labelled with the digits that appear in them.

    python benchmarks/multilabel.py [--out FOLDER]

Makes the data from $FOVEOLA_DATA, trains on it, measures, and compares every figure with scikit-learn's on the
probabilities of the exported model, reopened. The export, the page and the run stay in the folder, to be served:
foveola serve FOLDER/run.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn import metrics

import foveola
from foveola.exports import onnx
from foveola.images import Dataset, ImageSet
from foveola.tasks import sigmoid
from foveola.workflow.export import export

TRAIN, TEST = 12_000, 4_000


def pairs(digits, count, seed):
    """So many pairs of different images side by side, 28×56, with the one or two digits that they show."""
    first, second = np.random.default_rng(seed).integers(len(digits), size=(2, count))
    images = np.concatenate([digits.images[first], digits.images[second]], axis=2)
    labels = np.zeros((count, 10), bool)
    for half in (first, second):
        labels[np.arange(count), digits.labels[half]] = True
    return ImageSet(images, labels, digits.class_names)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("mnist-pairs"))
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    mnist = foveola.load("mnist")
    data = Dataset("mnist-pairs", pairs(mnist.train, TRAIN, 0), test=pairs(mnist.test, TEST, 1))
    run = foveola.train(data, options.recipe, out=options.out / "run", overrides={"epochs": options.epochs}, force=True)
    report = export(run.path, data=data, verbose=False)
    print(f"export: {report.path.name}, largest difference of a logit {report.parity.largest_difference:.2g}")

    model = onnx.open(report.path)
    probabilities = sigmoid(model.predict_logits(data.test.images))
    given, labels = probabilities >= np.array(model.metadata.thresholds), data.test.labels
    theirs = {
        "mean_average_precision": metrics.average_precision_score(labels, probabilities, average="macro"),
        "macro_f1": metrics.f1_score(labels, given, average="macro"),
        "micro_f1": metrics.f1_score(labels, given, average="micro"),
        "accuracy": metrics.accuracy_score(labels, given),
        "log_loss": np.mean([metrics.log_loss(labels[:, k], probabilities[:, k]) for k in range(10)]),
    }
    measured = foveola.evaluate(report.path, data, verbose=False)
    print(f"{'metric':24}{'run':>10}{'export':>10}{'scikit-learn':>14}   95 % interval")
    for key, value in theirs.items():
        ours, again = run.evaluation.metrics[key], measured.metrics[key].value
        print(f"{key:24}{ours.value:10.4f}{again:10.4f}{value:14.4f}   {ours.low:.4f} to {ours.high:.4f}")
        assert abs(again - value) < 1e-9, key


if __name__ == "__main__":
    main()
