"""Data whose answers are more than a label: questions, masked words, entities, and recordings with what is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.data.labelled import PairColumns, TableColumns, locate, read_pairs, read_table, spread
from edgeformer.models.config import MAX_TABLE_BYTES, parse_json, read_text
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

# Texts with a masked token, and what it was.


MASKED_COLUMNS = TableColumns("masked texts", (("text", "sentence", "masked_sentence"), ("token", "obj_label")))


@dataclass(frozen=True)
class MaskedExample:
    """A text with one mask: where it is, for messages, and the word that the mask stands for."""

    name: str
    text: str
    token: str

    @property
    def read(self) -> Callable[[], str]:
        """Gives what the pipeline takes."""
        return lambda: self.text


def read_masked(data: str, mask: str) -> tuple[MaskedExample, ...]:
    """A table with the columns text and token.

    Args:
        data: a file that `read_table` reads.
        mask: what stands for the token in each text, once.

    Raises:
        InputError: the data cannot be read, or hold something else.
    """
    path, key = locate(data)
    found = tuple(MaskedExample(row.name, *row.cells) for row in read_table(path, key, MASKED_COLUMNS))
    wrong = next((each for each in found if each.text.count(mask) != 1 or not each.token.strip()), None)
    if wrong is not None:
        raise InputError(f"{wrong.name}: expected a text with {mask} once, and its token, found {shorten(wrong.text)}")
    if not found:
        raise InputError(f"{data} holds no masked texts")
    return found


# Questions with their contexts and right answers.


QUESTION_COLUMNS = TableColumns(
    "questions", (("question",), ("context", "passage"), ("answers", "answer", "text")), several=True
)


@dataclass(frozen=True)
class QuestionExample:
    """A question with its context.

    Attributes:
        name: where it is, for messages.
        question, context: texts.
        answers: the right ones, any of which will do; none: the context has no answer.
    """

    name: str
    question: str
    context: str
    answers: tuple[str, ...]

    @property
    def read(self) -> Callable[[], tuple[str, str]]:
        """Gives what the pipeline takes."""
        return lambda: (self.question, self.context)


def read_questions(data: str) -> tuple[QuestionExample, ...]:
    """SQuAD's JSON (Rajpurkar et al. 2016, 2018), or a table with the columns question, context and answers.

    An answer of a .csv or .tsv is a text, or empty where there is none. In JSON it may be a list of texts, or what
    public copies of SQuAD have: {"text": [...]}.

    Raises:
        InputError: the data cannot be read, or hold something else.
    """
    path, key = locate(data)
    if path.suffix.lower() == ".json" and key is None:
        document = parse_json(read_text(path, MAX_TABLE_BYTES, str(path)), str(path))
        if isinstance(document, dict) and "data" in document:
            found = tuple(_squad(document["data"], str(path)))
            return _checked(found, data)
    if path.suffix.lower() == ".jsonl":
        return _checked(tuple(_question_lines(path)), data)
    rows = read_table(path, key, QUESTION_COLUMNS)
    found = tuple(QuestionExample(row.name, row.cells[0], row.cells[1], _answers(row.cells[2])) for row in rows)
    return _checked(found, data)


def _checked(found: tuple[QuestionExample, ...], data: str) -> tuple[QuestionExample, ...]:
    if not found:
        raise InputError(f"{data} holds no questions")
    return found


def _answers(cell: str) -> tuple[str, ...]:
    """Of a cell: a list in JSON, a text, or nothing."""
    if cell.startswith("["):
        return tuple(str(answer) for answer in json.loads(cell))
    return (cell,) if cell else ()


def _squad(articles: Any, where: str) -> Iterator[QuestionExample]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = () if asked.get("is_impossible") else asked["answers"]
                    texts = tuple(_text(answer["text"]) for answer in answers)
                    name = f"question {asked.get('id', '')}".strip()
                    yield QuestionExample(name, _text(asked["question"]), _text(paragraph["context"]), texts)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: not SQuAD's JSON: {type(error).__name__} {shorten(str(error))}") from None


def _question_lines(path: Path) -> Iterator[QuestionExample]:
    lines = read_text(path, MAX_TABLE_BYTES, str(path)).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        row = parse_json(line, where)
        try:
            answers = row.get("answers", row.get("answer", ()))
            answers = answers["text"] if isinstance(answers, dict) else answers
            answers = [answers] if isinstance(answers, str) else answers
            texts = tuple(_text(answer) for answer in answers or () if answer)
            yield QuestionExample(f"line {number}", _text(row["question"]), _text(row["context"]), texts)
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                f'{where}: expected {{"question", "context", "answers"}}, answers as texts, found {shorten(row)}'
            ) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


# Words with the labels of entities.


CONLL_SUFFIXES = (".conll", ".txt", ".bio", ".iob", ".iob2")
_TOKEN_KEYS, _TAG_KEYS = ("tokens", "words"), ("tags", "ner_tags", "labels")


@dataclass(frozen=True)
class TaggedText:
    """Words and a label for each.

    Attributes:
        name: where it is, for messages.
        words: without spaces.
        tags: of each word.
    """

    name: str
    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(self.words)

    @property
    def read(self) -> Callable[[], str]:
        """Gives what the pipeline takes."""
        return lambda: self.text


def read_tagged(data: str, labels: Sequence[str] = ()) -> tuple[TaggedText, ...]:
    """A CoNLL file, a word and, behind spaces or tabs, its label a line and an empty line between sentences; or a
    .jsonl file of {"tokens", "tags"}.

    Args:
        data: the file's path.
        labels: of the bundle: numbers in .jsonl are their indices.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    path, _ = locate(data)
    if path.suffix.lower() not in (*CONLL_SUFFIXES, ".jsonl"):
        raise InputError(
            f"labelled words come in a file of {', '.join((*CONLL_SUFFIXES, '.jsonl'))}, found {path.name}"
        )
    lines = read_text(path, MAX_TABLE_BYTES, str(path)).split("\n")
    read = _tagged_lines if path.suffix.lower() == ".jsonl" else _conll
    found = tuple(each for each in read(lines, str(path), labels) if each.words)
    if not found:
        raise InputError(f"{data} holds no labelled words")
    return found


def _conll(lines: Sequence[str], where: str, _: Sequence[str]) -> Iterator[TaggedText]:
    rows: list[tuple[str, str]] = []
    for number, line in enumerate([*lines, ""], 1):
        cells = line.split()
        if not cells or cells[0] == "-DOCSTART-":
            if rows:
                yield TaggedText(f"line {number - len(rows)}", *(tuple(column) for column in zip(*rows, strict=True)))
            rows = []
        elif len(cells) < 2:
            raise InputError(f"{where}: line {number}: expected a word and its label, found {shorten(line)}")
        else:
            rows.append((cells[0], cells[-1]))


def _tagged_lines(lines: Sequence[str], where: str, labels: Sequence[str]) -> Iterator[TaggedText]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{where}: line {number}")
        columns: list[Any] = [next((row[key] for key in keys if key in row), None) for keys in (_TOKEN_KEYS, _TAG_KEYS)]
        words, tags = columns
        try:
            named = [labels[tag] if type(tag) is int and tag >= 0 else _text(tag) for tag in tags]
            fits = len(words) == len(named) and all(len(_text(word).split()) == 1 for word in words)
        except (TypeError, IndexError):
            fits = False
        if not fits:
            raise InputError(
                f'{where}: line {number}: expected {{"tokens", "tags"}}, a label for each word, found {shorten(row)}'
            )
        yield TaggedText(f"line {number}", tuple(words), tuple(named))


# Recordings and what is said in them: a folder, or a table of paths and texts.


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
