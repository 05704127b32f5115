"""Pipelines of audio: to a transcript, and to labels of the whole recording."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, cast

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import AudioBucket, AudioPreprocessing, Classification
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt, feed
from edgeformer_runtime.decoding.search import Search, follow, likeliest
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import AudioProgress
from edgeformer_runtime.pipelines import IsCancelled, Pipeline, check, never
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline
from edgeformer_runtime.pipelines.results import ClassificationResult, classify
from edgeformer_runtime.pipelines.speech_model import Samples, SpeechModel
from edgeformer_runtime.pipelines.speech_session import SpeechSession
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate, TranscriptStream
from edgeformer_runtime.pipelines.transcript import Segment, Transcript
from edgeformer_runtime.preprocess.audio import AudioReader, RawAudio, open_audio
from edgeformer_runtime.preprocess.log_mel import RecordingEncoder
from edgeformer_runtime.tasks.speech import ENERGIES_INPUT, LENGTH_INPUT, SAMPLES_INPUT, RecordingPreprocessing

PLAIN = TranscribeOptions(timestamps=False)
"""How the reference answer is asked for."""


def read_wav(bundle: Bundle, stored: Mapping[str, Any]) -> Samples:
    """The samples (N,) that a stored input means: {"audio", "samples"}, a file of the bundle and how many of it.

    Raises:
        InputError: the file is no audio, or shorter than it says.
    """
    rate = cast("AudioPreprocessing | RecordingPreprocessing", bundle.manifest.preprocessing).sample_rate
    with open_audio(bundle.path(stored["audio"]), rate) as reader:
        samples = reader.read(stored["samples"])
    if len(samples) != stored["samples"]:
        raise InputError(f"expected {stored['samples']} samples, found {len(samples)}")
    return samples


class Transcription:
    """A recording that is being transcribed, whose windows are for one thread at a time; `close` is for any."""

    def __init__(self, model: SpeechModel, session: SpeechSession, raw: RawAudio, is_cancelled: IsCancelled) -> None:
        """Use `Transcriber.begin`."""
        self._model = model
        self._session = session
        self._is_cancelled = is_cancelled
        self._rate = model.audio.sample_rate
        self._buffer = session.new_buffer()
        self._reader: AudioReader = open_audio(raw, self._rate)
        self._segments: list[Segment] = []
        self._clips = session.clips()
        self._clip_end: int | None = 0
        self._read_samples = 0
        self._lock = threading.Lock()

    @property
    def done_seconds(self) -> float:
        """Of audio that has been transcribed."""
        return self._buffer.start / self._rate

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What has been transcribed so far."""
        return tuple(self._segments)

    @property
    def seconds(self) -> float | None:
        """Of all audio, None where that is unknown."""
        return self._reader.seconds

    def advance(self) -> bool:
        """Transcribe the next window, or skip silence; False: there was nothing left.

        Raises:
            Cancelled: nobody wants the transcript any more.
            InputError: the audio is corrupted from here on.
            EngineError: the model failed, or gave NaN or infinity.
        """
        with self._lock:
            return self._advance()

    def _advance(self) -> bool:
        check(self._is_cancelled)
        self._fill()
        while not len(self._buffer.samples):
            if not self._begin_clip():
                return False
            self._fill()
        self._segments += self._session.transcribe_next(self._buffer)
        return True

    def _fill(self) -> None:
        """More than a window of the clip, or all that is left of it."""
        missing = self._model.window_samples + 1 - len(self._buffer.samples)
        if missing > 0:
            self._buffer.append(self._read(missing))

    def _read(self, count: int) -> Samples:
        if self._clip_end is not None:
            count = min(count, self._clip_end - self._read_samples)
        samples = self._reader.read(count) if count > 0 else np.zeros(0, np.float32)
        self._read_samples += len(samples)
        return samples

    def _begin_clip(self) -> bool:
        """Pass over what lies before the next clip. False: there is none."""
        if not self._clips:
            return False
        begin, end = self._clips.pop(0)
        self._clip_end = begin
        while len(self._read(self._rate)):
            pass
        self._clip_end = end
        self._buffer.start = self._read_samples
        return self._read_samples == begin

    def transcript(self) -> Transcript:
        """What has been transcribed so far."""
        return self._session.transcript(self._segments, self._buffer.end)

    def close(self) -> None:
        """Release the recording's file, once no window is being transcribed. A second call does nothing."""
        with self._lock:
            self._reader.close()

    def __enter__(self) -> Transcription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transcriber(Pipeline[RawAudio, Transcript]):
    """Transcribes audio: a path, a file's bytes, an array at the model's rate, or a pair of an array and its rate.

    Audio longer than the model's window is cut into windows that end in pauses, in constant memory; long silence is
    skipped. Calls from several threads take turns, window by window.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, owned: bool = False, options: TranscribeOptions | None = None
    ) -> None:
        """Use `edgeformer_runtime.load`. `options` are those of calls that bring none."""
        super().__init__(bundle, engine, owned)
        self.options = options or TranscribeOptions()
        self._model = SpeechModel(bundle, engine)
        self.spec = self._model.spec

    def run(
        self,
        raw: RawAudio,
        options: TranscribeOptions | None = None,
        progress: AudioProgress | None = None,
        is_cancelled: IsCancelled = never,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Transcript:
        """Transcribe one recording.

        Args:
            raw: see `RawAudio`.
            options: in place of the transcriber's own.
            progress: called after each window.
            is_cancelled: asked before each step of the decoder.
            on_segment: called with each segment, once its window has been transcribed.

        Raises:
            InputError: the audio cannot be read, or the model cannot do what the options ask for.
            EngineError: the model failed, or gave NaN or infinity.
            Cancelled: nobody wants the transcript any more.
        """
        told = 0
        with self.begin(raw, options, is_cancelled) as transcription:
            while transcription.advance():
                if on_segment is not None:
                    new = transcription.segments[told:]
                    told += len(new)
                    for segment in new:
                        on_segment(segment)
                if progress is not None:
                    progress(transcription.done_seconds, transcription.seconds)
            return transcription.transcript()

    def begin(
        self, raw: RawAudio, options: TranscribeOptions | None = None, is_cancelled: IsCancelled = never
    ) -> Transcription:
        """One recording to transcribe window by window; arguments and errors as of `run`."""
        session = SpeechSession(self._model, options or self.options, is_cancelled)
        return Transcription(self._model, session, raw, is_cancelled)

    def open_stream(
        self,
        options: TranscribeOptions | None = None,
        stream_options: StreamOptions | None = None,
        is_cancelled: IsCancelled = never,
    ) -> TranscriptStream:
        """A transcript of audio that is still arriving.

        Args:
            options: in place of the transcriber's own.
            stream_options: when text is given, and when it is final.
            is_cancelled: asked before each step of the decoder.

        Raises:
            InputError: the model cannot do what the options ask for, or they ask for clips of a recording.
        """
        if (options or self.options).clip_timestamps:
            raise InputError("clip_timestamps: expected none for a stream, whose parts nobody knows yet")
        session = SpeechSession(self._model, options or self.options, is_cancelled)
        return TranscriptStream(self._model, session, stream_options or StreamOptions())

    def stream(
        self,
        blocks: Iterable[RawAudio],
        options: TranscribeOptions | None = None,
        stream_options: StreamOptions | None = None,
    ) -> Iterator[StreamUpdate]:
        """Transcribe audio block by block; see `open_stream`. The last update is final."""
        stream = self.open_stream(options, stream_options)
        for block in blocks:
            yield from stream.feed(block)
        yield from stream.finish()

    def mel(self, samples: Samples, bucket: AudioBucket) -> Samples:
        """The input of a bucket's `encode`, (1, n_mels, 2 T) float32, for samples (N,) at the model's rate."""
        return self._model.mel(samples, bucket)

    def decoder(self, bucket: AudioBucket) -> SpeechDecoder:
        """The decoder of a bucket, opened at the first call. It belongs to the transcriber."""
        return self._model.decoder(bucket)

    def text(self, tokens: list[int]) -> str:
        """The text of a transcript's tokens, without spaces around it."""
        return self._model.tokenizer.text(tokens).strip()

    def plain_prompt(self) -> list[int]:
        """The prompt of the reference answer: text alone, in English if it can be, nothing before it."""
        tokens, rows = self.spec.tokens, self.spec.buckets[0].rows
        return list(build_prompt(tokens, rows, PLAIN, tokens.reference_language).tokens)

    def plain_choice(self, logits: Samples, first: bool) -> int:
        """The reference answer's token for logits (V,); `first`: no token came before it."""
        ruled = logits.copy()
        LogitRules(self.spec, timestamps=False).apply(ruled, [] if first else [self.spec.tokens.end])
        return likeliest(ruled)

    def plain_text(self, samples: Samples, bucket: AudioBucket) -> str:
        """The reference answer for samples (N,) that a bucket holds: greedy, until the end or the cache is full."""
        model = self._model
        with model.lock:
            decoder = model.decoder(bucket)
            decoder.encode(model.mel(samples, bucket))
            tokens = self.spec.tokens
            context = feed(decoder, build_prompt(tokens, bucket.rows, PLAIN, tokens.reference_language))
            search = Search(
                decoder=decoder,
                context=context,
                rules=LogitRules(self.spec, timestamps=False),
                tokens=self.spec.tokens,
                max_tokens=bucket.rows - 1 - context.position,
                keep_alignments=False,
                stop_loops=False,
            )
            return self.text(list(follow(search, likeliest).tokens))

    def close(self) -> None:
        """Release the decoders, and the engine and bundle if they are the pipeline's own."""
        self._model.close()
        super().close()


