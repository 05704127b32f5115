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
from edgeformer_runtime.engines.checked import decoder_over
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.speech_spec import AudioBucket, Transcription

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
    """One function of a package, parsed, with its compressed weights expanded."""

    def __init__(self, function: Function) -> None:
        """Check that every operator is known and expand the constants.

        Raises:
            EngineError: an operator that this interpreter does not know; the message names it.
        """
        unknown = sorted({each.type for each in function.operations} - {*OPERATORS, *CONSTEXPR, *STATE_OPERATORS})
        if unknown:
            raise EngineError(f"the MIL reference does not know the operator {', '.join(unknown)}: verify on macOS")
        self.function = function
        self._constants: dict[str, Any] = dict(function.constants)
        for operation in function.operations:
            if operation.type in CONSTEXPR:
                self._evaluate(operation, CONSTEXPR[operation.type], self._constants)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], states: dict[str, Tensor] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Execute the function.

        Args:
            inputs: one array per input, with the dtype and shape that the package declares.
            states: what the function's states hold, by name, as an MLState does; the call changes it. A state that is
                missing starts with zeros. None: all do, and are forgotten afterwards.

        Returns:
            One array per output, with the declared dtype.
        """
        values: dict[str, Any] = dict(self._constants)
        states = {} if states is None else states
        for variable in self.function.states:
            found = states.setdefault(variable.name, torch.zeros(_static_shape(variable)))
            if found.shape != _static_shape(variable):
                raise EngineError(f"state {variable.name} has shape {variable.shape}, found {tuple(found.shape)}")
        for variable in self.function.inputs:
            values[variable.name] = _checked_input(variable, inputs)
        if extra := sorted(set(inputs) - {each.name for each in self.function.inputs}):
            raise InputError(f"unknown input {extra[0]!r}: expected {[each.name for each in self.function.inputs]}")
        with torch.no_grad():
            for index, operation in enumerate(self.function.operations):
                if operation.type in STATE_OPERATORS:
                    _evaluate_state(operation, values, states)
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


def _evaluate_state(operation: Operation, values: dict[str, Any], states: dict[str, Tensor]) -> None:
    state = operation.inputs["input"]
    assert isinstance(state, Reference)
    if operation.type == "write_state":
        states[state.name] = _resolved(operation.inputs["data"], values)
    for variable in operation.outputs:
        values[variable.name] = states[state.name]


STATE_OPERATORS = frozenset({"read_state", "write_state"})


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
    """Runs a Core ML bundle without Core ML; an engine of the runtime, for verification and not for speed.

    States last from call to call in a decoder, each of which has its own; `run` starts every program with zeros.
    """

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
        return self.run_with(program, inputs, {})

    def run_with(
        self, program: str, inputs: Mapping[str, NDArray[Any]], states: dict[str, Tensor]
    ) -> dict[str, NDArray[Any]]:
        """Run one program on states that it changes; see `MilInterpreter.run`."""
        if program not in self._programs:
            raise InputError(f"unknown program {program!r}: expected one of {', '.join(self._programs)}")
        with self._lock:
            if program not in self._interpreters:
                self._interpreters[program] = self._interpreter(program)
            return self._interpreters[program].run(inputs, states)

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder with states of its own; see `edgeformer_runtime.engines.base.Engine`."""
        return decoder_over(_States(self).run, bucket, spec)

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


class _States:
    """What a decoder's programs keep from call to call: functions share states by name, as in an MLState."""

    def __init__(self, engine: MilReferenceEngine) -> None:
        self._engine = engine
        self._states: dict[str, Tensor] = {}

    def run(self, program: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As `Engine.run`."""
        return self._engine.run_with(program, inputs, self._states)


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
