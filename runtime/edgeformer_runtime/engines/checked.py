"""What all engines share: inputs and outputs checked against the manifest, one run at a time, a clean end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import did_you_mean

if TYPE_CHECKING:
    from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, Run, SpeechDecoder, StateOwners
    from edgeformer_runtime.model_files import Rows


class CheckedEngine(ABC):
    """An `Engine` but for the execution itself."""

    name: str
    executed_by: str
    not_covered: str | None = None

    def __init__(self, programs: Sequence[ProgramSpec]) -> None:
        """Serve the programs of a manifest."""
        self.programs = {program.name: program for program in programs}
        self.rows: Rows = {}
        """What an input's numbers must be below, as `check_model_files` found it."""
        self._owners: StateOwners | None = None
        self._lock = threading.Lock()
        self._closed = False

    @abstractmethod
    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a program on inputs that are exactly what it declares; the outputs are copies. Called under the lock."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the model. Called once, under the lock."""

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program; see `Engine.run`.

        Raises:
            InputError: an unknown program, or an input that is missing, superfluous, of another dtype or shape, or
                numbers a row of a table that the model does not have.
            EngineError: the engine is closed, failed, or gave other outputs than the manifest declares.
        """
        spec = self.check_inputs(program, inputs)
        with self._running(spec):
            outputs = self._execute(spec, inputs)
        return check_outputs(spec, outputs)

    def check_inputs(self, program: str, inputs: Mapping[str, Tensor]) -> ProgramSpec:
        """The program of that name, if it can run on the inputs. Errors as of `run`."""
        spec = check_inputs(self.programs, program, inputs)
        for name, rows in self.rows.get(program, {}).items():
            smallest, largest = int(inputs[name].min(initial=0)), int(inputs[name].max(initial=0))
            if smallest < 0 or largest >= rows:
                raise InputError(
                    f"{program}: {name}: expected numbers from 0 to {rows - 1}, which is what the model has rows for,"
                    f" found {smallest} to {largest}"
                )
        return spec

    @contextmanager
    def _running(self, program: ProgramSpec) -> Iterator[None]:
        """One run at a time, none after the end, and the tool's errors in our words."""
        with self._lock:
            if self._closed:
                raise EngineError(f"the {self.name} engine is closed")
            try:
                yield
            except (RuntimeError, ValueError) as error:
                raise EngineError(
                    f"{self.executed_by} failed to run {program.name}: {shorten(str(error), 200)[1:-1]}"
                ) from error

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder over a bucket's programs; see `Engine.open_decoder`."""
        from edgeformer_runtime.engines.decoder import StateOwners

        with self._lock:
            if self._owners is None:
                self._owners = StateOwners()
        return decoder_over(self.run, bucket, spec, self._owners)

    def close(self) -> None:
        """Release the model. A second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()


def decoder_over(run: Run, bucket: CacheBucket, spec: CacheSizes, owners: StateOwners) -> SpeechDecoder:
    """The decoder over an engine's `run` for whoever keeps the state: this process, or the programs themselves."""
    from edgeformer_runtime.engines.decoder import HostStateDecoder, ProgramStateDecoder

    if spec.state == HOST_STATE:
        return HostStateDecoder(run, bucket, spec)
    return ProgramStateDecoder(run, bucket, spec, owners)


def check_inputs(programs: Mapping[str, ProgramSpec], name: str, inputs: Mapping[str, Tensor]) -> ProgramSpec:
    """The program of that name, if the inputs are exactly what it declares.

    Raises:
        InputError: an unknown program, or an input that is missing, superfluous or of another dtype or shape.
    """
    program = programs.get(name)
    if program is None:
        raise InputError(
            f"unknown program {name!r}: {did_you_mean(name, programs)}expected one of {', '.join(programs)}"
        )
    declared = [spec.name for spec in program.inputs]
    if set(inputs) != set(declared):
        raise InputError(f"{name}: expected the inputs {', '.join(declared)}, found {', '.join(sorted(inputs))}")
    for spec in program.inputs:
        check_tensor(program, spec, inputs[spec.name])
    return program


def check_tensor(program: ProgramSpec, spec: TensorSpec, tensor: Tensor) -> None:
    """Raises InputError: the input is no array, or not what the program declares."""
    if not isinstance(tensor, np.ndarray):
        raise InputError(f"{program.name}: {spec.name}: expected a numpy array, found {type(tensor).__name__}")
    if tensor.dtype != spec.dtype or tensor.shape != spec.shape:
        raise InputError(
            f"{program.name}: {spec.name}: expected {spec.dtype} {spec.shape}, found {tensor.dtype} {tensor.shape}"
        )


def check_outputs(program: ProgramSpec, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs in the manifest's order, if the model gave what the manifest declares.

    Raises:
        EngineError: the model and the manifest disagree.
    """
    for spec in program.outputs:
        found = outputs.get(spec.name)
        if found is None or found.dtype != spec.dtype or found.shape != spec.shape:
            shown = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise EngineError(
                f"{program.name}: the manifest declares the output {spec.name} as {spec.dtype} {spec.shape},"
                f" the model gave {shown}: convert the bundle again"
            )
    return {spec.name: outputs[spec.name] for spec in program.outputs}
