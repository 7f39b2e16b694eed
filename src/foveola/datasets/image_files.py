"""Image files of a data set: decoded, resized at once, brought to one shape; and what they were before that."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import PIL

from foveola.datasets.reader import ReadOptions, physical_memory
from foveola.errors import DataError
from foveola.images import Images, Originals, Polarity
from foveola.inputs import container, decode, resize
from foveola.inputs.decode import Reduce, decode_first_frame, read_first_frame, read_size, white_level_of
from foveola.inputs.find import EXTENSIONS
from foveola.inputs.resize import (
    CommonShape,
    choose_fill,
    choose_resize,
    common_size,
    describe_resize,
    is_colour,
    to_channels,
)
from foveola.lazy import Indices

DEFAULT_SIZE = 64  # pixels a side
MAX_HEADERS = 500  # files whose size is read before they are decoded, evenly spaced
IMAGES_PER_CHECK = 100  # after so many, it is checked whether all will fit into memory

Source = TypeVar("Source")


class FilePart(NamedTuple):
    """Some bytes of a file."""

    path: Path
    start: int
    size: int


@dataclass(frozen=True)
class StoredImage:
    """An image file inside an archive or a table: where its bytes are, or the bytes."""

    name: str
    content: FilePart | bytes

    def read(self) -> bytes:
        """The bytes of the image file."""
        if isinstance(self.content, bytes):
            return self.content
        with self.content.path.open("rb") as file:
            file.seek(self.content.start)
            return file.read(self.content.size)

    @property
    def state(self) -> str:
        """Changes when the content does, as far as size and time of change of its file tell."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        found = self.content.path.stat()
        return f"{self.content}:{found.st_size}:{found.st_mtime_ns}"


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files that were decoded.

    Parameters
    ----------
    images : N images of one shape; those of files that cannot be used must not be read
    unusable : why, by index
    originals : the training images before they were resized and converted
    shape : the shape of all images
    polarity : of the training images without what lies beside them in a letterbox; None without letterbox
    notes : what was assumed when the training images were decoded
    """

    images: "FittedImages"
    unusable: dict[int, str]
    originals: Originals
    shape: CommonShape
    polarity: Polarity | None
    notes: tuple[str, ...]


class DecodedImage(Protocol):
    """An image as it was decoded, and then resized: `size` is its height and width before that.

    `colour`: it has pixels that are not grey; many grey images are saved in colour. `on_black`: it was put on black
    instead of white. `peak`: its largest value, if it has 16 bits per channel.
    """

    @property
    def pixels(self) -> Images:
        """Uint8 H×W×C."""
        ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def colour(self) -> bool: ...

    @property
    def on_black(self) -> bool: ...

    @property
    def peak(self) -> int | None: ...


@dataclass(frozen=True, eq=False)
class ImageInMemory:
    """A decoded image in memory."""

    pixels: Images
    size: tuple[int, int]
    colour: bool
    on_black: bool
    peak: int | None


Decoded = Sequence[DecodedImage | None]


class FittedImages:
    """Decoded images, brought to one shape when they are read."""

    hashes = None

    def __init__(self, decoded: Decoded, shape: CommonShape) -> None:
        self.decoded, self.shape = decoded, shape
        self.channels = 3 if any(image.colour for image in decoded if image is not None) else 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels: one if no image has colour."""
        return self.shape.height, self.shape.width, self.channels

    def read(self, rows: Indices) -> Images:
        """The images with these numbers, uint8 N×H×W×C."""
        images = np.empty((len(rows), *self.image_shape), np.uint8)
        for target, row in zip(images, rows.tolist(), strict=True):
            image = self.decoded[row]
            assert image is not None, "a file that cannot be used has no image"
            target[:] = to_channels(self.shape.fit(image.pixels), self.channels)
        return images


def decode_files(paths: Sequence[Path | StoredImage], training: Sequence[bool], options: ReadOptions) -> ImageFiles:
    """Decode image files, and bring them to one shape.

    Parameters
    ----------
    paths : N files, which may lie inside others
    training : which of them are training images, N. Where files have 16 bits per pixel and `options` name no white
        level, it is the largest value of 8, 10, 12, 14 or 16 bits, whichever the training images use
    options : as of `folder.read`

    Raises
    ------
    DataError
        If files have 16 bits per colour and use so few that too few levels would be left.
    """
    return decode_images(paths, training, options, sizes=_file_sizes, decode=options.decode or decode_in_threads)


