"""Looks at a `.tflite` before LiteRT opens it: it believes shapes, indices and offsets, and follows calls for ever."""

from __future__ import annotations

import math
from collections import Counter

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.model_files.flatbuffer import FlatBuffer, Table
from edgeformer_runtime.model_files.litert_operators import NAMES, OPTIONS, REFUSED
from edgeformer_runtime.model_files.litert_shapes import RULES, Call, Tensor
from edgeformer_runtime.model_files.litert_tensors import TYPES, TensorReader, check_blockwise, read_buffers
from edgeformer_runtime.model_files.liveness import check_live
from edgeformer_runtime.model_files.refusal import Broken, refuse, shown

_PLACEHOLDER_CODE = 127


def check_litert(data: memoryview, programs: list[ProgramSpec]) -> Counter[str]:
    """Refuse a file that breaks a rule of BUNDLE.md.

    Args:
        data: the whole file.
        programs: those that the manifest says this file has.

    Returns:
        How often each operator occurs.

    Raises:
        Broken: says which rule and where.
    """
    model = FlatBuffer(data, b"TFL3", ".tflite file").root()
    if model.has(8) or model.has(9):
        refuse("it refers to buffers in other files")
    reader = TensorReader(data, read_buffers(data, list(model.tables(4))))
    codes = [_code(table) for table in model.tables(1)]
    counts: Counter[str] = Counter()
    graphs = [_Graph(reader, codes, table, counts) for table in model.tables(2)]
    _check_signatures(list(model.tables(7)), graphs, programs)
    return counts


def _code(table: Table) -> str:
    """An operator's name. Codes above 126 live in the second field only; older ones may live in the first."""
    code = max(table.scalar(0, "b"), table.scalar(3, "i"))
    name = NAMES.get(code) or REFUSED.get(code, f"number {code}")
    if name not in RULES or table.has(1):
        refuse(f"it has the operator {name}, which is none that a reader knows: see BUNDLE.md")
    return name


class _Graph:
    """A subgraph whose operators run in order on what is there."""

    def __init__(self, reader: TensorReader, codes: list[str], table: Table, counts: Counter[str]) -> None:
        tables = list(table.tables(0))
        self.tensors = [reader.read(each, number) for number, each in enumerate(tables)]
        for number, each in enumerate(tables):
            check_blockwise(each, self.tensors, self.tensors[number].shape, f"tensor {number}")
        self.inputs = [self._index(int(each)) for each in table.numbers(1, "<i4")]
        self.outputs = [self._index(int(each)) for each in table.numbers(2, "<i4")]
        self._made = {number for number, each in enumerate(self.tensors) if each.constant}
        if self._made.intersection(self.inputs) or len(set(self.inputs)) != len(self.inputs):
            refuse("an input of a graph is a constant, or occurs twice")
        self._made.update(self.inputs)
        self._steps: list[tuple[list[int], list[int]]] = []
        self._computed: dict[int, int] = {}
        for each in table.tables(3):
            code = each.scalar(0, "I")
            if code >= len(codes):
                refuse(f"an operator has the code {code} of {len(codes)}")
            counts[codes[code]] += 1
            try:
                self._run(codes[code], each)
            except Broken as error:
                raise Broken(f"operator {sum(counts.values())}, {codes[code]}: {error}") from None
        check_live(self._steps, self._computed)
        if not self._made.issuperset(self.outputs):
            refuse("an output of a graph is made by none of its operators")

    def _index(self, number: int) -> int:
        if not 0 <= number < len(self.tensors):
            refuse(f"there is no tensor {number} among {len(self.tensors)}")
        return number

    def _run(self, name: str, operator: Table) -> None:
        if operator.has(5) or operator.scalar(9, "Q") > 1 or operator.numbers(7, "?").any() or operator.has(8):
            refuse("it has custom options, variables or intermediates")
        kind = operator.scalar(3, "B")
        if kind not in (0, OPTIONS.get(name, 0)):
            refuse(f"it has the options of another operator, {kind}")
        operands: list[Tensor | None] = []
        for number in map(int, operator.numbers(1, "<i4")):
            if number != -1 and self._index(number) not in self._made:
                refuse(f"it reads the tensor {number}, which nothing before it makes")
            operands.append(None if number == -1 else self.tensors[number])
        outputs = [self._index(int(each)) for each in operator.numbers(2, "<i4")]
        if self._made.intersection(outputs) or len(set(outputs)) != len(outputs):
            refuse("it writes what is made already")
        options = operator.table(4) if kind else operator.table(12) if operator.has(12) else None
        shapes = RULES[name](Call(operands, [self.tensors[each] for each in outputs], options))
        found = [self.tensors[each].shape for each in outputs]
        if found != list(shapes):
            refuse(f"it makes {shown([*shapes])} where the file declares {shown(found)}")
        self._made.update(outputs)
        self._steps.append(([int(each) for each in operator.numbers(1, "<i4")], outputs))
        self._computed.update({each: math.prod(self.tensors[each].shape) for each in outputs})


def _check_signatures(signatures: list[Table], graphs: list[_Graph], programs: list[ProgramSpec]) -> None:
    numbers = [signature.scalar(4, "I") for signature in signatures]
    if sorted(numbers) != list(range(len(graphs))):
        refuse(f"its signatures run the graphs {shown(numbers)}: expected each of {len(graphs)} once")
    by_key = {signature.text(2): signature for signature in signatures}
    if len(by_key) != len(signatures):
        refuse("two signatures have the same key")
    for signature, number in zip(signatures, numbers, strict=True):
        for field, tensors in ((0, graphs[number].inputs), (1, graphs[number].outputs)):
            listed = [each.scalar(1, "I") for each in signature.tables(field)]
            if sorted(listed) != sorted(tensors):
                refuse(f"the signature {shown(signature.text(2))} names other tensors than its graph has")
    for program in programs:
        if program.entry not in by_key:
            refuse(f"it has no signature {shown(program.entry)}")
        own = by_key[program.entry]
        graph = graphs[own.scalar(4, "I")]
        _compare(own, 0, graph, program.inputs, program.name)
        _compare(own, 1, graph, program.outputs, program.name)


def _compare(signature: Table, field: int, graph: _Graph, declared: tuple[TensorSpec, ...], name: str) -> None:
    tables = list(signature.tables(field))
    found = {each.text(0): graph.tensors[each.scalar(1, "I")] for each in tables}
    stated = {spec.name: (spec.shape, spec.dtype) for spec in declared}
    if len(tables) != len(stated) or {key: (each.shape, TYPES[each.dtype][1]) for key, each in found.items()} != stated:
        refuse(f"the signature of {name} has other tensors than the manifest declares")
