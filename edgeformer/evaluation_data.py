"""Labelled data to evaluate on: a folder of images per class, or a table of texts and labels."""

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
from pathlib import Path
from typing import Any

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.strict_json import shorten

TEXT_COLUMNS = ("text", "sentence")
LABEL_COLUMNS = ("label", "category", "intent")
"""What the columns of public tables are called."""

MAX_IMAGE_FILE_BYTES = 256 << 20

File = tuple[tuple[str, ...], Callable[[], Any]]
"""The parts of a file's name, and what reads it."""

_LISTED = 5


@dataclass(frozen=True)
class Example:
    """One labelled input.

    Attributes:
        name: where it comes from, for messages.
        label: an index into the labels.
        read: gives what the pipeline of the data's kind takes: a text, or an image's path or bytes.
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
        """`count` examples spread evenly, or all where there are fewer: data is often sorted by label."""
        total = len(self.examples)
        if count >= total:
            return self
        return EvaluationData(tuple(self.examples[index * total // count] for index in range(count)), self.notes)


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
        data: for "image" a folder with a folder of images per label, or a zip of it; for "text" a .csv or .tsv table, a
            .json list of [text, label] or {"text", "label"}, or a .jsonl file of the same. `FILE:key` names a folder
            of a zip, or a list in a JSON object.
        kind: "image" or "text".
        labels: the classifier's. Data whose labels are all numbers and none a label states indices.

    Raises:
        InputError: data that cannot be read, is empty, or has labels that the classifier does not know.
    """
    path, key = _place(data)
    notes: list[str] = []
    if kind == "text":
        rows = _texts(path, key)
        yield _labelled(rows, labels, data, notes)
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        rows = _by_class([(file.relative_to(path).parts, partial(_same, file)) for file in files], data, notes)
        yield _labelled(rows, labels, data, notes)
    else:
        with _open_zip(path) as archive:
            rows = _by_class(_members(archive, key), data, notes)
            yield _labelled(rows, labels, data, notes)


def _place(data: str) -> tuple[Path, str | None]:
    """A path and the key behind its last colon, if it is not a path as it stands."""
    if Path(data).exists():
        return Path(data), None
    path, colon, key = data.rpartition(":")
    if colon and key and Path(path).is_file():
        return Path(path), key
    raise InputError(f"no data at {shorten(data, 200)[1:-1]}: expected a file, a folder, or FILE:key")


def _labelled(rows: Sequence[_Row], labels: Sequence[str], data: str, notes: Sequence[str]) -> EvaluationData:
    """Rows with their labels as indices."""
    if not rows:
        raise InputError(f"{data} holds no examples: expected texts with labels, or a folder of images per label")
    index = {label: number for number, label in enumerate(labels)}
    found = dict.fromkeys(row.label for row in rows)
    numbers = {label: int(label) for label in found if label.isascii() and label.isdecimal() and len(label) < 10}
    if len(numbers) == len(found) and not found.keys() & index.keys() and max(numbers.values()) < len(labels):
        index, notes = numbers, (*notes, "the data's labels are numbers: they are taken as indices of the labels")
    unknown = [label for label in found if label not in index]
    if unknown:
        raise InputError(
            f"{data} has labels that the bundle does not know ({_listed(unknown)}): "
            f"expected the bundle's own ({_listed(labels)}), or another part of the data as FILE:key"
        )
    return EvaluationData(tuple(Example(row.name, index[row.label], row.read) for row in rows), tuple(notes))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(shorten(name) for name in names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _same(value: Any) -> Any:
    return value


# Images


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
        raise InputError(f"{path} is neither a folder nor a zip: expected a folder of images per label") from None
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
    if member.file_size > MAX_IMAGE_FILE_BYTES:
        raise InputError(f"{where} has {member.file_size} bytes: expected at most {MAX_IMAGE_FILE_BYTES}")
    try:
        return archive.read(member)
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{where} cannot be read: {error}") from None


# Texts


def _texts(path: Path, key: str | None) -> list[_Row]:
    if path.is_dir() or path.suffix.lower() not in TABLES:
        found = "a folder" if path.is_dir() else path.name
        raise InputError(f"texts come in a file of {', '.join(TABLES)} with a text and a label per row, found {found}")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None
    suffix = path.suffix.lower()
    if key is not None and suffix != ".json":
        raise InputError(f"{path.name} holds one table: leave {key!r} out, keys are for lists in a JSON object")
    return TABLES[suffix](content, path, key)


def _csv(content: str, path: Path, key: str | None) -> list[_Row]:  # noqa: ARG001
    return _columns(csv.reader(io.StringIO(content, newline=""), strict=True), path)


def _tsv(content: str, path: Path, key: str | None) -> list[_Row]:  # noqa: ARG001
    """Tabs separate and nothing quotes, as in GLUE's files."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return _columns(reader, path)


def _columns(reader: Any, path: Path) -> list[_Row]:
    """The table's rows: by a header's names, or text and label where there is no header."""
    try:
        table = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None
    names = [name.strip().lower() for name in table[0][1]] if table else []
    texts = [names.index(name) for name in TEXT_COLUMNS if name in names]
    labels = [names.index(name) for name in LABEL_COLUMNS if name in names]
    has_header = bool(texts and labels)
    text, label, width = (texts[0], labels[0], len(names)) if has_header else (0, 1, 2)
    rows = []
    for line, cells in table[1:] if has_header else table:
        if len(cells) != width:
            raise InputError(f"{path}: line {line}: expected {width} columns, text and label, found {len(cells)}")
        rows.append(_Row(f"line {line}", cells[label].strip(), partial(_same, cells[text])))
    return rows


def _json(content: str, path: Path, key: str | None) -> list[_Row]:
    value = _parse(content, str(path))
    if isinstance(value, dict):
        if key not in value:
            lists = [name for name, items in value.items() if isinstance(items, list)]
            raise InputError(f"{path} holds several lists: name one of them, like {path.name}:{(lists or ['test'])[0]}")
        value = value[key]
    elif key is not None:
        raise InputError(f"{path} holds one list: leave {key!r} out")
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of [text, label], found {shorten(value)}")
    return [_record(item, path, f"item {number}") for number, item in enumerate(value)]


def _jsonl(content: str, path: Path, key: str | None) -> list[_Row]:  # noqa: ARG001
    # Not splitlines: a text may hold characters such as U+2028, which JSON leaves as they are.
    lines = [(f"line {number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    return [_record(_parse(line, f"{path}: {name}"), path, name) for name, line in lines]


def _parse(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from None


def _record(item: Any, path: Path, name: str) -> _Row:
    """[text, label] or {"text", "label"}; a label may be a number."""
    if isinstance(item, dict):
        item = [item.get("text"), item.get("label")]
    is_pair = isinstance(item, list) and len(item) == 2
    if not is_pair or not isinstance(item[0], str) or isinstance(item[1], bool) or not isinstance(item[1], str | int):
        raise InputError(f'{path}: {name}: expected [text, label] or {{"text", "label"}}, found {shorten(item)}')
    return _Row(name, str(item[1]), partial(_same, item[0]))


TABLES: dict[str, Callable[[str, Path, str | None], list[_Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _jsonl,
}
