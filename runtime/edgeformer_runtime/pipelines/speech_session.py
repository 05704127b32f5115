"""One recording being transcribed, window by window."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.decoding.fallback import Decoded, decode_with_fallback
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt, check_language, detect_language, feed, previous_room
from edgeformer_runtime.decoding.search import Search
from edgeformer_runtime.decoding.segments import (
    Span,
    Spans,
    TimedWord,
    clip_long_words,
    cut_at_skipped,
    fit_to_pauses,
    join_punctuation,
    letters_of,
    split_at_timestamps,
    timed_words,
    token_positions,
    trim_to_speech,
)
from edgeformer_runtime.decoding.tokenizer import join_texts
from edgeformer_runtime.engines.decoder import DecoderOutput, Floats, SpeechDecoder
from edgeformer_runtime.pipelines import IsCancelled, check, never
from edgeformer_runtime.pipelines.speech_model import AudioBuffer, Samples, SpeechModel, is_worth_a_retry, next_window
from edgeformer_runtime.pipelines.transcript import Segment, SpeechStatistics, Transcript, Word
from edgeformer_runtime.preprocess.log_mel import clipped_samples, leveled
from edgeformer_runtime.preprocess.silence import PauseOptions, VoiceDetector, is_silent, speech_ranges
from edgeformer_runtime.process import peak_rss_bytes

TEMPERATURE_THAT_FORGETS = 0.5
"""Text found at a higher temperature, or not good enough at any, is no prompt for what follows: it may be made up."""

PAUSES_BETWEEN_WORDS = PauseOptions(min_pause_seconds=0.2, margin_seconds=0.04)
"""Shorter pauses are parts of words: the closure of a plosive lasts about 0.1 s."""


@dataclass(frozen=True)
class _WindowSegments:
    """What a window holds; `resume`: the sample from which on the next window has to begin, None for its end."""

    segments: tuple[Segment, ...]
    resume: int | None


class SpeechSession:
    """The language, the previous text and the costs of one recording; not for several threads at once."""

    def __init__(self, model: SpeechModel, options: TranscribeOptions, is_cancelled: IsCancelled = never) -> None:
        """Begin.

        Args:
            model: of the bundle.
            options: what is asked for.
            is_cancelled: asked before each step of the decoder, which raises `Cancelled` then.

        Raises:
            InputError: the model does not know the language or the task that the options ask for.
        """
        check_language(options, model.spec.tokens)
        self.language = options.language if model.spec.tokens.languages else "en"
        self._model = model
        self._options = options
        self._is_cancelled = is_cancelled
        self._generator = np.random.default_rng(options.seed)
        self._previous: list[int] = model.tokenizer.tokens(options.initial_prompt) if options.initial_prompt else []
        self._hotwords = model.tokenizer.tokens(options.hotwords.strip()) if options.hotwords else []
        self._rules = LogitRules(model.spec, options.timestamps)
        self._begin = time.perf_counter()
        self._mel_s = self._encode_s = self._decode_s = 0.0
        self._tokens = self._windows = self._samples = self._clipped = 0
        self._heard_again = 0  # up to this sample of the recording

    def new_buffer(self) -> AudioBuffer:
        """For the recording's audio, with a voice activity detector where the options ask for one.

        Raises:
            InputError: it is not installed, or does not know the model's sample rate.
        """
        options, rate = self._options, self._model.audio.sample_rate
        return AudioBuffer(VoiceDetector(options.vad_threshold, rate) if options.vad_filter else None)

    def clips(self) -> list[tuple[int, int | None]]:
        """The parts to transcribe, as samples; the last may have no end."""
        times = self._options.clip_timestamps or (0.0,)
        places: list[int | None] = [round(time * self._model.audio.sample_rate) for time in times]
        return [(begin or 0, end) for begin, end in zip(places[::2], [*places[1::2], None], strict=False)]

    def transcribe_next(self, buffer: AudioBuffer) -> tuple[Segment, ...]:
        """Transcribe the first window of a buffer and drop it, or drop silence.

        Args:
            buffer: not empty; all audio that is left, or more of it than a window.

        Raises:
            EngineError: the model failed, or gave NaN or infinity.
        """
        rate = self._model.audio.sample_rate
        window = next_window(buffer, self._model.window_samples, rate)
        if window.has_speech:
            return self.transcribe_first(buffer, window.end)
        buffer.drop(window.end)
        return ()

    def transcribe_first(self, buffer: AudioBuffer, size: int) -> tuple[Segment, ...]:
        """Transcribe the buffer's first samples, at most a window's, and drop those that are done with."""
        samples = buffer.samples[:size]
        found = self._transcribe(samples, buffer.start)
        done = size
        if found.resume is not None and is_worth_a_retry(samples, found.resume, self._model.audio.sample_rate):
            done = found.resume
        buffer.drop(done)
        return found.segments

    def guess(self, samples: Samples) -> str:
        """What samples (N,) may say, found quickly; nothing is remembered of it."""
        if is_silent(samples, self._model.audio.sample_rate):
            return ""
        options = replace(self._options, timestamps=False, word_timestamps=False, beam_size=1, temperatures=(0.0,))
        with self._model.lock:
            decoder = self._encode(samples)
            begin = time.perf_counter()
            rules = LogitRules(self._model.spec, timestamps=False)
            decoded = self._decode(decoder, options, rules, self._sounding(samples))
            self._decode_s += time.perf_counter() - begin
        return decoded.text.strip()

    def _transcribe(self, samples: Samples, start: int) -> _WindowSegments:
        """Transcribe samples that begin at sample `start` of the whole recording."""
        with self._model.lock:
            decoder = self._encode(samples)
            begin = time.perf_counter()
            if self.language is None:
                self.language = self._detected(decoder)
            sounding = self._sounding(samples)
            decoded = self._decode(decoder, self._options, self._rules, sounding)
            found = self._segments(decoded, len(samples), sounding, start)
            self._decode_s += time.perf_counter() - begin
        self._windows += 1
        self._samples += len(samples)
        self._clipped += clipped_samples(samples)
        self._tokens += len(decoded.hypothesis.tokens)
        self._remember(decoded)
        return found

    def transcript(self, segments: Sequence[Segment], samples: int) -> Transcript:
        """All segments of a recording of so many samples as its transcript."""
        return Transcript(
            text=join_texts(segment.text for segment in segments),
            language=self.language,
            segments=tuple(segments),
            duration=samples / self._model.audio.sample_rate,
            statistics=SpeechStatistics(
                mel_ms=self._mel_s * 1e3,
                encode_ms=self._encode_s * 1e3,
                decode_ms=self._decode_s * 1e3,
                total_ms=(time.perf_counter() - self._begin) * 1e3,
                tokens=self._tokens,
                windows=self._windows,
                peak_rss_bytes=peak_rss_bytes(),
                clipped=self._clipped / max(1, self._samples),
            ),
        )

    def _encode(self, samples: Samples) -> SpeechDecoder:
        begin = time.perf_counter()
        bucket = self._model.bucket_for(len(samples))
        mel = self._model.mel(leveled(samples), bucket)
        ready = time.perf_counter()
        decoder = CancellableDecoder(self._model.decoder(bucket), self._is_cancelled)
        decoder.encode(mel)
        self._mel_s += ready - begin
        self._encode_s += time.perf_counter() - ready
        return decoder

    def _sounding(self, samples: Samples) -> list[tuple[float, float]]:
        """(begin, end) in seconds of the audio between its pauses."""
        rate = self._model.audio.sample_rate
        return [(begin / rate, end / rate) for begin, end in speech_ranges(samples, rate, PAUSES_BETWEEN_WORDS)]

    def _detected(self, decoder: SpeechDecoder) -> str:
        return next(iter(detect_language(decoder, self._model.spec.tokens)))

    def _decode(
        self,
        decoder: SpeechDecoder,
        options: TranscribeOptions,
        rules: LogitRules,
        sounding: Sequence[tuple[float, float]],
    ) -> Decoded:
        tokens = self._model.spec.tokens
        language = self.language or self._detected(decoder)
        hotwords = self._hotwords[: previous_room(decoder.rows)]
        before = self._previous[max(0, len(self._previous) + len(hotwords) - previous_room(decoder.rows)) :]
        prompt = build_prompt(tokens, decoder.rows, options, language, [*hotwords, *before])
        search = Search(
            decoder=decoder,
            context=feed(decoder, prompt),
            rules=rules,
            tokens=tokens,
            max_tokens=options.max_tokens,
            keep_alignments=options.word_timestamps,
            stretches=len(sounding),
        )
        seconds = sum(end - begin for begin, end in sounding)
        return decode_with_fallback(search, self._model.tokenizer, options, self._generator, seconds)

    def _remember(self, decoded: Decoded) -> None:
        if not self._options.condition_on_previous_text:
            return
        if decoded.doubtful or decoded.temperature > TEMPERATURE_THAT_FORGETS:
            self._previous = []
            return
        first = self._model.spec.tokens.first_timestamp
        said = [token for token in decoded.hypothesis.tokens if token < first]
        rows = max(bucket.rows for bucket in self._model.spec.buckets)
        self._previous = (self._previous + said)[-rows:]  # more would never be fed

    def _segments(
        self, decoded: Decoded, samples: int, sounding: Sequence[tuple[float, float]], start: int
    ) -> _WindowSegments:
        """The segments of a window of so many samples, from sample `start` of the whole recording on."""
        rate = self._model.audio.sample_rate
        tokens = decoded.hypothesis.tokens
        spans = split_at_timestamps(tokens, self._model.spec, samples / rate)
        if self._options.timestamps and start >= self._heard_again:
            spans = self._cut_at_skipped(spans, decoded, sounding, start + samples)
        limit = samples / rate if spans.resume is None else spans.resume
        words = self._words(decoded, spans.segments, samples, sounding, limit)
        fitted = fit_to_pauses(spans.segments, sounding) if self._options.timestamps else spans.segments
        segments = []
        for span, timed in zip(fitted, words, strict=True):
            said = tuple(tokens[index] for index in span.entries)
            text = self._model.tokenizer.text(said).strip()
            if text:
                segments.append(self._segment(decoded, span, text, said, timed, start / rate))
        resume = None if spans.resume is None else round(spans.resume * rate)
        return _WindowSegments(tuple(segments), resume)

    def _cut_at_skipped(
        self, spans: Spans, decoded: Decoded, sounding: Sequence[tuple[float, float]], end: int
    ) -> Spans:
        """See there; what is heard again, up to sample `end` of the recording, is not heard a third time."""
        tokens = decoded.hypothesis.tokens
        texts = (self._model.tokenizer.text(tokens[index] for index in span.entries) for span in spans.segments)
        cut = cut_at_skipped(spans, [letters_of(text) for text in texts], sounding)
        if cut is not spans:
            self._heard_again = end
        return cut

    def _segment(
        self,
        decoded: Decoded,
        span: Span,
        text: str,
        tokens: tuple[int, ...],
        timed: list[TimedWord],
        offset: float,
    ) -> Segment:
        words = tuple(
            Word(_time(offset + word.start), _time(offset + word.end), word.text.strip(), word.probability)
            for word in timed
            if word.text.strip()
        )
        return Segment(
            start=words[0].start if words else _time(offset + span.start),
            end=words[-1].end if words else _time(offset + span.end),
            text=text,
            words=words,
            mean_log_probability=decoded.hypothesis.mean_log_probability,
            no_speech_probability=decoded.no_speech_probability,
            compression_ratio=decoded.compression_ratio,
            temperature=decoded.temperature,
            tokens=tokens,
            doubtful=decoded.doubtful,
        )

    def _words(
        self,
        decoded: Decoded,
        spans: Sequence[Span],
        samples: int,
        sounding: Sequence[tuple[float, float]],
        limit: float,
    ) -> list[list[TimedWord]]:
        """The words of each span of a window of so many samples; none at all where nobody asked."""
        found = decoded.hypothesis
        entries = [index for span in spans for index in span.entries]
        if not self._options.word_timestamps or not entries:
            return [[] for _ in spans]
        # What was looked at when the token behind the last one was chosen says where the last one ends.
        looked = [*entries, *([entries[-1] + 1] if entries[-1] + 1 < len(found.alignments) else [])]
        attention = np.stack([found.alignments[index] for index in looked])
        positions = max(1, -(-samples // self._model.audio.samples_per_position))
        starts = np.full(len(entries) + 1, limit)
        starts[: len(looked)] = token_positions(attention, positions) * self._model.seconds_per_position
        np.minimum(starts, limit, out=starts)
        return self._words_of_spans(decoded, spans, starts, sounding)

    def _words_of_spans(
        self,
        decoded: Decoded,
        spans: Sequence[Span],
        starts: NDArray[np.float64],
        sounding: Sequence[tuple[float, float]],
    ) -> list[list[TimedWord]]:
        """The words of each span, from where each text token of all spans starts, and the pauses of the audio."""
        found = decoded.hypothesis
        words = []
        first = 0
        for span in spans:
            end = first + len(span.entries)
            pieces = self._model.tokenizer.words([found.tokens[index] for index in span.entries])
            probabilities = [math.exp(found.log_probabilities[index]) for index in span.entries]
            timed = trim_to_speech(timed_words(pieces, starts[first : end + 1], probabilities), sounding)
            words.append(join_punctuation(clip_long_words(timed)))
            first = end
        return words


def _time(seconds: float) -> float:
    """Milliseconds are enough, and sums that mean the same time become the same number."""
    return round(seconds, 3)


# A decoder that stops at its next step when nobody wants the text any more: a window may have thousands of them.


class CancellableDecoder:
    """Another decoder, asked before each of its calls; see `SpeechDecoder`."""

    def __init__(self, decoder: SpeechDecoder, is_cancelled: IsCancelled) -> None:
        """Watch over a decoder, which stays its owner's to close."""
        self._decoder = decoder
        self._is_cancelled = is_cancelled
        self.rows = decoder.rows
        self.prefill_tokens = decoder.prefill_tokens

    def encode(self, mel: Floats) -> None:
        """Encode a recording, unless cancelled."""
        check(self._is_cancelled)
        self._decoder.encode(mel)

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token, unless cancelled."""
        check(self._is_cancelled)
        return self._decoder.step(token, position, row, mask)

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed several tokens, unless cancelled."""
        check(self._is_cancelled)
        return self._decoder.prefill(tokens, position, row, mask, wanted)

    def close(self) -> None:
        """Nothing: the decoder is its owner's."""
