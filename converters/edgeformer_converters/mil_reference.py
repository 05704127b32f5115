"""Executes Core ML programs in torch, on any system: the reference that verification uses where Core ML is not.

It checks graph, weights, compression, shapes, types and rounding of a package as it was written. What it cannot check
is `NOT_COVERED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeformer_converters.mil_constexpr import CONSTEXPR
from edgeformer_converters.mil_operators import OPERATORS
from edgeformer_converters.mil_program import Function, Operation, Reference, Value, Variable, read_program
from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.errors import EngineError, InputError

NOT_COVERED = (
    "The reference computes each operator in float32 and rounds its result to the declared type: it covers neither the "
    "Neural Engine's and GPU's own arithmetic nor which of them Core ML places an operator on."
)

INTEGERS = {
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT16": torch.int16,
    "UINT16": torch.uint16,
    "INT32": torch.int32,
}
INPUT_DTYPES: dict[str, np.dtype[Any]] = {
    "INT32": np.dtype(np.int32),
    "FLOAT16": np.dtype(np.float16),
    "FLOAT32": np.dtype(np.float32),
}


class MilInterpreter:
    """One function of a package, parsed, with its compressed weights expanded; states live as long as it does."""

    def __init__(self, function: Function) -> None:
        """Check that every operator is known and expand the constants.

        Raises:
            EngineError: an operator that this interpreter does not know; the message names it.
        """
        unknown = sorted({each.type for each in function.operations} - {*OPERATORS, *CONSTEXPR, *STATE_OPERATORS})
        if unknown:
            raise EngineError(f"the MIL reference does not know the operator {', '.join(unknown)}: verify on macOS")
        self.function = function
        self.states = {each.name: torch.zeros(_static_shape(each)) for each in function.states}
        self._constants: dict[str, Any] = dict(function.constants)
        for operation in function.operations:
            if operation.type in CONSTEXPR:
                self._evaluate(operation, CONSTEXPR[operation.type], self._constants)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Execute the function.

        Args:
            inputs: one array per input, with the dtype and shape that the package declares.

        Returns:
            One array per output, with the declared dtype.
        """
        values: dict[str, Any] = dict(self._constants)
        for variable in self.function.inputs:
            values[variable.name] = _checked_input(variable, inputs)
        if extra := sorted(set(inputs) - {each.name for each in self.function.inputs}):
            raise InputError(f"unknown input {extra[0]!r}: expected {[each.name for each in self.function.inputs]}")
        with torch.no_grad():
            for index, operation in enumerate(self.function.operations):
                if operation.type in STATE_OPERATORS:
                    self._evaluate_state(operation, values)
                elif operation.type in OPERATORS:
                    self._evaluate(operation, OPERATORS[operation.type], values)
                for name in self.function.last_uses.get(index, ()):
                    values.pop(name, None)
        return {name: torch.as_tensor(values[name]).numpy().copy() for name in self.function.outputs}

    def _evaluate(self, operation: Operation, function: Any, values: dict[str, Any]) -> None:
        operands = {key: _resolved(operand, values) for key, operand in operation.inputs.items()}
        try:
            results = function(**operands)
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            shapes = {key: tuple(each.shape) if isinstance(each, Tensor) else each for key, each in operands.items()}
            raise EngineError(f"MIL operator {operation.type} {operation.name}, given {shapes}: {error}") from error
        each = results if isinstance(results, tuple | list) else (results,)
        for variable, result in zip(operation.outputs, each, strict=True):
            values[variable.name] = _settled(operation, variable, result)

    def _evaluate_state(self, operation: Operation, values: dict[str, Any]) -> None:
        state = operation.inputs["input" if operation.type == "read_state" else "state"]
        assert isinstance(state, Reference)
        if operation.type == "coreml_update_state":
            self.states[state.name] = _resolved(operation.inputs["value"], values)
        for variable in operation.outputs:
            values[variable.name] = self.states[state.name]


STATE_OPERATORS = frozenset({"read_state", "coreml_update_state"})


