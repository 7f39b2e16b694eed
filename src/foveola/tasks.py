"""What the logits of a model mean: one class for each image (multiclass), or any number of labels (multilabel).

The labels of images say which: numbers of classes, int64 N, or a column for each label, bool N×K. Everything else that
differs, from the loss to what is printed, asks for the task, here or where the metrics are.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["multiclass", "multilabel"]

THRESHOLD = 0.5
"""The probability from which on a label is given where no thresholds were chosen on validation images."""


def task_of(labels: NDArray[Any]) -> Task:
    """The task of labels, N or N×K.

    >>> task_of(np.array([0, 2, 1])), task_of(np.array([[True, True], [False, True]]))
    ('multiclass', 'multilabel')
    """
    return "multilabel" if labels.ndim == 2 else "multiclass"


def probabilities(logits: NDArray[np.floating], task: Task) -> NDArray[np.float64]:
    """Probabilities, float64 N×K, of logits, N×K: of classes, which sum to 1, or of each label by itself.

    >>> logits = np.zeros((1, 4))
    >>> probabilities(logits, "multiclass").tolist(), probabilities(logits, "multilabel").tolist()
    ([[0.25, 0.25, 0.25, 0.25]], [[0.5, 0.5, 0.5, 0.5]])
    """
    return softmax(logits) if task == "multiclass" else sigmoid(logits)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities, float64 N×K, that do not overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    values: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return values


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logistic function, float64, that does not overflow."""
    with np.errstate(over="ignore"):  # from infinity on, the quotient is 0, as it should be
        values: NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return values


def log_losses(logits: NDArray[np.floating], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Negative log-likelihood of each image's labels in nats, float64 N; finite for all finite logits.

    Parameters
    ----------
    logits : float array, N×K
    labels : integers, N; or bool N×K, of whose labels the mean is taken
    """
    exact = logits.astype(np.float64)
    losses: NDArray[np.float64]
    if task_of(labels) == "multiclass":
        exact -= exact.max(axis=1, keepdims=True)
        losses = np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(len(labels)), labels]
    else:
        losses = np.logaddexp(0, np.where(labels, -exact, exact)).mean(axis=1)
    return losses


def decide(probabilities: NDArray[np.floating], task: Task, thresholds: Sequence[float] | None = None) -> NDArray[Any]:
    """What is predicted: the most probable class, int64 N, or the labels that reach their thresholds, bool N×K.

    >>> decide(np.array([[0.9, 0.6, 0.2]]), "multilabel", (0.95, 0.5, 0.5)).tolist()
    [[False, True, False]]
    """
    if task == "multiclass":
        classes: NDArray[Any] = probabilities.argmax(axis=1).astype(np.int64)
        return classes
    reached: NDArray[Any] = probabilities >= np.asarray(THRESHOLD if thresholds is None else thresholds)
    return reached


def label_text(label: Any, names: Sequence[str]) -> str:
    """A label in words: the class with this number, or the labels of a row, bool K.

    >>> label_text(1, ("cat", "dog")), label_text(np.array([True, True]), ("cat", "dog"))
    ('dog', 'cat, dog')
    """
    if np.ndim(label) == 0:
        return names[int(label)]
    return ", ".join(name for name, has in zip(names, label, strict=True) if has) or "no label"


def label_numbers(labels: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each image, N: its class, or the same number for images that have the same labels."""
    if task_of(labels) == "multiclass":
        return labels
    numbers: NDArray[np.int64] = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return numbers


def label_pairs(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every image with each of its labels: indices of images, and of labels, P each."""
    if task_of(labels) == "multiclass":
        return np.arange(len(labels)), labels
    images, numbers = np.nonzero(labels)
    return images, numbers
