"""Upper bounds of the memory and work that an ONNX graph takes, found before ONNX Runtime gets it.

Only the operators that Foveola writes are known, each with the rule that gives the largest shape of its output; others
are refused. Images may have any size until they are resized; from there on every shape follows from constants.
Sizes that the graph computes from the image's size, as for a letterbox, are sums of unknown numbers with known bounds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foveola.exports.allowlist import INPUT, UnsafeOnnx, fields, integer, integers, text
from foveola.exports.nodes import Node
from foveola.exports.own_bounds import BATCH_SIZE, MAX_SIZES, NetworkNode, Size, Tensor, apply_rule, is_of_network
from foveola.models.shapes import MAX_LAYER_VALUES, MAX_MULTIPLY_ADDS, MAX_PARAMETERS, MAX_VALUES

# Besides the layers there are preprocessing and, in int8, two nodes around each layer
_MAX_GRAPH_VALUES = 8 * MAX_VALUES
_MAX_GRAPH_WORK = 2 * MAX_MULTIPLY_ADDS
# Computed from images before these are resized
_MAX_NODES_BEFORE_RESIZE = 8
_MAX_SIDE = 2**31
_OUTSIDE = "exclude_outside"
_PRODUCTS = ("Conv", "MatMul", "Gemm")

# Of TensorProto.data_type: float, uint8, int8, int32, int64, bool
_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_}


@dataclass(frozen=True, eq=False)
class _Unknown:
    """A whole number between two bounds, the same wherever it stands."""

    low: int
    high: int


@dataclass(frozen=True)
class _Size:
    """A whole number: `constant`, plus unknown numbers, each multiplied by a whole number."""

    constant: int = 0
    unknown: Mapping[_Unknown, int] = field(default_factory=dict)

    @classmethod
    def between(cls, low: int, high: int) -> "_Size":
        return cls(low) if low == high else cls(0, {_Unknown(low, high): 1})

    def __add__(self, other: "_Size") -> "_Size":
        total = dict(self.unknown)
        for number, factor in other.unknown.items():
            total[number] = total.get(number, 0) + factor
        return _Size(self.constant + other.constant, {number: factor for number, factor in total.items() if factor})

    def __mul__(self, factor: int) -> "_Size":
        return _Size(self.constant * factor, {number: own * factor for number, own in self.unknown.items()})

    @property
    def low(self) -> int:
        return self.constant + sum(f * (n.low if f > 0 else n.high) for n, f in self.unknown.items())

    @property
    def high(self) -> int:
        return self.constant + sum(f * (n.high if f > 0 else n.low) for n, f in self.unknown.items())


@dataclass(frozen=True)
class _Images:
    """Values for each image: the shape of one image's, without the batch. `raw`: of the image's own size."""

    shape: tuple[_Size, ...]
    raw: bool = False

    @property
    def largest(self) -> tuple[int, ...]:
        return tuple(max(size.high, 0) for size in self.shape)


@dataclass(frozen=True)
class _Constant:
    """Values that are the same for every image. `sizes` are those of a short vector of int64."""

    shape: tuple[int, ...]
    sizes: tuple[_Size, ...] | None = None


_Value = _Images | _Constant

# Layers of Foveola's own know of one image's shape; those of a network that torch has exported, of the whole batch's


def _as_tensor(value: _Value | Tensor) -> Tensor:
    """A value of Foveola's nodes, as the nodes of a user's network take it."""
    match value:
        case _Images(raw=True):
            raise UnsafeOnnx("gives the network images that are not resized")
        case _Images():
            return Tensor((BATCH_SIZE, *map(Size, value.largest)))
        case _Constant(sizes=sizes) if sizes is not None and not any(size.unknown for size in sizes):
            return Tensor.constant(value.shape, [size.constant for size in sizes])
        case _Constant():
            return Tensor.constant(value.shape)
    return value


def _as_images(value: _Value | Tensor) -> _Value:
    """A value of a user's network, as Foveola's nodes take it."""
    if not isinstance(value, Tensor):
        return value
    if value.shape[:1] != (BATCH_SIZE,) or any(size.power for size in value.shape[1:]):
        raise UnsafeOnnx("has a network whose output does not have the batch as its first axis")
    return _exactly(*(size.factor for size in value.shape[1:]))


class _Node(Node):
    """A node of Foveola's, with the values of its inputs."""

    def __init__(self, content: memoryview, known: Mapping[str, _Value | Tensor]) -> None:
        super().__init__(content)
        self.inputs = self.take_inputs(known, _as_images)
        if self.operator not in _RULES:
            raise UnsafeOnnx(f"has a node of the operator {self.operator[:40]}, which Foveola never writes")
        if len(self.outputs) != 1 or not self.names:
            raise self.refuse("without input, or without exactly one output")

    def images(self, index: int = 0) -> _Images:
        """An input with values for each image, of a size that does not depend on the image's."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, _Images) or value.raw:
            raise self.refuse("that Foveola never writes: its input is not made of resized images")
        return value

    def constant(self, index: int) -> _Constant:
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, _Constant):
            raise self.refuse("that Foveola never writes: its weights or settings are not constant")
        return value

    def sizes(self, index: int) -> tuple[_Size, ...]:
        found = self.constant(index).sizes
        if found is None:
            raise self.refuse("whose sizes are not whole numbers")
        return found

    def numbers(self, index: int) -> list[int]:
        """The whole numbers of a constant input."""
        sizes = self.sizes(index)
        if any(size.unknown for size in sizes):
            raise self.refuse("whose axes depend on the image")
        return [size.constant for size in sizes]

    def integers(self, name: str, count: int, low: int, default: int | None = None) -> list[int]:
        """An attribute with so many whole numbers, none below `low`."""
        found = self.attributes.get(name, [] if default is None else [default] * count)
        if len(found) != count or any(not low <= number <= _MAX_SIDE for number in found):
            raise self.refuse(f"with an unusual {name}")
        return found


@dataclass
class _Cost:
    """What a graph takes for an image: values in all nodes, weights that it computes, work; nodes before the resizing.

    `multiply_adds` are those of convolutions and dense layers; `work` counts one for each value besides, and sums.
    """

    values: int = 0
    weights: int = 0
    work: int = 0
    multiply_adds: int = 0
    raw_nodes: int = 0

    def add(self, size: int, *, constant: bool) -> None:
        self.values += 0 if constant else size
        self.weights += size if constant else 0
        self.work += size

    def add_work(self, operator: str, count: int) -> None:
        self.work += count
        self.multiply_adds += count if operator in _PRODUCTS else 0

    def check(self) -> None:
        for count, limit, what in (
            (self.values, _MAX_GRAPH_VALUES, "values in all nodes"),
            (self.weights, MAX_PARAMETERS, "weights"),
            (self.work, _MAX_GRAPH_WORK, "multiply-adds"),
            (self.raw_nodes, _MAX_NODES_BEFORE_RESIZE, "nodes that take images before these are resized"),
        ):
            if count > limit:
                raise UnsafeOnnx(f"is too expensive: for an image it has {count:,} {what}, of at most {limit:,}")


def check_bounds(graph: memoryview) -> int:
    """Refuse a graph, which must have been inspected, that Foveola does not write or that is too large.

    Returns
    -------
    The multiply-adds of its convolutions and dense layers for an image

    Raises
    ------
    UnsafeOnnx
        If an operator is not one of Foveola's, or memory or work for an image may exceed the limits.
    """
    parts, cost = list(fields(graph)), _Cost()
    height, width = (_Size.between(1, _MAX_SIDE) for _ in range(2))
    channels = _declared_channels([content for number, content, _ in parts if number == 11])
    known: dict[str, _Value | Tensor] = {INPUT: _Images((height, width, channels), raw=True)}
    for content in (content for number, content, _ in parts if number == 5):
        _add(known, *_read_constant(content))
    for content in (content for number, content, _ in parts if number == 1):
        (_add_network_node if is_of_network(content) else _add_node)(content, known, cost)
    cost.check()
    return cost.multiply_adds


def _declared_channels(inputs: Sequence[memoryview]) -> _Size:
    """The channels of the images: as the only input declares them, which ONNX Runtime holds callers to, or 1 to 3."""
    content = inputs[0] if len(inputs) == 1 else memoryview(b"")
    for step in (2, 1, 2):  # type, tensor_type, shape
        content = next((value for number, value, _ in fields(content) if number == step), memoryview(b""))
    axes = [value for number, value, _ in fields(content) if number == 1]
    declared = [integer(value) for number, value, _ in fields(axes[3]) if number == 1] if len(axes) == 4 else []
    if declared in ([1], [3]):
        return _Size(declared[0])
    return _Size.between(1, 3)


def _add_node(content: memoryview, known: dict[str, _Value | Tensor], cost: _Cost) -> None:
    """Add what a node of Foveola's gives to what is known, and to the cost."""
    node = _Node(content, known)
    result, multiply_adds = _RULES[node.operator](node)
    cost.raw_nodes += any(isinstance(value, _Images) and value.raw for value in node.inputs)
    constant = isinstance(result, _Constant)
    size = math.prod(result.shape if isinstance(result, _Constant) else () if result.raw else result.largest)
    if not constant and size > MAX_LAYER_VALUES:
        raise node.refuse(f"that gives {size:,} values for an image, of at most {MAX_LAYER_VALUES:,}")
    cost.add(size, constant=constant)
    cost.add_work(node.operator, multiply_adds)
    _add(known, node.outputs[0], result)


