"""Looks at a `.pte` before ExecuTorch opens it: it trusts the file's indices, sizes and segments."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.model_files import (
    Broken,
    Contents,
    IndexTrace,
    Shape,
    check_range,
    check_shape,
    refuse,
    shown,
)
from edgeformer_runtime.model_files.encodings import FlatBuffer, Steps, Table
from edgeformer_runtime.model_files.executorch_operators import INDICES, MOVES, check_xnnpack, kernels

# The extended header: magic, its length, the program's size, the base of the segments, their size.
_HEADER = struct.Struct("<4sIQQ")
_HEADER_AT = 8
_MAGIC = b"eh00"
MAX_MEMORY_BYTES = 1 << 30
"""Of one method's plan."""
KERNEL, DELEGATE, FREE = 1, 2, 5
"""InstructionArguments that a reader takes: none moves or jumps."""
XNNPACK = "XnnpackBackend"
IN_SEGMENT = 1


class Place(NamedTuple):
    """Bytes of a method's planned memory."""

    memory: int
    begin: int
    end: int


Key = Place | int
"""A tensor by its planned memory, or one that has none by its number."""

Room = tuple[int, int]
"""Where bytes begin in the file, and how many there are up to their segment's end."""


@dataclass(frozen=True)
class Segments:
    """The parts of a file behind its flatbuffer.

    Attributes:
        data: the whole file.
        places: offset and size of each.
        named: the number of the segment that has each named data.
        steps: what may still be looked at in the file.
    """

    data: memoryview
    places: list[tuple[int, int]]
    named: dict[str, int]
    steps: Steps

    def place(self, number: int) -> tuple[int, int]:
        """A segment's offset and size."""
        if number >= len(self.places):
            refuse(f"it names the segment {number} of {len(self.places)}")
        return self.places[number]

    def named_size(self, key: str) -> int:
        """The size of named data."""
        if key not in self.named:
            refuse(f"it names the data {shown(key)}, which it has not")
        return self.place(self.named[key])[1]


def check_executorch(data: memoryview, programs: list[ProgramSpec]) -> Contents:
    """Refuse a file that breaks a rule of BUNDLE.md.

    Args:
        data: the whole file.
        programs: those that the manifest says this file has.

    Returns:
        How often each kernel and delegate is called, and the rows of the tables that inputs index.

    Raises:
        Broken: says which rule and where.
    """
    if len(data) < _HEADER_AT + _HEADER.size:
        refuse("no .pte file: it is shorter than its header")
    magic, length, size, base = _HEADER.unpack_from(data, _HEADER_AT)
    if magic != _MAGIC or length < _HEADER.size:
        refuse("no .pte file with segments: convert the bundle again")
    check_range(0, size, len(data), "the program")
    check_range(base, 0, len(data), "the segments' begin")
    steps = Steps()
    program = FlatBuffer(data[:size], b"ET12", ".pte file", steps).root()
    segments = _segments(data, program, base, size, steps)
    for field in (2, 3):
        for each in program.tables(field):
            if each.bytes(0):
                refuse("it has constants or delegates' data in its flatbuffer")
    constants = _offsets(program.table(5), segments)
    states = [_offsets(each, segments) for each in program.tables(6)]
    found = Contents(Counter())
    plans: dict[str | None, Table] = {}
    for plan in program.tables(1):
        name = plan.text(0)
        if name in plans:
            refuse(f"it has the method {shown(name)} twice")
        plans[name] = plan
        try:
            reader = ValueReader(constants, states, data, steps)
            _Plan(plan, segments, reader, found, [program for program in programs if program.entry == name])
        except Broken as error:
            raise Broken(f"method {shown(name)}: {error}") from None
    for declared in programs:
        if declared.entry not in plans:
            refuse(f"it has no method {shown(declared.entry)}")
    return found


def _segments(data: memoryview, program: Table, base: int, size: int, steps: Steps) -> Segments:
    places = []
    for number, each in enumerate(program.tables(4)):
        offset, length = each.scalar(0, "Q"), each.scalar(1, "Q")
        if base < size:
            refuse("its segments begin inside its program")
        check_range(offset, length, len(data) - base, f"segment {number}")
        places.append((base + offset, length))
    named: dict[str, int] = {}
    for each in program.tables(7):
        key = each.text(0) or ""
        if key in named or each.scalar(1, "I") >= len(places):
            refuse(f"it has the named data {shown(key)} twice, or in no segment")
        named[key] = each.scalar(1, "I")
    return Segments(data, places, named, steps)


