"""The HTML page of an explanation, and every image of it as a PNG file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveola.arrays import shape_text
from foveola.images import Images
from foveola.inputs.checks import proposed_fixes
from foveola.inputs.prepare import Prediction
from foveola.inputs.resize import shrink
from foveola.models.metadata import ModelMetadata
from foveola.models.shapes import infer_shapes
from foveola.reports import html
from foveola.reports.pixels import coloured, enlarge, labelled_grid, overlay, png_bytes, shaded, signed

if TYPE_CHECKING:
    from foveola.explanation.cam import CamMethod

Array = NDArray[np.float32]

# Layers whose maps are shown, and maps shown of a layer: of several images together, but of each at least MIN_MAPS
MAX_LAYERS = 24
MAX_MAPS = 256
MIN_MAPS = 16
# Minimum side of images saved as files
SIDE = 224
# Values in a row of a drawn vector
ROW = 64


@dataclass(frozen=True, eq=False)
class ClassHeatmaps:
    """Heat maps of one class.

    Parameters
    ----------
    index, name, probability, logit : of the class
    cam : float32 h×w, its class activation map in logits; None if it is not possible
    enlarged_cam : float32 H×W, -1 to 1, the same as a heat map of the image's size
    occlusion : float32 H×W, by how much the probability falls
    """

    index: int
    name: str
    probability: float
    logit: float
    cam: Array | None
    enlarged_cam: Array | None
    occlusion: Array


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image explained.

    Parameters
    ----------
    prediction : the most probable classes, and the findings
    given : uint8 H×W×C, the image as it was given
    unfixed, seen : uint8 H×W×C, the network's input without and with the requested fixes
    maps : output of every layer, float32 height×width×channels or a vector
    heatmaps : of the predicted class, then of the requested ones
    cam_method : the method of the class activation maps
    without_cam : why they are not possible; None if they are
    """

    prediction: Prediction
    given: Images
    unfixed: Images
    seen: Images
    maps: Mapping[str, Array]
    heatmaps: Sequence[ClassHeatmaps]
    cam_method: "CamMethod"
    without_cam: str | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of an explanation. `tiles` show its values; without them, `note` says why there are none."""

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
        """The file name, numbered in the order of computation; a user's own layer may have any name."""
        name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in self.name)
        return f"layer_{self.number:02}_{name}.png"

    @property
    def range(self) -> str:
        return f"{self.values.min():.3g} to {self.values.max():.3g}"


def explanation_page(
    model: str, metadata: ModelMetadata, filters: Array | None, explanations: Sequence[Explanation]
) -> str:
    """The page as self-contained HTML.

    Parameters
    ----------
    model : the model's name
    filters : of the first convolution, float32 out×height×width×in; None if there is none
    """
    most = maps_shown(len(explanations))
    shown = [
        {
            "prediction": explanation.prediction,
            "given": html.image_uri(shrink(explanation.given, 256)),
            "given_shape": shape_text(explanation.given.shape),
            "unfixed": html.image_uri(explanation.unfixed),
            "seen": html.image_uri(explanation.seen),
            "helpful": [
                fix
                for fix in proposed_fixes(explanation.prediction.findings)
                if fix not in explanation.prediction.fixes
            ],
            "layers": [
                {"layer": layer, "tiles": [html.image_uri(tile) for tile in layer.tiles]}
                for layer in shown_layers(metadata, explanation.maps, most)
            ],
            "heatmaps": [_shown(explanation, heatmaps) for heatmaps in explanation.heatmaps],
            "cam_method": explanation.cam_method,
            "cam_shape": None if (cam := explanation.heatmaps[0].cam) is None else shape_text(cam.shape),
            "without_cam": explanation.without_cam,
        }
        for explanation in explanations
    ]
    return html.render(
        "explanation.html",
        model=model,
        image_shape=shape_text(metadata.image_shape),
        network_shape=shape_text(metadata.network_shape),
        pad=metadata.pad,
        scaling=_scaling_text(metadata),
        most=most,
        filters=[html.image_uri(tile) for tile in filter_tiles(filters)] if filters is not None else [],
        filter_shape=None if filters is None else shape_text(filters.shape[1:3]),
        explanations=shown,
    )


def explanation_images(metadata: ModelMetadata, explanation: Explanation, most: int) -> Iterator[tuple[str, bytes]]:
    """File name and PNG content of everything that the page shows of one image, with at most `most` maps of a layer."""
    yield "seen.png", png_bytes(enlarge(explanation.seen, SIDE))
    for layer in shown_layers(metadata, explanation.maps, most):
        if layer.tiles:
            labels = [str(number) if layer.values.ndim == 3 else "" for number in range(len(layer.tiles))]
            grid = labelled_grid(layer.tiles, labels, f"{layer.name}: {layer.shape}, {layer.range}")
            yield layer.file, png_bytes(grid)
    for heatmaps in explanation.heatmaps:
        for name, image in heatmap_images(explanation, heatmaps):
            yield name, png_bytes(enlarge(image, SIDE))


