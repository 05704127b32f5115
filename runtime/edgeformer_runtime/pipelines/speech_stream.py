"""Text while audio arrives: first a guess, then, at a pause, what stays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeformer_runtime.decoding.tokenizer import has_spaces
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.speech_model import SpeechModel
from edgeformer_runtime.pipelines.speech_session import SpeechSession
from edgeformer_runtime.pipelines.transcript import Segment, Transcript
from edgeformer_runtime.preprocess.audio import RawAudio, open_audio
from edgeformer_runtime.preprocess.silence import PauseOptions, quietest_cut

LOOK_SECONDS = 0.1
"""New audio after which pauses are looked for: blocks may be much shorter."""
BREATH_SECONDS = 0.3
"""A pause behind which a guess is made at once: all words before it have ended. A plosive is silent for 0.1 s."""
GUESSING_SHARE = 0.2
"""Of the time that guesses may take: on a slow machine, and in long sentences, they are made less often."""
LONG_SENTENCE = 1.5
"""Of `settled_seconds`: half a pause ends what is longer, as guesses at it cost more and more."""
STALLED_SECONDS, NEAR_SECONDS = 3.0, 1.0
"""Of speech that adds no word to the guess: the model has lost the thread, and takes it up behind a cut near there."""
ONSET_SECONDS = 0.5
"""Of silence that are kept: a soft first letter may be in them."""


@dataclass(frozen=True)
class StreamOptions:
    """When a stream gives text.

    Attributes:
        partial_seconds: new audio after which the guess is made anew, if guesses take a fifth of the time at most.
        pause_seconds: a pause that ends a sentence of `settled_seconds`: its text becomes final.
        long_pause_seconds: a pause that ends any sentence.
        settled_seconds: audio that is long enough to be understood without what follows.
    """

    partial_seconds: float = 0.5
    pause_seconds: float = 0.7
    long_pause_seconds: float = 1.5
    settled_seconds: float = 8.0

    def __post_init__(self) -> None:
        if (
            not 0 < self.pause_seconds <= self.long_pause_seconds
            or min(self.partial_seconds, self.settled_seconds) <= 0
        ):
            raise InputError(
                f"stream: expected seconds above 0, and pause_seconds at most long_pause_seconds, found {self}"
            )


@dataclass(frozen=True)
class StreamUpdate:
    """What a stream says.

    Attributes:
        final: segments that are new and will not change.
        partial: a guess at what follows them; it replaces the last one.
        seconds: of audio that has arrived.
        stable: how `partial` begins, up to where it hardly ever changes: words that the guess before had, too, or that
            a breath followed.
    """

    final: tuple[Segment, ...]
    partial: str
    seconds: float
    stable: str = ""


class TranscriptStream:
    """Takes audio as it arrives. Not for several threads at once.

    Attributes:
        clock: seconds, by which it knows what a guess costs; a measurement may count its processor time alone.
    """

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self, model: SpeechModel, session: SpeechSession, options: StreamOptions) -> None:
        """Use `Transcriber.open_stream`."""
        self._model = model
        self._session = session
        self._options = options
        self._rate = model.audio.sample_rate
        self._buffer = session.new_buffer()
        self._looked_at = self._guessed_at = self._grown_at = 0
        self._guess_s = 0.0
        self._partial = self._stable = ""
        self._segments: list[Segment] = []
        self._finished = False

    def feed(self, block: RawAudio) -> list[StreamUpdate]:
        """Take the next audio.

        Args:
            block: of any length; an array (N,) of floats or integers at the model's rate, or what else `open_audio`
                takes.

        Returns:
            What is new, often nothing.

        Raises:
            InputError: the block is no audio, or the stream has ended.
            EngineError: the model failed, or gave NaN or infinity.
        """
        if self._finished:
            raise InputError("the stream has ended: open another one")
        with open_audio(block, self._rate) as reader:
            while len(samples := reader.read(self._rate)):
                self._buffer.append(samples)
        updates: list[StreamUpdate] = []
        while len(self._buffer.samples) > self._model.window_samples:
            updates += self._final(self._session.transcribe_next(self._buffer))
        if self._buffer.end - self._looked_at < LOOK_SECONDS * self._rate:
            return updates
        self._looked_at = self._buffer.end
        ranges = self._ranges()
        cut = self._sentence_end(ranges) if ranges else None
        if cut is None and self._is_stalled(ranges):
            cut = self._cut_near(self._grown_at)
        if cut is not None:
            updates += self._final(self._session.transcribe_first(self._buffer, cut))
        elif self._is_guess_due(ranges):
            updates += self._guess(ranges)
        return updates

    def finish(self) -> list[StreamUpdate]:
        """End the audio: what is left becomes final. A second call gives nothing."""
        self._finished = True
        updates: list[StreamUpdate] = []
        while len(self._buffer.samples):
            updates += self._final(self._session.transcribe_next(self._buffer))
        return updates

    def transcript(self) -> Transcript:
        """All that is final so far."""
        return self._session.transcript(self._segments, self._buffer.end)

    def _final(self, segments: tuple[Segment, ...]) -> list[StreamUpdate]:
        """Nothing where nothing was said, unless there is a guess to take back."""
        self._segments += segments
        self._guessed_at = self._grown_at = self._buffer.end
        taken_back, self._partial, self._stable = self._partial, "", ""
        return [StreamUpdate(segments, "", self._buffer.end / self._rate)] if segments or taken_back else []

    def _is_guess_due(self, ranges: list[tuple[int, int]]) -> bool:
        """After some audio, or a breath, unless all speech was in the last guess or guesses cost too much."""
        waited = (self._buffer.end - self._guessed_at) / self._rate
        if not ranges or waited < self._guess_s / GUESSING_SHARE:
            return False
        heard = self._guessed_at - self._buffer.start
        breathed = ranges[-1][1] + round(BREATH_SECONDS * self._rate)
        if len(self._buffer.samples) >= breathed:
            return heard < breathed
        return waited >= self._options.partial_seconds

    def _guess(self, ranges: list[tuple[int, int]]) -> list[StreamUpdate]:
        """Nothing where the guess is still the same."""
        self._guessed_at = self._buffer.end
        begin = self.clock()
        partial = self._session.guess(self._buffer.samples)
        self._guess_s = self.clock() - begin
        has_ended = len(self._buffer.samples) >= ranges[-1][1] + round(BREATH_SECONDS * self._rate)
        stable = partial if has_ended else agreed(self._partial, partial, self._stable)
        if len(_words(partial)) > len(_words(self._partial)):
            self._grown_at = self._buffer.end
        if (partial, stable) == (self._partial, self._stable):
            return []
        self._partial, self._stable = partial, stable
        return [StreamUpdate((), partial, self._buffer.end / self._rate, stable)]

    def _ranges(self) -> list[tuple[int, int]]:
        """Where somebody speaks in the buffer; silence alone is dropped but for its end."""
        options = self._options
        pauses = PauseOptions(min(options.pause_seconds, BREATH_SECONDS), margin_seconds=0.0)
        ranges = self._buffer.speech_ranges(self._rate, pauses)
        if not ranges:
            kept = round(max(options.pause_seconds, ONSET_SECONDS) * self._rate)
            self._buffer.drop(max(0, len(self._buffer.samples) - kept))
            self._guessed_at = self._grown_at = self._buffer.end
        return ranges

    def _is_stalled(self, ranges: list[tuple[int, int]]) -> bool:
        """Whether the last guess heard much more speech than the one that grew, and gave no more words."""
        grown, heard = (place - self._buffer.start for place in (self._grown_at, self._guessed_at))
        spoken = sum(max(0, min(end, heard) - max(begin, grown)) for begin, end in ranges)
        return spoken >= STALLED_SECONDS * self._rate

    def _cut_near(self, place: int) -> int:
        """The best cut near a sample of the recording."""
        samples, near = self._buffer.samples, round(NEAR_SECONDS * self._rate)
        middle = place - self._buffer.start
        earliest = min(len(samples), max(near, middle - near))
        return quietest_cut(samples, earliest, min(len(samples), max(near, middle + near)), self._rate)

    def _sentence_end(self, ranges: list[tuple[int, int]]) -> int | None:
        """Where to cut, if the buffer ends in a pause that is long enough: in its middle."""
        options, count, end = self._options, len(self._buffer.samples), ranges[-1][1]
        settled = end >= options.settled_seconds * self._rate
        needed = options.pause_seconds if settled else options.long_pause_seconds
        if end >= LONG_SENTENCE * options.settled_seconds * self._rate:
            needed = options.pause_seconds / 2
        return (end + count) // 2 if count - end >= needed * self._rate else None


_WORD, _CHARACTER = re.compile(r"\S+"), re.compile(r"\S")


def agreed(before: str, now: str, stable: str = "") -> str:
    """How a guess begins as the one before it did, in whole words (Liu et al. 2020, local agreement).

    Case and punctuation make no difference. What was stable before stays so while the words are the same.
    """
    words, shared = _words(now), 0
    for (old, _), (new, end) in zip(_words(before), words, strict=False):
        if old != new:
            break
        shared = end
    kept = [word for word, _ in _words(stable)]
    if kept and kept == [word for word, _ in words[: len(kept)]]:
        shared = max(shared, words[len(kept) - 1][1])
    return now[:shared]


def _words(text: str) -> list[tuple[str, int]]:
    """Words without case and punctuation, and where each ends in the text; characters where there are no spaces."""
    kind = _WORD if has_spaces(text, text) else _CHARACTER
    plain = (("".join(filter(str.isalnum, found[0].lower())), found) for found in kind.finditer(text))
    return [(word, found.start() + len(found[0].rstrip(".,;:!?-"))) for word, found in plain if word]
