"""Pictures for projects, and what a project's folder holds."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    """A picture of a few soft patches of colour, uint8 H×W×3, unlike those with other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes | None]:
    """The content of every file that is not the project's own, and None for every folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if ".foveola" not in path.parts
    }