def heatmap_images(explanation: Explanation, heatmaps: ClassHeatmaps) -> list[tuple[str, Images]]:
    """File names, with the class's number because its name may hold anything, and heat maps laid over the image."""
    highest = float(np.abs(heatmaps.occlusion).max())
    heats = {"occlusion": heatmaps.occlusion / (highest or 1)}
    if heatmaps.enlarged_cam is not None:
        heats = {explanation.cam_method.replace("-", "_"): heatmaps.enlarged_cam} | heats
    return [(f"{kind}_class_{heatmaps.index}.png", overlay(explanation.seen, heat)) for kind, heat in heats.items()]


def evidence(explanation: Explanation, heatmaps: ClassHeatmaps) -> dict[str, float] | None:
    """What a HiResCAM map adds to the logit of its class and subtracts from it, and the remainder without a position.

    None without such a map: the values of Grad-CAM do not add up to a logit.
    """
    if heatmaps.cam is None or explanation.cam_method != "hires-cam":
        return None
    added, subtracted = float(heatmaps.cam.clip(min=0).sum()), float(-heatmaps.cam.clip(max=0).sum())
    remainder = heatmaps.logit - added + subtracted
    return {"logit": heatmaps.logit, "added": added, "subtracted": subtracted, "remainder": remainder}


def filter_grid(filters: Array) -> bytes:
    """The filters, out×height×width×in, as one PNG file."""
    labels = [str(number) for number in range(len(filters))]
    title = f"First convolution: {len(filters)} filters of {shape_text(filters.shape[1:3])}"
    return png_bytes(labelled_grid(filter_tiles(filters), labels, title))


def _scaling_text(metadata: ModelMetadata) -> str:
    """How the values of the network's input are scaled."""
    values = {*zip(metadata.mean, metadata.std, strict=True)}
    if values == {(0.0, 1.0)}:
        return "scaled to 0–1"
    if values == {(0.5, 0.5)}:
        return "scaled to −1–1"
    numbers = ", ".join(f"{mean:.3f} ± {std:.3f}" for mean, std in zip(metadata.mean, metadata.std, strict=True))
    return f"standardised by mean and standard deviation of each channel ({numbers})"


def maps_shown(images: int) -> int:
    """The maps that a page of so many images shows of a layer at most."""
    return max(MAX_MAPS // images, MIN_MAPS)


def shown_layers(metadata: ModelMetadata, maps: Mapping[str, Array], most: int) -> list[Layer]:
    """The layers in the order of computation, as the page shows them: of a deep network, maps of evenly spread ones."""
    drawn = set(np.linspace(0, len(maps) - 1, min(len(maps), MAX_LAYERS)).round().astype(int).tolist())
    settings = {}
    if metadata.layers is not None:
        infos = infer_shapes(metadata.layers, metadata.network_shape, len(metadata.class_names))
        settings = {info.name: info.layer.settings_text() for info in infos}
    found: list[Layer] = []
    for name, values in maps.items():
        note = _unchanged(found[-1].name, found[-1].values, values) if found else ""
        if not note and len(found) not in drawn:
            note = f"Not drawn: {MAX_LAYERS} of the {len(maps)} layers are, evenly spread."
        tiles = [] if note else _tiles(values, most)
        found.append(Layer(len(found) + 1, name, settings.get(name, ""), values, note, tiles))
    return found


def filter_tiles(filters: Array) -> list[Images]:
    """Filters, out×height×width×in, as images; in colour if their input is RGB."""
    highest = float(np.abs(filters).max())
    if filters.shape[3] == 3:
        return [coloured(each, highest) for each in filters]
    return [signed(each.mean(axis=2), highest) for each in filters]


def _unchanged(before: str, given: Array, values: Array) -> str:
    """A sentence for a layer whose output equals its input, as for dropout and flattening at inference; else empty."""
    if np.array_equal(given, values):
        return f"At inference it passes on the values of {before} unchanged."
    if values.ndim == 1 and np.array_equal(given.ravel(), values):
        return f"The values of {before} in one row."
    return ""


def _tiles(values: Array, most: int) -> list[Images]:
    """Maps, or a vector in rows, on one scale for the whole layer, which shows strong maps beside weak ones."""
    highest = float(np.abs(values).max())
    draw = shaded if values.min() >= 0 else signed
    if values.ndim == 3:
        return [draw(values[..., channel], highest) for channel in range(min(values.shape[2], most))]
    rows = -(-values.size // ROW)
    padded = np.pad(values, (0, rows * ROW - values.size)) if rows > 1 else values
    return [draw(padded.reshape(rows, -1), highest)]


def _shown(explanation: Explanation, heatmaps: ClassHeatmaps) -> dict[str, Any]:
    """The heat maps of one class as the page shows them."""
    *cam, covered = (html.image_uri(image) for _, image in heatmap_images(explanation, heatmaps))
    return {
        "name": heatmaps.name,
        "probability": heatmaps.probability,
        "cam": cam[0] if cam else None,
        "cam_is_zero": heatmaps.cam is not None and not heatmaps.cam.any(),
        "evidence": evidence(explanation, heatmaps),
        "occlusion": covered,
        "occlusion_effect": _occlusion_effect(heatmaps.occlusion),
    }


def _occlusion_effect(drops: Array) -> str:
    """What an occlusion map, H×W, shows, in words."""
    if np.abs(drops).max() < 0.0005:
        return "covering a pixel changes the probability by less than 0.001"
    lowest, highest = -float(drops.max()), -float(drops.min())
    return f"covering a pixel changes the probability by {html.signed(lowest, 3)} to {html.signed(highest, 3)}"
