"""Executes one function of a Core ML program in torch: each operator in float32, rounded to the type it declares."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeformer_converters.mil.operators import OPERATORS
from edgeformer_converters.mil.program import (
    CONSTEXPR,
    NO_TENSOR,
    Block,
    Function,
    Operation,
    Reference,
    Value,
    Variable,
    one_line,
    read_program,
)
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines.checked import decoder_over
from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, SpeechDecoder, StateOwners
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import did_you_mean

STATE_OPERATORS = frozenset({"read_state", "write_state"})
CONTROL_OPERATORS = frozenset({"cond", "while_loop"})
KNOWN = frozenset({*OPERATORS, *CONSTEXPR, *STATE_OPERATORS, *CONTROL_OPERATORS})

INTEGERS = {
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT16": torch.int16,
    "UINT16": torch.uint16,
    "INT32": torch.int32,
}
INPUT_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT32": np.dtype(np.int32),
    "FLOAT16": np.dtype(np.float16),
    "FLOAT32": np.dtype(np.float32),
}
MAX_ROUNDS = 10_000
"""Of a loop: a stranger's may never end."""
MAX_VALUES = 1 << 28
"""Of one declared result: a gigabyte of float32."""
MAX_SHOWN = 400
"""Characters of an operator's operands in a message."""
LARGEST_HALF = float(torch.finfo(torch.float16).max)


