"""What an exported ONNX file holds, and the refusal of all that Foveola never writes into one.

A tensor in an ONNX file may name another file that holds its values, at any depth of subgraphs and functions. ONNX
Runtime looks such a path over by itself, but versions differ, and files of the working directory stay within its reach
even if it gets the model as bytes. So the bytes are walked through first, and every field must be on a short list: with
those, a tensor cannot name a file, and a node can neither hold a graph nor name another domain of operators. ONNX
Runtime then gets the same bytes, and no path: what was looked at is what is run.

https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from foveola.layers import Shape

INPUT, OUTPUT = "images", "logits"

# Message → field number → the message inside, or None for numbers, text and raw values
_ALLOWED: dict[str, dict[int, str | None]] = {
    "ModelProto": {1: None, 2: None, 3: None, 7: "GraphProto", 8: "OperatorSetIdProto", 14: "StringStringEntryProto"},
    "OperatorSetIdProto": {2: None},
    "StringStringEntryProto": {1: None, 2: None},
    "GraphProto": {1: "NodeProto", 2: None, 5: "TensorProto", 11: None, 12: None},
    "NodeProto": {1: None, 2: None, 4: None, 5: "AttributeProto"},
    "AttributeProto": {1: None, 2: None, 3: None, 4: None, 8: None, 20: None},
    "TensorProto": {1: None, 2: None, 8: None, 9: None},
}
_REASONS = {
    ("TensorProto", 13): "keeps values in other files (external data)",
    ("TensorProto", 14): "keeps values in other files (external data)",
    ("OperatorSetIdProto", 1): "names a domain of operators (custom operators)",
    ("NodeProto", 7): "names a domain of operators (custom operators)",
    ("AttributeProto", 6): "has graphs within its graph",
    ("AttributeProto", 11): "has graphs within its graph",
    ("ModelProto", 25): "defines functions of its own",
}
# A hundred layers have a few thousand
_MAX_FIELDS = 100_000

_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5


class Refused(Exception):
    """What a file holds that no export of Foveola's does; completes "the file …"."""


class LayerOutput(BaseModel):
    """What a layer gives, and the tensor of the graph that holds it.

    `name` is the layer's own, as `foveola.architecture.trace` gives it. Where others are folded into its weights, so
    that the graph has no longer what it gives alone, they are named too: "conv2d_1 + batchnorm_1". The last one is
    "logits", what the model gives. `shape` is that of one image: height, width, channels, or units; maps lie in the
    tensor as N×C×H×W.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    tensor: str
    shape: Shape


@dataclass(frozen=True)
class Contents:
    """The bytes of the graph, and what is said beside it."""

    graph: memoryview
    metadata: dict[str, str]


def inspect(data: bytes) -> Contents:
    """Look through a whole ONNX file.

    Raises
    ------
    Refused
        At the first thing that Foveola never writes, or where the bytes are no Protocol Buffers.
    """
    metadata: dict[str, str] = {}
    graphs = []
    for count, (message, number, value) in enumerate(_walk(memoryview(data), "ModelProto")):
        if count == _MAX_FIELDS:
            raise Refused(f"has more than {_MAX_FIELDS:,} parts")
        if (message, number) == ("ModelProto", 7):
            graphs.append(value)
        if (message, number) == ("ModelProto", 14):
            entry = {key: _text(content) for _, key, content in _walk(value, "StringStringEntryProto")}
            metadata[entry.get(1, "")] = entry.get(2, "")
    if len(graphs) != 1:
        raise Refused("is damaged or no ONNX file: it should have one graph")
    return Contents(graphs[0], metadata)


def with_outputs(data: bytes, tensors: Iterable[str]) -> bytes:
    """An ONNX file, inspected before, whose graph gives these tensors too.

    What is appended is ModelProto {graph: GraphProto {output: ValueInfoProto {name}}}: a reader merges messages that
    come twice, and repeated fields go on (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    """
    outputs = b"".join(_field(12, _field(1, tensor.encode())) for tensor in tensors)
    return data + _field(7, outputs)


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes; numbers up to 15 have a tag of one byte."""
    length, rest = b"", len(content)
    while rest > 0x7F:
        length, rest = length + bytes([rest & 0x7F | 0x80]), rest >> 7
    return bytes([number << 3 | _LENGTH_DELIMITED]) + length + bytes([rest]) + content


def _walk(data: memoryview, message: str) -> Iterator[tuple[str, int, memoryview]]:
    """All fields at all depths, outermost first: message, number, and the bytes of those that have a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number not in _ALLOWED[message]:
            reason = _REASONS.get(
                (message, number), f"has a part that Foveola never writes ({message}, field {number})"
            )
            raise Refused(reason)
        inside = _ALLOWED[message][number]
        value, at = _value(data, at, kind)
        yield message, number, value
        if inside is not None:
            if kind != _LENGTH_DELIMITED:
                raise Refused(f"is damaged: field {number} of {message} is no message")
            yield from _walk(value, inside)


def _value(data: memoryview, at: int, kind: int) -> tuple[memoryview, int]:
    """The bytes of a field of that wire type, and where the next one starts."""
    if kind == _VARINT:
        end = _varint(data, at)[1]
    elif kind == _LENGTH_DELIMITED:
        length, at = _varint(data, at)
        end = at + length
    elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
        end = at + (8 if kind == _EIGHT_BYTES else 4)
    else:
        raise Refused("is damaged or no ONNX file")
    if end > len(data):
        raise Refused("is cut short")
    return data[at:end], end


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Refused("is cut short")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Refused("is damaged or no ONNX file")


def _text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise Refused("is damaged: its description is no text") from None