class AudioClassifier(ProgramPipeline[RawAudio, ClassificationResult]):
    """Scores every label of the bundle for a recording: a file, its bytes, or an array with its rate."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        self.spec = cast(RecordingPreprocessing, bundle.manifest.preprocessing)
        self.encode = RecordingEncoder(self.spec)
        # By the samples that each takes.
        self._programs = {program.inputs[0].shape[1]: program.name for program in bundle.manifest.programs}

    @property
    def longest_samples(self) -> int:
        """What is kept of a recording, at the model's rate."""
        bank = self.spec.filter_bank
        return max(self._programs) if bank is None else bank.samples

    def prepare(self, raw: RawAudio) -> Prepared:
        """Read a recording; the smallest program that holds it takes its samples, or the only one its energies."""
        samples, truncated = self.encode.read(raw, self.longest_samples)
        if self.spec.filter_bank is not None:
            (name,) = self._programs.values()
            return Prepared(name, {ENERGIES_INPUT: self.encode.energies(samples)}, truncated)
        length = min(each for each in self._programs if each >= len(samples))
        inputs: dict[str, Tensor] = {SAMPLES_INPUT: self.encode.padded(samples, length)}
        inputs[LENGTH_INPUT] = np.array([len(samples)], np.int32)
        return Prepared(self._programs[length], inputs, truncated)

    def raw_from_json(self, stored: Mapping[str, Any]) -> RawAudio:
        """{"audio", "samples"}; see `read_wav`."""
        return read_wav(self.bundle, stored)

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ClassificationResult:
        """Labels and probabilities, best first."""
        return classify(outputs, cast(Classification, self.bundle.manifest.postprocessing), prepared.truncated)
