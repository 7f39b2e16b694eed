"""What this machine computes with."""

import os
import platform
from importlib import metadata, util
from typing import Any

from foveola.datasets import cache_folder

PACKAGES = ("foveola", "numpy", "pillow", "safetensors", "scikit-learn", "torch", "onnxruntime")


def versions() -> dict[str, str]:
    """Of Python and of what computes, as installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def describe() -> dict[str, Any]:
    """Versions, folders, processor and GPU."""
    described: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(),
        "data_folder": os.environ.get("FOVEOLA_DATA"),
        "cache_folder": str(cache_folder()),
        "processors": os.cpu_count(),
    }
    if util.find_spec("torch") is None:
        return described | {"device": "cpu, for inference only: pip install 'foveola[train]' brings PyTorch"}
    import torch

    from foveola.training.loop import choose_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return described | {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": str(choose_precision("auto", device)).removeprefix("torch."),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
