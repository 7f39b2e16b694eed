"""What a new model makes of the pictures that it was tested on: which it gets wrong, by class and file.

python -m foveola.teaching.held_out RUN PICTURES FILE

A run's evaluation counts mistakes, but does not name files. The model file knows the hashes of the pictures that it has
learnt from, so the others, which it was measured on, are found in the pictures as they were at the training.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from foveola.datasets.folder import files
from foveola.datasets.reload import load_for_model
from foveola.documents import Document
from foveola.errors import FoveolaError
from foveola.exports import onnx
from foveola.files import write_atomically
from foveola.models.model_file import read_metadata
from foveola.progress import console, show_progress
from foveola.tasks import softmax


class Mistake(BaseModel):
    """A test picture as CLASS/FILE, its class, the class that it was taken for, and the probability of that one."""

    picture: str
    true: str
    predicted: str
    probability: float


class Mistakes(Document):
    """The test pictures of a run that are classified wrongly, most confident ones first; `n` is their number in all.

    `counts` are the pictures of each class at the training.
    """

    run: str
    n: int
    counts: dict[str, int]
    mistakes: list[Mistake]


def find_mistakes(run: Path, pictures: Path, *, verbose: bool = False) -> Mistakes:
    """Predict the test pictures of a run with its export.

    Parameters
    ----------
    run : with model.safetensors and exports/model.onnx
    pictures : an image folder as it was at the training

    Raises
    ------
    UserError
        If the run or the pictures cannot be read.
    """
    metadata = read_metadata(run / "model.safetensors")
    origin = metadata.data
    assert origin is not None and origin.learnt is not None, "of a training that has just ended"
    with show_progress(console(verbose)) as progress:
        dataset = load_for_model(metadata, pictures, 0, progress)
    train, names = dataset.train, dataset.class_names
    paths = [path for _, path in files(pictures, names, nested=train.groups is not None)]
    rows = np.flatnonzero(~origin.learnt.seen(train.images, earlier=False).any) if origin.test else np.array([], int)
    mistakes = []
    if len(rows):
        model = onnx.open(run / "exports" / "model.onnx")
        probabilities = softmax(model.predict_logits(train.images[rows]))
        for row, values in zip(rows, probabilities, strict=True):
            true, predicted = names[train.labels[row]], model.class_names[int(values.argmax())]
            if true != predicted:
                picture = f"{paths[row].parent.name}/{paths[row].name}"
                mistakes.append(
                    Mistake(picture=picture, true=true, predicted=predicted, probability=float(values.max()))
                )
    mistakes.sort(key=lambda mistake: -mistake.probability)
    counts = dict(zip(names, map(int, train.class_counts), strict=True))
    return Mistakes(run=run.name, n=len(rows), counts=counts, mistakes=mistakes)


def main(arguments: Sequence[str]) -> int:
    """Write the mistakes of a run into a file; the exit code."""
    run, pictures, target = map(Path, arguments)
    try:
        write_atomically(target, find_mistakes(run, pictures, verbose=True).to_json() + "\n")
    except FoveolaError as error:
        print(f"foveola: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
