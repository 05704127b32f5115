"""Audio and what is said in it, to evaluate on: a folder, or a table of paths and texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeformer.data.labelled import PairColumns, locate, read_pairs, spread
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

MANIFEST_FILE = "manifest.jsonl"
"""The table of a folder that has one."""

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")

CLIP_COLUMNS = PairColumns(
    "clips",
    inputs=("file", "path", "audio", "audio_filepath", "file_name", "wav"),
    answers=("text", "sentence", "transcript", "transcription"),
)
"""What the columns of public tables of speech are called."""

MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes:
        name: as the data names it, for messages and rows.
        path: its file.
        text: what is said; empty where nobody speaks.
    """

    name: str
    path: Path
    text: str


@dataclass(frozen=True)
class SpeechData:
    """Clips in the order of the data, and notes on how they were read, a line each."""

    clips: tuple[Clip, ...]
    notes: tuple[str, ...]

    def limited(self, count: int) -> SpeechData:
        """`count` clips spread evenly, or all where there are fewer."""
        return SpeechData(spread(self.clips, count), self.notes)


def read_speech_data(data: str) -> SpeechData:
    """Clips and their texts. Audio is read later, clip by clip; that each file exists is checked now.

    Args:
        data: a folder with a `manifest.jsonl`; a folder of audio files, at any depth, each with a .txt beside it; or a
            .csv, .tsv, .json or .jsonl table of files and texts, with paths relative to its own folder. `FILE:key`
            names a list in a JSON object.

    Raises:
        InputError: data that cannot be read, is empty, or names files that are not there.
    """
    path, key = locate(data)
    if path.is_dir() and not (path / MANIFEST_FILE).is_file():
        return _beside(path)
    table = path / MANIFEST_FILE if path.is_dir() else path
    rows = read_pairs(table, key, CLIP_COLUMNS)
    if not rows:
        raise InputError(f"{data} holds no clips: expected files with the text that is said in each")
    clips = tuple(Clip(row.input, table.parent / row.input, row.answer) for row in rows)
    for row, clip in zip(rows, clips, strict=True):
        if not _is_file(clip.path):
            raise InputError(f"{table}: {row.name}: no audio file at {shorten(str(clip.path), 200)[1:-1]}")
    return SpeechData(clips, ())


def _beside(folder: Path) -> SpeechData:
    """Audio files with a .txt of the same name; those without are noted, hidden ones are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    recordings = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    clips = [
        Clip(path.relative_to(folder).as_posix(), path, _read_text(path.with_suffix(".txt")))
        for path in recordings
        if path.with_suffix(".txt").is_file()
    ]
    if not clips:
        raise InputError(
            f"{folder} holds no clips: expected a {MANIFEST_FILE}, or audio files ({', '.join(AUDIO_SUFFIXES)}) with a "
            ".txt beside each"
        )
    silent = len(recordings) - len(clips)
    notes = (f"{silent} of {len(recordings)} audio files of {folder} have no .txt beside them and are not used",)
    return SpeechData(tuple(clips), notes if silent else ())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a NUL in the name, or a name too long
        return False


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_TEXT_BYTES:
        raise InputError(f"{path}: expected the text of a clip, of at most {MAX_TEXT_BYTES} bytes")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None
