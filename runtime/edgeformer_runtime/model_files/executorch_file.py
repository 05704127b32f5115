"""Looks at a `.pte` before ExecuTorch opens it: it trusts the file's indices, sizes and segments."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.model_files.executorch_kernels import KERNELS
from edgeformer_runtime.model_files.executorch_values import DTYPES, ValueReader
from edgeformer_runtime.model_files.flatbuffer import FlatBuffer, Table
from edgeformer_runtime.model_files.refusal import Broken, check_range, refuse, shown
from edgeformer_runtime.model_files.xnnpack_graph import check_xnnpack

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


@dataclass(frozen=True)
class Segments:
    """The parts of a file behind its flatbuffer.

    Attributes:
        data: the whole file.
        places: offset and size of each.
        named: the number of the segment that has each named data.
    """

    data: memoryview
    places: list[tuple[int, int]]
    named: dict[str, int]

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


def check_executorch(data: memoryview, programs: list[ProgramSpec]) -> Counter[str]:
    """Refuse a file that breaks a rule of BUNDLE.md.

    Args:
        data: the whole file.
        programs: those that the manifest says this file has.

    Returns:
        How often each kernel and delegate is called.

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
    program = FlatBuffer(data[:size], b"ET12", ".pte file").root()
    segments = _segments(data, program, base, size)
    for field in (2, 3):
        for each in program.tables(field):
            if each.bytes(0):
                refuse("it has constants or delegates' data in its flatbuffer")
    constants = _offsets(program.table(5), segments)
    states = [_offsets(each, segments) for each in program.tables(6)]
    counts: Counter[str] = Counter()
    plans: dict[str | None, Table] = {}
    for plan in program.tables(1):
        name = plan.text(0)
        if name in plans:
            refuse(f"it has the method {shown(name)} twice")
        plans[name] = plan
        try:
            _Plan(plan, segments, ValueReader(constants, states), counts, [p for p in programs if p.entry == name])
        except Broken as error:
            raise Broken(f"method {shown(name)}: {error}") from None
    for declared in programs:
        if declared.entry not in plans:
            refuse(f"it has no method {shown(declared.entry)}")
    return counts


def _segments(data: memoryview, program: Table, base: int, size: int) -> Segments:
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
    return Segments(data, places, named)


def _offsets(table: Table | None, segments: Segments) -> list[int]:
    """How many bytes there are from each offset of a segment on."""
    if table is None:
        return []
    offsets = [int(each) for each in table.numbers(1, "<u8")]
    if not offsets:
        return []
    _, size = segments.place(table.scalar(0, "I"))
    for offset in offsets:
        check_range(offset, 0, size, "a constant")
    return [size - offset for offset in offsets]


class _Plan:
    """A method: its values, and its instructions, which run in order."""

    def __init__(
        self, plan: Table, segments: Segments, reader: ValueReader, counts: Counter[str], programs: list[ProgramSpec]
    ) -> None:
        self._segments = segments
        memory = [int(each) for each in plan.numbers(8, "<i8")]
        if any(size < 0 for size in memory) or sum(memory) > MAX_MEMORY_BYTES:
            refuse(f"it plans {shown(memory)} bytes: expected at most 2^30")
        for each in plan.tables(9):
            if each.scalar(1, "b"):
                refuse("it plans memory of a device")
        self._values = reader.read(list(plan.tables(2)), memory)
        inputs, outputs = ([self._index(int(each)) for each in plan.numbers(field, "<i4")] for field in (3, 4))
        self._operators = [f"{each.text(0)}.{each.text(1) or ''}" for each in plan.tables(6)]
        self._delegates = [self._delegate(each) for each in plan.tables(7)]
        chains = list(plan.tables(5))
        if len(chains) != 1:
            refuse(f"it has {len(chains)} chains of instructions: expected one")
        for each in chains[0].tables(2):
            self._run(each, counts)
        for program in programs:
            self._compare(program.inputs, inputs, "inputs")
            self._compare(program.outputs, outputs, "outputs")

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

    def _run(self, instruction: Table, counts: Counter[str]) -> None:
        kind, call = instruction.scalar(0, "B"), instruction.table(1)
        if kind == FREE and call is not None:
            self._index(call.scalar(0, "i"))
            return
        if kind not in (KERNEL, DELEGATE) or call is None:
            refuse(f"it has an instruction of the kind {kind}, which moves, jumps or is unknown")
        number = call.scalar(0, "i")
        operands = [self._index(int(each)) for each in call.numbers(1, "<i4")]
        names = self._operators if kind == KERNEL else self._delegates
        if not 0 <= number < len(names):
            refuse(f"it calls number {number} of {len(names)}")
        if kind == DELEGATE:
            counts[XNNPACK] += 1
            if any(self._values[each].kind != "T" for each in operands):
                refuse("it gives a delegate what is no tensor")
            check_xnnpack(self._delegates[number], self._segments.named_size, len(operands))
            return
        name = self._operators[number]
        counts[name] += 1
        if name not in KERNELS:
            refuse(f"it calls {shown(name)}, which is none that a reader knows: see BUNDLE.md")
        self._check_operands(name, operands)

    def _check_operands(self, name: str, operands: list[int]) -> None:
        kinds, results = KERNELS[name]
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

    def _compare(self, declared: tuple[TensorSpec, ...], found: list[int], what: str) -> None:
        values = [self._values[each] for each in found]
        if [(each.shape, DTYPES.get(each.dtype, ("", 0))[0]) for each in values] != [
            (spec.shape, spec.dtype) for spec in declared
        ]:
            refuse(f"it has other {what} than the manifest declares")