def _offsets(table: Table | None, segments: Segments) -> list[Room]:
    """Where each offset of a segment is in the file, and how many bytes there are from it on."""
    if table is None:
        return []
    offsets = table.integers(1, "Q")
    if not offsets:
        return []
    begin, size = segments.place(table.scalar(0, "I"))
    for offset in offsets:
        check_range(offset, 0, size, "a constant")
    return [(begin + offset, size - offset) for offset in offsets]


class _Plan:
    """A method: its values, and its instructions, which run in order."""

    def __init__(
        self, plan: Table, segments: Segments, reader: ValueReader, contents: Contents, programs: list[ProgramSpec]
    ) -> None:
        self._segments = segments
        self._counts = contents.operators
        memory = plan.integers(8, "q")
        if any(size < 0 for size in memory) or sum(memory) > MAX_MEMORY_BYTES:
            refuse(f"it plans {shown(memory)} bytes: expected at most 2^30")
        for each in plan.tables(9):
            if each.scalar(1, "b"):
                refuse("it plans memory of a device")
        self._values = reader.read(list(plan.tables(2)), memory)
        inputs, outputs = ([self._index(each) for each in plan.integers(field)] for field in (3, 4))
        constants = [number for number, value in enumerate(self._values) if value.constant]
        self._trace = IndexTrace(self._key(number) for number in (*inputs, *constants))
        self._operators = [f"{each.text(0)}.{each.text(1) or ''}" for each in plan.tables(6)]
        self._delegates = [self._delegate(each) for each in plan.tables(7)]
        chains = list(plan.tables(5))
        if len(chains) != 1:
            refuse(f"it has {len(chains)} chains of instructions: expected one")
        for each in chains[0].tables(2):
            self._run(each)
        for program in programs:
            self._compare(program.inputs, inputs, "inputs")
            self._compare(program.outputs, outputs, "outputs")
            names = {self._key(number): spec.name for number, spec in zip(inputs, program.inputs, strict=True)}
            contents.rows[program.name] = self._trace.rows(names)

    def _index(self, number: int) -> int:
        if not 0 <= number < len(self._values):
            refuse(f"it names the value {number} of {len(self._values)}")
        return number

    def _delegate(self, table: Table) -> memoryview:
        if table.text(0) != XNNPACK:
            refuse(f"it has the delegate {shown(table.text(0))}: expected {XNNPACK}")
        reference = table.table(1)
        if reference is None or reference.scalar(0, "b") != IN_SEGMENT:
            refuse("a delegate's data is in no segment")
        for spec in table.tables(2):
            spec.text(0), spec.bytes(1)
        offset, size = self._segments.place(reference.scalar(1, "I"))
        return self._segments.data[offset : offset + size]

    def _run(self, instruction: Table) -> None:
        kind, call = instruction.scalar(0, "B"), instruction.table(1)
        if kind == FREE and call is not None:
            self._index(call.scalar(0, "i"))
            return
        if kind not in (KERNEL, DELEGATE) or call is None:
            refuse(f"it has an instruction of the kind {kind}, which moves, jumps or is unknown")
        number = call.scalar(0, "i")
        operands = [self._index(each) for each in call.integers(1)]
        names = self._operators if kind == KERNEL else self._delegates
        if not 0 <= number < len(names):
            refuse(f"it calls number {number} of {len(names)}")
        if kind == DELEGATE:
            self._counts[XNNPACK] += 1
            if any(self._values[each].kind != "T" for each in operands):
                refuse("it gives a delegate what is no tensor")
            self._write(operands)
            check_xnnpack(self._delegates[number], self._segments.named_size, len(operands), self._segments.steps)
            return
        name = self._operators[number]
        self._counts[name] += 1
        if name not in kernels():
            refuse(f"it calls {shown(name)}, which is none that a reader knows: see BUNDLE.md")
        self._check_operands(name, operands)

    def _check_operands(self, name: str, operands: list[int]) -> None:
        kinds, results = kernels()[name]
        # What a kernel returns is listed once more, as a list where there are several.
        if len(operands) != len(kinds) + 1:
            refuse(f"{name} is given {len(operands)} operands")
        for place, (expected, each) in enumerate(zip(kinds, operands, strict=False)):
            if not self._values[each].fits(expected):
                refuse(f"operand {place} of {name} is {self._values[each].kind}: expected {expected}")
        written = operands[len(kinds) - results : -1]
        last = self._values[operands[-1]]
        returned = list(last.items) if results > 1 and last.kind == "V" else [operands[-1]]
        if name.startswith("executorch_prim::"):
            written = returned = [operands[-1]]
        elif name.endswith("_."):  # in place
            written = returned = [operands[0]]
        elif returned != written and last.kind != "V":
            refuse(f"{name} returns what it does not write")
        for each in written:
            for item in self._values[each].items or (each,):
                if self._values[item].kind != "T" or self._values[item].constant:
                    refuse(f"{name} writes to what is no tensor, or a constant")
                self._write([item])
        if name in MOVES:
            self._trace.move(self._key(operands[0]), map(self._key, written))
        elif name in INDICES:
            self._check_indices(name, operands[0], operands[INDICES[name]])

    def _key(self, number: int) -> Key:
        """What is followed is memory, as a view in another shape is the same memory and no instruction."""
        return self._values[number].place or number

    def _write(self, numbers: list[int]) -> None:
        """What lay in the memory of these values is written over, in whole or in part."""
        for place in filter(None, (self._values[number].place for number in numbers)):
            self._trace.forget(
                [
                    key
                    for key in self._trace.followed
                    if not isinstance(key, int)
                    and key.memory == place.memory
                    and key.begin < place.end
                    and place.begin < key.end
                ]
            )

    def _check_indices(self, name: str, table: int, indices: int) -> None:
        shape = self._values[table].shape
        source = self._trace.index(self._key(indices), shape[0] if shape else 0)
        constant = self._values[source] if isinstance(source, int) and self._values[source].constant else None
        numbers = constant.numbers() if constant is not None and constant.numbers is not None else []
        if any(not 0 <= number < shape[0] for number in numbers):
            refuse(f"{name} takes a row of {shape[0]} by a number beyond them")
        # A quantized table's kernel ends the process where there is no such row.
        if name.startswith("quantized_decomposed::") and (source is None or (constant is not None and not numbers)):
            refuse(f"{name} takes rows by numbers that are neither an input's nor a small constant's")

    def _compare(self, declared: tuple[TensorSpec, ...], found: list[int], what: str) -> None:
        values = [self._values[each] for each in found]
        if [(each.shape, DTYPES.get(each.dtype, ("", 0))[0]) for each in values] != [
            (spec.shape, spec.dtype) for spec in declared
        ]:
            refuse(f"it has other {what} than the manifest declares")


