"""Transfer learning: start from the weights of another model."""

from pathlib import Path

from foveola.errors import ModelError
from foveola.models.classifier import Classifier, read_weights


def transfer_weights(classifier: Classifier, source: Path, *, freeze: bool) -> list[str]:
    """Copy weights layer by layer, starting at the input, while names and shapes agree.

    Parameters
    ----------
    classifier : receives the weights
    source : a model file
    freeze : exclude the copied layers from training; the last layer with weights is then not copied, because it is
        the one to train

    Returns
    -------
    The names of the copied layers that have weights

    Raises
    ------
    ModelError
        If the first layer with weights already differs in name or shape.
    """
    weights = read_weights(source)
    transferred = []
    last = [name for name, layer in classifier.network.named_children() if list(layer.parameters())][-1:]
    for name, layer in classifier.network.named_children():
        if freeze and name in last:
            break
        current = layer.state_dict()
        source_state = {key: weights.get(f"{name}.{key}") for key in current}
        if any(tensor is None or tensor.shape != current[key].shape for key, tensor in source_state.items()):
            break
        layer.load_state_dict(source_state)
        if current:
            transferred.append(name)
        if freeze:
            layer.requires_grad_(False)
    if not transferred:
        raise ModelError(
            f"No layer of {source} fits this network: the first layer with weights has another name or shape. "
            f"Use the same recipe, or one that begins with the same layers."
        )
    return transferred
