"""Speech with its texts from folders and tables: what is read, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer.data.annotated import read_speech_data
from edgeformer_runtime.errors import InputError

CLIPS = [("a.wav", "Hello, world."), ("deep/b.flac", "naïve 👍"), ("deep/c.MP3", "")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, _ in CLIPS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"audio")
    return tmp_path


def read(data: Path | str) -> list[tuple[str, str]]:
    found = read_speech_data(str(data))
    assert all(clip.path.read_bytes() == b"audio" for clip in found.clips)
    assert found.notes == ()
    return [(clip.name, clip.text) for clip in found.clips]


def refused(data: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read_speech_data(str(data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


CSV = 'a.wav,"Hello, world."\ndeep/b.flac,naïve 👍\ndeep/c.MP3,\n'
TSV = "1\tHello, world.\ta.wav\n2\tnaïve 👍\tdeep/b.flac\n3\t\tdeep/c.MP3\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV),
        ("t.csv", "path,sentence\n" + CSV),
        ("t.tsv", "client_id\tsentence\tpath\n" + TSV),
        ("t.json", json.dumps(CLIPS)),
        ("t.json:test", json.dumps({"dev": [], "test": CLIPS})),
        ("t.jsonl", "".join(json.dumps({"audio_filepath": a, "text": b, "duration": 1}) + "\n" for a, b in CLIPS)),
        ("manifest.jsonl", "".join(json.dumps({"file": a, "text": b}) + "\n" for a, b in CLIPS)),
    ],
)
def test_tables(folder: Path, name: str, content: str) -> None:
    (folder / name.partition(":")[0]).write_text(content, encoding="utf-8")
    assert read(folder / name) == CLIPS
    if name == "manifest.jsonl":
        assert read(folder) == CLIPS


def test_texts_beside_recordings(folder: Path) -> None:
    for name, text in CLIPS:
        (folder / name).with_suffix(".txt").write_text(text + "\n", encoding="utf-8-sig")
    (folder / ".hidden.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("not a clip")
    assert read(folder) == CLIPS
    (folder / "z.ogg").write_bytes(b"audio")
    found = read_speech_data(str(folder))
    assert len(found.clips) == 3
    assert found.notes == (f"1 of 4 audio files of {folder} have no .txt beside them and are not used",)


def test_the_assets(assets: Path) -> None:
    found = read_speech_data(str(assets / "speech"))
    assert len(found.clips) == 21
    assert found.clips[0].name == "jfk.wav"
    assert found.clips[0].text.startswith("And so my fellow Americans")
    assert [clip.name for clip in found.limited(3).clips] == [found.clips[index].name for index in (0, 7, 14)]
    assert found.limited(100) == found


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", b"", "holds no clips"),
        ("t.csv", b"file,text\nabsent.wav,x\n", "line 2: no audio file at"),
        ("t.csv", b"a.wav,x\na.wav\n", "line 2: expected 2 columns, file and text, found 1"),
        ("t.json", b'[["a\\u0000.wav", "x"]]', "item 0: no audio file at"),
        ("t.json", b"3", "expected a list of [file, text]"),
        ("t.jsonl", b'{"file": "a.wav"}\n', 'expected [file, text] or {"file", "text"}'),
        ("t.jsonl", b"{", "line 1 is not JSON"),
        ("a.wav", b"", "clips come in a file of .csv, .tsv, .json, .jsonl with a file and a text per row, found a.wav"),
    ],
)
def test_corrupted_tables(folder: Path, name: str, content: bytes, problem: str) -> None:
    (folder / name).write_bytes(content)
    assert problem in refused(folder / name)


def test_corrupted_folders(folder: Path) -> None:
    assert "holds no clips: expected a manifest.jsonl, or audio files" in refused(folder)
    (folder / "a.txt").write_bytes(b"\xff")
    assert "expected UTF-8 text, found byte 0xff" in refused(folder)
    (folder / "a.txt").write_bytes(b"x" * (1 << 21))
    assert "at most 1048576 bytes" in refused(folder)
    assert "no data at nowhere" in refused("nowhere")
