"""Transcripts as text, subtitles and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.transcript import LONGEST_CUE_CHARACTERS, Segment, Transcript, Word, render, write


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
    assert " ".join(lines[2] for lines in cues) == " ".join(spoken)
    assert max(len(lines[2]) for lines in cues) <= LONGEST_CUE_CHARACTERS
    assert cues[1][1].startswith(f"00:00:0{len(cues[0][2].split()) / 10:.1f}00".replace(".", ","))
    slow = Transcript(
        "",
        "ja",
        (segment(0, 20, "東京です", tuple(Word(5 * i, 5 * i + 1, c, 1.0) for i, c in enumerate("東京です"))),),
        20.0,
    )
    assert [block.split("\n")[2] for block in render(slow, "srt").strip().split("\n\n")] == ["東京", "です"]


def test_files(tmp_path: Path) -> None:
    write(TWO, tmp_path / "talk.SRT")
    assert (tmp_path / "talk.SRT").read_text() == render(TWO, "srt")
    for name in ("talk.doc", "talk"):
        with pytest.raises(InputError, match="expected one of txt, srt, vtt, json"):
            write(TWO, tmp_path / name)
