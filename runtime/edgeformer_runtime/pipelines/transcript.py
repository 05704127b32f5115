"""What was said: a transcript, its segments and their words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath
from edgeformer_runtime.pipelines.results import header_of
from edgeformer_runtime.records import dataclass
from edgeformer_runtime.registry import check_choice


@dataclass(frozen=True)
class Word:
    """A word with the punctuation around it.

    Attributes:
        start, end: in seconds from the start of the audio.
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
        start, end: in seconds from the start of the audio; they never fall from one segment to the next.
        text: without spaces around it.
        words: with their times; empty where they were not asked for.
        mean_log_probability: of the window's tokens.
        no_speech_probability: that nobody speaks in the window; None where the model has no token for it.
        compression_ratio: of the window's text; high is repetitive.
        temperature: at which the window's text was found.
        tokens: of the text.
        doubtful: no temperature gave a text of the window that is probable and not repetitive, and this is the best; or
            it was sampled and says one phrase again and again.
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
        total_ms: wall clock of all, with reading and cutting the audio.
        tokens: of text and timestamps in the answer.
        windows: windows of audio that the model transcribed; skipped silence is none.
        peak_rss_bytes: the whole process's largest resident memory so far.
        clipped: share of the transcribed samples that lie at full scale: more than a few were recorded too loud.
    """

    mel_ms: float
    encode_ms: float
    decode_ms: float
    total_ms: float
    tokens: int
    windows: int
    peak_rss_bytes: int
    clipped: float = 0.0


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        text: of all segments.
        language: a code as "en": as asked for or found out; None where all is silence and nothing was asked for.
        segments: in order.
        duration: of the audio in seconds.
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

    @property
    def truncated(self) -> bool:
        """Never: long audio is transcribed window by window."""
        return False

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """See `results.Result.to_frame`."""
        return header_of(self)

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Any) -> Transcript:  # noqa: ARG003
        """See `results.Result.from_frame`."""
        return strict_json.from_data(cls, header["result"], "answer")


# Transcripts as files: plain text, subtitles (SubRip, WebVTT) and JSON.


@dataclass(frozen=True)
class SubtitleLines:
    """How much a subtitle shows at once; the defaults are what broadcasters allow on a screen.

    Attributes:
        max_line_width: characters of a line.
        max_line_count: lines.
    """

    max_line_width: int = 42
    max_line_count: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
                raise InputError(f"{name}: expected 1 to 1000, found {value!r}")

    def wrap(self, text: str) -> str:
        """Text in as few lines as it needs, as equal as its spaces allow; cut anywhere where it has none."""
        lines, rest = list[str](), text
        for left in range(min(self.max_line_count, -(-len(text) // self.max_line_width)), 1, -1):
            middle = len(rest) / left
            spaces = (index for index, character in enumerate(rest) if character == " ")
            place = min(spaces, key=lambda index: abs(index - middle), default=round(middle))
            lines.append(rest[:place].rstrip())
            rest = rest[place:].lstrip()
        return "\n".join([*lines, rest])

    def fits(self, text: str) -> bool:
        """Whether no line of it is too long."""
        return max(map(len, self.wrap(text).splitlines()), default=0) <= self.max_line_width


LONGEST_CUE_SECONDS = 7.0


@dataclass(frozen=True)
class _Cue:
    """What a subtitle shows at once."""

    start: float
    end: float
    text: str


def render(transcript: Transcript, file_format: str, lines: SubtitleLines | None = None) -> str:
    """The content of a file, with a final newline where it is not empty.

    Subtitles show a segment at once, or, where it is too long or its words have times, as many of them as fit. Words
    without times share the segment's by their characters.

    Args:
        transcript: what was said.
        file_format: a key of `FORMATS`.
        lines: of subtitles; None: two of 42 characters.

    Raises:
        InputError: an unknown format.
    """
    check_choice(file_format, FORMATS, "format of transcripts", ALIASES)
    return FORMATS[file_format](transcript, lines or SubtitleLines())


def write(transcript: Transcript, path: StrPath, lines: SubtitleLines | None = None) -> None:
    """Write a transcript in the format that the file's name ends with, as `talk.srt`; `lines` as of `render`.

    Raises:
        InputError: it ends with none of `FORMATS`.
    """
    path = Path(path)
    path.write_text(render(transcript, path.suffix.removeprefix(".").lower(), lines), encoding="utf-8", newline="\n")


def _txt(transcript: Transcript, _: SubtitleLines) -> str:
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def _srt(transcript: Transcript, lines: SubtitleLines) -> str:
    cues = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n"
        for number, cue in enumerate(_cues(transcript, lines), 1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript, lines: SubtitleLines) -> str:
    cues = [
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_vtt_text(cue.text)}\n"
        for cue in _cues(transcript, lines)
    ]
    return "WEBVTT\n" + "".join(cues)


def _vtt_text(text: str) -> str:
    """Text whose angle brackets are no tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _json(transcript: Transcript, _: SubtitleLines) -> str:
    return json.dumps(transcript.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Transcript, SubtitleLines], str]] = {"txt": _txt, "srt": _srt, "vtt": _vtt, "json": _json}
ALIASES = {"text": ("txt",), "subrip": ("srt",), "webvtt": ("vtt",)}
"""What the field calls them."""


def _cues(transcript: Transcript, lines: SubtitleLines) -> list[_Cue]:
    """All cues; an arrow in a text would look like times."""
    found = [cue for segment in transcript.segments for cue in _cues_of(segment, lines)]
    return [_Cue(cue.start, cue.end, lines.wrap(cue.text.replace("-->", "->"))) for cue in found]


def _cues_of(segment: Segment, lines: SubtitleLines) -> list[_Cue]:
    words = segment.words or _words_by_length(segment, lines)
    if len(words) < 2:
        return [_Cue(segment.start, segment.end, segment.text)]
    space = " " if " " in segment.text else ""
    groups: list[list[Word]] = [[]]
    for word in words:
        group = groups[-1]
        text = space.join(each.text for each in (*group, word))
        if group and (not lines.fits(text) or word.end - group[0].start > LONGEST_CUE_SECONDS):
            groups.append([])
        groups[-1].append(word)
    # Words are found again in the segment's text, which knows where its language has spaces.
    cues, place = list[_Cue](), 0
    for group in groups:
        begin = place
        for word in group:
            place = segment.text.index(word.text, place) + len(word.text)
        cues.append(_Cue(group[0].start, group[-1].end, segment.text[begin:place].strip()))
    return cues


def _words_by_length(segment: Segment, lines: SubtitleLines) -> list[Word]:
    """The words of a segment that is too long for one cue, or its characters where it has no spaces."""
    if lines.fits(segment.text):
        return []
    words, place = list[Word](), 0
    seconds_per_character = (segment.end - segment.start) / len(segment.text)
    for text in segment.text.split() if " " in segment.text else segment.text:
        begin = segment.text.index(text, place)
        place = begin + len(text)
        start, end = (segment.start + seconds_per_character * at for at in (begin, place))
        words.append(Word(start, end, text, 1.0))
    return words


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds, as 01:02:03,004."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
