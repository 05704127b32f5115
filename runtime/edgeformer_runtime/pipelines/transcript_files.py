"""Transcripts as files: plain text, subtitles (SubRip, WebVTT) and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeformer_runtime.choices import check_choice
from edgeformer_runtime.path_field import StrPath
from edgeformer_runtime.pipelines.transcript import Segment, Transcript, Word

LONGEST_CUE_CHARACTERS = 84
"""Two lines of 42, what broadcasters allow on a screen at once."""
LONGEST_CUE_SECONDS = 7.0


@dataclass(frozen=True)
class _Cue:
    """What a subtitle shows at once."""

    start: float
    end: float
    text: str


def render(transcript: Transcript, file_format: str) -> str:
    """The content of a file, with a final newline where it is not empty.

    Subtitles show a segment at once, or, where its words have times, as many of them as fit.

    Args:
        transcript: what was said.
        file_format: a key of `FORMATS`.

    Raises:
        InputError: an unknown format.
    """
    check_choice(file_format, FORMATS, "format of transcripts", ALIASES)
    return FORMATS[file_format](transcript)


def write(transcript: Transcript, path: StrPath) -> None:
    """Write a transcript in the format that the file's name ends with, as `talk.srt`.

    Raises:
        InputError: it ends with none of `FORMATS`.
    """
    path = Path(path)
    path.write_text(render(transcript, path.suffix.removeprefix(".").lower()), encoding="utf-8", newline="\n")


def _txt(transcript: Transcript) -> str:
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def _srt(transcript: Transcript) -> str:
    cues = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n"
        for number, cue in enumerate(_cues(transcript), 1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript) -> str:
    cues = [
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_vtt_text(cue.text)}\n" for cue in _cues(transcript)
    ]
    return "WEBVTT\n" + "".join(cues)


def _vtt_text(text: str) -> str:
    """Text whose angle brackets are no tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _json(transcript: Transcript) -> str:
    return json.dumps(transcript.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": _txt, "srt": _srt, "vtt": _vtt, "json": _json}
ALIASES = {"text": ("txt",), "subrip": ("srt",), "webvtt": ("vtt",)}
"""What the field calls them."""


def _cues(transcript: Transcript) -> list[_Cue]:
    """All cues; an arrow in a text would look like times."""
    found = [cue for segment in transcript.segments for cue in _cues_of(segment)]
    return [_Cue(cue.start, cue.end, cue.text.replace("-->", "->")) for cue in found]


def _cues_of(segment: Segment) -> list[_Cue]:
    if not segment.words:
        return [_Cue(segment.start, segment.end, segment.text)]
    groups: list[list[Word]] = [[]]
    for word in segment.words:
        group = groups[-1]
        length = sum(len(each.text) + 1 for each in group) + len(word.text)
        if group and (length > LONGEST_CUE_CHARACTERS or word.end - group[0].start > LONGEST_CUE_SECONDS):
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


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds, as 01:02:03,004."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
