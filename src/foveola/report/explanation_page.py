"""What a model sees in pictures: one page, and every part of it as a PNG."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveola.architecture import trace
from foveola.decoding import resize
from foveola.doctor import proposed
from foveola.images import Images, shape_text
from foveola.models.card import ModelCard
from foveola.predictions import Answer
from foveola.report import html
from foveola.report.shades import coloured, enlarged, labelled_grid, laid_over, shaded, signed

Array = NDArray[np.float32]

# Of a layer with more maps, the first ones are shown
MOST_MAPS = 256
# Pictures saved as files are at least so large
SIDE = 224
# A vector is drawn in rows of so many values
ROW = 64


@dataclass(frozen=True, eq=False)
class Saliency:
    """What speaks for one class.

    Parameters
    ----------
    index, name, probability : of the class
    grad_cam : float32 H×W, 0 to 1, or None where it is not possible
    occlusion : float32 H×W, by how much the probability falls
    """

    index: int
    name: str
    probability: float
    grad_cam: Array | None
    occlusion: Array


@dataclass(frozen=True, eq=False)
class Explanation:
    """One picture explained.

    Parameters
    ----------
    answer : the most probable classes, and what looks odd about the picture
    given : uint8 H×W×C as it came
    unfixed, seen : uint8 H×W×C, as the model would see it, and as it does, with what was asked to be fixed
    maps : what every layer gives, float32 height×width×channels or a vector
    saliency : of the predicted class, then of those asked for
    without_grad_cam : why there is no Grad-CAM, or None where there is
    """

    answer: Answer
    given: Images
    unfixed: Images
    seen: Images
    maps: Mapping[str, Array]
    saliency: Sequence[Saliency]
    without_grad_cam: str | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of an explanation: `note` says where it gives what it got; otherwise `tiles` show its values."""

    number: int
    name: str
    settings: str
    values: Array
    note: str
    tiles: list[Images]

    @property
    def shape(self) -> str:
        if self.values.ndim == 1:
            return f"{self.values.size:,} values"
        height, width, channels = self.values.shape
        return f"{channels} {'map' if channels == 1 else 'maps'} of {height}×{width}"

    @property
    def file(self) -> str:
        """Where its picture lies: in the order of computation; a user's own layer may have any name."""
        name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in self.name)
        return f"layer_{self.number:02}_{name}.png"

    @property
    def range(self) -> str:
        return f"{self.values.min():.3g} to {self.values.max():.3g}"


def page(model: str, card: ModelCard, filters: Array | None, explanations: Sequence[Explanation]) -> str:
    """The page as HTML.

    Parameters
    ----------
    model : what to call the model
    filters : of the first convolution, float32 out×height×width×in; None where there is none
    """
    shown = [
        {
            "answer": explanation.answer,
            "given": html.picture(_at_most(explanation.given, 256)),
            "given_shape": shape_text(explanation.given.shape),
            "unfixed": html.picture(explanation.unfixed),
            "seen": html.picture(explanation.seen),
            "helpful": [fix for fix in proposed(explanation.answer.findings) if fix not in explanation.answer.fixes],
            "layers": [
                {"layer": layer, "tiles": [html.picture(tile) for tile in layer.tiles]}
                for layer in layers(card, explanation.maps)
            ],
            "saliency": [_shown(explanation.seen, saliency) for saliency in explanation.saliency],
            "without_grad_cam": explanation.without_grad_cam,
        }
        for explanation in explanations
    ]
    return html.render(
        "explanation.html",
        model=model,
        image_shape=shape_text(card.image_shape),
        network_shape=shape_text(card.network_shape),
        pad=card.pad,
        scaled=any(card.mean) or any(std != 1 for std in card.std),
        most=MOST_MAPS,
        filters=[html.picture(tile) for tile in filter_tiles(filters)] if filters is not None else [],
        filter_shape=None if filters is None else shape_text(filters.shape[1:3]),
        explanations=shown,
    )


