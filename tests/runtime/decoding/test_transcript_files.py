"""Transcripts as text, subtitles and JSON."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.transcript import Segment, SubtitleLines, Transcript, Word, render, write


def segment(start: float, end: float, text: str, words: tuple[Word, ...] = ()) -> Segment:
    return Segment(start, end, text, words, -0.1, None, 1.0, 0.0, (1, 2))


TWO = Transcript(
    "Is 1 < 2 & 3 --> 4? Yes.",
    "en",
    (segment(0.0, 1.5, "Is 1 < 2 & 3 --> 4?"), segment(59.9996, 3723.004, "Yes.")),
    4000.0,
)
NOTHING = Transcript("", None, (), 1.0)


def test_formats() -> None:
    assert render(TWO, "txt") == "Is 1 < 2 & 3 --> 4?\nYes.\n"
    assert render(TWO, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nIs 1 < 2 & 3 -> 4?\n\n2\n00:01:00,000 --> 01:02:03,004\nYes.\n"
    )
    assert render(TWO, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nIs 1 &lt; 2 &amp; 3 -> 4?\n"
        "\n00:01:00.000 --> 01:02:03.004\nYes.\n"
    )  # fmt: skip
    assert json.loads(render(TWO, "json")) == json.loads(json.dumps(TWO.to_json()))
    assert [render(NOTHING, name) for name in ("txt", "srt", "vtt")] == ["", "", "WEBVTT\n"]


def test_words_make_short_cues() -> None:
    spoken = [f"word{number}" for number in range(60)]
    words = tuple(Word(0.1 * i, 0.1 * i + 0.1, text, 1.0) for i, text in enumerate(spoken))
    long = Transcript("", "en", (segment(0, 6, " ".join(spoken), words),), 6.0)
    cues = [block.split("\n") for block in render(long, "srt").strip().split("\n\n")]
    assert " ".join(line for lines in cues for line in lines[2:]) == " ".join(spoken)
    assert max(len(line) for lines in cues for line in lines[2:]) <= SubtitleLines().max_line_width
    assert max(len(lines) for lines in cues) == 4
    shown = len(" ".join(cues[0][2:]).split())
    assert cues[1][1].startswith(f"00:00:0{shown / 10:.1f}00".replace(".", ","))
    slow = Transcript(
        "",
        "ja",
        (segment(0, 20, "東京です", tuple(Word(5 * i, 5 * i + 1, c, 1.0) for i, c in enumerate("東京です"))),),
        20.0,
    )
    assert [block.split("\n")[2] for block in render(slow, "srt").strip().split("\n\n")] == ["東京", "です"]


def test_long_segments_are_cut_by_length() -> None:
    text = " ".join(["one and two"] * 20)
    cues = [
        block.split("\n")
        for block in render(Transcript(text, "en", (segment(2, 22, text),), 22.0), "srt").strip().split("\n\n")
    ]
    assert " ".join(line for lines in cues for line in lines[2:]) == text
    assert max(len(line) for lines in cues for line in lines[2:]) <= SubtitleLines().max_line_width
    times = [lines[1].split(" --> ") for lines in cues]
    assert times[0][0] == "00:00:02,000" and times[-1][1] == "00:00:22,000"
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
    assert len(cues) >= 3
    signs = "東京" * 50
    shown = render(Transcript(signs, "ja", (segment(0, 10, signs),), 10.0), "vtt")
    assert "".join(line for line in shown.splitlines()[2:] if "-->" not in line) == signs


@pytest.mark.parametrize(("width", "count"), [(42, 2), (20, 1), (30, 3), (12, 4)])
@pytest.mark.parametrize("timed", [False, True])
def test_lines_are_as_long_as_asked(width: int, count: int, timed: bool) -> None:
    spoken = ("a subtitle of some words that vary in length and " * 4).split()
    words = tuple(Word(0.1 * i, 0.1 * i + 0.1, text, 1.0) for i, text in enumerate(spoken)) if timed else ()
    long = Transcript("", "en", (segment(0, 4, " ".join(spoken), words),), 4.0)
    text = render(long, "srt", SubtitleLines(width, count))
    cues = [block.split("\n")[2:] for block in text.strip().split("\n\n")]
    assert " ".join(line for lines in cues for line in lines) == " ".join(spoken)
    assert max(len(line) for lines in cues for line in lines) <= width
    assert max(map(len, cues)) == count
    with pytest.raises(InputError, match="max_line_count: expected 1 to 1000, found 0"):
        SubtitleLines(42, 0)


def test_files(tmp_path: Path) -> None:
    write(TWO, tmp_path / "talk.SRT")
    assert (tmp_path / "talk.SRT").read_text() == render(TWO, "srt")
    for name in ("talk.doc", "talk"):
        with pytest.raises(InputError, match="expected one of txt, srt, vtt, json"):
            write(TWO, tmp_path / name)
