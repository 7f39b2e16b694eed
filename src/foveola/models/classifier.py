"""Classifier: preprocessing, network and class names in one module, from uint8 images to logits."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola.arrays import shape_text
from foveola.errors import DataError, ModelError
from foveola.files import write_atomically
from foveola.images import Images, check_images, letterbox_place
from foveola.lazy import select
from foveola.models.image_predictor import ImagePredictor
from foveola.models.metadata import METADATA_KEY, ModelMetadata
from foveola.models.model_file import ModelFile, read_model_file
from foveola.models.modules import build_network
from foveola.models.shapes import infer_shapes
from foveola.models.unfamiliarity import (
    PREFIX,
    Features,
    FeatureStatistics,
    Outputs,
    count_features,
    named_layers,
    score,
)
from foveola.sealed import seal, unsealed

# ITU-R BT.601 luma, as in Pillow's conversion to grey
LUMA = (0.299, 0.587, 0.114)
# Images in a batch, and their pixels: activations take hundreds of bytes a pixel; a processor keeps some in its cache
INFERENCE_BATCH, _CPU_INFERENCE_BATCH, _INFERENCE_PIXELS = 256, 64, 2**21
# Images whose features are in memory at once
FEATURE_PART = 8192


class Classifier(ImagePredictor, nn.Module):
    """Module from images, uint8 N×H×W×C, to logits, float32 N×K, divided by the temperature.

    Images of another size are resized (bilinear, antialiased), stretched or in a letterbox; images with another number
    of channels are converted. Neither rounds.

    Parameters
    ----------
    network : module from float N×C×H×W to logits N×K
    metadata : class names and preprocessing
    feature_statistics : of the training images, for the score of unfamiliar images in the metadata
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, metadata: ModelMetadata, feature_statistics: FeatureStatistics | None = None
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.metadata = metadata
        self.feature_statistics = feature_statistics
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (metadata.mean, metadata.std))
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float N×K, of images, uint8 N×H×W×C."""
        logits: Tensor = self.network(self.normalize(self.fit_shape(images)))
        return logits / self.metadata.temperature

    def fit_shape(self, images: Tensor) -> Tensor:
        """Resize and convert images, uint8 N×H×W×C, to the shape that the network takes; float if anything changed."""
        height, width, channels = self.metadata.image_shape
        if images.shape[3] != channels:
            images = self._convert_channels(images)
        if images.shape[1:3] != (height, width):
            images = self._resize(images.permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
        return images

    def _resize(self, planes: Tensor) -> Tensor:
        """Images, float N×C×H×W, stretched or letterboxed to the model's size."""
        height, width, _ = self.metadata.image_shape
        if self.metadata.resize == "stretch":
            return F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
        top, left, rows, columns = letterbox_place(planes.shape[2:], height, width)
        # Turned on its side if narrow, because PyTorch 2 computes a single column wrongly, but not a single row
        if columns < rows:
            turned = F.interpolate(planes.transpose(2, 3), (columns, rows), mode="bilinear", antialias=True)
            planes = turned.transpose(2, 3)
        else:
            planes = F.interpolate(planes, (rows, columns), mode="bilinear", antialias=True)
        beside = (left, width - left - columns, top, height - top - rows)
        return F.pad(planes, beside, value=float(self.metadata.fill))

    def _convert_channels(self, images: Tensor) -> Tensor:
        if self.metadata.image_shape[2] == 3:
            return images.expand(-1, -1, -1, 3)
        if self.metadata.channels != "grey":
            raise DataError(
                "These are colour images (3 channels), but the model was trained on grey ones (1 channel). "
                'Convert them to grey first, or train with channels = "grey".'
            )
        return (images.float() @ images.new_tensor(LUMA, dtype=torch.float32)).unsqueeze(3)

    def normalize(self, images: Tensor) -> Tensor:
        """Pad and scale images of the model's shape, as the network takes them.

        uint8 or float N×H×W×C, 0 to 255 → float N×C×H×W
        """
        pad = self.metadata.pad
        if pad:
            images = F.pad(images, (0, 0, pad, pad, pad, pad))
        return (images.permute(0, 3, 1, 2).float() - self.mean) * self.scale

    def predict_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C, computed in batches and in evaluation mode.

        Raises
        ------
        DataError
            If the images are not uint8 N×H×W×C, or are in colour although the model was trained on grey images.
        """
        with self.eval_mode(), torch.inference_mode():
            return _joined((self(batch).cpu().numpy() for batch in self._batches(images)), len(images))

    def predict_outputs(self, images: Images) -> Outputs:
        """Logits as of `predict_logits`, with the scores of unfamiliarity if the model measures it."""
        measure, statistics = self.metadata.unfamiliarity, self.feature_statistics
        if measure is None or statistics is None:
            return Outputs(self.predict_logits(images))
        parts = [
            (logits, score(statistics, measure, features, logits))
            for logits, features in self.predict_features_in_parts(images, measure.layers)
        ]
        return Outputs(*map(np.concatenate, zip(*parts, strict=True)))

    def predict_features_in_parts(
        self, images: Images, layers: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.float32], Features]]:
        """Yield what `predict_features` gives for FEATURE_PART images at a time: features can be larger than images."""
        check_images(images)
        for start in range(0, len(images), FEATURE_PART):
            yield self.predict_features(select(images, slice(start, start + FEATURE_PART)), layers)

    def predict_features(self, images: Images, layers: Sequence[str]) -> tuple[NDArray[np.float32], Features]:
        """Logits, float32 N×K, and features, float32 N×F: the channel means of the outputs of these layers."""
        batches = []
        with self.eval_mode(), torch.inference_mode():
            for batch in self._batches(images):
                x, features = self.normalize(self.fit_shape(batch)), []
                for name, layer in self.network.named_children():
                    x = layer(x)
                    if name in layers:
                        features.append(x.mean(dim=(2, 3)) if x.ndim == 4 else x)
                batches.append(((x / self.metadata.temperature).cpu(), torch.cat(features, dim=1).cpu()))
        logits, values = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
        return logits, values

    def _batches(self, images: Images) -> Iterator[Tensor]:
        check_images(images)
        for start in range(0, len(images), self.inference_batch):
            # Copied, because PyTorch takes neither read-only arrays nor views with negative strides
            yield torch.from_numpy(images[start : start + self.inference_batch].copy()).to(self.mean.device)

    @property
    def inference_batch(self) -> int:
        """Number of images in a batch of inference, by the size of the network's images."""
        height, width, _ = self.metadata.image_shape
        most = _CPU_INFERENCE_BATCH if self.mean.device.type == "cpu" else INFERENCE_BATCH
        return max(min(most, _INFERENCE_PIXELS // (height * width)), 1)

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Evaluation mode inside the block; afterwards every module returns to the mode it was in."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

    def save(self, path: str | Path) -> None:
        """Write weights and metadata as one safetensors file, atomically, with a checksum of its own."""
        from safetensors.torch import save

        # Cloned, because safetensors refuses weights that layers of a user's module share
        weights = {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }
        if self.feature_statistics is not None:
            weights |= {name: torch.from_numpy(array) for name, array in self.feature_statistics.tensors().items()}
        metadata = unsealed({METADATA_KEY: self.metadata.model_dump_json()})
        write_atomically(Path(path), seal(save(weights, metadata)))


def _joined(batches: Iterable[NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """Rows of all batches, in one array that is there from the first one on.

    Small arrays that stay, each allocated where the images of a batch have just been freed, would leave gaps too small
    for the next batch: memory would grow by a batch with every batch.
    """
    joined, done = None, 0
    for batch in batches:
        if joined is None:
            joined = np.empty((count, *batch.shape[1:]), batch.dtype)
        joined[done : done + len(batch)] = batch
        done += len(batch)
    assert joined is not None, "there are images"
    return joined


def open_classifier(path: Path, network: nn.Module | None = None) -> Classifier:
    """Open a saved classifier.

    Parameters
    ----------
    path : a model file
    network : the user's own module, for a model file without layers

    Raises
    ------
    ModelError
        If the file is damaged, its checksum differs from its own or the one in SHA256SUMS beside it, a value is out of
        bounds, or its weights do not fit the network or are not finite.
    """
    file = read_model_file(path)
    metadata = file.metadata
    if network is None:
        if metadata.layers is None:
            raise ModelError(
                f"{path} holds the weights of a network written in PyTorch, not its code. "
                f"Open it from Python: foveola.open({str(path)!r}, network=YourModule())."
            )
        network = build_network(infer_shapes(metadata.layers, metadata.network_shape, len(metadata.class_names)))
    tensors = _read_tensors(file)
    _load_weights(network, _weights_in(tensors), path)
    return Classifier(network, metadata, _feature_statistics(tensors, metadata))


def _load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Copy the weights of a model file into a network with the same layers.

    Raises
    ------
    ModelError
        If weights are missing, unexpected, of another shape or type; the message lists all of them.
    """
    expected = network.state_dict()
    problems = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    problems += [f"{name} is unexpected" for name in weights.keys() - expected.keys()]
    problems += [
        f"{name} is {shape_text(weights[name].shape)} instead of {shape_text(expected[name].shape)}"
        for name in expected.keys() & weights.keys()
        if expected[name].shape != weights[name].shape
    ]
    problems += [
        f"{name} is {_type_text(weights[name])} instead of {_type_text(expected[name])}"
        for name in expected.keys() & weights.keys()
        if expected[name].dtype != weights[name].dtype
    ]
    if problems:
        raise ModelError(f"The weights in {path} do not fit the network: {'; '.join(sorted(problems))}.")
    network.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a model file, by name.

    Raises
    ------
    ModelError
        If the file is missing or damaged, or a weight is NaN or infinite.
    """
    return _weights_in(_read_tensors(read_model_file(path)))


def _weights_in(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}


def _feature_statistics(tensors: dict[str, Tensor], metadata: ModelMetadata) -> FeatureStatistics | None:
    """The statistics of the training images' features; None if the model does not measure unfamiliarity."""
    if metadata.unfamiliarity is None:
        return None
    features = sum(map(count_features, named_layers(metadata)))
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return FeatureStatistics.from_tensors(arrays, features, len(metadata.class_names))


def _read_tensors(file: ModelFile) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(file.content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # KeyError: a type that PyTorch lacks
        raise ModelError(f"The model file {file.path} cannot be read: {error}. Train or copy it again.") from None
    broken = sorted(name for name, tensor in tensors.items() if not _is_finite(tensor))
    if broken:
        raise ModelError(
            f"The model file {file.path} cannot be used: {', '.join(broken)} holds values that are NaN or infinite. "
            f"Its training has diverged, or it is damaged. Train it again with a lower learning rate, or copy it again."
        )
    return tensors


def _is_finite(tensor: Tensor) -> bool:
    values = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    return bool(torch.isfinite(values).all())


def _type_text(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
