"""Allowlist for ONNX files: a file with anything that Foveola never writes is refused before ONNX Runtime parses it.

A tensor in an ONNX file may refer to another file that holds its values, at any depth of subgraphs and functions. ONNX
Runtime checks such paths, but differently in each version, and can read files in the working directory even if it gets
the model as bytes. The bytes are therefore parsed here first, and every field must be on the allowlist. With the fields
on it, a tensor cannot refer to a file, and a node can neither contain a graph nor use another domain of operators. ONNX
Runtime then gets the same bytes, without a path, so it runs exactly what was checked.

https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from foveola.models.layers import Shape

INPUT, OUTPUT = "images", "logits"
# The second output, if the model measures it
UNFAMILIARITY = "unfamiliarity"

# Message → field number → type of the nested message, or None for numbers, text and raw values
_ALLOWED: dict[str, dict[int, str | None]] = {
    "ModelProto": {1: None, 2: None, 3: None, 7: "GraphProto", 8: "OperatorSetIdProto", 14: "StringStringEntryProto"},
    "OperatorSetIdProto": {2: None},
    "StringStringEntryProto": {1: None, 2: None},
    "GraphProto": {1: "NodeProto", 2: None, 5: "TensorProto", 11: "ValueInfoProto", 12: "ValueInfoProto"},
    "NodeProto": {1: None, 2: None, 4: None, 5: "AttributeProto"},
    "AttributeProto": {1: None, 2: None, 3: None, 4: None, 8: None, 20: None},
    "TensorProto": {1: None, 2: None, 8: None, 9: None},
    "ValueInfoProto": {1: None, 2: "TypeProto"},
    "TypeProto": {1: "TypeProto.Tensor"},
    "TypeProto.Tensor": {1: None, 2: "TensorShapeProto"},
    "TensorShapeProto": {1: "Dimension"},
    "Dimension": {1: None, 2: None},
}
# ONNX Runtime takes names that are not UTF-8, and then cannot say them
_TEXTS = {
    ("ModelProto", 2), ("ModelProto", 3), ("GraphProto", 2), ("NodeProto", 1), ("NodeProto", 2), ("NodeProto", 4),
    ("AttributeProto", 1), ("AttributeProto", 4), ("TensorProto", 8), ("ValueInfoProto", 1), ("Dimension", 2),
}  # fmt: skip
_REASONS = {
    ("TensorProto", 13): "keeps values in other files (external data)",
    ("TensorProto", 14): "keeps values in other files (external data)",
    ("OperatorSetIdProto", 1): "uses another domain of operators (custom operators)",
    ("NodeProto", 7): "uses another domain of operators (custom operators)",
    ("AttributeProto", 6): "has subgraphs",
    ("AttributeProto", 11): "has subgraphs",
    ("ModelProto", 25): "defines functions",
}
# A network of a hundred layers has a few thousand
_MAX_FIELDS = 100_000

_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5


class UnsafeOnnx(Exception):
    """The file contains something that Foveola never writes; the message completes "the file …"."""


class LayerOutput(BaseModel):
    """The output of a layer, and the tensor of the graph that holds it.

    `name` is the layer's name from `foveola.models.shapes.infer_shapes`. If other layers are folded into its weights,
    the graph has only their joint output, and the name lists them all: "conv2d_1 + batchnorm_1". The last output is
    named "logits". `shape` is for one image: height, width, channels, or units; feature maps are N×C×H×W in the tensor.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    tensor: str
    shape: Shape


@dataclass(frozen=True)
class OnnxContents:
    """The graph, as bytes, and the metadata properties of an ONNX file.

    `head` is everything else: of ModelProto, the fields 1 (IR version), 2 and 3 (producer), and 8 (operator sets).
    """

    graph: memoryview
    properties: dict[str, str]
    head: tuple[tuple[int, bytes], ...]


def inspect_onnx(data: bytes) -> OnnxContents:
    """Check a whole ONNX file against the allowlist.

    Raises
    ------
    UnsafeOnnx
        At the first field that Foveola never writes, or if the bytes are not Protocol Buffers.
    """
    properties: dict[str, str] = {}
    graphs, head = [], []
    for count, (message, number, value) in enumerate(_walk(memoryview(data), "ModelProto")):
        if count == _MAX_FIELDS:
            raise UnsafeOnnx(f"has more than {_MAX_FIELDS:,} fields")
        if (message, number) == ("ModelProto", 7):
            graphs.append(value)
        if (message, number) == ("ModelProto", 14):
            entry = {field: text(content) for _, field, content in _walk(value, "StringStringEntryProto")}
            properties[entry.get(1, "")] = entry.get(2, "")
        elif message == "ModelProto" and number != 7:
            head.append((number, bytes(value)))
    if len(graphs) != 1:
        raise UnsafeOnnx("is damaged or not an ONNX file: it must have exactly one graph")
    return OnnxContents(graphs[0], properties, tuple(head))