def _add_network_node(content: memoryview, known: dict[str, _Value | Tensor], cost: _Cost) -> None:
    """As `_add_node`, for a node of a network that torch has exported."""
    node = NetworkNode(content, known, _as_tensor)
    result = apply_rule(node)
    for name, tensor in zip(node.outputs, result.outputs, strict=True):
        if tensor.depends_on_batch and tensor.values > MAX_LAYER_VALUES:
            raise node.refuse(f"that gives {tensor.values:,} values for an image, of at most {MAX_LAYER_VALUES:,}")
        cost.add(tensor.values, constant=not tensor.depends_on_batch)
        _add(known, name, tensor)
    cost.add_work(node.operator, result.work)


def _add(known: dict[str, _Value | Tensor], name: str, value: _Value | Tensor) -> None:
    if name in known or not name:
        raise UnsafeOnnx(f"is damaged: it has two values named {name[:40]!r}, or one without a name")
    known[name] = value


def _read_constant(content: memoryview) -> tuple[str, _Constant]:
    """Name and shape of a TensorProto, whose values must be as many as its shape says."""
    name, shape, kind, data = "", list[int](), 0, memoryview(b"")
    for number, value, whole in fields(content):
        if number == 1:
            shape += integers(value, whole)
        elif number == 2:
            kind = integer(value)
        elif number == 8:
            name = text(value)
        elif number == 9:
            data = value
    if kind not in _TYPES:
        raise UnsafeOnnx(f"has a constant of a type that Foveola never writes ({name[:40]})")
    dtype = np.dtype(_TYPES[kind]).newbyteorder("<")
    if min(shape, default=1) < 1 or math.prod(shape) * dtype.itemsize != len(data):
        raise UnsafeOnnx(f"is damaged: the constant {name[:40]} has {len(data):,} bytes, other than its shape says")
    sizes = None
    if _TYPES[kind] is np.int64 and len(shape) < 2 and math.prod(shape) <= MAX_SIZES:
        sizes = tuple(_Size(number) for number in np.frombuffer(data, dtype).tolist())
    return name, _Constant(tuple(shape), sizes)