def decode_images(
    sources: Sequence[Source],
    training: Sequence[bool],
    options: ReadOptions,
    *,
    sizes: Callable[[Sequence[Source]], list[tuple[int, int]]],
    decode: Callable[[Sequence[Source], CommonShape, ReadOptions], tuple[Decoded, dict[int, str]]],
) -> ImageFiles:
    """As `decode_files`, of whatever images come from.

    Parameters
    ----------
    sources : N files, or whatever `sizes` and `decode` take
    sizes : heights and widths of some of the training images, before they are decoded
    decode : every image, or None where it cannot be used, and the reasons by index
    """
    shape = _choose_shape([source for source, learnt in zip(sources, training, strict=True) if learnt], options, sizes)
    decoded, unusable = decode(sources, shape, options)
    white_level = options.white_level or _white_level(_chosen(decoded, training))
    if white_level != options.white_level:
        decoded = _decode_deep(sources, decoded, shape, replace(options, white_level=white_level), decode)
    used = _chosen(decoded, training)
    shape, polarity = _settle_shape(shape, {image.size for image in decoded if image is not None}, used, options)
    notes = *_notes(used, white_level), *_resize_notes(used, shape, options)
    return ImageFiles(FittedImages(decoded, shape), unusable, _originals(used, white_level), shape, polarity, notes)


@cache
def decoding_version() -> str:
    """Changes with everything that decides which pixels a file is decoded to: Pillow, and the modules used for it."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for module in (container, decode, resize):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def files_state(files: Iterable[Path | StoredImage], settings: str) -> str:
    """A hash of the names, sizes and times of change, in nanoseconds, of files, and of settings."""
    digest = hashlib.sha256(settings.encode("utf-8", "surrogateescape"))
    for file in files:
        try:
            if isinstance(file, StoredImage):
                digest.update(f"{file.name}:{file.state}\0".encode("utf-8", "surrogateescape"))
                continue
            found = file.stat()
            described = f"{file}:{found.st_size}:{found.st_mtime_ns}"
        except OSError as error:  # such as a link that leads nowhere
            described = f"{file}:{error.errno}"
        digest.update(described.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _choose_shape(
    sources: Sequence[Source], options: ReadOptions, sizes: Callable[[Sequence[Source]], list[tuple[int, int]]]
) -> CommonShape:
    """The shape that large images get when they are decoded, from the sizes of some of them."""
    known = [] if options.image_size is not None and options.resize is not None else sizes(sources)
    height, width = options.image_size or common_size(known, DEFAULT_SIZE)
    return CommonShape(height, width, options.resize or choose_resize(known, (height, width)))


def _file_sizes(paths: Sequence[Path | StoredImage]) -> list[tuple[int, int]]:
    """Heights and widths by the headers of at most MAX_HEADERS files."""
    files = [path for path in paths if isinstance(path, StoredImage) or path.suffix.lower() in EXTENSIONS]
    return [size for path in evenly_spaced(files) if (size := _size(path))]


def evenly_spaced(sources: Sequence[Source]) -> Sequence[Source]:
    """At most MAX_HEADERS of them."""
    return sources[:: -(-len(sources) // MAX_HEADERS) or 1]


def _size(path: Path | StoredImage) -> tuple[int, int] | None:
    return read_size(path if isinstance(path, Path) else io.BytesIO(path.read()))


def _settle_shape(
    shape: CommonShape, sizes: set[tuple[int, int]], training: list[DecodedImage], options: ReadOptions
) -> tuple[CommonShape, Polarity | None]:
    """The shape that all images get, their own if they have the same and are small; a letterbox's fill and polarity."""
    if options.image_size is None and len(sizes) == 1 and max(max(sizes)) <= DEFAULT_SIZE:
        shape = CommonShape(*sizes.pop(), options.resize or "stretch")
    if shape.resize == "stretch" or not training:
        return shape, None
    fill, polarity = choose_fill(image.pixels for image in training)
    return replace(shape, fill=fill if options.fill is None else options.fill), polarity


def _resize_notes(training: list[DecodedImage], shape: CommonShape, options: ReadOptions) -> tuple[str, ...]:
    return describe_resize([image.size for image in training], shape, chosen=options.image_size is None)


