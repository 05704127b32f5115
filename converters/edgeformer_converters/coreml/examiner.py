"""How doctor looks into a Core ML package: its program in MIL, its opset, its weight file and its values' ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeformer.doctor.examiner import (
    Array,
    ModelView,
    Node,
    Observe,
    Operator,
    Partitioning,
    Placement,
    Program,
    Support,
    Tap,
    Value,
    Version,
    count_operators,
    older,
    parse_version,
    show,
)
from edgeformer.foreign_code import quiet_tools
from edgeformer_converters.mil.interpreter import MilInterpreter
from edgeformer_converters.mil.program import (
    CONSTEXPR,
    NUMPY_DTYPES,
    PACKAGE_DATA,
    PACKAGE_MODEL,
    PACKED_BITS,
    Function,
    Operation,
    Reference,
    Variable,
    read_program,
)
from edgeformer_converters.observe import ObservedEngine, numbers
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import BundleError

# The iOS that brought each specification version (coremltools.target).
IOS_OF_SPECIFICATION: dict[int, Version] = {
    4: (13,), 5: (14,), 6: (15,), 7: (16,), 8: (17,), 9: (18,), 10: (26,),
}  # fmt: skip
# What a state's operators are called in a file; coremltools' registry knows them by other names.
OPSET_OF_STATES = 9
STATE_OPERATORS = ("read_state", "write_state")
# The blob format of weights starts each of them at a multiple of this.
ALIGNMENT_BYTES = 64
FIRST_OPERANDS = ("query", "key", "value", "x", "y")
# What is known in public of the Neural Engine: it computes in float16, on tensors of up to four axes.
NEURAL_ENGINE_MAX_RANK = 4


class CoreMLExaminer:
    """Packages of ML programs, read without Core ML."""

    runtime_name = "iOS"
    without_vnni: str | None = None
    package: str | None = None

    def read(self, bundle: Bundle) -> ModelView:
        """A function per program; see `Examiner`."""
        functions: dict[str, dict[str, Function]] = {}
        facts = {"specification": 0}
        placements: list[Placement] = []
        for file in sorted({spec.file for spec in bundle.manifest.programs}):
            try:
                functions[file] = read_program(bundle.path(file))
                with quiet_tools():
                    message = _message(bundle.path(file))
            except Exception as error:  # protobuf's errors and those of the blob reader share no base class
                raise BundleError(f"{file}: no Core ML package: {' '.join(str(error).split())[:200]}") from None
            facts["specification"] = max(facts["specification"], message.specificationVersion)
            placements += _placements(message, file)
        programs = []
        for spec in bundle.manifest.programs:
            if spec.entry not in functions[spec.file]:
                raise BundleError(
                    f"{spec.file} has no function {spec.entry!r}: found {', '.join(functions[spec.file])}"
                )
            programs.append(_program(spec.name, functions[spec.file][spec.entry]))
        used: Counter[tuple[str, int | None]] = Counter(
            (operation.type, None)
            for each in functions.values()
            for function in each.values()
            for operation in function.operations
        )
        return ModelView(tuple(programs), count_operators(used), tuple(placements), facts, functions)

    def support(self, view: ModelView, runtime: str) -> tuple[Support, ...]:
        """By the oldest opset that coremltools has the operator in, and by that of the package itself."""
        version = parse_version(runtime, "--runtime")
        package = IOS_OF_SPECIFICATION.get(view.facts["specification"])
        found = []
        for operator in view.operators:
            needed = _oldest(operator)
            supported = None if needed is None or package is None else not older(version, max(needed, package))
            found.append(Support(operator, None if needed is None else f"iOS {show(needed)}", supported))
        return tuple(found)

    def partitions(self, bundle: Bundle, view: ModelView) -> tuple[Partitioning, ...]:  # noqa: ARG002
        """By rule what the Neural Engine can take: float16 values of up to four axes, made of nothing but those."""
        return tuple(_predicted(program) for program in view.programs)

    def computes_in_half(self, precision: str) -> bool:
        """At every precision but fp32: compressed weights are expanded to float16."""
        return precision != "fp32"

    def observed(self, bundle: Bundle, view: ModelView, observe: Observe) -> Engine:
        """The MIL reference interpreter."""
        return _Observed(bundle, view, numbers(observe))

    def tapped(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int]) -> Engine:
        """The MIL reference interpreter."""
        return _Observed(bundle, view, tap, sizes)


def _message(package: Path) -> Any:
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.FromString((package / PACKAGE_DATA / PACKAGE_MODEL).read_bytes())


def _placements(message: Any, package: str) -> Iterator[Placement]:
    seen: set[tuple[str, int]] = set()
    for function in message.mlProgram.functions.values():
        for operation in function.block_specializations[function.opset].operations:
            for value in operation.attributes.values():
                blob = value.blobFileValue
                if value.WhichOneof("value") == "blobFileValue" and (blob.fileName, blob.offset) not in seen:
                    seen.add((blob.fileName, blob.offset))
                    file = f"{package}/{PACKAGE_DATA}/{blob.fileName.removeprefix('@model_path/')}"
                    what = operation.outputs[0].name if operation.outputs else operation.type
                    yield Placement(file, what, int(blob.offset), 0, ALIGNMENT_BYTES)


def _oldest(operator: Operator) -> Version | None:
    if operator.name in STATE_OPERATORS:
        return IOS_OF_SPECIFICATION[OPSET_OF_STATES]
    with quiet_tools():
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

        opsets = [int(opset) for opset in SSAOpRegistry.core_ops.get(operator.name, ())]
    # ML programs themselves came with iOS 15; the registry counts what neural networks had before.
    return max(IOS_OF_SPECIFICATION[min(opsets)], (15,)) if opsets else None


def _program(name: str, function: Function) -> Program:
    values = {each.name: _computed(each) for each in (*function.inputs, *function.states)}
    values |= {
        key: _constant(key, value) for key, value in function.constants.items() if not isinstance(value, str | tuple)
    }
    nodes = []
    for operation in function.operations:
        if operation.type in CONSTEXPR:  # computed once, when the model is loaded
            (output,) = (_computed(each) for each in operation.outputs)
            values[output.label] = replace(output, constant=partial(_expanded, operation, function.constants))
            continue
        values |= {each.name: _computed(each) for each in operation.outputs}
        inputs = tuple(_operands(operation, function, values))
        nodes.append(Node(operation.type, operation.name, inputs, tuple(each.name for each in operation.outputs)))
    for key in (*(key for node in nodes for key in node.inputs), *function.outputs):
        values.setdefault(key, Value(key, "unknown", (), 0))  # nobody makes it: the check of structure says so
    given = (*function.inputs, *function.states)
    return Program(name, tuple(nodes), values, tuple(each.name for each in given), function.outputs)


def _expanded(operation: Operation, constants: Mapping[str, Any]) -> Array:
    """The values of a compressed weight; one that is compressed twice is not looked into."""
    operands = {
        key: constants.get(each.name) if isinstance(each, Reference) else each for key, each in operation.inputs.items()
    }
    if any(each is None for each in operands.values()):
        return np.zeros(0, np.float32)
    return np.asarray(CONSTEXPR[operation.type](**operands))


def _operands(operation: Operation, function: Function, values: dict[str, Value]) -> Iterator[str]:
    """Keys of an operation's operands but texts; values that it holds itself get keys of their own in `values`."""
    for key, operand in sorted(operation.inputs.items(), key=lambda item: _rank(item[0])):
        for number, each in enumerate(operand if isinstance(operand, tuple) else (operand,)):
            if isinstance(each, Reference):
                if not isinstance(function.constants.get(each.name), str | tuple):
                    yield each.name
            elif isinstance(each, torch.Tensor | float):
                label = f"{operation.name}.{key}.{number}"
                values[label] = _constant(label, each)
                yield label