def pictures(card: ModelCard, explanation: Explanation) -> Iterator[tuple[str, bytes]]:
    """File name and PNG of everything that the page shows of one picture."""
    yield "seen.png", _png(enlarged(explanation.seen, SIDE))
    for layer in layers(card, explanation.maps):
        if layer.tiles:
            labels = [str(number) if layer.values.ndim == 3 else "" for number in range(len(layer.tiles))]
            grid = labelled_grid(layer.tiles, labels, f"{layer.name}: {layer.shape}, {layer.range}")
            yield layer.file, _png(grid)
    for saliency in explanation.saliency:
        for name, image in saliency_pictures(explanation.seen, saliency):
            yield name, _png(enlarged(image, SIDE))


def saliency_pictures(seen: Images, saliency: Saliency) -> list[tuple[str, Images]]:
    """File name, with the class's number since its name may hold anything, and heat map over the image."""
    highest = float(np.abs(saliency.occlusion).max())
    heats = {"occlusion": saliency.occlusion / (highest or 1)}
    if saliency.grad_cam is not None:
        heats = {"grad_cam": saliency.grad_cam} | heats
    return [(f"{kind}_class_{saliency.index}.png", laid_over(seen, heat)) for kind, heat in heats.items()]


def filter_grid(filters: Array) -> bytes:
    """The filters, out×height×width×in, as one PNG."""
    labels = [str(number) for number in range(len(filters))]
    title = f"First convolution: {len(filters)} filters of {shape_text(filters.shape[1:3])}"
    return _png(labelled_grid(filter_tiles(filters), labels, title))


def layers(card: ModelCard, maps: Mapping[str, Array]) -> list[Layer]:
    """The layers as they are shown, in the order of computation."""
    settings = {}
    if card.layers is not None:
        steps = trace(card.layers, card.network_shape, len(card.class_names))
        settings = {step.name: step.layer.describe() for step in steps}
    found: list[Layer] = []
    for name, values in maps.items():
        note = _unchanged(found[-1].name, found[-1].values, values) if found else ""
        found.append(Layer(len(found) + 1, name, settings.get(name, ""), values, note, [] if note else _tiles(values)))
    return found


def filter_tiles(filters: Array) -> list[Images]:
    """Filters, out×height×width×in, as pictures: in colour where they see red, green and blue."""
    highest = float(np.abs(filters).max())
    if filters.shape[3] == 3:
        return [coloured(each, highest) for each in filters]
    return [signed(each.mean(axis=2), highest) for each in filters]


def _unchanged(before: str, given: Array, values: Array) -> str:
    """Where a layer gives what the one before it gave, as dropout and flattening do in use, a sentence that says so."""
    if np.array_equal(given, values):
        return f"In use it passes on the values of {before}, unchanged."
    if values.ndim == 1 and np.array_equal(given.ravel(), values):
        return f"The values of {before} in one row."
    return ""


def _tiles(values: Array) -> list[Images]:
    """Maps, or a vector in rows, on one scale for the whole layer, so that strong and weak maps can be told apart."""
    highest = float(np.abs(values).max())
    draw = shaded if values.min() >= 0 else signed
    if values.ndim == 3:
        return [draw(values[..., channel], highest) for channel in range(min(values.shape[2], MOST_MAPS))]
    rows = -(-values.size // ROW)
    padded = np.pad(values, (0, rows * ROW - values.size)) if rows > 1 else values
    return [draw(padded.reshape(rows, -1), highest)]


def _shown(seen: Images, saliency: Saliency) -> dict[str, Any]:
    """What the page says of one class."""
    *cam, covered = (html.picture(image) for _, image in saliency_pictures(seen, saliency))
    return {
        "name": saliency.name,
        "probability": saliency.probability,
        "grad_cam": cam[0] if cam else None,
        "nothing": saliency.grad_cam is not None and not saliency.grad_cam.any(),
        "occlusion": covered,
        "fall": float(saliency.occlusion.max()),
        "rise": float(-saliency.occlusion.min()),
    }


def _at_most(image: Images, side: int) -> Images:
    """The picture with its longer side reduced to `side` pixels."""
    height, width = image.shape[:2]
    share = min(side / max(height, width), 1)
    return resize(image, max(round(height * share), 1), max(round(width * share), 1))


def _png(image: Images) -> bytes:
    """A uint8 image, H×W×1 or H×W×3, as the content of a file."""
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(content, "png")
    return content.getvalue()