def add_outputs(data: bytes, tensors: Iterable[str]) -> bytes:
    """Add these tensors to the outputs of an ONNX file that has been inspected.

    The bytes of ModelProto {graph: GraphProto {output: ValueInfoProto {name}}} are appended. A reader merges the two
    graphs and concatenates their outputs (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    """
    outputs = b"".join(encode_field(12, encode_field(1, tensor.encode())) for tensor in tensors)
    return data + encode_field(7, outputs)


def keep_output(data: bytes, output: str) -> bytes:
    """An inspected ONNX file with one of its outputs only, and what that needs; ONNX Runtime computes every node."""
    whole = b""
    for number, value, field in fields(memoryview(data)):
        whole += encode_field(7, _keep_output(value, output)) if number == 7 else field
    return whole


def _keep_output(graph: memoryview, output: str) -> bytes:
    """A GraphProto with the nodes and constants that an output needs; each node comes after those it needs."""
    parts, needed = list(fields(graph)), {output}
    kept = []
    for number, value, field in reversed(parts):
        if number == 1:  # NodeProto: inputs are field 1, outputs field 2
            names = [(kind, text(name)) for kind, name, _ in fields(value) if kind in (1, 2)]
            if not any(kind == 2 and name in needed for kind, name in names):
                continue
            needed.update(name for kind, name in names if kind == 1)
        kept.append((number, value, field))
    return b"".join(field for number, value, field in reversed(kept) if _is_needed(number, value, needed, output))


def _is_needed(number: int, value: memoryview, needed: Set[str], output: str) -> bool:
    if number == 5:  # TensorProto
        return any(kind == 8 and text(name) in needed for kind, name, _ in fields(value))
    if number == 12:  # ValueInfoProto
        return any(kind == 1 and text(name) == output for kind, name, _ in fields(value))
    return True


def encode_field(number: int, content: bytes) -> bytes:
    """Encode a field of bytes; its number must be at most 15, so that its tag is one byte."""
    varint, rest = b"", len(content)
    while rest > 0x7F:
        varint, rest = varint + bytes([rest & 0x7F | 0x80]), rest >> 7
    return bytes([number << 3 | _LENGTH_DELIMITED]) + varint + bytes([rest]) + content


def _walk(data: memoryview, message: str) -> Iterator[tuple[str, int, memoryview]]:
    """All fields at all depths, outermost first: message, field number, and bytes of the value."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number not in _ALLOWED[message]:
            reason = _REASONS.get(
                (message, number), f"has a field that Foveola never writes ({message}, field {number})"
            )
            raise UnsafeOnnx(reason)
        nested = _ALLOWED[message][number]
        value, position = _value(data, position, wire_type)
        if (message, number) in _TEXTS:
            text(value)
        yield message, number, value
        if nested is not None:
            if wire_type != _LENGTH_DELIMITED:
                raise UnsafeOnnx(f"is damaged: field {number} of {message} is not a message")
            yield from _walk(value, nested)


def fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The fields of a message that has been inspected: number, bytes of the value, and the whole field."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        value, position = _value(data, position, tag & 7)
        yield tag >> 3, value, data[start:position]


def _value(data: memoryview, position: int, wire_type: int) -> tuple[memoryview, int]:
    """The bytes of a field's value, and the position after it."""
    if wire_type == _VARINT:
        end = _varint(data, position)[1]
    elif wire_type == _LENGTH_DELIMITED:
        length, position = _varint(data, position)
        end = position + length
    elif wire_type in (_EIGHT_BYTES, _FOUR_BYTES):
        end = position + (8 if wire_type == _EIGHT_BYTES else 4)
    else:
        raise UnsafeOnnx("is damaged or not an ONNX file")
    if end > len(data):
        raise UnsafeOnnx("is truncated")
    return data[position:end], end


def integer(value: memoryview) -> int:
    """A varint at the beginning of some bytes, as a signed number of 64 bits."""
    number = _varint(value, 0)[0] & (2**64 - 1)
    return number - 2**64 if number >= 2**63 else number


def integers(value: memoryview, whole: memoryview) -> list[int]:
    """A repeated whole number: one, or several in a packed field; `whole` is the field with its number."""
    if integer(whole) & 7 == 0:
        return [integer(value)]
    numbers, position = list[int](), 0
    while position < len(value):
        start = position
        while position < len(value) and value[position] > 0x7F:
            position += 1
        position += 1
        numbers.append(integer(value[start:position]))
    return numbers


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Decode a varint; its value and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise UnsafeOnnx("is truncated")
        byte, position = data[position], position + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise UnsafeOnnx("is damaged or not an ONNX file")


def text(value: memoryview) -> str:
    """A name or other text; raises UnsafeOnnx if it is not UTF-8."""
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise UnsafeOnnx("is damaged: its metadata or a name is not UTF-8 text") from None