def decode_in_threads(
    paths: Sequence[Path | StoredImage], shape: CommonShape, options: ReadOptions
) -> tuple[Decoded, dict[int, str]]:
    """Every image, or None where it cannot be used, and the reasons by index.

    Raises
    ------
    DataError
        If memory would not suffice, as soon as that shows.
    """
    images: list[DecodedImage | None] = []
    unusable: dict[int, str] = {}
    size = 0
    # Threads suffice: Pillow releases the interpreter lock while it decodes.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        results = pool.map(lambda path: decode_one(path, shape, options), paths)
        for index, image_or_reason in enumerate(results):
            if isinstance(image_or_reason, str):
                unusable[index] = image_or_reason
                images.append(None)
            else:
                size += image_or_reason.pixels.nbytes
                images.append(image_or_reason)
            if len(images) % IMAGES_PER_CHECK == 0:
                check_memory(size * len(paths) // len(images), len(paths), shape)
            options.progress(index + 1, len(paths), "images")
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, do not decode the rest
    return images, unusable


def check_memory(size: int, count: int, shape: CommonShape) -> None:
    """Refuse so many images if the machine has no memory for twice their bytes: decoded, and copied into one array."""
    memory = physical_memory()
    if memory is not None and 2 * size > memory:
        side = f"{shape.height}×{shape.width}"
        raise DataError(
            f"{count:,} images of {side} pixels take {2 * size / 2**30:,.1f} GiB of memory while they are read; this "
            f"machine has {memory / 2**30:,.1f}. Pack them, and train from the packed folder, which is read batch by "
            f"batch: foveola pack DATA --image-size {side.replace('×', 'x')}. Or choose a smaller size, such as "
            f"--set image_size={max(shape.height // 2, 1)}."
        )


def decode_one(path: Path | StoredImage, shape: CommonShape, options: ReadOptions) -> DecodedImage | str:
    """The image, or why it cannot be used."""
    name = str(path) if isinstance(path, Path) else path.name
    if isinstance(path, Path) and path.is_dir():
        return f"{path} is a folder inside a class folder."
    if isinstance(path, Path) and path.suffix.lower() not in EXTENSIONS:
        return f"{path} does not have the file extension of an image ({', '.join(sorted(EXTENSIONS))})."

    chosen = reduction(shape, options) if options.prepare is None else None
    try:
        if isinstance(path, Path):
            image = read_first_frame(path, options.white_level, chosen)
        else:
            image = decode_first_frame(path.read(), name, white_level=options.white_level, reduce=chosen)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be read: {error}."
    pixels = image.pixels if options.prepare is None else options.prepare(image, name)
    height, width = image.original_size or image.pixels.shape[:2]
    return ImageInMemory(pixels, (height, width), is_colour(pixels), image.on_black, image.peak)


def reduction(shape: CommonShape, options: ReadOptions) -> Reduce:
    """The size in which an image is kept until the shape of all is settled.

    Resized immediately: a folder of full-size photographs would not fit in memory.
    """

    def reduce(height: int, width: int) -> tuple[int, int]:
        resized = options.image_size is not None or max(height, width) > DEFAULT_SIZE
        return shape.reduced_size(height, width) if resized else (height, width)

    return reduce


def _chosen(decoded: Decoded, training: Sequence[bool]) -> list[DecodedImage]:
    return [image for image, chosen in zip(decoded, training, strict=True) if chosen and image is not None]


def _white_level(training: list[DecodedImage]) -> int | None:
    """The value that should become 255 in files of 16 bits; None: 65535, or there are no such files."""
    peaks = [image.peak for image in training if image.peak is not None]
    return white_level_of(max(peaks)) if peaks else None


def _decode_deep(
    sources: Sequence[Source],
    decoded: Decoded,
    shape: CommonShape,
    options: ReadOptions,
    decode: Callable[[Sequence[Source], CommonShape, ReadOptions], tuple[Decoded, dict[int, str]]],
) -> Decoded:
    """The images, those of 16 bits decoded again, because the training images turned out to use fewer."""
    deep = [index for index, image in enumerate(decoded) if image is not None and image.peak is not None]
    again, refused = decode([sources[index] for index in deep], shape, options)
    if refused:
        raise DataError(next(iter(refused.values())))
    replaced = dict(zip(deep, again, strict=True))
    return [replaced.get(index, image) for index, image in enumerate(decoded)]


def _originals(training: list[DecodedImage], white_level: int | None) -> Originals:
    heights, widths = np.array([image.size for image in training], np.int64).reshape(-1, 2).T
    return Originals(heights, widths, sum(image.colour for image in training), white_level)


def _notes(training: list[DecodedImage], white_level: int | None) -> Iterator[str]:
    """What was assumed when the training images were decoded."""
    on_black = sum(image.on_black for image in training)
    if on_black:
        yield (
            f"{on_black:,} of {len(training):,} training images are light on a transparent ground. They were put on "
            f"black, because on white nothing would be left."
        )
    deep = [image for image in training if image.peak is not None]
    if deep and white_level is not None and white_level_of(white_level) is not None:
        bits, largest = white_level.bit_length(), max(image.peak or 0 for image in deep)
        yield (
            f"{len(deep):,} of {len(training):,} training images have 16 bits per pixel and use {bits} of them: their "
            f"values end at {largest:,}. {white_level:,} was taken as white, and will be in predictions."
        )
    coarse = sum(image.pixels.shape[2] == 3 for image in deep)
    if coarse:
        yield f"{coarse:,} of {len(training):,} training images have 16 bits per colour; the upper 8 were kept."
