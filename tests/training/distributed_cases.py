"""What both processes of test_distributed.py do: the same calls, in the same order.

Started with a process number in the environment, as by torchrun, this file is process 1.
"""

import signal

import numpy as np
import torch

from foveola.errors import DataError
from foveola.images import ImageSet
from foveola.models.batch_part import BatchPart, set_batch_part
from foveola.models.sync_batch_norm import BatchNorm2d
from foveola.recipe import parse_recipe
from foveola.training.build import build_classifier
from foveola.training.callbacks import History
from foveola.training.distributed import join
from foveola.training.loop import fit
from foveola.training.stopping import StopSignals

CONVOLUTIONS = [
    {"type": "Conv2D", "filters": 4, "padding": "same", "bias": False},
    {"type": "MaxPool2D"},
    {"type": "BatchNorm"},
    {"type": "Activation", "function": "relu"},
    {"type": "Conv2D", "filters": 8, "padding": "same"},
    {"type": "Conv2D", "filters": 6, "kernel": 1},
    {"type": "Dropout", "rate": 0.25},
    {"type": "Flatten"},
    {"type": "Dense", "units": 12, "activation": "relu"},
    {"type": "BatchNorm"},
    {"type": "Dropout", "rate": 0.1},
    {"type": "Dense", "units": "classes"},
]
AUGMENT = {"shift": 1, "rotation": 10, "zoom": 0.1, "cutout": 2}
TRAININGS = {
    "muon": {"optimizer": "muon", "augment": AUGMENT, "label_smoothing": 0.1},
    "mixup": {"optimizer": "adamw", "augment": AUGMENT | {"mixup": 0.4}, "class_weights": "balanced"},
    "random batches": {
        "optimizer": "sgd",
        "batches": "random",
        "steps_per_epoch": 3,
        "augment": {"strength": 0.5},
    },
}
SHARED = {"name": "shared", "layers": CONVOLUTIONS, "epochs": 3, "batch_size": 16, "learning_rate": 0.01}


def images(count, seed=0):
    """Noisy 8×8×1 images of three classes of unequal sizes."""
    generator = np.random.default_rng(seed)
    labels = np.minimum(np.arange(count) % 5, 2)
    pixels = generator.integers(0, 120, (count, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[2 * label : 2 * label + 2] += 60
    return ImageSet(pixels, labels, ("top", "middle", "bottom"))


def train(settings, processes):
    """Weights and history after nine steps in float64, the last of each epoch with 13 images."""
    recipe, history = parse_recipe(SHARED | settings), History()
    classifier = build_classifier(recipe, images(45), 0).double()
    fit(
        classifier, images(45), images(300, seed=1), recipe, seed=5, device=torch.device("cpu"),
        precision=torch.float32, flip=True, callbacks=[history], processes=processes,
    )  # fmt: skip
    return classifier, history.rows


def normalize(x, rows, size):
    """Normalise some rows of a batch; outputs, gradients of inputs, and running variance."""
    layer = BatchNorm2d(3, eps=1e-3).double()
    set_batch_part(layer, size if size is None else BatchPart(size, rows))
    own = x[rows].clone().requires_grad_()
    y = layer(own)
    (y * y.detach().roll(1, 1)).sum().backward()
    return y.detach(), own.grad, layer.running_var


def error_of(processes, error):
    """What a process raises if this one fails in a block that all do together."""
    try:
        with processes.together():
            if error is not None:
                raise error
    except (Exception, SystemExit) as raised:
        return repr(raised)
    return "none"


def answers(processes):
    """What this process finds; by name."""
    mine = processes.rank
    found = {name: train(settings, processes) for name, settings in TRAININGS.items()}
    found["classifier"] = build_classifier(parse_recipe(SHARED), images(45), 0)
    found["logits"] = processes.predict_logits(found["classifier"], images(700, seed=2).images)
    x = torch.from_numpy(np.random.default_rng(3).normal(7, 2, (5, 3, 2, 2)))
    found["norm"] = normalize(x, [slice(0, 5), slice(5, 5)][mine], 5)  # process 1 has no image of this batch
    found["sent"] = [processes.from_leader(content if mine == 0 else None) for content in (None, b"", b"abc")]
    found["texts"] = processes.gather_texts("ü" * mine)
    found["no error"] = error_of(processes, None)
    found["error of 0"] = error_of(processes, DataError("no data") if mine == 0 else None)
    found["error of 1"] = error_of(processes, DataError("no data") if mine == 1 else None)
    found["errors of both"] = error_of(processes, DataError(f"no data {mine}"))
    found["bug of 1"] = error_of(processes, KeyError("a bug") if mine == 1 else None)
    try:
        processes.check_same({"seed": 3, "precision": ["float32", "bf16"][mine]})
    except (Exception, SystemExit) as raised:
        found["differ"] = repr(raised)
    signals = StopSignals()
    found["stop"] = [processes.agree_to_stop(signals, 1)]
    signals.noted = [None, signal.SIGINT][mine]
    found["stop"] += [processes.agree_to_stop(signals, 2), signals.noted]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    answers(join(torch.device("cpu")))
