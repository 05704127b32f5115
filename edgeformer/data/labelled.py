"""Labelled data to evaluate on: a folder of images or recordings per class, or a table of texts and labels."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import fspath
from pathlib import Path
from typing import Any, TypeVar

from edgeformer.models.config import MAX_TABLE_BYTES, parse_json, read_text
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.cli.text_files import TEXT_NAMES
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath
from edgeformer_runtime.registry import did_you_mean

# Tables of texts and an answer to them, a row each: csv, tsv, json and jsonl, as public data comes.


Item = TypeVar("Item")

MAX_ROWS = 4_000_000
_WITH_KEYS = (".json", ".zip")
MAX_CELL_CHARACTERS = 2 << 20
"""Of a text, as `run --input` takes it; one that goes into a tokenizer has a smaller bound."""


@dataclass(frozen=True)
class Pair:
    """One row.

    Attributes:
        name: where it is, for messages.
        input: its first text.
        answer: its second.
    """

    name: str
    input: str
    answer: str


@dataclass(frozen=True)
class PairColumns:
    """What the two columns of a table are called, best known first: messages use the first names.

    Attributes:
        rows: what the table holds, in the plural, for messages.
        inputs: names of the first column.
        answers: names of the second.
    """

    rows: str
    inputs: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def input(self) -> str:
        """What messages call the first column."""
        return self.inputs[0]

    @property
    def answer(self) -> str:
        """What messages call the second column."""
        return self.answers[0]


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table are called: texts, and behind them an answer.

    Attributes:
        rows: what the table holds, in the plural, for messages.
        names: of each column, best known first.
        several: whether an answer in JSON may be a list of texts; it becomes its JSON.
    """

    rows: str
    names: tuple[tuple[str, ...], ...]
    several: bool = False

    def __str__(self) -> str:
        *texts, answer = (names[0] for names in self.names)
        return f"{', '.join(texts)} and {answer}"


@dataclass(frozen=True)
class TableRow:
    """One row: where it is, for messages, and its cells in the order of the columns."""

    name: str
    cells: tuple[str, ...]


def locate(data: StrPath) -> tuple[Path, str | None]:
    """A path and the key behind its last colon, if it is not a path as it stands.

    Raises:
        InputError: there is neither, or a key where the kind of file has none.
    """
    data = fspath(data)
    if Path(data).exists():
        return Path(data), None
    path, colon, key = data.rpartition(":")
    if colon and key and Path(path).is_file():
        if Path(path).suffix.lower() not in _WITH_KEYS:
            raise InputError(
                f"{Path(path).name} holds one table: leave {key!r} out, keys are for folders in a .zip and lists in a "
                ".json"
            )
        return Path(path), key
    raise InputError(f"no data at {shorten(data, 200)[1:-1]}: expected a file, a folder, or FILE:key")


def read_pairs(path: Path, key: str | None, columns: PairColumns) -> list[Pair]:
    """The rows of a table of inputs and answers; see `read_table`."""
    rows = read_table(path, key, TableColumns(columns.rows, (columns.inputs, columns.answers)))
    return [Pair(row.name, *row.cells) for row in rows]


def read_table(path: Path, key: str | None, columns: TableColumns) -> list[TableRow]:
    """The rows of a .csv or .tsv table, of a .json list of lists or objects, or of a .jsonl file of the same.

    Args:
        path: the file.
        key: names a list in a JSON object.
        columns: what the columns are called; a .csv or .tsv without a header has them in their order.

    Raises:
        InputError: the file cannot be read, or does not hold such rows.
    """
    if path.is_dir() or path.suffix.lower() not in _TABLES:
        found = "a folder" if path.is_dir() else path.name
        wanted = f"{', '.join(_TABLES)} with {_with_articles(columns)} per row"
        raise InputError(f"{columns.rows} come in a file of {wanted}, found {found}")
    content = read_text(path, MAX_TABLE_BYTES, str(path))
    suffix = path.suffix.lower()
    if suffix != ".json" and content.count("\n") > MAX_ROWS:
        raise InputError(f"{path} has over {MAX_ROWS} lines: expected that many at most")
    return _TABLES[suffix](content, path, key, columns)


def _with_articles(columns: TableColumns) -> str:
    *texts, answer = (f"a {names[0]}" for names in columns.names)
    return f"{', '.join(texts)} and {answer}"