def run(path: Path, inputs: Mapping[str, NDArray[Any]], function: str = "main") -> dict[str, NDArray[Any]]:
    """Execute one function of an `.mlpackage` once.

    Args:
        path: the package.
        inputs: one array per input of the function.
        function: its name; "main" where the package has only one.

    Raises:
        InputError: no such package, function or input.
        EngineError: an operator that this interpreter does not know.
    """
    functions = read_program(path)
    if function not in functions:
        raise InputError(f"{path} has no function {function!r}: expected one of {', '.join(functions)}")
    return MilInterpreter(functions[function]).run(inputs)


class MilReferenceEngine:
    """Runs a Core ML bundle without Core ML; an engine of the runtime, for verification and not for speed."""

    name = "coreml"
    not_covered = NOT_COVERED

    def __init__(self, bundle: Bundle) -> None:
        """Open a bundle of the target coreml; a program is parsed when it first runs."""
        self.executed_by = f"mil-reference (coremltools {version('coremltools')})"
        self._bundle: Bundle | None = bundle
        self._programs = {program.name: program for program in bundle.manifest.programs}
        self._functions: dict[str, dict[str, Function]] = {}
        self._interpreters: dict[str, MilInterpreter] = {}
        self._lock = Lock()

    def run(self, program: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one program of the bundle; see `edgeformer_runtime.engines.base.Engine`."""
        if program not in self._programs:
            raise InputError(f"unknown program {program!r}: expected one of {', '.join(self._programs)}")
        with self._lock:
            if program not in self._interpreters:
                self._interpreters[program] = self._interpreter(program)
            return self._interpreters[program].run(inputs)

    def _interpreter(self, program: str) -> MilInterpreter:
        if self._bundle is None:
            raise EngineError("the engine is closed: load the bundle again")
        specification = self._programs[program]
        if specification.file not in self._functions:
            self._functions[specification.file] = read_program(self._bundle.path(specification.file))
        return MilInterpreter(self._functions[specification.file][specification.entry])

    def close(self) -> None:
        """Release the model. A second call does nothing."""
        with self._lock:
            self._bundle = None
            self._functions.clear()
            self._interpreters.clear()


def _static_shape(variable: Variable) -> tuple[int, ...]:
    sizes = tuple(size for size in variable.shape if size is not None)
    if len(sizes) != len(variable.shape):
        raise EngineError(f"{variable.name} has a size that is not static: the MIL reference needs static shapes")
    return sizes


def _checked_input(variable: Variable, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
    if variable.name not in inputs:
        raise InputError(f"input {variable.name!r} is missing: found {sorted(inputs)}")
    array, shape = np.asarray(inputs[variable.name]), _static_shape(variable)
    dtype = INPUT_DTYPES[variable.dtype]
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"input {variable.name!r}: expected {dtype} of shape {shape}, found {array.dtype} of shape {array.shape}"
        )
    return torch.from_numpy(array.astype(np.float32 if dtype.kind == "f" else np.int32))


def _resolved(operand: Reference | Value | tuple[Reference | Value, ...], values: Mapping[str, Any]) -> Any:
    if isinstance(operand, tuple):
        return [_resolved(each, values) for each in operand]
    return values[operand.name] if isinstance(operand, Reference) else operand


def _settled(operation: Operation, variable: Variable, result: Any) -> Tensor:
    """A result as the declared type holds it: rounded to half, or wrapped to the integer's width."""
    tensor = torch.as_tensor(result)
    if any(size is not None and size != found for size, found in zip(variable.shape, tensor.shape, strict=True)):
        raise EngineError(
            f"MIL operator {operation.type} {operation.name} declares shape {variable.shape}, "
            f"found {tuple(tensor.shape)}: the program is not consistent"
        )
    if variable.dtype == "FLOAT16":
        return tensor.to(torch.float16).to(torch.float32)
    if variable.dtype in INTEGERS:
        return tensor.to(INTEGERS[variable.dtype]).to(torch.int32)
    return tensor.to(torch.bool if variable.dtype == "BOOL" else torch.float32)
