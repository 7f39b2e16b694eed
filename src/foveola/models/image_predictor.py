"""ImagePredictor: class names and probabilities of images in any form, for every class that computes logits."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from foveola.images import Images
    from foveola.models.metadata import ModelMetadata


class ImagePredictor:
    """Base of what `foveola.open` returns: `predict` and `predict_proba`, by the logits of the class."""

    metadata: "ModelMetadata"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.metadata.class_names

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.metadata.image_shape))
        recipe = "" if self.metadata.recipe is None else f"{self.metadata.recipe}: "
        return f"{type(self).__name__}({recipe}images of {shape} to {len(self.class_names)} classes)"

    def predict_logits(self, images: "Images") -> NDArray[np.float32]:
        """Logits, float32 N×K, of images, uint8 N×H×W×C."""
        raise NotImplementedError

    def predict(self, images: object) -> NDArray[np.str_]:
        """The most probable class of each image.

        Images of another size or number of channels are converted as `foveola predict` does it for files.

        Parameters
        ----------
        images : an array N×H×W×C, N×H×W, or of one image, H×W×C or H×W; a PIL image; the path of an image file; an
            ImageSet; or a list of images. Arrays are uint8, other integers from 0 to 255, or floats from 0 to 1

        Returns
        -------
        N names; of one image, N is 1

        Raises
        ------
        DataError
            If there are no images, or one cannot be read, is of another kind, or is in colour although the model was
            trained on grey images.

        Examples
        --------
        >>> data = foveola.load("digits")
        >>> model = foveola.train(data, "mlp", overrides={"epochs": 20}, verbose=False).model
        >>> model.predict(data.train.images[:3])
        array(['0', '1', '2'], dtype='<U1')
        """
        from foveola.inputs.given import predict_classes

        return predict_classes(self, images)

    def predict_proba(self, images: object) -> NDArray[np.float64]:
        """The probability of each class, float64 N×K, in the order of `class_names`; images as of `predict`.

        Examples
        --------
        >>> data = foveola.load("digits")
        >>> model = foveola.train(data, "mlp", overrides={"epochs": 1}, verbose=False).model
        >>> model.predict_proba(data.train.images[0]).shape
        (1, 10)
        """
        from foveola.inputs.given import predict_probabilities

        return predict_probabilities(self, images)
