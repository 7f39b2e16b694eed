"""A node of an ONNX graph, read from its bytes."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from foveola.exports.allowlist import UnsafeOnnx, fields, integer, integers, text

_Known = TypeVar("_Known")
_Value = TypeVar("_Value")


class Node:
    """A NodeProto that has been inspected: operator, names of inputs and outputs, attributes.

    An input that is left out has an empty name. `attributes` are those of whole numbers, `texts` those of text.
    """

    def __init__(self, content: memoryview) -> None:
        self.operator = ""
        self.names, self.outputs = list[str](), list[str]()
        self.attributes, self.texts = dict[str, list[int]](), dict[str, str]()
        for number, value, _ in fields(content):
            if number == 1:
                self.names.append(text(value))
            elif number == 2:
                self.outputs.append(text(value))
            elif number == 4:
                self.operator = text(value)
            elif number == 5:
                self._read_attribute(value)

    def _read_attribute(self, content: memoryview) -> None:
        name, numbers = "", list[int]()
        for number, value, whole in fields(content):
            if number == 1:
                name = text(value)
            elif number == 3:
                numbers = [integer(value)]
            elif number == 4:
                self.texts[name] = text(value)
            elif number == 8:
                numbers += integers(value, whole)
        self.attributes[name] = numbers

    def take_inputs(self, known: Mapping[str, _Known], convert: Callable[[_Known], _Value]) -> list[_Value | None]:
        """The inputs' values, converted from what nodes and constants before have given; None where one is left out.

        Raises
        ------
        UnsafeOnnx
            If nothing before has given an input.
        """
        if missing := [name for name in self.names if name and name not in known]:
            raise UnsafeOnnx(f"is damaged: {self.operator} takes {missing[0]}, which no node before it gives")
        return [convert(known[name]) if name else None for name in self.names]

    def refuse(self, reason: str) -> UnsafeOnnx:
        return UnsafeOnnx(f"has a node of the operator {self.operator[:40]} {reason}")
