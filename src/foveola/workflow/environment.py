"""Environment: versions, folders, processor and GPU of this machine."""

import os
import platform
from importlib import metadata, util
from pathlib import Path

from foveola.datasets.download import cache_folder
from foveola.datasets.weights import locate_weights
from foveola.documents import Environment
from foveola.models.pretrained import ENTRIES

PACKAGES = ("foveola", "numpy", "pillow", "safetensors", "scikit-learn", "torch", "onnxruntime")


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that compute."""
    return {"python": platform.python_version()} | {name: _package_version(name) for name in PACKAGES}


def processor() -> str:
    """The vector instructions that PyTorch uses, such as AVX512."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def describe_environment() -> Environment:
    """Versions, folders, processor and GPU, as `foveola info` prints them.

    Examples
    --------
    >>> sorted(foveola.info().versions)[:3]
    ['foveola', 'numpy', 'onnxruntime']
    """
    threads = precision = None
    device = "cpu, for inference only: pip install 'foveola[train]' brings PyTorch"
    if util.find_spec("torch") is not None:
        import torch

        from foveola.training.loop import choose_precision

        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        threads = torch.get_num_threads()
        device = torch.cuda.get_device_name() if chosen.type == "cuda" else "cpu"
        precision = str(choose_precision("auto", chosen)).removeprefix("torch.")
    return Environment(
        versions=versions(),
        platform=platform.platform(),
        data_folder=os.environ.get("FOVEOLA_DATA"),
        cache_folder=str(cache_folder()),
        pretrained_weights={name: _path_text(locate_weights(name)) for name in ENTRIES},
        processors=os.cpu_count(),
        threads=threads,
        device=device,
        precision=precision,
    )


def _path_text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
