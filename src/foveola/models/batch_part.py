"""A training batch that several processes share: each computes some of its images, and all layers act on the whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch.distributed as dist
from torch import Tensor, nn

from foveola.errors import ProcessLost


@dataclass(frozen=True)
class BatchPart:
    """The images of a batch that this process computes.

    Random numbers are drawn for the whole batch, alike in every process, and each process uses those of its rows.

    Parameters
    ----------
    size : number of images in the whole batch
    rows : which of them these are, as a slice or as indices; by default all
    """

    size: int
    rows: slice | Tensor = field(default_factory=lambda: slice(None))


def set_batch_part(network: nn.Module, part: BatchPart | None) -> None:
    """Tell the layers that act on a batch as a whole which part of it they are given; None: all of it."""
    for module in network.modules():
        if hasattr(module, "batch_part"):
            setattr(module, "batch_part", part)  # noqa: B010 - mypy takes attributes of modules for tensors


@contextmanager
def connected() -> Iterator[None]:
    """Name the reason why the processes cannot communicate in the block.

    Raises
    ------
    ProcessLost
        If one of them has ended.
    """
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "Another process of this training has ended or cannot be reached, so that this one cannot go on. Start all "
            "of them again with --resume: the training goes on from its last checkpoint."
        ) from error


def sum_over_processes(tensor: Tensor) -> None:
    """Replace the tensor by its sum over all processes.

    Raises
    ------
    ProcessLost
        If one of them has ended.
    """
    with connected():
        dist.all_reduce(tensor)