def _exactly(*shape: int) -> _Images:
    return _Images(tuple(_Size(size) for size in shape))


# One rule an operator: node → largest output, multiply-adds besides one for each value of the output

_Result = tuple[_Value, int]


def _same(node: _Node) -> _Result:
    """A function of each value, with constants a channel."""
    for index in range(1, len(node.inputs)):
        node.constant(index)
    return _Images(tuple(_Size(size) for size in node.images().largest)), 0


def _cast(node: _Node) -> _Result:
    """To float32: the images as they come."""
    value = node.inputs[0]
    if not isinstance(value, _Images) or node.attributes.get("to") != [1]:
        raise node.refuse("that Foveola never writes")
    return value, 0


def _quantize(node: _Node) -> _Result:
    if isinstance(weights := node.inputs[0], _Constant):
        return _Constant(weights.shape), 0
    return _same(node)


def _arithmetic(node: _Node) -> _Result:
    """Of two sizes, or of values for each image and others that are broadcast to them."""
    if len(node.inputs) != 2:
        raise node.refuse("without two inputs")
    first, second = node.inputs
    if isinstance(first, _Constant) and isinstance(second, _Constant):
        return _arithmetic_of_sizes(node)
    images = [node.images(index) for index, value in enumerate(node.inputs) if not isinstance(value, _Constant)]
    shapes = [value.largest for value in images]
    rank = max(map(len, shapes))
    for value in node.inputs:
        if isinstance(value, _Constant):
            if len(value.shape) > rank + 1 or (len(value.shape) == rank + 1 and value.shape[0] != 1):
                raise node.refuse("whose constant has another shape")
            shapes.append(value.shape[max(len(value.shape) - rank, 0) :])
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    if any(len(value.shape) != rank for value in images):
        raise node.refuse("whose inputs have other shapes")
    return _exactly(*map(max, zip(*padded, strict=True))), 0


