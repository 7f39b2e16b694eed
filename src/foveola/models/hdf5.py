"""HDF5 files as Keras writes them: a small reader in Python that nothing in a file can lead elsewhere.

The C library of HDF5 parses a file's links, filters and attributes before its caller can look at them, and damaged
files make it write outside its memory (CVE-2025-2310 and others). Keras uses little of the format: groups, hard links,
arrays of numbers that lie in one piece, texts as attributes. Only that is read here, from the file's own content,
bounds first. Anything else is refused by name: soft and external links, external storage, filters, chunks, objects that
contain themselves.

https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html: superblock 0, object headers 1, symbol tables
"""

import math
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# A network of a thousand layers, with the state of its optimizer, has some ten thousand
_MAX_OBJECTS, _MAX_MESSAGES = 100_000, 100_000
_MAX_DEPTH, _MAX_LEVEL, _MAX_NAME, _MAX_SIDE = 32, 8, 1024, 2**31

# Messages of an object: what Keras's files have, and what is said of others
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _EXTERNAL_STORAGE, _LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 0x0B, 0x0C, 0x10, 0x11
_HARMLESS = {0x00, 0x04, 0x05, 0x0A, 0x0D, 0x0E, 0x12}  # padding, fill values, group info, comments, times
_KNOWN = {_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _LAYOUT, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE} | _HARMLESS
_LINK_KINDS = {1: "a soft link", 64: "an external link, to another file"}
_COMPACT, _CONTIGUOUS = 0, 1
_SCATTERED = {2: "chunks", 3: "other arrays (a virtual one)"}
_SHARED, _NOWHERE = 0x02, 2**64 - 1

# Little-endian IEEE floats: the description of the type after its version → the type in NumPy
_FLOATS = {
    struct.pack("<BHIHHBBBBI", 0x20, (8 * size - 1), size, 0, 8 * size, mantissa, exponent, 0, mantissa, bias): kind
    for size, mantissa, exponent, bias, kind in (
        (2, 10, 5, 15, "<f2"),
        (4, 23, 8, 127, "<f4"),
        (8, 52, 11, 1023, "<f8"),
    )
}
_FLOAT, _STRING, _VARIABLE_LENGTH = 1, 3, 9

Message = tuple[int, memoryview]


class UnsafeHdf5(Exception):
    """The file contains something that Keras never writes, or is damaged; the message completes "the file …"."""


