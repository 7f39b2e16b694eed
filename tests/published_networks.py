"""The published networks written out anew, in float64 and by their tensors' published names: what Foveola's must equal.

Nothing of Foveola's is used: functions of torch.nn.functional only, which take the weights as arguments.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

# Repeats, kernel, stride of EfficientNet-Lite0's stages (channels and expansion are in the weights)
LITE0_STAGES = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]


def efficientnet_lite0(weights, x):
    """Logits, float64 N×1000, of images, float64 N×3×H×W from -1 to 1."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def conv(x, name, stride=1, groups=1):
        """TensorFlow's "same": as many outputs as strides, the odd pixel of padding below and right."""
        kernel = w[f"{name}.weight"]
        pads = []
        for side, size in zip(x.shape[:1:-1], kernel.shape[:1:-1], strict=True):
            total = max(0, (math.ceil(side / stride) - 1) * stride + size - side)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)

    def norm(x, name):
        return _norm(w, x, name, 1e-3)

    def clip(x):
        return x.clamp(0, 6)

    x = clip(norm(conv(x, "conv_stem", 2), "bn1"))
    for stage, (repeats, _, stride) in enumerate(LITE0_STAGES):
        for block in range(repeats):
            name, before, step = f"blocks.{stage}.{block}", x, stride if block == 0 else 1
            if stage == 0:
                x = clip(norm(conv(x, f"{name}.conv_dw", step, x.shape[1]), f"{name}.bn1"))
                x = norm(conv(x, f"{name}.conv_pw"), f"{name}.bn2")
            else:
                x = clip(norm(conv(x, f"{name}.conv_pw"), f"{name}.bn1"))
                x = clip(norm(conv(x, f"{name}.conv_dw", step, x.shape[1]), f"{name}.bn2"))
                x = norm(conv(x, f"{name}.conv_pwl"), f"{name}.bn3")
            if step == 1 and x.shape == before.shape:
                x = x + before
    x = clip(norm(conv(x, "conv_head"), "bn2")).mean(dim=(2, 3))
    return x @ w["classifier.weight"].T + w["classifier.bias"]


def resnet18(weights, x):
    """Logits, float64 N×1000, of images, float64 N×3×H×W, normalised as ImageNet's."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def conv_norm(x, conv, norm, stride=1):
        kernel = w[f"{conv}.weight"]
        return _norm(w, F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2), norm, 1e-5)

    x = F.max_pool2d(conv_norm(x, "conv1", "bn1", 2).clamp(min=0), 3, 2, padding=1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride).clamp(min=0)
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2")
            if f"{name}.downsample.0.weight" in w:
                x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (x + y).clamp(min=0)
    return x.mean(dim=(2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def _norm(w, x, name, epsilon):
    mean, variance, scale, shift = (
        w[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + epsilon).sqrt() * scale + shift


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
REFERENCES = {
    "efficientnet-lite0": (efficientnet_lite0, lambda pixels: (pixels / 255 - 0.5) / 0.5),
    "resnet18": (resnet18, lambda pixels: (pixels / 255 - MEAN) / STD),
}


def published_logits(name, weights, images):
    """Logits, float64 N×1000, of images, uint8 N×H×W×3, by the published network with these weights."""
    network, scale = REFERENCES[name]
    return network(weights, torch.from_numpy(scale(images.astype(np.float64))).permute(0, 3, 1, 2)).numpy()