def _arithmetic_of_sizes(node: _Node) -> _Result:
    first, second = node.sizes(0), node.sizes(1)
    count = max(len(first), len(second))
    if {len(first), len(second)} - {1, count}:
        raise node.refuse("whose inputs have other lengths")
    pairs = zip(first * (count // len(first)), second * (count // len(second)), strict=True)
    return _Constant((count,), tuple(_SIZE_RULES[node.operator](node, a, b) for a, b in pairs)), 0


def _product(node: _Node, a: _Size, b: _Size) -> _Size:
    if a.unknown and b.unknown:
        raise node.refuse("that multiplies two sizes of an image")
    return b * a.constant if not a.unknown else a * b.constant


def _quotient(node: _Node, a: _Size, b: _Size) -> _Size:
    if a.low < 0 or b.low < 1:
        raise node.refuse("that divides by zero or less")
    return _Size.between(a.low // b.high, a.high // b.low)


_SIZE_RULES: dict[str, Callable[[_Node, _Size, _Size], _Size]] = {
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a + b * -1,
    "Mul": _product,
    "Div": _quotient,
    "Max": lambda node, a, b: _Size.between(max(a.low, b.low), max(a.high, b.high)),
    "Min": lambda node, a, b: _Size.between(min(a.low, b.low), min(a.high, b.high)),
}


def _shape_of(node: _Node) -> _Result:
    """Sizes of the images as they come."""
    value = node.inputs[0]
    (start,), (end,) = node.integers("start", 1, 0, default=0), node.integers("end", 1, 0, default=4)
    if not isinstance(value, _Images) or not value.raw or not 1 <= start < end <= 4:
        raise node.refuse("that Foveola never writes")
    sizes = value.shape[start - 1 : end - 1]
    return _Constant((len(sizes),), sizes), 0


def _slice(node: _Node) -> _Result:
    """Of a constant; at most all of it."""
    return _Constant(node.constant(0).shape), 0


def _concat(node: _Node) -> _Result:
    (axis,) = node.integers("axis", 1, 0, default=-1)
    if all(isinstance(value, _Constant) for value in node.inputs):
        sizes = [size for index in range(len(node.inputs)) for size in node.sizes(index)]
        if len(sizes) > MAX_SIZES:
            raise node.refuse("with too many sizes")
        return _Constant((len(sizes),), tuple(sizes)), 0
    shapes = [node.images(index).largest for index in range(len(node.inputs))]
    if axis < 1 or any(len(shape) != len(shapes[0]) or len(shape) < axis for shape in shapes):
        raise node.refuse("of images with other axes")
    result = [max(sizes) for sizes in zip(*shapes, strict=True)]
    result[axis - 1] = sum(shape[axis - 1] for shape in shapes)
    return _exactly(*result), 0


def _resize(node: _Node) -> _Result:
    """Images as they come, brought to a height and width."""
    value, sizes = node.inputs[0], node.sizes(3) if len(node.inputs) == 4 else ()
    if not isinstance(value, _Images) or len(value.shape) != 3 or len(sizes) != 2 or node.inputs[1:3] != [None, None]:
        raise node.refuse("that Foveola never writes")
    if node.integers("axes", 2, 1) != [1, 2] or node.attributes.keys() - {"axes", "mode", "antialias", _OUTSIDE}:
        raise node.refuse("with settings that Foveola never writes")
    return _Images((*sizes, _Size(max(value.shape[2].high, 0)))), 0


def _pad(node: _Node) -> _Result:
    shape, pads = list(node.images().shape), node.sizes(1)
    if node.attributes:
        raise node.refuse("with settings that Foveola never writes")
    axes = node.numbers(3) if len(node.inputs) > 3 else list(range(len(shape) + 1))
    if len(pads) != 2 * len(axes) or len(set(axes)) < len(axes) or not set(axes) <= set(range(len(shape) + 1)):
        raise node.refuse("with other axes than its input")
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        if axis:
            shape[axis - 1] = shape[axis - 1] + before + after
        elif before != _Size() or after != _Size():
            raise node.refuse("that adds images")
    return _Images(tuple(shape)), 0


def _transpose(node: _Node) -> _Result:
    shape = node.images().largest
    order = node.integers("perm", len(shape) + 1, 0)
    if order[0] != 0 or sorted(order) != list(range(len(shape) + 1)):
        raise node.refuse("that mixes images")
    return _exactly(*(shape[axis - 1] for axis in order[1:])), 0


def _flatten(node: _Node) -> _Result:
    if node.integers("axis", 1, 1, default=1) != [1]:
        raise node.refuse("that mixes images")
    return _exactly(math.prod(node.images().largest)), 0


def _reduce(node: _Node) -> _Result:
    shape, axes = node.images().largest, node.numbers(1)
    (keep,) = node.integers("keepdims", 1, 0, default=1)
    if not axes or not set(axes) <= set(range(1, len(shape) + 1)):
        raise node.refuse("that mixes images")
    kept = [1 if axis in axes else size for axis, size in enumerate(shape, 1) if keep or axis not in axes]
    return _exactly(*kept), math.prod(shape)


def _matmul(node: _Node) -> _Result:
    value, weights = node.inputs[0], node.constant(1)
    if not isinstance(value, _Images) or len(weights.shape) != 2:
        raise node.refuse("that Foveola never writes")
    if value.raw:
        if weights.shape[1] != 1:
            raise node.refuse("that enlarges images before they are resized")
        return _Images((*value.shape[:-1], _Size(1)), raw=True), 0
    result = _exactly(*value.largest[:-1], weights.shape[1])
    return result, math.prod(result.largest) * weights.shape[0]


def _gemm(node: _Node) -> _Result:
    weights = node.constant(1).shape
    if len(node.images().shape) != 1 or len(weights) != 2 or node.attributes != {"transB": [1]}:
        raise node.refuse("that Foveola never writes")
    return _exactly(weights[0]), math.prod(weights)


def _windows(node: _Node, window: Sequence[int]) -> tuple[list[int], int]:
    """Numbers of windows along height and width, and the values of the padded input, all channels together."""
    channels, *sides = _three(node)
    strides, pads = node.integers("strides", 2, 1, default=1), node.integers("pads", 4, 0, default=0)
    padded = [side + pads[axis] + pads[axis + 2] for axis, side in enumerate(sides)]
    if channels * math.prod(padded) > MAX_LAYER_VALUES:
        raise node.refuse(f"that pads an image to more than {MAX_LAYER_VALUES:,} values")
    return [max((padded[axis] - window[axis]) // strides[axis] + 1, 0) for axis in (0, 1)], channels


def _three(node: _Node) -> tuple[int, ...]:
    shape = node.images().largest
    if len(shape) != 3:
        raise node.refuse("whose input is not made of feature maps")
    return shape


def _conv(node: _Node) -> _Result:
    weights = node.constant(1).shape
    (groups,) = node.integers("group", 1, 1, default=1)
    if len(weights) != 4 or not node.attributes.keys() <= {"strides", "pads", "group"}:
        raise node.refuse("that Foveola never writes")
    if weights[0] % groups:
        raise node.refuse("whose weights do not fit its groups")
    sides, _ = _windows(node, weights[2:])
    return _exactly(weights[0], *sides), math.prod(weights) * math.prod(sides)


def _pool(node: _Node) -> _Result:
    if not node.attributes.keys() <= {"kernel_shape", "strides", "pads"}:
        raise node.refuse("that Foveola never writes")
    window = node.integers("kernel_shape", 2, 1)
    sides, channels = _windows(node, window)
    return _exactly(channels, *sides), channels * math.prod(sides) * math.prod(window)


def _global_pool(node: _Node) -> _Result:
    shape = _three(node)
    return _exactly(shape[0], 1, 1), math.prod(shape)


_RULES: dict[str, Callable[[_Node], _Result]] = {
    **dict.fromkeys(
        ("Relu", "LeakyRelu", "Elu", "Gelu", "Tanh", "Sigmoid", "HardSwish", "Clip", "Log", "BatchNormalization"), _same
    ),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantize),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max"), _arithmetic),
    **dict.fromkeys(("ReduceMean", "ReduceSumSquare", "ReduceMin", "ReduceLogSumExp"), _reduce),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool"), _global_pool),
    "Cast": _cast,
    "Shape": _shape_of,
    "Slice": _slice,
    "Concat": _concat,
    "Resize": _resize,
    "Pad": _pad,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
}
