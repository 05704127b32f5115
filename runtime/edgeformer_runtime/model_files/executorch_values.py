"""The values of a method in a `.pte`: tensors with their memory, numbers, and lists of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeformer_runtime.model_files.flatbuffer import Table
from edgeformer_runtime.model_files.refusal import Shape, check_range, check_shape, refuse

# ScalarType: numpy's name and size in bytes; what is not here is not computed with.
DTYPES: dict[int, tuple[str, int]] = {
    0: ("uint8", 1), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("int64", 8), 5: ("float16", 2),
    6: ("float32", 4), 7: ("float64", 8), 11: ("bool", 1), 15: ("bfloat16", 2),
}  # fmt: skip
# KernelTypes, by number; the kinds are those of `KERNELS`.
KINDS = {1: "N", 2: "I", 3: "B", 4: "D", 5: "T", 6: "X", 7: "L", 8: "F", 9: "A", 10: "V", 11: "O"}
STATIC, DYNAMIC_BOUND = 0, 1
NO_STATE = 0xFFFFFFFFFFFFFFFF
_ACCEPTED = {"S": "IBD", "O": "OV", "D": "DI", "B": "B"}


@dataclass(frozen=True)
class Value:
    """One value.

    Attributes:
        kind: a letter of `KERNELS`, or N for nothing and A for a list of booleans.
        shape, dtype: a tensor's; dtype is its number in ScalarType.
        constant: whether it is a tensor whose bytes are the file's own.
        items: of a list, the numbers of the values in it; absent ones are left out.
    """

    kind: str
    shape: Shape = ()
    dtype: int = -1
    constant: bool = False
    items: tuple[int, ...] = ()

    def fits(self, expected: str) -> bool:
        """Whether a kernel's operand of that kind may be this."""
        if expected.islower() and self.kind == "N":
            return True
        return self.kind in _ACCEPTED.get(expected.upper(), expected.upper())


class ValueReader:
    """Reads the values of one method."""

    def __init__(self, constants: Sequence[int], states: Sequence[Sequence[int]]) -> None:
        """How many bytes there are from each constant's offset on, and from each one's of the segments of states."""
        self._constants = constants
        self._states = states

    def read(self, tables: list[Table], memory: list[int]) -> list[Value]:
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

    def _value(self, number: int, table: Table, memory: list[int]) -> Value:
        kind, content = KINDS.get(table.scalar(0, "B")), table.table(1)
        if kind is None or content is None:
            refuse(f"value {number} is of a kind that no reader knows")
        if kind == "T":
            return self._tensor(f"tensor {number}", content, memory)
        if kind == "X":
            content.text(0)
        if kind in "LVO":
            items = [int(each) for each in content.numbers(0, "<i8" if kind == "L" else "<i4")]
            if any(item < (-1 if kind == "O" else 0) for item in items):
                refuse(f"value {number} is a list of values that are not there")
            return Value(kind, items=tuple(item for item in items if item >= 0))
        if kind in "FA":
            content.numbers(0, "<f8" if kind == "F" else "?")
        return Value(kind)

    def _tensor(self, what: str, table: Table, memory: list[int]) -> Value:
        dtype = table.scalar(0, "b")
        if dtype not in DTYPES:
            refuse(f"{what} has the type {dtype}, which is no dense number")
        buffer, plan, extra = table.scalar(5, "I"), table.table(6), table.table(9)
        constant = plan is None and buffer > 0
        shape = check_shape([int(each) for each in table.numbers(2, "<i4")], what, computed=not constant)
        order = sorted(int(each) for each in table.numbers(3, "<u1"))
        if table.scalar(1, "i") or table.scalar(7, "b") or order != list(range(len(shape))):
            refuse(f"{what} is not dense")
        if table.scalar(8, "b") not in (STATIC, DYNAMIC_BOUND):
            refuse(f"{what} has a shape without bound")
        if extra is not None and (extra.scalar(2, "b") or extra.scalar(3, "b")):
            refuse(f"{what} lies in another file or on a device")
        size = math.prod(shape) * DTYPES[dtype][1]
        if plan is not None:
            place = plan.scalar(0, "I")
            if not 1 <= place < len(memory):
                refuse(f"{what} is planned into memory {place} of {len(memory)}")
            check_range(plan.scalar(1, "I") | plan.scalar(2, "I") << 32, size, memory[place], what)
        if buffer > 0:
            self._check_content(what, buffer, size, constant, 0 if extra is None else extra.scalar(0, "Q"))
        return Value("T", shape, dtype, constant)

    def _check_content(self, what: str, buffer: int, size: int, constant: bool, state: int) -> None:
        if not constant and state >= len(self._states):
            refuse(f"{what} begins with the state {state} of {len(self._states)}")
        room = self._constants if constant else self._states[state]
        if buffer >= len(room) or size > room[buffer]:
            refuse(f"{what} has fewer bytes than its shape needs")