# The values of a method in a `.pte`: tensors with their memory, numbers, and lists of others.


# ScalarType: numpy's name and size in bytes; what is not here is not computed with.
DTYPES: dict[int, tuple[str, int]] = {
    0: ("uint8", 1), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("int64", 8), 5: ("float16", 2),
    6: ("float32", 4), 7: ("float64", 8), 11: ("bool", 1), 15: ("bfloat16", 2),
}  # fmt: skip
# KernelTypes, by number; the kinds are those of `kernels`.
KINDS = {1: "N", 2: "I", 3: "B", 4: "D", 5: "T", 6: "X", 7: "L", 8: "F", 9: "A", 10: "V", 11: "O"}
STATIC, DYNAMIC_BOUND = 0, 1
MAX_STEERING = 4096
"""Elements of a constant of indices: positions have fewer."""
_ACCEPTED = {"S": "IBD", "O": "OV", "D": "DI", "B": "B"}


@dataclass(frozen=True)
class Value:
    """One value.

    Attributes:
        kind: a letter of `kernels`, or N for nothing and A for a list of booleans.
        shape, dtype: a tensor's; dtype is its number in ScalarType.
        constant: whether it is a tensor whose bytes are the file's own.
        items: of a list, the numbers of the values in it; absent ones are left out.
        numbers: gives those of a small constant of integers; None: it is none.
        place: a tensor's planned memory; None: it has none.
    """

    kind: str
    shape: Shape = ()
    dtype: int = -1
    constant: bool = False
    items: tuple[int, ...] = ()
    numbers: Callable[[], list[int]] | None = None
    place: Place | None = None

    def fits(self, expected: str) -> bool:
        """Whether a kernel's operand of that kind may be this."""
        if expected.islower() and self.kind == "N":
            return True
        return self.kind in _ACCEPTED.get(expected.upper(), expected.upper())


