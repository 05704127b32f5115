"""What was said: a transcript, its segments and their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.bundle import strict_json


@dataclass(frozen=True)
class Word:
    """A word with the punctuation around it.

    Attributes:
        start, end: in seconds from the begin of the sound.
        text: without spaces around it.
        probability: mean of its tokens'.
    """

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """Text that was said in one piece.

    Attributes:
        start, end: in seconds from the begin of the sound; they never fall from one segment to the next.
        text: without spaces around it.
        words: with their times; empty where they were not asked for.
        mean_log_probability: of the window's tokens.
        no_speech_probability: that nobody speaks in the window; None where the model has no token for it.
        compression_ratio: of the window's text; high is repetitive.
        temperature: at which the window's text was found.
        tokens: of the text.
        doubtful: no temperature gave a text of the window that is probable and not repetitive; this is the best.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    mean_log_probability: float
    no_speech_probability: float | None
    compression_ratio: float
    temperature: float
    tokens: tuple[int, ...]
    doubtful: bool = False


@dataclass(frozen=True)
class SpeechStatistics:
    """What a transcript cost.

    Attributes:
        mel_ms, encode_ms, decode_ms: wall clock of the stages; decode_ms has the text's search and its words' times.
        total_ms: wall clock of all, with reading and cutting the sound.
        tokens: of text and timestamps in the answer.
        windows: pieces of sound that the model heard; skipped silence is none.
        peak_rss_bytes: the whole process's largest resident memory so far.
    """

    mel_ms: float
    encode_ms: float
    decode_ms: float
    total_ms: float
    tokens: int
    windows: int
    peak_rss_bytes: int


@dataclass(frozen=True)
class Transcript:
    """What was said in a sound.

    Attributes:
        text: of all segments.
        language: a code as "en": as asked for or found out; None where all is silence and nothing was asked for.
        segments: in order.
        duration: of the sound in seconds.
        statistics: what the transcript cost; None where it was not measured.
    """

    text: str
    language: str | None
    segments: tuple[Segment, ...]
    duration: float
    statistics: SpeechStatistics | None = None

    def to_json(self) -> dict[str, Any]:
        """All but the statistics as JSON values, by the names of the attributes."""
        data: dict[str, Any] = strict_json.to_data(self)
        del data["statistics"]
        return data
