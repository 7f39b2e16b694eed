"""Classifier: preprocessing, network and class names in one module, from uint8 images to logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveola import checksums
from foveola.architecture import trace
from foveola.doctor import describe
from foveola.errors import DataError, ModelError, RecipeError
from foveola.files import write_atomically
from foveola.images import Images, ImageSet, check_images, polarity, shape_text
from foveola.models import network as layered
from foveola.models.card import METADATA_KEY, ModelCard, read_card
from foveola.recipe import Recipe

# ITU-R BT.601 luma, the weights of Pillow's own conversion to grey
LUMA = (0.299, 0.587, 0.114)
# Few enough images that activations stay in the processor's cache
INFERENCE_BATCH = 256
# Of the patches that whitening looks at; more change the filters no more
PATCH_VALUES = 2**24


class Classifier(nn.Module):
    """uint8 images N×H×W×C → logits float32 N×K, temperature applied.

    Images of another size are resized (bilinear, antialiased), of another number of channels converted, both without
    rounding.

    Parameters
    ----------
    network : float N×C×H×W → logits N×K
    card : class names and preprocessing
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card = card
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (card.mean, card.std))
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.card.class_names

    @property
    def parameter_count(self) -> int:
        """Numbers that training changes."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float N×K, of images, uint8 N×H×W×C."""
        logits: Tensor = self.network(self.normalize(self.fit_shape(images)))
        return logits / self.card.temperature

    def fit_shape(self, images: Tensor) -> Tensor:
        """Images, uint8 N×H×W×C, in the size and with the channels that the network takes: float where converted."""
        height, width, channels = self.card.image_shape
        if images.shape[3] != channels:
            images = self._convert(images)
        if images.shape[1:3] != (height, width):
            planes = images.permute(0, 3, 1, 2).float()
            planes = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
            images = planes.permute(0, 2, 3, 1)
        return images

    def _convert(self, images: Tensor) -> Tensor:
        if self.card.image_shape[2] == 3:
            return images.expand(-1, -1, -1, 3)
        if self.card.channels != "grey":
            raise DataError(
                "These are colour images (3 channels), but the model has learnt from grey ones (1 channel). "
                'Convert them to grey first, or train with channels = "grey".'
            )
        return (images.float() @ images.new_tensor(LUMA, dtype=torch.float32)).unsqueeze(3)

    def normalize(self, images: Tensor) -> Tensor:
        """What the network sees: float N×C×H×W, of images, uint8 or float N×H×W×C, 0 to 255, of the right shape."""
        pad = self.card.pad
        if pad:
            images = F.pad(images, (0, 0, pad, pad, pad, pad))
        return (images.permute(0, 3, 1, 2).float() - self.mean) * self.scale

    def predict_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C, in batches, in float32, without dropout.

        Raises
        ------
        DataError
            If the images are no uint8 N×H×W×C, or colour ones where the model has learnt from grey ones.
        """
        check_images(images)
        with self.in_use(), torch.inference_mode():
            starts = range(0, len(images), INFERENCE_BATCH)
            # copied, because PyTorch takes neither read-only arrays nor mirrored views
            batches = (torch.from_numpy(images[start : start + INFERENCE_BATCH].copy()) for start in starts)
            return torch.cat([self(batch.to(self.mean.device)).cpu() for batch in batches]).numpy()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside the block the model is in the mode of use; afterwards every module is in the mode that it was in."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

    def save(self, path: str | Path) -> None:
        """Write weights and card as one safetensors file, atomically."""
        from safetensors.torch import save

        # cloned, because safetensors refuses weights that a user's own module shares between layers
        weights = {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }
        write_atomically(Path(path), save(weights, {METADATA_KEY: self.card.model_dump_json()}))


def new_classifier(recipe: Recipe, train: ImageSet, seed: int, *, network: nn.Module | None = None) -> Classifier:
    """An untrained classifier for these images.

    Parameters
    ----------
    recipe : layers, initialisation and preprocessing
    train : gives shape, class names, the statistics of standard scaling and those of the input doctor
    seed : of the initial weights
    network : the user's own, float N×C×H×W → logits N×K, instead of the recipe's layers
    """
    channels = train.image_shape[2]
    if recipe.scaling == "unit":
        mean, std = (0.0,) * channels, (1.0,) * channels
    else:
        mean, std = _statistics(train.images, recipe.pad)
    card = ModelCard(
        class_names=train.class_names,
        image_shape=train.image_shape,
        channels=recipe.channels,
        pad=recipe.pad,
        mean=mean,
        std=std,
        polarity=polarity(train.images),
        statistics=describe(train.images),
        layers=recipe.layers if network is None else None,
        recipe=recipe.name,
    )
    if network is None:
        network = layered.build(trace(recipe.layers, card.network_shape, len(train.class_names)))
        layered.initialize(network, recipe.initialization, seed)
    classifier = Classifier(network, card)
    if card.layers is not None and recipe.initialization == "whitened":
        _whiten(classifier, train.images)
    return classifier


def _whiten(classifier: Classifier, images: Images) -> None:
    """Set the first convolution's filters by some training images, evenly spaced: data may be sorted by class."""
    kernel = layered.first_kernel(classifier.network)
    if kernel is None:
        return
    height, width, _ = classifier.card.network_shape
    count = min(len(images), max(1, PATCH_VALUES // (height * width * kernel[0].numel())))
    chosen = np.linspace(0, len(images) - 1, count).astype(np.int64)
    layered.whiten(kernel, classifier.normalize(torch.from_numpy(images[chosen])))


def open_classifier(path: Path, network: nn.Module | None = None) -> Classifier:
    """Reopen a saved classifier; `network` is the user's own module where the file has no layers.

    Raises
    ------
    ModelError
        If the file is damaged, not the one that SHA256SUMS beside it names, or the weights do not fit the network.
    """
    checksums.check(path)
    card = read_card(path)
    if network is None:
        if card.layers is None:
            raise ModelError(
                f"{path} holds the weights of a network written in PyTorch, not its code. "
                f"Open it from Python: foveola.open({str(path)!r}, network=YourModule())."
            )
        try:
            network = layered.build(trace(card.layers, card.network_shape, len(card.class_names)))
        except RecipeError as error:
            raise ModelError(f"The layers described in {path} do not fit together: {error}") from None
    load_weights(network, path)
    return Classifier(network, card)


def load_weights(network: nn.Module, path: Path) -> None:
    """Copy a model file's weights into a network of the same layers.

    Raises
    ------
    ModelError
        Naming all missing, unexpected and differently shaped weights together.
    """
    weights = read_weights(path)
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - weights.keys()]
    problems += [f"{name} is unexpected" for name in weights.keys() - own.keys()]
    problems += [
        f"{name} is {shape_text(weights[name].shape)} instead of {shape_text(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if problems:
        raise ModelError(f"The weights in {path} do not fit the network: {'; '.join(sorted(problems))}.")
    network.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a model file, by name.

    Raises
    ------
    ModelError
        If the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The model file {path} cannot be read: {error}. Train or copy it again.") from None
    return weights


def _statistics(images: Images, pad: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, padding included, exactly, from counts of the 256 values."""
    margin = (images.shape[1] + 2 * pad) * (images.shape[2] + 2 * pad) - images.shape[1] * images.shape[2]
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[3]):
        counts = torch.from_numpy(images[..., channel]).flatten().bincount(minlength=256).numpy()
        counts[0] += margin * len(images)
        average = np.average(values, weights=counts)
        mean.append(float(average))
        std.append(max(float(np.average((values - average) ** 2, weights=counts)) ** 0.5, 1 / 255))
    return tuple(mean), tuple(std)