def _rank(operand: str) -> tuple[int, str]:
    """An order of operands, which a file keeps in none: what is computed with first, and then by name."""
    return (FIRST_OPERANDS.index(operand) if operand in FIRST_OPERANDS else len(FIRST_OPERANDS), operand)


def _computed(variable: Variable) -> Value:
    shape = tuple(size or 1 for size in variable.shape)
    if variable.dtype in NUMPY_DTYPES:
        dtype = np.dtype(NUMPY_DTYPES[variable.dtype])
        return Value(variable.name, str(dtype), shape, int(np.prod(shape)) * dtype.itemsize)
    bits = PACKED_BITS.get(variable.dtype, 0)
    return Value(variable.name, variable.dtype.lower(), shape, int(np.prod(shape)) * bits // 8)


def _constant(label: str, value: Any) -> Value:
    """Constants are held ready to compute with; what they take in the file is not known here."""
    array = np.asarray(value)
    return Value(label, str(array.dtype), array.shape, array.nbytes, lambda: np.asarray(value))


def _predicted(program: Program) -> Partitioning:
    pieces, inside = 0, False
    outside: Counter[str] = Counter()
    for node in program.nodes:
        operands = [program.values[key] for key in (*node.inputs, *node.outputs) if key in program.values]
        computed = [value for value in operands if value.constant is None]
        fits = all(value.dtype == "float16" and len(value.shape) <= NEURAL_ENGINE_MAX_RANK for value in computed)
        pieces += fits and not inside
        inside = fits
        if not fits:
            outside[node.operator] += 1
    return Partitioning(program.name, "Neural Engine", pieces, outside, measured=False)


class _Observed(ObservedEngine):
    """The MIL interpreter over functions that give every floating-point value as an output."""

    def __init__(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int] | None = None) -> None:
        super().__init__(bundle.manifest.programs, tap, sizes)
        self._functions: dict[str, dict[str, Function]] = view.foreign
        self._open: dict[str, MilInterpreter] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._states: dict[str, torch.Tensor] = {}

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if program.name not in self._open:
            function = self._functions[program.file][program.entry]
            labels = dict(_floats(function))
            outputs = tuple(dict.fromkeys((*function.outputs, *labels)))
            self._open[program.name] = MilInterpreter(replace(function, outputs=outputs))
            self._labels[program.name] = labels
        values = self._open[program.name].run(inputs, self._states)
        for name, label in self._labels[program.name].items():
            if self.wants(values[name].size):
                self.tap(program.name, label, values[name])
        return {spec.name: values[spec.name] for spec in program.outputs}

    def _release(self) -> None:
        self._open.clear()
        self._states.clear()


def _floats(function: Function) -> Iterator[tuple[str, str]]:
    """The name of each floating-point value that is computed, with a label for people."""
    for operation in function.operations:
        for variable in operation.outputs:
            if variable.dtype in ("FLOAT16", "FLOAT32") and operation.type not in CONSTEXPR:
                yield variable.name, f"{operation.type} {variable.name}"


EXAMINER = CoreMLExaminer()
