"""What a network is trained by: the loss of each image, and whether it is right, by the task."""

import torch.nn.functional as F
from torch import Tensor


def label_losses(logits: Tensor, labels: Tensor, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """The loss of each image, N: cross-entropy, or the sum over the labels of the binary cross-entropy.

    Both are negative log-likelihoods, and their gradients by the logits are alike in size, so that a recipe's learning
    rate fits both.

    Parameters
    ----------
    logits : N×K
    labels : classes, int64 N; or zeros and ones, float N×K
    class_weights : K, of the classes; or of the positive labels
    smoothing : of the labels: so much of their probability is spread over the classes, or over yes and no
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing, reduction="none")
    targets = labels * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=class_weights, reduction="none")
    return losses.sum(dim=1)


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the most probable class is the true one, N; or whether exactly the true labels are probable."""
    if labels.ndim == 1:
        return logits.argmax(1) == labels
    return ((logits > 0) == (labels > 0)).all(dim=1)