def spread(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """`count` of the items spread evenly, or all where there are fewer: data is often sorted."""
    total = len(items)
    return tuple(items) if count >= total else tuple(items[index * total // count] for index in range(count))


def _csv(content: str, path: Path, key: str | None, columns: TableColumns) -> list[TableRow]:  # noqa: ARG001
    return _rows(csv.reader(io.StringIO(content, newline=""), strict=True), path, columns)


def _tsv(content: str, path: Path, key: str | None, columns: TableColumns) -> list[TableRow]:  # noqa: ARG001
    """Tabs separate and nothing quotes, as in GLUE's files."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return _rows(reader, path, columns)


def _rows(reader: Any, path: Path, columns: TableColumns) -> list[TableRow]:
    """The table's rows: by a header's names, or in the order of the columns where there is no header."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    try:
        table = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None
    header = [name.strip().lower() for name in table[0][1]] if table else []
    found = [next((header.index(each) for each in names if each in header), None) for names in columns.names]
    places = [place for place in found if place is not None]
    has_header = len(places) == len(found)
    if not has_header:
        places = list(range(len(found)))
    width = len(header) if has_header else len(found)
    rows = []
    for line, cells in table[1:] if has_header else table:
        if len(cells) != width:
            raise InputError(f"{path}: line {line}: expected {width} columns, {columns}, found {len(cells)}")
        *texts, answer = (cells[place] for place in places)
        rows.append(TableRow(f"line {line}", (*texts, answer.strip())))
    return rows


def _json(content: str, path: Path, key: str | None, columns: TableColumns) -> list[TableRow]:
    value = parse_json(content, str(path))
    if isinstance(value, dict):
        if key not in value:
            lists = [name for name, items in value.items() if isinstance(items, list)]
            guess = "" if key is None else f"there is no {key!r}: {did_you_mean(key, lists)}"
            raise InputError(
                f"{path} holds several lists: {guess}name one of them, like {path.name}:{(lists or ['test'])[0]}"
            )
        value = value[key]
    elif key is not None:
        raise InputError(f"{path} holds one list: leave {key!r} out")
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of {_example(columns)}, found {shorten(value)}")
    return [_record(item, path, f"item {number}", columns) for number, item in enumerate(value)]


def _jsonl(content: str, path: Path, key: str | None, columns: TableColumns) -> list[TableRow]:  # noqa: ARG001
    # Not splitlines: a text may hold characters such as U+2028, which JSON leaves as they are.
    lines = [(f"line {number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    return [_record(parse_json(line, f"{path}: {name}"), path, name, columns) for name, line in lines]


def _record(item: Any, path: Path, name: str, columns: TableColumns) -> TableRow:
    """A list or an object; an answer may be a number."""
    if isinstance(item, dict):
        item = [next((item[each] for each in names if each in item), None) for names in columns.names]
    fits = isinstance(item, list) and len(item) == len(columns.names)
    if not fits or not all(isinstance(text, str) for text in item[:-1]) or not _is_answer(item[-1], columns.several):
        keys = ", ".join(f'"{names[0]}"' for names in columns.names)
        raise InputError(f"{path}: {name}: expected {_example(columns)} or {{{keys}}}, found {shorten(item)}")
    answer = json.dumps(item[-1]) if isinstance(item[-1], list) else str(item[-1])
    if any(len(cell) > MAX_CELL_CHARACTERS for cell in (*item[:-1], answer)):
        raise InputError(f"{path}: {name}: expected at most {MAX_CELL_CHARACTERS} characters in a text")
    return TableRow(name, (*item[:-1], answer))


def _is_answer(value: Any, several: bool) -> bool:
    if isinstance(value, list):
        return several and all(isinstance(each, str) for each in value)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _example(columns: TableColumns) -> str:
    return f"[{', '.join(names[0] for names in columns.names)}]"


_TABLES: dict[str, Callable[[str, Path, str | None, TableColumns], list[TableRow]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _jsonl,
}


TEXT_COLUMNS = PairColumns("texts", inputs=TEXT_NAMES, answers=("label", "category", "intent"))
"""What the columns of public tables of labelled texts are called."""

MAX_FILE_BYTES = 256 << 20

File = tuple[tuple[str, ...], Callable[[], Any]]
"""The parts of a file's name, and what reads it."""

_LISTED = 5


@dataclass(frozen=True)
class Example:
    """One labelled input.

    Attributes:
        name: where it comes from, for messages.
        label: an index into the labels.
        read: gives what the pipeline of the data's kind takes: a text, or a file's path or bytes.
    """

    name: str
    label: int
    read: Callable[[], Any]


@dataclass(frozen=True)
class EvaluationData:
    """Examples in the order of the data, and notes on how they were read, a line each."""

    examples: tuple[Example, ...]
    notes: tuple[str, ...]

    def limited(self, count: int) -> EvaluationData:
        """`count` examples spread evenly, or all where there are fewer."""
        return EvaluationData(spread(self.examples, count), self.notes)


@dataclass(frozen=True)
class _Row:
    """An input beside its label as the data has it."""

    name: str
    label: str
    read: Callable[[], Any]


@contextmanager
def open_data(data: str, kind: str, labels: Sequence[str]) -> Iterator[EvaluationData]:
    """Labelled data, readable inside the block.

    Args:
        data: for "text" a .csv or .tsv table, a .json list of [text, label] or {"text", "label"}, or a .jsonl file of
            the same; for any other kind a folder with a folder of files per label, or a zip of it. `FILE:key` names a
            folder of a zip, or a list in a JSON object.
        kind: what the task takes, as "image", "recording" or "text".
        labels: the classifier's. Data whose labels are all numbers and none a label states indices.

    Raises:
        InputError: data that cannot be read, is empty, or has labels that the classifier does not know.
    """
    notes: list[str] = []
    with _open_rows(data, kind, notes) as rows:
        yield _labelled(rows, labels, data, notes)


def data_labels(data: str, kind: str) -> tuple[str, ...]:
    """The labels that occur in data, sorted; see `open_data`."""
    with _open_rows(data, kind, []) as rows:
        return tuple(sorted({row.label for row in rows}))


@contextmanager
def _open_rows(data: str, kind: str, notes: list[str]) -> Iterator[list[_Row]]:
    """Inputs and labels as the data has them, readable inside the block."""
    path, key = locate(data)
    if kind == "text":
        yield [_Row(row.name, row.answer, partial(_same, row.input)) for row in read_pairs(path, key, TEXT_COLUMNS)]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        yield _by_class([(file.relative_to(path).parts, partial(_same, file)) for file in files], data, notes)
    else:
        with _open_zip(path) as archive:
            yield _by_class(_members(archive, key), data, notes)


def _labelled(rows: Sequence[_Row], labels: Sequence[str], data: str, notes: Sequence[str]) -> EvaluationData:
    """Rows with their labels as indices."""
    if not rows:
        raise InputError(f"{data} holds no examples: expected texts with labels, or a folder of files per label")
    index = {label: number for number, label in enumerate(labels)}
    found = dict.fromkeys(row.label for row in rows)
    numbers = {label: int(label) for label in found if label.isascii() and label.isdecimal() and len(label) < 10}
    if len(numbers) == len(found) and not found.keys() & index.keys() and max(numbers.values()) < len(labels):
        index, notes = numbers, (*notes, "the data's labels are numbers: they are taken as indices of the labels")
    unknown = [label for label in found if label not in index]
    if unknown:
        raise InputError(
            f"{data} has labels that the bundle does not know ({_listed(unknown)}): {did_you_mean(unknown[0], labels)}"
            f"expected the bundle's own ({_listed(labels)}), or another part of the data as FILE:key"
        )
    return EvaluationData(tuple(Example(row.name, index[row.label], row.read) for row in rows), tuple(notes))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(shorten(name) for name in names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _same(value: Any) -> Any:
    return value


# Images and recordings


def _by_class(files: Sequence[File], data: str, notes: list[str]) -> list[_Row]:
    """Files under the first part of their name; hidden ones are none, and those that lie in no folder are noted."""
    visible = [(parts, read) for parts, read in files if not any(part.startswith((".", "__MACOSX")) for part in parts)]
    beside = [parts[0] for parts, _ in visible if len(parts) == 1]
    if beside:
        notes.append(f"files of {data} that lie in no label's folder are not used: {_listed(beside)}")
    return [_Row("/".join(parts), parts[0], read) for parts, read in visible if len(parts) > 1]


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile):
        raise InputError(f"{path} is neither a folder nor a zip: expected a folder of files per label") from None
    with archive:
        yield archive


def _members(archive: zipfile.ZipFile, key: str | None) -> list[File]:
    """Names relative to the folder `key`, and their readers."""
    folder = tuple(part for part in (key or "").split("/") if part)
    members: list[File] = []
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        parts = tuple(member.filename.split("/"))
        if not member.is_dir() and parts[: len(folder)] == folder:
            members.append((parts[len(folder) :], partial(_read_member, archive, member)))
    return members


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    where = f"{archive.filename}: {shorten(member.filename)}"
    if member.file_size > MAX_FILE_BYTES:
        raise InputError(f"{where} has {member.file_size} bytes: expected at most {MAX_FILE_BYTES}")
    try:
        return archive.read(member)
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{where} cannot be read: {error}") from None
