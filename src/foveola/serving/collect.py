"""POST /keep: images with their right class, collected in an image folder as training data."""

import io
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from PIL import Image
from pydantic_core import to_json

from foveola.errors import OutputError, UserError, unknown
from foveola.files import write_atomically, writing
from foveola.images import Images
from foveola.inputs.find import is_junk
from foveola.serving.bodies import image_file
from foveola.serving.openapi import IMAGE_FILE, accepts, refusals
from foveola.serving.refusals import Refused
from foveola.serving.schemas import KeepQuery, KeptDocument
from foveola.serving.service import parameters, service_of

MAX_FILES, MAX_BYTES = 20_000, 2 * 2**30
"""In the whole folder, whoever wrote them."""

# In between, each worker adds what it wrote itself
_SECONDS_BETWEEN_COUNTS = 10.0

# Names that some file system, or the reader of image folders, does not accept for a class
_UNSAFE = re.compile(
    r'.*[\x00-\x1f\x7f/\\:*?"<>|].*|\..*|.*\.|\s.*|.*\s|(readme|licen[cs]e|copying)(\..*)?|'
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])( *\..*)?",  # of Windows' devices
    re.IGNORECASE | re.DOTALL,
)
_MAX_NAME_BYTES = 255


router = APIRouter()


@router.post(
    "/keep",
    response_model=KeptDocument,
    status_code=201,
    responses=refusals(408, 413, 415, 422, 503, 507),
    openapi_extra=accepts(
        IMAGE_FILE,
        "curl --header 'Content-Type: image/png' --data-binary @image.png '{server}/keep?class={class}'",
        KeepQuery,
    ),
)
async def keep(
    request: Request,
    query: Annotated[KeepQuery, Depends(parameters(KeepQuery))],
    image: Annotated[bytes, Depends(image_file)],
) -> Response:
    """Keep one image as training data."""
    service = service_of(request)
    if query.name not in service.model.class_names:
        raise UserError(unknown("class", query.name[:80], service.model.class_names))
    collection: Collection = request.app.state.collection
    kept = await service.collecting.run(collection.add, query.name, await service.preparation.decoded(image))
    return Response(to_json({"class": query.name, "kept": kept}), 201, media_type="application/json")


class Collection:
    """An image folder that grows.

    Files get random names that never repeat; an image is written as it was decoded, not as it was received.

    Parameters
    ----------
    folder : gets a folder for each class
    class_names : of the model

    Raises
    ------
    OutputError
        If the folder cannot be used, or a class has a name that no folder can have.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        _check_names(class_names)
        _check_folder(folder)
        self._folder = folder
        self._counted = -math.inf

    def add(self, class_name: str, pixels: Images) -> int:
        """Write an image, uint8 H×W×C; the number of images that its class has now.

        Raises
        ------
        Refused
            If the folder is full, is a link, or cannot be written.
        """
        folder, content = self._folder / class_name, png(pixels)
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
            raise Refused(507, f"The image cannot be written: {error.strerror}. Tell the server's owner.") from error
        self._files += 1
        self._bytes += len(content)
        self._kept[folder] += 1
        return self._kept[folder]

    def _count(self) -> None:
        """Count the files in the folder: other workers and people write there too."""
        files = [file for file in self._folder.rglob("*") if not file.is_dir()]
        self._files = len(files)
        self._bytes = sum(file.lstat().st_size for file in files)
        self._kept = Counter(file.parent for file in files if file.suffix == ".png")
        self._counted = time.monotonic()


def is_class_folder_name(name: str) -> bool:
    """Whether every file system and the reader of image folders accept a name for the folder of a class."""
    return not (
        not name or _UNSAFE.fullmatch(name) or is_junk(name) or len(name.encode(errors="replace")) > _MAX_NAME_BYTES
    )


def _check_names(class_names: Sequence[str]) -> None:
    """Every class must get its name back where the folder is read."""
    for name in class_names:
        if not is_class_folder_name(name):
            raise OutputError(
                f"Images cannot be collected: the class {name!r} has a name that cannot be that of a folder of "
                f"images. Rename the class and train again, or leave out --collect."
            )
    if len({name.casefold() for name in class_names}) < len(class_names):
        raise OutputError(
            "Images cannot be collected: two classes have names that differ in case only, which some file systems "
            "take for one. Rename a class and train again, or leave out --collect."
        )


def _check_folder(folder: Path) -> None:
    with writing(folder, "Choose another with --collect."):
        folder.mkdir(parents=True, exist_ok=True)
        train = [child for child in folder.iterdir() if child.name.lower() == "train" and child.is_dir()]
        if any(grandchild.is_dir() for child in train for grandchild in child.iterdir()):
            raise OutputError(
                f"{folder} has splits: images beside {train[0]} would be read as another. Collect into "
                f"{train[0]}, or into a new folder."
            )


def png(pixels: Images) -> bytes:
    """A PNG file of pixels, uint8 H×W×C."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
