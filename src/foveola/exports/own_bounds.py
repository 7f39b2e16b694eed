"""Upper bounds of the part of an ONNX graph that torch has exported: the network that a user has written.

Its nodes are those whose outputs begin with PREFIX. Unlike Foveola's own layers, they may move the batch to another
axis, merge it with others, and compute with shapes, as attention does. Every size is therefore a whole number, or a
whole number times the batch size; sizes that depend on the batch in another way, or on values, are refused.
`foveola.exports.bounds` adds up what the rules here say of each node.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveola.exports.allowlist import fields, text
from foveola.exports.nodes import Node
from foveola.models.shapes import MAX_LAYER_VALUES

PREFIX = "network/"
# The largest batch that an export computes at once
BATCH = 64
# Vectors of more whole numbers are not shapes
MAX_SIZES = 16
_MAX_RANK = 8
_MAX_SIZE = 2**40
_INT64 = 7


@dataclass(frozen=True)
class Size:
    """A whole number, multiplied by the size of the batch if `power` is 1."""

    factor: int
    power: int = 0

    def __mul__(self, other: "Size") -> "Size":
        return Size(self.factor * other.factor, self.power + other.power)


ONE, BATCH_SIZE = Size(1), Size(1, 1)

Shape = tuple[Size, ...]


def _product_of(shape: Sequence[Size]) -> Size:
    return Size(math.prod(size.factor for size in shape), sum(size.power for size in shape))


@dataclass(frozen=True)
class Tensor:
    """A value in the graph: its shape, and its whole numbers if it is a scalar or short vector of known ones."""

    shape: Shape
    numbers: tuple[Size, ...] | None = None

    @classmethod
    def constant(cls, shape: Sequence[int], numbers: Sequence[int] | None = None) -> "Tensor":
        """A constant of this shape; `numbers` are its values, if these are whole and few."""
        return cls(tuple(map(Size, shape)), None if numbers is None else tuple(map(Size, numbers)))

    @property
    def depends_on_batch(self) -> bool:
        return any(size.power for size in self.shape)

    @property
    def values(self) -> int:
        """Values for each image of a full batch; all values, if their number does not depend on the batch."""
        powers = sum(size.power for size in self.shape)
        return math.prod(size.factor for size in self.shape) * int(BATCH ** max(powers - 1, 0))


@dataclass(frozen=True)
class Result:
    """The outputs of a node, and its work for each image, besides one for each value that it gives."""

    outputs: tuple[Tensor, ...]
    work: int = 0


class NetworkNode(Node):
    """A node of the network, with the values of its inputs.

    `as_tensor` makes a tensor of what nodes and constants before have given.
    """

    def __init__(self, content: memoryview, known: Mapping[str, Any], as_tensor: Callable[[Any], Tensor]) -> None:
        super().__init__(content)
        self._inputs = self.take_inputs(known, as_tensor)

    def has(self, index: int) -> bool:
        return index < len(self._inputs) and self._inputs[index] is not None

    def tensor(self, index: int = 0) -> Tensor:
        value = self._inputs[index] if index < len(self._inputs) else None
        if value is None:
            raise self.refuse("that lacks an input")
        return value

    @property
    def tensors(self) -> list[Tensor]:
        return [value for value in self._inputs if value is not None]

    def sizes(self, index: int) -> tuple[Size, ...]:
        """Whole numbers that an input holds, which may depend on the batch."""
        numbers = self.tensor(index).numbers
        if numbers is None:
            raise self.refuse("whose output has a size that depends on values")
        return numbers

    def numbers(self, index: int) -> list[int]:
        """Whole numbers that an input holds, the same for every batch."""
        sizes = self.sizes(index)
        if any(size.power for size in sizes):
            raise self.refuse("with a setting that depends on the batch")
        return [size.factor for size in sizes]

    def attribute(self, name: str, default: Sequence[int]) -> list[int]:
        """An attribute of as many whole numbers as the default has."""
        found = self.attributes.get(name, list(default))
        if len(found) != len(default):
            raise self.refuse(f"with an unusual {name}")
        return found

    def number(self, name: str, default: int) -> int:
        return self.attribute(name, [default])[0]

    def optional(self, name: str) -> list[int] | None:
        return self.attributes.get(name)

    def check_text(self, name: str, default: str) -> None:
        if self.texts.get(name, default) != default:
            raise self.refuse(f"with the {name} {self.texts[name][:40]}")

    def axis(self, number: int, rank: int) -> int:
        """An axis, counted from the end if it is negative."""
        if not -rank <= number < rank:
            raise self.refuse("with an axis that its input lacks")
        return number % rank


def is_of_network(content: memoryview) -> bool:
    """Whether a node, which has been inspected, belongs to the network that a user has written."""
    return any(number == 2 and text(name).startswith(PREFIX) for number, name, _ in fields(content))


def apply_rule(node: NetworkNode) -> Result:
    """The largest outputs of a node, and its work.

    Raises
    ------
    UnsafeOnnx
        If the operator is not on the list, or a size cannot be told beforehand.
    """
    if node.operator not in _RULES:
        raise node.refuse("which exports do not allow")
    result = _RULES[node.operator](node)
    if len(result.outputs) != len(node.outputs):
        raise node.refuse("with another number of outputs")
    for tensor in result.outputs:
        if len(tensor.shape) > _MAX_RANK:
            raise node.refuse(f"whose output has more than {_MAX_RANK} axes")
        if not all(1 <= size.factor <= _MAX_SIZE and size.power <= 1 for size in tensor.shape):
            raise node.refuse("whose output is empty, too large, or depends on the batch in an unusual way")
    return result


def _one(shape: Sequence[Size], work: int = 0, numbers: Sequence[Size] | None = None) -> Result:
    whole = None if numbers is None or len(numbers) > MAX_SIZES else tuple(numbers)
    return Result((Tensor(tuple(shape), whole),), work)


# Elementwise


def _same(node: NetworkNode) -> Result:
    """As many values as the first input has; other inputs are settings."""
    return _one(node.tensor().shape)


def _reduced_alike(node: NetworkNode) -> Result:
    """As `_same`, but each value depends on several: softmax and normalisations."""
    tensor = node.tensor()
    return _one(tensor.shape, 4 * tensor.values)


def _pass_on(node: NetworkNode) -> Result:
    tensor = node.tensor()
    return Result((tensor,))


def _cast(node: NetworkNode) -> Result:
    tensor = node.tensor()
    return Result((tensor if node.number("to", 0) == _INT64 else Tensor(tensor.shape),))


def _broadcast(node: NetworkNode) -> Result:
    """Inputs of one shape, or with axes of one that are repeated; of short vectors of sizes, also the values."""
    tensors = node.tensors
    shape: Shape = ()
    for tensor in tensors:
        shape = _broadcast_shapes(node, shape, tensor.shape)
    numbers = None
    if node.operator in _ARITHMETIC and len(tensors) == 2 and len(shape) <= 1:
        numbers = _arithmetic(node.operator, tensors[0].numbers, tensors[1].numbers)
    return _one(shape, numbers=numbers)


def _broadcast_shapes(node: NetworkNode, first: Shape, second: Shape) -> Shape:
    rank = max(len(first), len(second))
    first, second = ((ONE,) * (rank - len(shape)) + shape for shape in (first, second))
    pairs = list(zip(first, second, strict=True))
    if any(a != b and ONE not in (a, b) for a, b in pairs):
        raise node.refuse("whose inputs have other shapes")
    return tuple(b if a == ONE else a for a, b in pairs)


def _arithmetic(operator: str, first: tuple[Size, ...] | None, second: tuple[Size, ...] | None) -> list[Size] | None:
    """What becomes of sizes; None where that cannot be told."""
    if first is None or second is None:
        return None
    count = max(len(first), len(second))
    if {len(first), len(second)} - {1, count}:
        return None
    pairs = zip(first * (count // len(first)), second * (count // len(second)), strict=True)
    results = [_ARITHMETIC[operator](a, b) for a, b in pairs]
    usual = [size for size in results if size is not None and abs(size.factor) <= _MAX_SIZE and size.power <= 1]
    return usual if len(usual) == count else None


def _sum(a: Size, b: Size) -> Size | None:
    return Size(a.factor + b.factor, a.power) if a.power == b.power else None


def _quotient(a: Size, b: Size) -> Size | None:
    """Rounded towards zero, as ONNX does it."""
    if b.factor < 1 or a.factor < 0 or b.power > a.power:
        return None
    exact = a.factor % b.factor == 0
    return Size(a.factor // b.factor, a.power - b.power) if exact or a.power == b.power else None


_ARITHMETIC: dict[str, Callable[[Size, Size], Size | None]] = {
    "Add": _sum,
    "Sub": lambda a, b: _sum(a, Size(-b.factor, b.power)),
    "Mul": lambda a, b: a * b,
    "Div": _quotient,
}


# Shapes


def _shape_of(node: NetworkNode) -> Result:
    shape = node.tensor().shape
    start, end = node.number("start", 0), node.number("end", len(shape))
    sizes = shape[start:end]
    return _one((Size(len(sizes)),), numbers=sizes)


def _reshape(node: NetworkNode) -> Result:
    tensor, target = node.tensor(), list(node.sizes(1))
    for axis, size in enumerate(target):
        if size == Size(0) and not node.number("allowzero", 0):
            if axis >= len(tensor.shape):
                raise node.refuse("that copies an axis its input lacks")
            target[axis] = tensor.shape[axis]
    unknown = [axis for axis, size in enumerate(target) if size == Size(-1)]
    if len(unknown) > 1:
        raise node.refuse("with several unknown sizes")
    whole = _product_of(tensor.shape)
    for axis in unknown:
        others = _product_of([size for size in target if size != Size(-1)])
        rest = _quotient(whole, others) if others.factor > 0 else None
        if rest is None or rest * others != whole:
            raise node.refuse("whose input does not fit its output")
        target[axis] = rest
    if _product_of(target) != whole:
        raise node.refuse("whose input does not fit its output")
    return _one(target, numbers=tensor.numbers if len(target) < 2 else None)


def _flatten(node: NetworkNode) -> Result:
    shape = node.tensor().shape
    axis = node.number("axis", 1)
    axis = axis if axis == len(shape) else node.axis(axis, len(shape))
    return _one((_product_of(shape[:axis]), _product_of(shape[axis:])))


def _squeeze(node: NetworkNode) -> Result:
    tensor = node.tensor()
    rank = len(tensor.shape)
    ones = [axis for axis, size in enumerate(tensor.shape) if size == ONE]
    axes = {node.axis(number, rank) for number in node.numbers(1)} if node.has(1) else set(ones)
    if not axes <= set(ones):
        raise node.refuse("of an axis that is longer than one")
    return _one([size for axis, size in enumerate(tensor.shape) if axis not in axes], numbers=tensor.numbers)


def _unsqueeze(node: NetworkNode) -> Result:
    tensor, numbers = node.tensor(), node.numbers(1)
    rank = len(tensor.shape) + len(numbers)
    axes = {node.axis(number, rank) for number in numbers}
    if len(axes) < len(numbers):
        raise node.refuse("with an axis named twice")
    rest = iter(tensor.shape)
    shape = [ONE if axis in axes else next(rest) for axis in range(rank)]
    return _one(shape, numbers=tensor.numbers if rank < 2 else None)


def _transpose(node: NetworkNode) -> Result:
    shape = node.tensor().shape
    order = node.optional("perm") or list(range(len(shape)))[::-1]
    if sorted(order) != list(range(len(shape))):
        raise node.refuse("whose axes are not those of its input")
    return _one([shape[axis] for axis in order])


def _expand(node: NetworkNode) -> Result:
    return _one(_broadcast_shapes(node, node.tensor().shape, node.sizes(1)))


def _tile(node: NetworkNode) -> Result:
    shape, repeats = node.tensor().shape, node.sizes(1)
    if len(shape) != len(repeats):
        raise node.refuse("with other axes than its input")
    return _one([size * repeat for size, repeat in zip(shape, repeats, strict=True)])


def _concat(node: NetworkNode) -> Result:
    tensors = node.tensors
    first = tensors[0].shape if tensors else ()
    axis = node.axis(node.number("axis", 0), len(first))
    total: Size | None = Size(0, first[axis].power)
    for tensor in tensors:
        rest = (*tensor.shape[:axis], *tensor.shape[axis + 1 :])
        if len(tensor.shape) != len(first) or rest != (*first[:axis], *first[axis + 1 :]):
            raise node.refuse("whose inputs have other shapes")
        total = None if total is None else _sum(total, tensor.shape[axis])
    if total is None:
        raise node.refuse("whose output depends on the batch in an unusual way")
    vectors = [tensor.numbers for tensor in tensors]
    numbers = None if len(first) != 1 or None in vectors else [size for vector in vectors for size in vector or ()]
    return _one((*first[:axis], total, *first[axis + 1 :]), numbers=numbers)


def _split(node: NetworkNode) -> Result:
    shape = node.tensor().shape
    axis = node.axis(node.number("axis", 0), len(shape))
    count = len(node.outputs)
    if node.has(1):
        parts = list(node.sizes(1))
    elif shape[axis].power or node.number("num_outputs", count) != count:
        raise node.refuse("that divides the batch, or gives another number of outputs")
    else:
        part = -(-shape[axis].factor // count)
        parts = [Size(min(part, shape[axis].factor - part * index)) for index in range(count)]
    total: Size | None = Size(0, shape[axis].power)
    for size in parts:
        total = None if total is None else _sum(total, size)
    if total != shape[axis]:
        raise node.refuse("whose parts do not fit its input")
    return Result(tuple(Tensor((*shape[:axis], size, *shape[axis + 1 :])) for size in parts))


def _slice(node: NetworkNode) -> Result:
    tensor = node.tensor()
    starts, ends = node.numbers(1), node.sizes(2)
    axes = node.numbers(3) if node.has(3) else list(range(len(starts)))
    steps = node.numbers(4) if node.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.refuse("with unusual settings")
    shape, numbers = list(tensor.shape), tensor.numbers
    for start, end, number, step in zip(starts, ends, axes, steps, strict=True):
        axis = node.axis(number, len(shape))
        size = shape[axis]
        if (start, step) == (0, 1) and (end == size or (not end.power and end.factor >= _MAX_SIZE)):
            continue
        if size.power or end.power:
            raise node.refuse("of a part of the batch")
        part = range(size.factor)[start : end.factor : step]
        shape[axis] = Size(len(part))
        numbers = None if numbers is None else tuple(numbers[index] for index in part)
    return _one(shape, numbers=numbers if len(shape) == 1 else None)


def _gather(node: NetworkNode) -> Result:
    tensor, indices = node.tensor(), node.tensor(1)
    axis = node.axis(node.number("axis", 0), len(tensor.shape))
    shape = (*tensor.shape[:axis], *indices.shape, *tensor.shape[axis + 1 :])
    numbers = None
    if tensor.numbers is not None and indices.numbers is not None and len(tensor.shape) == 1:
        chosen = node.numbers(1)
        if not all(-len(tensor.numbers) <= index < len(tensor.numbers) for index in chosen):
            raise node.refuse("of an entry that its input lacks")
        numbers = [tensor.numbers[index] for index in chosen]
    return _one(shape, numbers=numbers)


def _gather_nd(node: NetworkNode) -> Result:
    tensor, indices = node.tensor().shape, node.tensor(1).shape
    batches = node.number("batch_dims", 0)
    if not indices or indices[-1].power or not 0 <= batches < min(len(tensor), len(indices)):
        raise node.refuse("with unusual indices")
    return _one((*indices[:-1], *tensor[batches + indices[-1].factor :]))


def _gather_elements(node: NetworkNode) -> Result:
    return _one(node.tensor(1).shape)


def _pad(node: NetworkNode) -> Result:
    shape, pads = list(node.tensor().shape), node.numbers(1)
    axes = node.numbers(3) if node.has(3) else list(range(len(shape)))
    if len(pads) != 2 * len(axes):
        raise node.refuse("with other axes than its input")
    for number, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        axis = node.axis(number, len(shape))
        if before or after:
            if shape[axis].power:
                raise node.refuse("that adds images")
            shape[axis] = Size(shape[axis].factor + before + after)
    return _one(shape)


def _range(node: NetworkNode) -> Result:
    """The whole numbers from zero to a size."""
    if node.numbers(0) != [0] or node.numbers(2) != [1]:
        raise node.refuse("that does not count from zero in steps of one")
    return _one((node.sizes(1)[0],))


# Sums


def _reduce(node: NetworkNode) -> Result:
    tensor = node.tensor()
    shape = tensor.shape
    if node.has(1):
        axes = {node.axis(number, len(shape)) for number in node.numbers(1)}
    else:
        axes = set() if node.number("noop_with_empty_axes", 0) else set(range(len(shape)))
    keep = node.number("keepdims", 1)
    return _one(
        [ONE if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes], tensor.values
    )


def _matmul(node: NetworkNode) -> Result:
    first, second = node.tensor(0).shape, node.tensor(1).shape
    if len(first) < 2 or len(second) < 2 or first[-1] != second[-2]:
        raise node.refuse("whose inputs do not fit together")
    shape = (*_broadcast_shapes(node, first[:-2], second[:-2]), first[-2], second[-1])
    return _product(shape, first[-1])


def _gemm(node: NetworkNode) -> Result:
    first, second = node.tensor(0).shape, node.tensor(1).shape
    if len(first) != 2 or len(second) != 2:
        raise node.refuse("whose inputs are not matrices")
    first = first[::-1] if node.number("transA", 0) else first
    second = second[::-1] if node.number("transB", 0) else second
    if first[1] != second[0]:
        raise node.refuse("whose inputs do not fit together")
    return _product((first[0], second[1]), first[1])


def _product(shape: Shape, summed: Size) -> Result:
    """A product of matrices, which adds up so many terms for each value."""
    return _one(shape, Tensor((*shape, summed)).values)


def _windows(node: NetworkNode, shape: Shape, window: Sequence[int]) -> list[Size]:
    """How often a window fits along each axis of feature maps, after batch and channels."""
    node.check_text("auto_pad", "NOTSET")
    sides, count = shape[2:], len(window)
    if len(shape) < 3 or len(sides) != count or any(size.power for size in sides) or min(window) < 1:
        raise node.refuse("whose input is not made of feature maps")
    strides, dilations = node.attribute("strides", [1] * count), node.attribute("dilations", [1] * count)
    pads = node.attribute("pads", [0] * 2 * count)
    if min(*strides, *dilations) < 1 or min(pads) < 0:
        raise node.refuse("with unusual settings")
    found = []
    for side, length, stride, dilation, before, after in zip(
        sides, window, strides, dilations, pads[:count], pads[count:], strict=True
    ):
        room = side.factor + before + after - dilation * (length - 1) - 1
        steps = -(-room // stride) if node.number("ceil_mode", 0) else room // stride
        if node.number("ceil_mode", 0) and steps * stride >= side.factor + before:
            steps -= 1  # the last window would begin in the padding
        found.append(Size(steps + 1))
    padded = [Size(side.factor + a + b) for side, a, b in zip(sides, pads[:count], pads[count:], strict=True)]
    node_values = Tensor((*shape[:2], *padded)).values
    if node_values > MAX_LAYER_VALUES:
        raise node.refuse(f"that pads an image to more than {MAX_LAYER_VALUES:,} values")
    return found


def _conv(node: NetworkNode) -> Result:
    shape, weights = node.tensor(0).shape, node.tensor(1).shape
    if any(size.power for size in (*weights, *shape[1:])) or len(weights) < 3 or len(weights) != len(shape):
        raise node.refuse("whose weights do not fit its input")
    filters, channels, *window = (size.factor for size in weights)
    group = node.number("group", 1)
    if group < 1 or channels * group != shape[1].factor or node.attribute("kernel_shape", window) != window:
        raise node.refuse("whose weights do not fit its input")
    return _product((shape[0], Size(filters), *_windows(node, shape, window)), Size(channels * math.prod(window)))


def _pool(node: NetworkNode) -> Result:
    shape, window = node.tensor().shape, node.optional("kernel_shape") or []
    if not window:
        raise node.refuse("without a window")
    return _product((*shape[:2], *_windows(node, shape, window)), Size(math.prod(window)))


def _global_pool(node: NetworkNode) -> Result:
    tensor = node.tensor()
    if len(tensor.shape) < 3:
        raise node.refuse("whose input is not made of feature maps")
    return _one((*tensor.shape[:2], *[ONE] * (len(tensor.shape) - 2)), tensor.values)


_Rule = Callable[[NetworkNode], Result]


def _all(rule: _Rule, operators: str) -> dict[str, _Rule]:
    return dict.fromkeys(operators.split(), rule)


_RULES: dict[str, _Rule] = {
    **_all(_same, "Relu LeakyRelu Elu Selu Celu Gelu Tanh Sigmoid HardSigmoid HardSwish Mish Softplus Softsign Clip"),
    **_all(_same, "ThresholdedRelu Erf Sqrt Exp Log Abs Neg Reciprocal Floor Ceil Round Sign Sin Cos Not IsNaN IsInf"),
    **_all(_same, "BatchNormalization QuantizeLinear DequantizeLinear Trilu CumSum"),
    **_all(_reduced_alike, "Softmax LogSoftmax LayerNormalization InstanceNormalization LpNormalization"),
    **_all(_broadcast, "Add Sub Mul Div Pow PRelu Min Max Sum Mean Where And Or Xor Equal Less LessOrEqual Greater"),
    **_all(_broadcast, "GreaterOrEqual"),
    **_all(_reduce, "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare"),
    **_all(_reduce, "ReduceLogSum ReduceLogSumExp"),
    **_all(_pool, "MaxPool AveragePool"),
    **_all(_global_pool, "GlobalMaxPool GlobalAveragePool"),
    "Identity": _pass_on,
    "Cast": _cast,
    "Shape": _shape_of,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GatherElements": _gather_elements,
    "ScatterND": _same,
    "Pad": _pad,
    "Range": _range,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
}
