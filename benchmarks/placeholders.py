"""How many planted placeholders `foveola audit` names, and how many other images it names with them.

    FOVEOLA_DATA=DIR .venv/bin/python benchmarks/placeholders.py DATA [--seeds 5]

Thirteen drawn pictures, from a grey box with "image not found" to a red cross, are saved as JPEG of quality 50 to 95
and put in the place of 1, 3 or 10 random training images of DATA (an image folder, or a catalog name). No network is
trained: what networks add, for copies within one class, is left out.
"""

import argparse
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import foveola
from foveola.audits.placeholders import find_placeholders
from foveola.datasets.duplicates import find_duplicates
from foveola.images import Images, ImageSet

SIDE = 200
INK, WHITE = (110, 110, 110), (250, 250, 250)


def text(words: str, size: int, ink: tuple[int, ...] = INK) -> Callable[[ImageDraw.ImageDraw], None]:
    return lambda pen: pen.text((8, 40), words, fill=ink, font=ImageFont.load_default(size))


def frame(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((60, 20, 140, 60), outline=INK, width=4)


def framed_text(pen: ImageDraw.ImageDraw) -> None:
    frame(pen)
    text("\n\nno image\navailable", 24)(pen)


def mountains(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((120, 30, 160, 70), fill=(180, 188, 196))
    pen.polygon([(10, 180), (80, 70), (140, 180)], fill=(150, 160, 170))
    pen.polygon([(90, 180), (140, 110), (195, 180)], fill=(180, 188, 196))


def checkerboard(pen: ImageDraw.ImageDraw) -> None:
    for row in range(8):
        for column in range(row % 2, 8, 2):
            pen.rectangle((column * 25, row * 25, column * 25 + 24, row * 25 + 24), fill=(204, 204, 204))


def cross(pen: ImageDraw.ImageDraw) -> None:
    pen.line((20, 20, 180, 180), fill=(220, 0, 0), width=18)
    pen.line((180, 20, 20, 180), fill=(220, 0, 0), width=18)


def gradient(pen: ImageDraw.ImageDraw) -> None:
    for row in range(SIDE):
        pen.line((0, row, SIDE, row), fill=(150 + 2 * row // 5,) * 3)
    text("not found", 36, (60, 60, 60))(pen)


def avatar(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((65, 30, 135, 110), fill=WHITE)
    pen.ellipse((25, 120, 175, 290), fill=WHITE)


# Paper, and what is drawn on it
PICTURES: dict[str, tuple[tuple[int, int, int], Callable[[ImageDraw.ImageDraw], None]]] = {
    "grey box with text": ((200, 200, 200), text("image not\nfound", 24)),
    "white page with text": ((255, 255, 255), text("image not\nfound", 24)),
    "dark box with text": ((60, 60, 70), text("404\nnot found", 24, WHITE)),
    "blue box with text": ((30, 60, 160), text("no photo", 36, WHITE)),
    "frame": ((235, 235, 240), frame),
    "frame with text": ((238, 238, 238), framed_text),
    "tall letters": ((220, 220, 220), text("IMAGE\nNOT\nFOUND", 52)),
    "mountains and sun": ((221, 225, 230), mountains),
    "checkerboard": ((255, 255, 255), checkerboard),
    "red cross": ((255, 255, 255), cross),
    "avatar": ((200, 205, 215), avatar),
    "gradient with text": ((150, 150, 150), gradient),
    "page of text": ((255, 255, 255), text("\n".join(9 * ["The requested page was"]), 14, (0, 0, 0))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()

    train = foveola.load(options.data).train
    clean = len(find_placeholders(train, find_duplicates(train.images)))
    print(f"{options.data}: {len(train):,} images; named although nothing was planted: {clean}\n")
    print("| picture | copies | all named | named first | others named, mean |\n|---|---:|---:|---:|---:|")
    for kind in PICTURES:
        for copies in (1, 3, 10):
            rows = np.array([measure(train, kind, copies, seed) for seed in range(options.seeds)], dtype=float)
            every, first, others = rows.mean(axis=0)
            print(f"| {kind} | {copies} | {every:.0%} | {first:.0%} | {others:.1f} |", flush=True)


def measure(train: ImageSet, kind: str, copies: int, seed: int) -> tuple[bool, bool, int]:
    """Whether all copies are named, whether they come first, and how many other images are named."""
    random = np.random.default_rng(seed)
    images = train.images.copy()
    places = random.choice(len(images), copies, replace=False)
    for place in places:
        images[place] = as_photograph(draw(kind), int(random.integers(50, 96)), train.image_shape)
    # Near copies are looked for among the planted images and a few others, because all take long
    searched = np.unique([*places, *random.choice(len(images), 200, replace=False)])
    groups = [
        type(group)(tuple(map(int, searched[list(group.members)])), group.exact)
        for group in find_duplicates(images[searched])
    ]
    named = [found.index for found in find_placeholders(ImageSet(images, train.labels, train.class_names), groups)]
    planted = set(places.tolist())
    return planted <= set(named), planted == set(named[:copies]), len(set(named) - planted)


def draw(kind: str) -> Image.Image:
    """A picture that stands for a missing one."""
    paper, pencil = PICTURES[kind]
    picture = Image.new("RGB", (SIDE, SIDE), paper)
    pencil(ImageDraw.Draw(picture))
    return picture


def as_photograph(picture: Image.Image, quality: int, shape: tuple[int, int, int]) -> Images:
    """The picture as JPEG, uint8 H×W×C."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    decoded = Image.open(file).convert("L" if shape[2] == 1 else "RGB")
    return np.asarray(decoded.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)).reshape(shape)


if __name__ == "__main__":
    main()
