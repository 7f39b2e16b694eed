"""Distillation: a student learns from a teacher's probabilities besides the labels (Hinton et al., 2015).

The teacher's logits are computed once for each training image, without its random changes: a student that sees its
images unchanged, or nearly so, is then told what the teacher thinks of just these.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveola.images import Images
from foveola.models.classifier import Classifier

# Of float16, in which logits are kept
LARGEST = torch.finfo(torch.float16).max


def teacher_logits(teacher: Classifier, images: Images, device: torch.device, precision: torch.dtype) -> Tensor:
    """The teacher's logits of images, uint8 N×H×W×C, in evaluation mode: float16 N×K on the device."""
    teacher.to(device)
    logits = torch.empty((len(images), len(teacher.class_names)), dtype=torch.float16, device=device)
    autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    size = teacher.inference_batch
    with teacher.eval_mode(), torch.no_grad(), autocast:
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            batch = torch.from_numpy(np.array(images[rows])).to(device)
            logits[rows] = teacher(batch).float().clamp(-LARGEST, LARGEST)
    return logits


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Divergence of the student's probabilities from the teacher's (Kullback and Leibler), summed over N images.

    Both are softened by the temperature; its square keeps the size of the gradient (Hinton et al., 2015). With weights,
    N, the sum is weighted.
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    if weights is None:
        return temperature**2 * F.kl_div(student, teacher, reduction="sum", log_target=True)
    return temperature**2 * weights @ F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