class Hdf5File:
    """The groups, arrays and attributes of an HDF5 file.

    Parameters
    ----------
    content : the bytes of the whole file

    Raises
    ------
    UnsafeHdf5
        If the file is damaged, or any object in it is of a kind that Keras does not write.
    """

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._visited: set[int] = set()
        self._messages = 0
        self._objects: dict[str, list[Message]] = {}
        if bytes(self._take(0, 8)) != _SIGNATURE:
            raise UnsafeHdf5("is not an HDF5 file")
        versions, sizes, base = bytes(self._take(8, 5)), bytes(self._take(13, 2)), self._number(24, 8)
        if versions != bytes(5) or sizes != b"\x08\x08" or base != 0:
            raise UnsafeHdf5("has a newer or another layout of HDF5 than Keras writes")
        self._walk("", self._number(64, 8), 0)

    @property
    def arrays(self) -> list[str]:
        """Paths of the arrays, such as layers/conv2d/vars/0."""
        return [path for path, messages in self._objects.items() if any(kind == _LAYOUT for kind, _ in messages)]

    def array(self, path: str) -> NDArray[np.floating]:
        """An array of floats, read-only, in the memory of the content.

        Raises
        ------
        UnsafeHdf5
            If it is damaged, or not of floats.
        """
        messages = dict(self._objects[path])
        if _DATASPACE not in messages or _DATATYPE not in messages:
            raise UnsafeHdf5(f"is damaged: {path} has no shape or no type")
        shape, datatype = _shape(messages[_DATASPACE]), messages[_DATATYPE]
        kind = _FLOATS.get(bytes(datatype[1:20])) if datatype[0] & 0x0F == _FLOAT else None
        if kind is None:
            raise UnsafeHdf5(f"holds {path}, which is not of floats of 16, 32 or 64 bits")
        values = self._values(path, messages[_LAYOUT])
        if len(values) != math.prod(shape) * np.dtype(kind).itemsize:
            raise UnsafeHdf5(f"is damaged: {path} claims the shape {shape}, but holds {len(values):,} bytes")
        return np.frombuffer(values, kind).reshape(shape)

    def text(self, path: str, name: str) -> str | None:
        """A text that is an attribute of a group; None if it has none of this name."""
        for kind, data in self._objects[path]:
            if kind == _ATTRIBUTE and (found := self._attribute(data, name)) is not None:
                try:
                    return str(found, "utf-8")
                except UnicodeDecodeError:
                    raise UnsafeHdf5(f"is damaged: its attribute {name} is not UTF-8 text") from None
        return None

    # Bytes

    def _take(self, start: int, length: int) -> memoryview:
        if start + length > len(self._content):
            raise UnsafeHdf5("is truncated")
        return self._content[start : start + length]

    def _number(self, start: int, length: int) -> int:
        return int.from_bytes(self._take(start, length), "little")

    def _expect(self, address: int, signature: bytes) -> None:
        if bytes(self._take(address, len(signature))) != signature:
            raise UnsafeHdf5("is damaged: a part of it is not where it should be")
        if address in self._visited:
            raise UnsafeHdf5("has an object in two places, or one that contains itself (a loop of links)")
        self._visited.add(address)

    # Groups

    def _walk(self, path: str, header: int, depth: int) -> None:
        """The object whose header lies at this address, and everything inside it."""
        if len(self._objects) > _MAX_OBJECTS or depth > _MAX_DEPTH:
            raise UnsafeHdf5(f"has more than {_MAX_OBJECTS:,} objects, or groups more than {_MAX_DEPTH} deep")
        messages = list(self._read_messages(header, path))
        self._objects[path] = messages
        if any(kind == _LINK_INFO for kind, _ in messages):
            raise UnsafeHdf5(f"has links of a newer kind than Keras writes, in {path or 'its root'}")
        for kind, data in messages:
            if kind == _LAYOUT:
                _check_layout(data, path)
            if kind == _SYMBOL_TABLE:
                if len(data) < 16:
                    raise UnsafeHdf5("is truncated")
                tree, heap = struct.unpack_from("<QQ", data)
                for name, inner in self._members(tree, self._heap(heap), path):
                    inner_path = f"{path}/{name}" if path else name
                    if inner_path in self._objects:
                        raise UnsafeHdf5(f"is damaged: it has {inner_path} twice")
                    self._walk(inner_path, inner, depth + 1)

    def _read_messages(self, header: int, path: str) -> Iterator[Message]:
        """The messages of an object, of all blocks of its header."""
        self._expect(header, b"\x01")
        blocks = [self._take(header + 16, self._number(header + 8, 4))]
        while blocks:
            block = blocks.pop(0)
            while len(block) >= 8:
                kind, size, flags = struct.unpack_from("<HHB", block)
                data, block = block[8 : 8 + size], block[8 + size :]
                self._messages += 1
                if self._messages > _MAX_MESSAGES:
                    raise UnsafeHdf5(f"has more than {_MAX_MESSAGES:,} parts")
                if len(data) < size:
                    raise UnsafeHdf5("is truncated")
                _check_message(kind, flags, data, path)
                if kind == _CONTINUATION:
                    if size < 16:
                        raise UnsafeHdf5("is truncated")
                    start, length = struct.unpack_from("<QQ", data)
                    blocks.append(self._take(start, length))
                else:
                    yield kind, data

    def _heap(self, address: int) -> memoryview:
        """The names of a group's members."""
        self._expect(address, b"HEAP")
        return self._take(self._number(address + 24, 8), self._number(address + 8, 8))

    def _members(self, tree: int, heap: memoryview, path: str, level: int | None = None) -> Iterator[tuple[str, int]]:
        """Name and address of the header of each member of a group."""
        self._expect(tree, b"TREE\x00")
        found, entries = self._number(tree + 5, 1), self._number(tree + 6, 2)
        if found > _MAX_LEVEL or (level is not None and found != level):
            raise UnsafeHdf5("is damaged: a group's tree is not in order")
        for entry in range(entries):
            child = self._number(tree + 32 + 16 * entry, 8)
            if found > 0:
                yield from self._members(child, heap, path, found - 1)
            else:
                yield from self._symbols(child, heap, path)

    def _symbols(self, node: int, heap: memoryview, path: str) -> Iterator[tuple[str, int]]:
        self._expect(node, b"SNOD\x01")
        for entry in range(self._number(node + 6, 2)):
            name_at, header, cached = struct.unpack_from("<QQI", self._take(node + 8 + 40 * entry, 40))
            name = bytes(heap[name_at : name_at + _MAX_NAME]).partition(b"\0")[0].decode("utf-8", "replace")
            if not name or len(name) == _MAX_NAME or "/" in name or name in (".", ".."):
                raise UnsafeHdf5("is damaged: a group has a member without a usable name")
            if cached == 2:
                raise UnsafeHdf5(f"has a soft link, {path}/{name}")
            yield name, header

    # Values

    def _values(self, path: str, layout: memoryview) -> memoryview:
        if layout[1] == _COMPACT:
            (size,) = struct.unpack_from("<H", layout, 2)
            return layout[4 : 4 + size]
        start, size = struct.unpack_from("<QQ", layout, 2)
        if start == _NOWHERE:
            raise UnsafeHdf5(f"is damaged: {path} has no values")
        return self._take(start, size)

    def _attribute(self, data: memoryview, name: str) -> memoryview | None:
        """The bytes of a text if the attribute has this name."""
        if len(data) < 9 or data[0] not in (1, 2, 3):
            raise UnsafeHdf5("is damaged: it has an attribute that cannot be read")
        version = data[0]
        sizes = struct.unpack_from("<HHH", data, 2)
        position, parts = 9 if version == 3 else 8, []
        for size in sizes:
            parts.append(data[position : position + size])
            position += -(-size // 8) * 8 if version == 1 else size
        if bytes(parts[0]).partition(b"\0")[0] != name.encode():
            return None
        datatype, count = parts[1], math.prod(_shape(parts[2]))
        if count != 1 or len(datatype) < 8:
            raise UnsafeHdf5(f"is damaged: its attribute {name} is not one text")
        kind, (size,) = datatype[0] & 0x0F, struct.unpack_from("<I", datatype, 4)
        value = data[position : position + size]
        if kind == _VARIABLE_LENGTH and datatype[1] & 0x0F == 1 and len(value) == 16:
            length, heap, index = struct.unpack("<IQI", value)
            return self._from_global_heap(heap, index)[:length]
        if kind == _STRING:
            return memoryview(bytes(value).rstrip(b"\0"))
        raise UnsafeHdf5(f"is damaged: its attribute {name} is not one text")

    def _from_global_heap(self, address: int, wanted: int) -> memoryview:
        """An object of a collection of texts of variable length."""
        if bytes(self._take(address, 5)) != b"GCOL\x01":
            raise UnsafeHdf5("is damaged: a part of it is not where it should be")
        collection = self._take(address, self._number(address + 8, 8))
        position = 16
        for _ in range(2**16):
            if position + 16 > len(collection):
                break
            index, _, size = struct.unpack_from("<HHxxxxQ", collection, position)
            if index == wanted:
                return collection[position + 16 : position + 16 + size]
            if index == 0:
                break
            position += 16 + -(-size // 8) * 8
        raise UnsafeHdf5("is damaged: a text of it is missing")


def _check_message(kind: int, flags: int, data: memoryview, path: str) -> None:
    place = path or "its root"
    if kind == _LINK:
        link = data[2] if len(data) > 2 and data[1] & 0x08 else 0
        if link != 0:  # hard links of this kind are refused later, so that the worst is named
            raise UnsafeHdf5(f"has {_LINK_KINDS.get(link, 'a link of another kind')}, in {place}")
    if kind == _EXTERNAL_STORAGE:
        raise UnsafeHdf5(f"keeps {place} in another file (external storage)")
    if kind == _FILTERS:
        raise UnsafeHdf5(f"compresses or filters {place}, which Keras does not do")
    if kind not in _KNOWN:
        raise UnsafeHdf5(f"has something that Keras does not write, in {place} (HDF5 message {kind:#04x})")
    if flags & _SHARED:
        raise UnsafeHdf5(f"shares a part of {place} with other objects, which Keras does not do")


def _check_layout(layout: memoryview, path: str) -> None:
    """Refuse an array whose values do not lie in one piece of the file."""
    version, kind = (layout[0], layout[1]) if len(layout) >= 4 else (0, 0)
    if version >= 3 and kind in _SCATTERED:
        raise UnsafeHdf5(f"keeps {path} in {_SCATTERED[kind]}, which Keras does not write")
    if version != 3 or kind not in (_COMPACT, _CONTIGUOUS) or (kind == _CONTIGUOUS and len(layout) < 18):
        raise UnsafeHdf5(f"keeps {path} in a layout that Keras does not write")


def _shape(dataspace: memoryview) -> tuple[int, ...]:
    version, rank = (dataspace[0], dataspace[1]) if len(dataspace) >= 4 else (0, 0)
    start = {1: 8, 2: 4}.get(version, 0)
    if not start or rank > 8 or len(dataspace) < start + 8 * rank:
        raise UnsafeHdf5("is damaged: the shape of an array cannot be read")
    shape: tuple[int, ...] = struct.unpack_from(f"<{rank}Q", dataspace, start)
    if not all(0 < side < _MAX_SIDE for side in shape):
        raise UnsafeHdf5(f"is damaged: it has an array of the shape {shape}")
    return shape
