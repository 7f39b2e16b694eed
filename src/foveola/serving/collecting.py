"""POST /keep: pictures with their right class, written into an image folder to learn from later."""

import io
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from foveola.errors import OutputError, UserError, unknown
from foveola.files import write_atomically, writing
from foveola.images import Images
from foveola.serving.pictures import Pictures, one_picture
from foveola.serving.queries import Query
from foveola.serving.responses import Refused, json_response
from foveola.serving.workers import Workers

MAX_FILES, MAX_BYTES = 20_000, 2 * 2**30
"""In the whole folder, whoever has put them there."""

# Between them, each worker adds what it has written itself
_SECONDS_BETWEEN_COUNTS = 10.0

# What some file system, or the reader of image folders, does not take for the name of a class
_UNSAFE = re.compile(
    r'.*[\x00-\x1f\x7f/\\:*?"<>|].*|\..*|.*\.|\s.*|.*\s|__macosx|thumbs\.db|desktop\.ini|(readme|licen[cs]e)(\..*)?',
    re.IGNORECASE | re.DOTALL,
)
_MAX_NAME_BYTES = 255


class KeepQuery(Query):
    """What a picture shows."""

    name: Annotated[str, Field(alias="class", description="The right class of the picture.")]


class Collecting:
    """The route.

    Files get names that nobody chooses and that never repeat; a picture is written as it was decoded, not as it came.

    Parameters
    ----------
    folder : gets a folder for each class
    class_names : of the model
    pictures : decode what comes
    workers : write it, one at a time

    Raises
    ------
    OutputError
        If the folder cannot be used, or a class has a name that no folder can have.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], pictures: Pictures, workers: Workers) -> None:
        _check_names(class_names)
        _check_folder(folder)
        self._folder = folder
        self._class_names = class_names
        self._pictures = pictures
        self._workers = workers
        self._counted = -math.inf

    async def keep(self, request: Request) -> Response:
        """Keep one picture."""
        name = KeepQuery.of(request).name
        if name not in self._class_names:
            raise UserError(unknown("class", name[:80], self._class_names))
        pixels = await self._pictures.decoded(await one_picture(request), "The picture")
        kept = await self._workers.run(self._write, self._folder / name, pixels)
        return json_response({"class": name, "kept": kept}, 201)

    def _write(self, folder: Path, pixels: Images) -> int:
        """How many pictures the class has, with this one."""
        content = _png(pixels)
        try:
            if folder.is_symlink():
                raise Refused(507, "The class's folder is a link, which may lead elsewhere. Tell the server's owner.")
            if time.monotonic() - self._counted > _SECONDS_BETWEEN_COUNTS:
                self._count()
            if self._files >= MAX_FILES or self._bytes + len(content) > MAX_BYTES:
                raise Refused(
                    507,
                    f"The folder is full: {self._files:,} files with {self._bytes:,} bytes. The server's owner may "
                    f"move them elsewhere.",
                )
            folder.mkdir(exist_ok=True)
            write_atomically(folder / f"{secrets.token_hex(16)}.png", content)
        except OSError as error:
            raise Refused(507, f"The picture cannot be written: {error.strerror}. Tell the server's owner.") from error
        self._files += 1
        self._bytes += len(content)
        self._kept[folder] += 1
        return self._kept[folder]

    def _count(self) -> None:
        """Count what lies in the folder: other workers and people write there too."""
        files = [file for file in self._folder.rglob("*") if not file.is_dir()]
        self._files = len(files)
        self._bytes = sum(file.lstat().st_size for file in files)
        self._kept = Counter(file.parent for file in files if file.suffix == ".png")
        self._counted = time.monotonic()


def _check_names(class_names: Sequence[str]) -> None:
    """Every class must get its name back where the folder is read."""
    for name in class_names:
        if not name or _UNSAFE.fullmatch(name) or len(name.encode()) > _MAX_NAME_BYTES:
            raise OutputError(
                f"Pictures cannot be collected: the class {name!r} has a name that cannot be that of a folder of "
                f"images. Rename the class and train again, or leave out --collect."
            )
    if len({name.casefold() for name in class_names}) < len(class_names):
        raise OutputError(
            "Pictures cannot be collected: two classes have names that differ in case only, which some file systems "
            "take for one. Rename a class and train again, or leave out --collect."
        )


def _check_folder(folder: Path) -> None:
    with writing(folder, "Choose another with --collect."):
        folder.mkdir(parents=True, exist_ok=True)
        train = [child for child in folder.iterdir() if child.name.lower() == "train" and child.is_dir()]
        if any(grandchild.is_dir() for child in train for grandchild in child.iterdir()):
            raise OutputError(
                f"{folder} has splits: pictures beside {train[0]} would be read as another. Collect into "
                f"{train[0]}, or into a new folder."
            )


def _png(pixels: Images) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


class KeptDocument(BaseModel):
    """A picture kept: its class, and how many the class has now."""

    name: str = Field(alias="class")
    kept: Annotated[int, Field(ge=1)]
