"""Start from another model's weights: transfer learning on one's own networks."""

from pathlib import Path

from foveola.errors import ModelError
from foveola.models.classifier import Classifier, read_weights


def take_over(classifier: Classifier, source: Path, *, freeze: bool) -> list[str]:
    """Copy weights, layer by layer from the input on, while names and shapes agree.

    Parameters
    ----------
    classifier : gets the weights
    source : a model file
    freeze : keep the copied layers as they are in the training that follows; the last layer with weights is then
        left out, so that there is something to learn

    Returns
    -------
    The names of the layers that were taken over.

    Raises
    ------
    ModelError
        If not even the first layer with weights agrees.
    """
    weights = read_weights(source)
    taken = []
    head = [name for name, layer in classifier.network.named_children() if list(layer.parameters())][-1:]
    for name, layer in classifier.network.named_children():
        if freeze and name in head:
            break
        own = layer.state_dict()
        given = {key: weights.get(f"{name}.{key}") for key in own}
        if any(tensor is None or tensor.shape != own[key].shape for key, tensor in given.items()):
            break
        layer.load_state_dict(given)
        if own:
            taken.append(name)
        if freeze:
            layer.requires_grad_(False)
    if not taken:
        raise ModelError(
            f"No layer of {source} fits this network: the first layer with weights has another name or shape. "
            f"Use the same recipe, or one that begins with the same layers."
        )
    return taken
