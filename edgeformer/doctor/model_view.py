"""A model file as doctor sees it, whatever its format: programs of nodes and values, and where its weights lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Value:
    """One tensor of a program.

    Attributes:
        label: its name for people.
        dtype: as numpy calls it, or as the format does where numpy has no such type ("int4").
        shape: sizes; empty for a scalar.
        size_bytes: what it takes in memory; 0 where the file does not say its shape.
        constant: reads the values of a constant, integers with a scale as the numbers that they stand for; None: it is
            computed, or comes from the caller.
    """

    label: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    constant: Callable[[], Array] | None = None

    @property
    def is_float(self) -> bool:
        """Whether a computed value is a floating-point number."""
        return self.dtype.startswith(("float", "bfloat"))


@dataclass(frozen=True)
class Node:
    """One operator of a program.

    Attributes:
        operator: its name in the format's own vocabulary.
        label: a name for people that tells it from others of its kind.
        inputs, outputs: keys of `Program.values`; an absent operand is left out.
        piece: the number of the delegate's piece that has it; None: none has, or nothing is known of that.
    """

    operator: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    piece: int | None = None


@dataclass(frozen=True)
class Program:
    """One callable of a model file, its nodes in the order of execution.

    Attributes:
        name: as in the manifest.
        nodes: what it computes; what a delegate has is listed node by node where the format allows to see it.
        values: tensors by a key that is unique in the program.
        inputs: keys of what the caller gives, states included.
        outputs: keys of what the caller gets.
        planned_bytes: what the file itself plans for activations; None: it plans nothing.
    """

    name: str
    nodes: tuple[Node, ...]
    values: dict[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    planned_bytes: int | None = None

    @cached_property
    def producers(self) -> dict[str, Node]:
        """Which node makes a value, by the value's key."""
        return {key: node for node in self.nodes for key in node.outputs}

    def constants(self) -> Iterator[Value]:
        """The values that are stored in the file."""
        return (value for value in self.values.values() if value.constant is not None)


@dataclass(frozen=True)
class Operator:
    """An operator as the model's files use it.

    Attributes:
        name: in the format's own vocabulary, as in the manifest's `operators`.
        version: of the operator or of its set; None: the format has none.
        count: how often it occurs in all programs.
    """

    name: str
    version: int | None
    count: int


@dataclass(frozen=True)
class Placement:
    """Where weights lie in a file.

    Attributes:
        file: a file of the bundle.
        what: the weights' name.
        offset: their first byte in the file.
        size_bytes: how many there are.
        alignment: what `offset` has to be a multiple of.
    """

    file: str
    what: str
    offset: int
    size_bytes: int
    alignment: int


@dataclass(frozen=True)
class ModelView:
    """All programs of a bundle's model files.

    Attributes:
        programs: in the manifest's order.
        operators: what the programs use, by name and version.
        placements: where weights lie in files, as far as the format says so.
        facts: versions that the files state, by name: an opset, a specification.
        foreign: the format's own objects, for the examiner that read them.
    """

    programs: tuple[Program, ...]
    operators: tuple[Operator, ...]
    placements: tuple[Placement, ...]
    facts: dict[str, int]
    foreign: Any = None


def count_operators(used: Counter[tuple[str, int | None]]) -> tuple[Operator, ...]:
    """Operators from how often each (name, version) occurs, in the order of names."""
    return tuple(Operator(*key, count) for key, count in sorted(used.items(), key=lambda item: item[0][0]))


# One name for an operator that every format spells in its own way.


SOFTMAX = frozenset({"softmax", "logsoftmax"})
LAYOUT = frozenset({"reshape", "view", "expanddims", "unsqueeze", "squeeze", "etview", "viewcopy", "flatten"})
"""They give the same numbers in the same order."""
ELEMENTWISE = frozenset(
    {
        "add", "sub", "mul", "div", "maximum", "minimum", "clamp", "clip", "max", "min", "neg", "relu", "relu6", "gelu",
        "tanh", "logistic", "sigmoid", "exp", "sqrt", "rsqrt", "square", "abs", "erf", "hardswish", "pow", "softsign",
        "squareddifference", "where", "select", "selectv2",
    }
)  # fmt: skip
"""Each number of the result comes of the numbers in its place."""

_ALIASES = {"multiply": "mul", "subtract": "sub", "negate": "neg", "divide": "div", "realdiv": "div"}


def plain_name(operator: str) -> str:
    """`aten::mul.Tensor_out`, `XNNMultiply`, `MUL` and `Mul` are all `mul`."""
    name = operator.split("::")[-1].split(".")[0]
    if name.startswith("XNN"):
        name = name.removeprefix("XNN").removeprefix("Static")
    name = name.lower().replace("_copy", "").replace("_", "")
    return _ALIASES.get(name, name)