class ValueReader:
    """Reads the values of one method."""

    def __init__(
        self, constants: Sequence[Room], states: Sequence[Sequence[Room]], data: memoryview, steps: Steps
    ) -> None:
        """Where the constants and the states of each segment begin in the file, and what may be looked at in it."""
        self._constants = constants
        self._states = states
        self._data = data
        self._steps = steps

    def read(self, tables: list[Table], memory: Sequence[int]) -> list[Value]:
        """All values; memory: the sizes that the method plans."""
        values = [self._value(number, table, memory) for number, table in enumerate(tables)]
        for value in values:
            for item in value.items:
                if (
                    item >= len(values)
                    or (value.kind in "VO") != (values[item].kind == "T")
                    or (value.kind == "L" and values[item].kind != "I")
                ):
                    refuse(f"a list has the value {item} of {len(values)}, or one of another kind")
        return values

    def _value(self, number: int, table: Table, memory: Sequence[int]) -> Value:
        kind, content = KINDS.get(table.scalar(0, "B")), table.table(1)
        if kind is None or content is None:
            refuse(f"value {number} is of a kind that no reader knows")
        if kind == "T":
            return self._tensor(f"tensor {number}", content, memory)
        if kind == "X":
            content.text(0)
        if kind in "LVO":
            items = content.integers(0, "q" if kind == "L" else "i")
            if any(item < (-1 if kind == "O" else 0) for item in items):
                refuse(f"value {number} is a list of values that are not there")
            return Value(kind, items=tuple(item for item in items if item >= 0))
        if kind in "FA":
            content.count(0, 8 if kind == "F" else 1)
        return Value(kind)

    def _tensor(self, what: str, table: Table, memory: Sequence[int]) -> Value:
        dtype = table.scalar(0, "b")
        if dtype not in DTYPES:
            refuse(f"{what} has the type {dtype}, which is no dense number")
        buffer, plan, extra = table.scalar(5, "I"), table.table(6), table.table(9)
        constant = plan is None and buffer > 0
        shape = check_shape(table.integers(2), what, computed=not constant)
        order = sorted(table.integers(3, "B"))
        if table.scalar(1, "i") or table.scalar(7, "b") or order != list(range(len(shape))):
            refuse(f"{what} is not dense")
        if table.scalar(8, "b") not in (STATIC, DYNAMIC_BOUND):
            refuse(f"{what} has a shape without bound")
        if extra is not None and (extra.scalar(2, "b") or extra.scalar(3, "b")):
            refuse(f"{what} lies in another file or on a device")
        size = math.prod(shape) * DTYPES[dtype][1]
        place = None
        if plan is not None:
            number, begin = plan.scalar(0, "I"), plan.scalar(1, "I") | plan.scalar(2, "I") << 32
            if not 1 <= number < len(memory):
                refuse(f"{what} is planned into memory {number} of {len(memory)}")
            check_range(begin, size, memory[number], what)
            place = Place(number, begin, begin + size)
        if buffer > 0:
            self._check_content(what, buffer, size, constant, 0 if extra is None else extra.scalar(0, "Q"))
        numbers = self._numbers(buffer, shape, dtype) if constant else None
        return Value("T", shape, dtype, constant, numbers=numbers, place=place)

    def _numbers(self, buffer: int, shape: Shape, dtype: int) -> Callable[[], list[int]] | None:
        count = math.prod(shape)
        if DTYPES[dtype][0] not in ("int32", "int64") or count > MAX_STEERING:
            return None

        def read() -> list[int]:
            self._steps.spend(count)  # many operators may read one
            return [
                int(each) for each in np.frombuffer(self._data, DTYPES[dtype][0], count, self._constants[buffer][0])
            ]

        return read

    def _check_content(self, what: str, buffer: int, size: int, constant: bool, state: int) -> None:
        if not constant and state >= len(self._states):
            refuse(f"{what} starts with the state {state} of {len(self._states)}")
        room = self._constants if constant else self._states[state]
        if buffer >= len(room) or size > room[buffer][1]:
            refuse(f"{what} has fewer bytes than its shape needs")
