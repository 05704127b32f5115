"""ONNX Runtime: a `.onnx` file for each program, or one for all lengths of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import onnxruntime

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, SHORTEST_TEXT
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, HostStateDecoder, SpeechDecoder
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.model_files import mapped
from edgeformer_runtime.model_files.onnx_file import Elsewhere, constants_elsewhere
from edgeformer_runtime.process import give_back_memory
from edgeformer_runtime.tasks.task import TASKS

Outputs = Mapping[str, Tensor]

_ERRORS_ONLY = 3

_KEPT_BYTES = 64 << 20
"""Of weights of which sessions have their own copies."""
_FILES_OF_A_LENGTH = 3
"""A speech model's encode, prefill and decode, which stay whatever they take."""
_COPIED_BYTES = 32 << 10
"""Of an input: what is smaller, as a token and its mask, is copied to where the session was told it lies."""
_LARGE_BYTES = 1 << 20
"""Of outputs: what was used to compute them is given back to the system."""

# Products of unsigned activations and signed weights are summed in 16 bits on x86 without VNNI, and saturate there: a
# MiniLM's embeddings fall to a cosine of .978. With this option the weights are made unsigned, which takes 1.15 to 1.2
# times as long, on CPUs with AVX-VNNI, which do not saturate, too.
PRECISE_INT8 = ("session.x64quantprecision", "1")
# y = MatMulInteger(a, b), uint8 times int8, as onnx.helper makes it for opset 10.
_PRODUCT = (
    b'\x08\x05:b\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01gZ\x15\n\x01a\x12\x10\n\x0e\x08\x02\x12\n\n\x03'
    b"\x12\x01m\n\x03\x12\x01kZ\x15\n\x01b\x12\x10\n\x0e\x08\x03\x12\n\n\x03\x12\x01k\n\x03\x12\x01nb\x15\n\x01y"
    b"\x12\x10\n\x0e\x08\x06\x12\n\n\x03\x12\x01m\n\x03\x12\x01nB\x04\n\x00\x10\n"
)


class OnnxEngine(CheckedEngine):
    """Runs an ONNX bundle on the CPU."""

    name = "onnx"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Open a session per model file; see `open_engine`.

        Those of a speech model, three for each length of audio, are opened when they are first needed (`_Stepwise`).
        """
        super().__init__(bundle.manifest.programs)
        self.executed_by = f"onnxruntime {onnxruntime.__version__}"
        onnxruntime.disable_telemetry_events()  # some of its builds collect usage events
        self._options = _options(bundle, threads)
        self._path = bundle.path
        self._sessions: dict[str, Any] = {}
        self._any_length: set[str] = set()
        self._stepwise: _Stepwise | None = None
        if TASKS[bundle.manifest.task].gives.stepwise:
            self._stepwise = _Stepwise(bundle, partial(_options, bundle, threads))
        else:
            for program in bundle.manifest.programs:
                self._session(program)

    def _session(self, program: ProgramSpec) -> Any:
        """The session of a program, opened if it is not yet."""
        file = program.file
        if self._stepwise is not None:
            self._stepwise.make_room(file, self._sessions)
        if file not in self._sessions:
            try:
                session = onnxruntime.InferenceSession(
                    str(self._path(file)),
                    self._options if self._stepwise is None else self._stepwise.options(file),
                    providers=["CPUExecutionProvider"],
                    enable_fallback=0,  # it would print to stdout and try the same provider again
                )
            except Exception as error:  # the library's errors share no base class
                raise EngineError(f"{self.executed_by} cannot open {file}: {shorten(str(error), 200)[1:-1]}") from error
            _compare(program, session)
            if _takes_any_length(session):
                self._any_length.add(file)
            self._sessions[file] = session
        return self._sessions[file]

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [spec.name for spec in program.outputs]
        session = self._session(program)
        given = without_padding(inputs) if program.file in self._any_length else dict(inputs)
        try:
            outputs = cast(list[Tensor], session.run(names, given))
        except Exception as error:  # the library's errors share no base class: `run` says this one in our words
            raise RuntimeError(str(error)) from error
        if self._stepwise is not None and sum(output.nbytes for output in outputs) >= _LARGE_BYTES:
            give_back_memory()
        return dict(zip(names, outputs, strict=True))

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder over a bucket's programs; those of text read and write its arrays in place."""
        if spec.state != HOST_STATE or bucket.encode is not None:
            return super().open_decoder(bucket, spec)
        calls: WeakKeyDictionary[Any, _Call] = WeakKeyDictionary()
        return HostStateDecoder(partial(self._run_in_place, calls), bucket, spec)

    def _run_in_place(
        self, calls: WeakKeyDictionary[Any, _Call], program: str, inputs: Mapping[str, Tensor]
    ) -> Outputs:
        """`run` whose outputs the next run of the program overwrites; calls: by session, for as long as it is open."""
        spec = self.check_inputs(program, inputs)
        with self._running(spec):
            session = self._session(spec)
            if session not in calls:
                calls[session] = _Call(session, spec)
            try:
                return calls[session].run(session, inputs)
            except Exception as error:  # as of `_execute`
                raise RuntimeError(str(error)) from error

    def _release(self) -> None:
        self._sessions.clear()


