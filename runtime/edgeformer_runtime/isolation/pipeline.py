"""A pipeline whose bundle lives in a helper process: its model, its tokenizer, and the decoders of images and sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import check_inputs
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.isolation.messages import pack, read_answer, unpack
from edgeformer_runtime.isolation.process import Frame, HelperProcess, Limits
from edgeformer_runtime.isolation.stream import IsolatedStream, IsolatedTranscription
from edgeformer_runtime.pipelines.base import IsCancelled, Pipeline, check, never
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate
from edgeformer_runtime.preprocess.audio import RawAudio
from edgeformer_runtime.progress import AudioProgress, Progress
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.task import TASKS
from edgeformer_runtime.verify.verify import Stage, Verification


class IsolatedEngine:
    """An `Engine` whose programs run in a helper process."""

    def __init__(self, bundle: Bundle, threads: int, limits: Limits, answers: bool = False) -> None:
        """Open a bundle there.

        Args:
            bundle: an open bundle, which has to stay open.
            threads: how many threads the engine may use.
            limits: of the process.
            answers: whether it is to open the tokenizer, too, and answer raw inputs.

        Raises:
            BundleError: a model file is one that "Model files" of BUNDLE.md refuses.
            EngineError: the engine is not installed, or the process died.
        """
        self._programs = {program.name: program for program in bundle.manifest.programs}
        self.limits = limits
        opening = {
            "folder": str(bundle.folder.resolve()),
            "threads": threads,
            "answers": answers,
            "seconds": limits.call_s,
            "open_seconds": limits.open_s,
            "memory_bytes": limits.memory_for(bundle.size_bytes),
        }
        self.helper = HelperProcess(Frame(opening), limits.open_s)
        said = self.helper.opened.header
        self.name = bundle.manifest.target
        self.executed_by = shorten(str(said.get("executed_by")), 100)[1:-1]
        not_covered = said.get("not_covered")
        self.not_covered = None if not_covered is None else shorten(str(not_covered), 500)[1:-1]
        confined = said.get("confined")
        self.confined: tuple[str, ...] = tuple(map(str, confined)) if isinstance(confined, list) else ()

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program; see `Engine.run`."""
        spec = check_inputs(self._programs, program, inputs)
        question = Frame({"question": "program", "program": program}, pack(inputs, spec.inputs))
        answer = self.helper.ask(question, self.limits.call_s)
        try:
            return unpack(answer.body, spec.outputs)
        except ValueError as error:
            raise EngineError(f"the isolated bundle gave what is no answer: {error}") from None

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:  # noqa: ARG002
        """None: decoders live in the helper process, with the pipeline."""
        raise EngineError("an isolated bundle gives no decoder: expected its pipeline to be called")

    def close(self) -> None:
        """End the process. A second call does nothing."""
        self.helper.close()


class IsolatedPipeline(Pipeline[Any, Any]):
    """Answers as the pipeline of the bundle's task does. Calls from several threads take turns."""

    engine: IsolatedEngine

    def __init__(self, bundle: Bundle, threads: int = 1, limits: Limits | None = None) -> None:
        """Open a bundle in a helper process; `close` closes both. Errors as of `IsolatedEngine`."""
        super().__init__(bundle, IsolatedEngine(bundle, threads, limits or Limits(), answers=True), owned=True)
        self._task = TASKS[bundle.manifest.task]

    def run(self, raw: Any, options: Any = None, progress: AudioProgress | None = None) -> Any:
        """Answer one raw input.

        Args:
            raw: see the task's own pipeline.
            options: as the task's pipeline takes them, where it does.
            progress: called by a pipeline that takes options, as it goes.

        Raises:
            InputError: the input cannot be used.
            EngineError: the model failed, or its process died or took too long; the next call finds a new one.
        """
        frame: Frame = load_attribute(self._task.takes.frame)(raw, self._task.takes.kind)
        header = {**frame.header, "question": "run"}
        if options is not None:
            header["options"] = strict_json.to_data(options)
        answer = self.engine.helper.ask(Frame(header, frame.body), self.engine.limits.call_s, progress)
        return read_answer(answer, self.bundle.manifest)

    def interrupt(self) -> None:
        """End what is being answered, from any thread: whoever waits for it gets an EngineError."""
        self.engine.helper.interrupt()

    def begin(
        self, raw: RawAudio, options: TranscribeOptions | None = None, is_cancelled: IsCancelled = never
    ) -> IsolatedTranscription:
        """Of a task with streams: one sound to transcribe window by window; see `Transcriber.begin`."""
        self._check_streams("sound")
        return IsolatedTranscription(self._ask, raw, options, is_cancelled)

    def open_stream(
        self,
        options: TranscribeOptions | None = None,
        stream_options: StreamOptions | None = None,
        is_cancelled: IsCancelled = never,
    ) -> IsolatedStream:
        """Of a task with streams: a transcript of what is still arriving; see `Transcriber.open_stream`."""
        self._check_streams("stream of sound")

        def ask(question: Frame) -> Frame:
            check(is_cancelled)
            return self._ask(question)

        return IsolatedStream(ask, options, stream_options)

    def stream(
        self,
        blocks: Iterable[RawAudio],
        options: TranscribeOptions | None = None,
        stream_options: StreamOptions | None = None,
    ) -> Iterator[StreamUpdate]:
        """Of a task with streams: transcribe block by block; see `Transcriber.stream`."""
        stream = self.open_stream(options, stream_options)
        for block in blocks:
            yield from stream.feed(block)
        yield from stream.finish()

    def _check_streams(self, what: str) -> None:
        if not self._task.gives.streams:
            raise InputError(f"{self._task.name} takes no {what}")

    def _ask(self, question: Frame) -> Frame:
        return self.engine.helper.ask(question, self.engine.limits.call_s)


def verify_isolated(
    bundle: Bundle, threads: int = 1, limits: Limits | None = None, progress: Progress | None = None
) -> Verification:
    """`verify` in a helper process, vectors and preprocessing included.

    Raises:
        BundleError: the bundle has no vectors, or they or its model files do not follow BUNDLE.md.
        EngineError: the engine is not installed, or the process died or took too long.
    """
    limits = limits or Limits()
    engine = IsolatedEngine(bundle, threads, limits)

    def report(done: float, total: float | None) -> None:
        if progress is not None and total is not None:
            progress(int(done), int(total))

    try:
        question = Frame({"question": "verify", "seconds": limits.open_s})
        found = engine.helper.ask(question, limits.open_s, report).header
        try:
            data = found["verification"]
            stages = tuple(
                strict_json.from_data(Stage, {"reason": None} | stage, "verification") for stage in data["stages"]
            )
        except (BundleError, KeyError, TypeError) as error:
            raise EngineError(f"the isolated bundle gave what is no verification: {error}") from None
    finally:
        engine.close()
    first = next((stage.name for stage in stages if not stage.ok), None)
    return Verification(first is None, engine.executed_by, stages, first, engine.not_covered)
