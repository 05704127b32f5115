"""What doctor asks of a target's model files, what it is asked itself, and a file as it sees it, whatever its format.

A file is programs of nodes and values, and places where its weights lie.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgeformer.convert.target import file_format
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT, Requirement
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import load_attribute

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


# What doctor asks of a target's model files.


Observe = Callable[[str, str, float], None]
"""Called with a program's name, a value's label and the value's largest absolute number, NaN where it holds one."""

Tap = Callable[[str, str, Array], None]
"""Called with a program's name, a value's label and the value itself."""


@dataclass(frozen=True)
class Support:
    """Whether a runtime has an operator.

    Attributes:
        operator: what is asked for.
        needs: the oldest runtime that has it, for people; None: not known.
        supported: whether the stated runtime has it; None: not known.
    """

    operator: Operator
    needs: str | None
    supported: bool | None


@dataclass(frozen=True)
class Partitioning:
    """How a program is divided between a delegate and the runtime's own kernels.

    Attributes:
        program: its name.
        delegate: who takes the partitions: "XNNPACK", "Neural Engine".
        pieces: how many it gets.
        outside: how often each operator is left to the runtime.
        measured: found in the file or by running the delegate here; otherwise by rule.
    """

    program: str
    delegate: str
    pieces: int
    outside: Counter[str] = field(default_factory=Counter)
    measured: bool = True


class Examiner(Protocol):
    """Reads one target's model files and knows its runtime."""

    runtime_name: str
    """The runtime whose version `--runtime` states: "LiteRT"."""

    package: str | None
    """The package in the manifest's toolchain whose version is the default; None: the manifest's `requires.ios` is."""

    without_vnni: str | None
    """What int8 products cost on an x86 CPU without VNNI, in a sentence without a full stop; None: they run on none."""

    def read(self, bundle: Bundle) -> ModelView:
        """Read the model files.

        Raises:
            BundleError: one of them is not what it should be; the message says what.
        """

    def support(self, view: ModelView, runtime: str) -> tuple[Support, ...]:
        """Whether a version of the runtime has each of the view's operators.

        Raises:
            InputError: `runtime` is no version.
        """

    def partitions(self, bundle: Bundle, view: ModelView) -> tuple[Partitioning, ...]:
        """How each program is divided; empty where nothing is known."""

    def computes_in_half(self, precision: str) -> bool:
        """Whether a bundle of this precision computes in float16 on every device."""

    def observed(self, bundle: Bundle, view: ModelView, observe: Observe) -> Engine | None:
        """An engine that tells the range of each value that it computes; None: this target hides them."""

    def tapped(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int]) -> Engine | None:
        """An engine that gives away the floating-point values that it computes, in order, if their number of elements
        is among `sizes`; None: this target hides them.
        """


def examiner_for(target: str) -> Examiner:
    """The examiner of a format of model files, by the name that manifests have.

    Raises:
        EngineError: its tools are not installed; the message says what to install.
    """
    try:
        return cast(Examiner, load_attribute(file_format(target).examiner))
    except ImportError as error:
        raise EngineError(
            f"examining a {target} bundle needs {error.name}: pip install 'edgeformer[{target}]'"
        ) from None


# What a check says: how bad it is, what was found, why it matters and what to do.


class Severity(StrEnum):
    """How bad a finding is; an error is what makes `doctor` exit with 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say.

    Attributes:
        check: the name of the check, as in `CHECKS`.
        severity: see `Severity`.
        what: what was found, in a sentence without a full stop.
        why: what it leads to on a device; empty where all is fine.
        do: what to do about it; empty where there is nothing to do.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    do: str = ""

    def to_json(self) -> dict[str, str]:
        """As `doctor --json` prints it."""
        return asdict(self)


def error(check: str, what: str, why: str, do: str) -> Finding:
    """A finding that must be repaired."""
    return Finding(check, Severity.ERROR, what, why, do)


def warning(check: str, what: str, why: str, do: str) -> Finding:
    """A finding that may hurt."""
    return Finding(check, Severity.WARNING, what, why, do)


def info(check: str, what: str, why: str = "", do: str = "") -> Finding:
    """Something worth knowing."""
    return Finding(check, Severity.INFO, what, why, do)


def fine(check: str, what: str) -> Finding:
    """What was checked and is in order."""
    return Finding(check, Severity.FINE, what)


# What is asked: which devices and runtimes the bundle is meant for.


ANDROID_API_RANGE = (1, 99)


@dataclass(frozen=True)
class DoctorOptions:
    """Options of one examination.

    Attributes:
        min_ios: the oldest iOS that the app supports ("17.0"); None: not asked.
        min_android_api: the oldest Android API level that the app supports; None: not asked.
        runtime: the version of the target's runtime on the device; None: that of the bundle's toolchain.
        required: what the bundle must be.
    """

    min_ios: str | None = None
    min_android_api: int | None = None
    runtime: str | None = None
    required: Requirement = NO_REQUIREMENT

    def __post_init__(self) -> None:
        if self.min_ios is not None:
            parse_version(self.min_ios, "--min-ios")
        low, high = ANDROID_API_RANGE
        if self.min_android_api is not None and not low <= self.min_android_api <= high:
            raise InputError(f"expected --min-android-api as {low} to {high}, found {self.min_android_api}")


# Versions of runtimes and systems, compared number by number.


Version = tuple[int, ...]


def parse_version(text: str, option: str) -> Version:
    """The numbers of a version like 2.1.0; what follows the first three, as in 2.13.0+cpu or 1.0.0rc1, is not compared.

    Raises:
        InputError: the text does not begin with a number; `option` is named as what is wrong.
    """
    found = re.match(r"\d+(\.\d+){0,2}", text)
    if found is None:
        raise InputError(f"expected {option} as a version like 2.1.0, found {text!r}")
    return tuple(int(number) for number in found[0].split("."))


def show(version: Version) -> str:
    """The version as text."""
    return ".".join(map(str, version))


def older(version: Version, needed: Version) -> bool:
    """Whether a version is older than the needed one; 2.1 is as old as 2.1.0."""
    length = max(len(version), len(needed))
    return version + (0,) * (length - len(version)) < needed + (0,) * (length - len(needed))