class _Call:
    """A program's arrays, which its session has been told once: of sixty for each token most are the caches."""

    def __init__(self, session: Any, program: ProgramSpec) -> None:
        self._binding = session.io_binding()
        self._bound: dict[str, Tensor] = {}
        self._results: dict[str, Tensor] = {each.name: np.zeros(each.shape, each.dtype) for each in program.outputs}
        for name, array in self._results.items():
            self._binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run(self, session: Any, inputs: Mapping[str, Tensor]) -> Outputs:
        """The outputs, which the next run overwrites."""
        for name, array in inputs.items():
            bound = self._bound.get(name)
            if bound is array:
                continue
            if bound is not None and array.nbytes <= _COPIED_BYTES:
                bound[...] = array
                continue
            # Held here, as the session reads its memory; what is small is copied from now on, so never the caller's.
            self._bound[name] = array.copy() if array.nbytes <= _COPIED_BYTES else array
            value = onnxruntime.OrtValue.ortvalue_from_numpy(self._bound[name])
            self._binding.bind_ortvalue_input(name, value)
        session.run_with_iobinding(self._binding)
        return self._results


def _options(bundle: Bundle, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    if not bundle.manifest.recipe.weights.startswith("float") and saturates():
        options.add_session_config_entry(*PRECISE_INT8)
    return options


@cache
def saturates() -> bool:
    """Whether int8 products are wrong on this CPU without `PRECISE_INT8`: tried on one, as emulators tell what they
    are not."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    rows, columns = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    return bool((session.run(None, {"a": rows, "b": columns})[0] != 64 * 255 * 127).any())


class _Stepwise:
    """The sessions of a model of many files, of which each would have its own copy of the weights.

    float32: the weights in other files are mapped once and given to each session, which makes no copies as long as it
    packs nothing for the matrix products. tiny.en after clips of three lengths takes 276 MB and not 1022; a token takes
    5.9 ms and not 4.9, encoding 5 s 33 ms and not 28 (one thread).

    Others: integers are packed, as a token would take 4.4 ms and not 1.7, and float16 is widened, in each session. So
    the sessions that were not used for longest are closed. Opening three again takes .1 s, or .25 where `PRECISE_INT8`
    rewrites their weights.
    """

    def __init__(self, bundle: Bundle, options: Callable[[], Any]) -> None:
        """`options`: makes a session's."""
        self._path = bundle.path
        self._folder = {program.file: program.file.rpartition("/")[0] for program in bundle.manifest.programs}
        self._make_options = options
        self._shares = bundle.manifest.recipe.weights == "float32"
        self._weights: dict[str, list[Elsewhere]] = {}
        self._files: dict[str, Tensor] = {}
        self._values: dict[tuple[object, ...], Any] = {}

    def make_room(self, file: str, sessions: dict[str, Any]) -> None:
        """Close the sessions that may not stay beside a file's, and note that it is used last."""
        if file not in self._weights:
            self._weights[file] = constants_elsewhere(mapped(self._path(file)))
        if file in sessions:
            sessions[file] = sessions.pop(file)
            return
        if self._shares:
            return
        for used in list(sessions)[: 1 - _FILES_OF_A_LENGTH]:
            if sum(map(self._own_bytes, sessions)) + self._own_bytes(file) <= _KEPT_BYTES:
                return
            del sessions[used]
        give_back_memory()

    def options(self, file: str) -> Any:
        """The options of a file's session, which take its weights from the shared ones."""
        options = self._make_options()
        options.enable_cpu_mem_arena = False  # it would keep the activations of the longest audio
        if self._shares:
            options.add_session_config_entry("session.disable_prepacking", "1")
            for each in self._weights[file]:
                options.add_initializer(each.name, self._value(file, each))
        return options

    def _own_bytes(self, file: str) -> int:
        return sum(each.length for each in self._weights[file])

    def _value(self, file: str, weights: Elsewhere) -> Any:
        name = "/".join(filter(None, (self._folder[file], weights.file)))
        key = (name, weights.offset, weights.dtype, weights.shape)
        if key not in self._values:
            if name not in self._files:
                self._files[name] = np.frombuffer(mapped(self._path(name)), np.uint8)
            part = self._files[name][weights.offset : weights.offset + weights.length]
            values = part.view(weights.dtype).reshape(weights.shape)
            self._values[key] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
        return self._values[key]


def _takes_any_length(session: Any) -> bool:
    """Whether the length of the inputs is symbolic and no output has it: what is left of padding cannot be missed."""
    symbolic = [
        any(isinstance(size, str) for tensor in tensors for size in tensor.shape)
        for tensors in (session.get_inputs(), session.get_outputs())
    ]
    return symbolic == [True, False]


def without_padding(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of a text, (1, S) each, up to the last position that its mask does not hide; views of them."""
    mask = inputs.get("attention_mask")
    seen = () if mask is None else mask.nonzero()[-1].tolist()
    if not seen:
        return dict(inputs)
    length = max(seen[-1] + 1, SHORTEST_TEXT)
    return {name: tensor[..., :length] for name, tensor in inputs.items()}


def _compare(program: ProgramSpec, session: Any) -> None:
    """The file's inputs and outputs have the names that the manifest declares."""
    found = sorted(tensor.name for tensor in (*session.get_inputs(), *session.get_outputs()))
    declared = sorted(spec.name for spec in (*program.inputs, *program.outputs))
    if found != declared:
        raise EngineError(
            f"{program.file} has the inputs and outputs {', '.join(found)}, the manifest declares"
            f" {', '.join(declared)}: convert the bundle again"
        )