class MilInterpreter:
    """One function of a package, parsed, with its compressed weights expanded.

    `overflow` says, of the latest run, which operator's result was the first that float16 could not hold, if any.
    """

    def __init__(self, function: Function) -> None:
        """Check that every operator is known and expand the constants.

        Raises:
            EngineError: an operator that this interpreter does not know; the message names it.
        """
        with one_line("the MIL reference cannot open this function", EngineError):
            self._open(function)
        self.overflow: str | None = None

    def _open(self, function: Function) -> None:
        unknown = sorted({each.type for each in _nested(function.operations)} - KNOWN)
        if unknown:
            raise EngineError(f"the MIL reference does not know the operator {', '.join(unknown)}: verify on macOS")
        self.function = function
        variables = [each for operation in _nested(function.operations) for each in operation.outputs]
        for each in (*variables, *function.states):
            if math.prod(size or 1 for size in each.shape) > MAX_VALUES:
                raise EngineError(
                    f"{each.name} is declared with shape {each.shape}: expected {MAX_VALUES} values at most"
                )
        self._dtypes = {each.name: each.dtype for each in (*function.inputs, *variables)}
        expanded = _Run(dict(function.constants), {})
        for operation in _nested(function.operations):
            if operation.type in CONSTEXPR:
                expanded.compute(operation, CONSTEXPR[operation.type])
        self._constants = expanded.values

    def run(
        self, inputs: Mapping[str, NDArray[Any]], states: dict[str, Tensor] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Execute the function.

        Args:
            inputs: one array per input, with the dtype and shape that the package declares; a flexible size may be
                any. An image is its tensor (1, C, H, W) of 0 .. 255, channels in the order that the package declares.
            states: what the function's states hold, by name, as an MLState does; the call changes it. A state that is
                missing starts with zeros. None: all do, and are forgotten afterwards.

        Returns:
            One array per output, with the declared dtype.

        Raises:
            InputError: inputs that are not the function's.
            EngineError: an operator fails.
        """
        with one_line("the MIL reference cannot run this function", EngineError):
            return self._run(inputs, {} if states is None else states)

    def _run(self, inputs: Mapping[str, NDArray[Any]], states: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
        for variable in self.function.states:
            found = states.setdefault(variable.name, torch.zeros(_static_shape(variable)))
            if found.shape != _static_shape(variable):
                raise EngineError(f"state {variable.name} has shape {variable.shape}, found {tuple(found.shape)}")
        run = _Run(dict(self._constants), states)
        for variable in self.function.inputs:
            run.values[variable.name] = _checked_input(variable, inputs)
        if extra := sorted(set(inputs) - {each.name for each in self.function.inputs}):
            known = [each.name for each in self.function.inputs]
            guess = did_you_mean(extra[0], known)
            raise InputError(f"unknown input {extra[0]!r}: {guess}expected {', '.join(known)}")
        with torch.no_grad():
            run.execute(self.function.operations, self.function.last_uses)
        self.overflow = run.overflow
        return {name: self._array(name, run.value(name)) for name in self.function.outputs}

    def _array(self, name: str, value: Any) -> NDArray[Any]:
        """A copy of a value as the type that it is declared with."""
        array = torch.as_tensor(value).numpy()
        return array.astype(np.float16) if self._dtypes.get(name) == "FLOAT16" else array.copy()


class _Run:
    """One execution: values by name, states by name, and the first operator whose result float16 could not hold."""

    def __init__(self, values: dict[str, Any], states: dict[str, Tensor]) -> None:
        self.values = values
        self.overflow: str | None = None
        self._states = states

    def execute(self, operations: Sequence[Operation], last_uses: Mapping[int, tuple[str, ...]]) -> None:
        """Run operations in order; drop values that none of them needs any more."""
        for index, operation in enumerate(operations):
            if operation.type in STATE_OPERATORS:
                self._access_state(operation)
            elif operation.type in CONTROL_OPERATORS:
                self._branch(operation)
            elif operation.type in OPERATORS:
                self.compute(operation, OPERATORS[operation.type])
            for name in last_uses.get(index, ()):
                self.values.pop(name, None)

    def compute(self, operation: Operation, function: Callable[..., Any]) -> None:
        """Call an operator's function with the operation's operands."""
        operands = {key: self._resolved(operand) for key, operand in operation.inputs.items()}
        try:
            results = function(**operands)
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            shapes = shorten({key: _shapes(operand) for key, operand in operands.items()}, MAX_SHOWN)
            reason = " ".join(str(error).split())
            raise EngineError(f"MIL operator {operation.type} {operation.name}, given {shapes}: {reason}") from error
        self._settle(operation, results if isinstance(results, tuple) else (results,))

    def _access_state(self, operation: Operation) -> None:
        state = operation.inputs["input"]
        assert isinstance(state, Reference)
        if operation.type == "write_state":
            self._states[state.name] = self._resolved(operation.inputs["data"])
        for variable in operation.outputs:
            self.values[variable.name] = self._states[state.name]

    def _branch(self, operation: Operation) -> None:
        """A condition runs one of its blocks; a loop carries values through its body while its condition holds."""
        if operation.type == "cond":
            chosen, other = operation.blocks
            results = self._block(chosen if bool(self._resolved(operation.inputs["pred"])) else other, ())
        else:
            condition, body = operation.blocks
            carried = operation.inputs["loop_vars"]
            results = [self._resolved(each) for each in (carried if isinstance(carried, tuple) else (carried,))]
            rounds = 0
            while bool(self._block(condition, results)[0]):
                if (rounds := rounds + 1) > MAX_ROUNDS:
                    raise EngineError(f"the loop {operation.name} did not end in {MAX_ROUNDS} rounds")
                results = self._block(body, results)
        self._settle(operation, results)

    def _block(self, block: Block, arguments: Sequence[Any]) -> list[Any]:
        # Names in a block differ from all others of the function, so that they need no scope of their own.
        self.values.update(zip(block.inputs, arguments, strict=True))
        self.execute(block.operations, {})
        return [self.value(name) for name in block.outputs]

    def _resolved(self, operand: Reference | Value | tuple[Reference | Value, ...]) -> Any:
        if isinstance(operand, tuple):
            return [self._resolved(each) for each in operand]
        return self.value(operand.name) if isinstance(operand, Reference) else operand

    def value(self, name: str) -> Any:
        """What was computed under a name."""
        if name not in self.values:
            raise EngineError(f"no operator computes {name}, which the program uses: the program is not consistent")
        return self.values[name]

    def _settle(self, operation: Operation, results: Iterable[Any]) -> None:
        for variable, result in zip(operation.outputs, results, strict=True):
            value = result if variable.dtype == NO_TENSOR else torch.as_tensor(result)
            if variable.dtype == "FLOAT16" and self.overflow is None and value.numel():
                largest = float(value.abs().max())
                if LARGEST_HALF < largest < torch.inf:
                    name = f"operator {operation.type} {operation.name}"
                    self.overflow = f"{name} reaches {largest:.3g}, beyond float16's {LARGEST_HALF:.0f}"
            self.values[variable.name] = value if variable.dtype == NO_TENSOR else _rounded(operation, variable, value)


def _nested(operations: Sequence[Operation]) -> Iterator[Operation]:
    """Operations with those inside their blocks."""
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from _nested(block.operations)


def _shapes(operand: Any) -> Any:
    """An operand with the shapes of tensors in their place, as messages show it."""
    if isinstance(operand, Tensor):
        return tuple(operand.shape)
    return [_shapes(each) for each in operand] if isinstance(operand, (list, tuple)) else operand


def _static_shape(variable: Variable) -> tuple[int, ...]:
    sizes = tuple(size for size in variable.shape if size is not None)
    if len(sizes) != len(variable.shape):
        raise EngineError(f"{variable.name} has a size that is not static: a state needs static shapes")
    return sizes


def _checked_input(variable: Variable, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
    if variable.name not in inputs:
        raise InputError(f"input {variable.name!r} is missing: found {sorted(inputs)}")
    if variable.dtype not in INPUT_DTYPES:
        raise EngineError(f"input {variable.name!r} has the type {variable.dtype}, which is not supported")
    array, dtype = np.asarray(inputs[variable.name]), INPUT_DTYPES[variable.dtype]
    if array.dtype != dtype or not _fits(variable, array.shape):
        shape = tuple("any" if size is None else size for size in variable.shape)
        raise InputError(
            f"input {variable.name!r}: expected {dtype} of shape {shape}, found {array.dtype} of shape {array.shape}"
        )
    return torch.from_numpy(array.astype({"f": np.float32, "i": np.int32, "b": np.bool_}[dtype.kind]))


def _fits(variable: Variable, shape: Sequence[int]) -> bool:
    """Whether a shape is the declared one, where that is static."""
    return len(variable.shape) == len(shape) and all(
        size is None or size == found for size, found in zip(variable.shape, shape, strict=True)
    )


def _rounded(operation: Operation, variable: Variable, tensor: Tensor) -> Tensor:
    """A result as the declared type holds it: rounded to half, or wrapped to the integer's width."""
    if not _fits(variable, tensor.shape):
        raise EngineError(
            f"MIL operator {operation.type} {operation.name} declares shape {variable.shape}, "
            f"found {tuple(tensor.shape)}: the program is not consistent"
        )
    if variable.dtype == "FLOAT16":
        return tensor.to(torch.float16).to(torch.float32)
    if variable.dtype in INTEGERS:
        return tensor.to(INTEGERS[variable.dtype]).to(torch.int32)
    return tensor.to(torch.bool if variable.dtype == "BOOL" else torch.float32)


# Executes Core ML programs in torch, on any system: the reference that verification uses where Core ML is not.
#
# It checks graph, weights, compression, shapes, types and rounding of a package as it was written. What it cannot check
# is `NOT_COVERED`.


NOT_COVERED = (
    "The reference computes each operator in float32 and rounds its result to the declared type: it covers neither the "
    "Neural Engine's and GPU's own arithmetic nor which of them Core ML places an operator on."
)


def run(
    path: str | os.PathLike[str], inputs: Mapping[str, NDArray[Any]], function: str = "main"
) -> dict[str, NDArray[Any]]:
    """Execute one function of any `.mlpackage` once, whoever made it; see `MilInterpreter.run`.

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
        guess = did_you_mean(function, functions)
        raise InputError(f"{path} has no function {function!r}: {guess}expected one of {', '.join(functions)}")
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
        """Run one program of the bundle; see `edgeformer_runtime.engines.Engine`."""
        return self.run_with(program, inputs, {})

    def run_with(
        self, program: str, inputs: Mapping[str, NDArray[Any]], states: dict[str, Tensor]
    ) -> dict[str, NDArray[Any]]:
        """Run one program on states that it changes; see `MilInterpreter.run`.

        Raises:
            EngineError: an output is NaN or infinity after an operator went beyond float16; the message names it.
        """
        if program not in self._programs:
            guess = did_you_mean(program, self._programs)
            raise InputError(f"unknown program {program!r}: {guess}expected one of {', '.join(self._programs)}")
        with self._lock:
            if program not in self._interpreters:
                self._interpreters[program] = self._interpreter(program)
            interpreter = self._interpreters[program]
            outputs, overflow = interpreter.run(inputs, states), interpreter.overflow
        lost = [name for name, each in outputs.items() if not np.isfinite(each).all()]
        if lost and overflow is not None:
            raise EngineError(f"{lost[0]} holds NaN or infinity: {overflow}; convert to fp32")
        return outputs

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder with states of its own; see `edgeformer_runtime.engines.Engine`."""
        return decoder_over(_States(self).run, bucket, spec, StateOwners())

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
