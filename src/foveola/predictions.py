"""What stands between a model and its judges: logits, labels, and figures with intervals."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foveola.doctor import Finding, Fix
from foveola.images import Images, Labels


class Predictor(Protocol):
    """A live classifier or a reopened export."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def predict_logits(self, images: Images) -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C."""
        ...


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits with the true labels.

    Parameters
    ----------
    logits : float array, N×K
    labels : integer array, N
    class_names : K names
    held_out : True if the model has never learnt from these images
    """

    logits: NDArray[np.float32]
    labels: Labels
    class_names: tuple[str, ...]
    held_out: bool

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, float64 N×K."""
        return softmax(self.logits)

    @cached_property
    def predicted(self) -> Labels:
        """The most probable class of each image, N."""
        predicted: Labels = self.logits.argmax(axis=1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    `low` and `high` bound the 95 % interval, `n` is the number of images behind it, `method` names the interval.
    """

    value: float
    low: float
    high: float
    n: int
    method: str

    def as_json(self) -> dict[str, float | int | str | None]:
        """The fields by name; None for NaN, which strict JSON does not know."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    def __str__(self) -> str:
        return f"{self.value:.4f} (95 % CI {self.low:.4f}–{self.high:.4f})"


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture.

    `top` holds (class, probability), most probable first; `findings` in what the picture, as it was given, is unlike
    the training images; `fixes` what was changed before the model saw it; `uncertain` says that the probability lies
    below the model's threshold.
    """

    image: str
    top: list[tuple[str, float]]
    findings: list[Finding]
    fixes: tuple[Fix, ...] = ()
    uncertain: bool = False

    @property
    def class_name(self) -> str:
        return self.top[0][0]

    @property
    def probability(self) -> float:
        return self.top[0][1]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities, float64 N×K, that do not overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
