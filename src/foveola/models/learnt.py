"""Hashes of the images that a model has learnt from, so that no measurement passes them off as held out."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from foveola.images import Images, ImageSet
from foveola.lazy import as_lazy, blocks

HASH_BYTES = 8
# More hashes would make the header of a model file larger than it may be
MAX_HASHES = 2_500_000

Hashes = NDArray[np.uint64]


def hash_images(images: Images) -> Hashes:
    """A hash of shape and pixels of each image, uint8 N×H×W×C: uint64, N (BLAKE2b with 8 bytes).

    That two of a million different images share a hash has a probability of 3 in 100 million.
    """
    lazy = as_lazy(images)
    if lazy is not None and lazy.source.hashes is not None:
        return lazy.source.hashes[lazy.rows]
    person = "×".join(map(str, images.shape[1:])).encode()[:16]
    digests = b"".join(
        hashlib.blake2b(image, digest_size=HASH_BYTES, person=person).digest()
        for block in blocks(images)
        for image in np.ascontiguousarray(block)
    )
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def _from_base64(value: object) -> object:
    hashes = base64.b64decode(value, validate=True) if isinstance(value, str) else value
    if isinstance(hashes, bytes) and len(hashes) % HASH_BYTES:
        raise ValueError("the hashes are cut off")
    return hashes


_Packed = Annotated[
    bytes, BeforeValidator(_from_base64), PlainSerializer(lambda value: base64.b64encode(value).decode())
]


@dataclass(frozen=True)
class Seen:
    """Which of N images a model has seen.

    Parameters
    ----------
    training : bool N, images that it has learnt from
    validation : bool N, other images, by which its weights, temperature or threshold were chosen
    """

    training: NDArray[np.bool_]
    validation: NDArray[np.bool_]

    def __or__(self, other: "Seen") -> "Seen":
        training = self.training | other.training
        return Seen(training, (self.validation | other.validation) & ~training)

    @property
    def any(self) -> NDArray[np.bool_]:
        """Either of both, bool N."""
        return self.training | self.validation

    def take(self, indices: NDArray[np.int64]) -> "Seen":
        """Those of the images at these indices."""
        return Seen(self.training[indices], self.validation[indices])


class LearntImages(BaseModel):
    """The hashes of a model's training and validation images: sorted little-endian integers of 8 bytes, in base64.

    `earlier` are the training images of models whose weights or answers the training began with: of the model that it
    was initialised from, and of its teacher. The hashes stand in
    the model file, and not in ONNX and web exports: whoever has an image can find out with them whether the model has
    learnt from it.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    training: _Packed
    validation: _Packed = b""
    earlier: _Packed = b""

    @classmethod
    def of(cls, train: ImageSet, validation: ImageSet | None, *earlier: "LearntImages | None") -> "LearntImages":
        """The hashes of these images; `earlier` are those of the initial model, and of the teacher, if there are."""
        training = _packed(train)
        inherited = b"".join(model.training + model.earlier for model in earlier if model is not None)
        return cls(
            training=training,
            validation=b"" if validation is None else _packed(validation),
            earlier=np.setdiff1d(np.frombuffer(inherited, "<u8"), np.frombuffer(training, "<u8")).tobytes(),
        )

    @property
    def fits(self) -> bool:
        """Whether a model file can hold the hashes."""
        return len(self.training) + len(self.validation) + len(self.earlier) <= HASH_BYTES * MAX_HASHES

    def seen(self, images: Images, *, earlier: bool = True) -> Seen:
        """Which images, uint8 N×H×W×C of the model's shape, the model has seen; `earlier` counts the earlier ones."""
        hashes = hash_images(images)
        training, validation = (
            np.isin(hashes, np.frombuffer(known, "<u8"))
            for known in (self.training + (self.earlier if earlier else b""), self.validation)
        )
        return Seen(training, validation & ~training)


def _packed(images: ImageSet) -> bytes:
    return np.unique(hash_images(images.images)).astype("<u8").tobytes()
