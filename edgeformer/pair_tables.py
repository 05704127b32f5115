"""Tables of an input and its answer, a pair per row: csv, tsv, json and jsonl, as public data comes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.strict_json import shorten

Item = TypeVar("Item")


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


def locate(data: str) -> tuple[Path, str | None]:
    """A path and the key behind its last colon, if it is not a path as it stands.

    Raises:
        InputError: there is neither.
    """
    if Path(data).exists():
        return Path(data), None
    path, colon, key = data.rpartition(":")
    if colon and key and Path(path).is_file():
        return Path(path), key
    raise InputError(f"no data at {shorten(data, 200)[1:-1]}: expected a file, a folder, or FILE:key")


def read_pairs(path: Path, key: str | None, columns: PairColumns) -> list[Pair]:
    """The rows of a .csv or .tsv table, of a .json list of pairs or objects, or of a .jsonl file of the same.

    Args:
        path: the file.
        key: names a list in a JSON object.
        columns: what the columns are called; a .csv or .tsv without a header has the input first.

    Raises:
        InputError: the file cannot be read, or does not hold such pairs.
    """
    if path.is_dir() or path.suffix.lower() not in _TABLES:
        found = "a folder" if path.is_dir() else path.name
        raise InputError(
            f"{columns.rows} come in a file of {', '.join(_TABLES)} with a {columns.input} and a {columns.answer} "
            f"per row, found {found}"
        )
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None
    suffix = path.suffix.lower()
    if key is not None and suffix != ".json":
        raise InputError(f"{path.name} holds one table: leave {key!r} out, keys are for lists in a JSON object")
    return _TABLES[suffix](content, path, key, columns)


def spread(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """`count` of the items spread evenly, or all where there are fewer: data is often sorted."""
    total = len(items)
    return tuple(items) if count >= total else tuple(items[index * total // count] for index in range(count))


def _csv(content: str, path: Path, key: str | None, columns: PairColumns) -> list[Pair]:  # noqa: ARG001
    return _rows(csv.reader(io.StringIO(content, newline=""), strict=True), path, columns)


def _tsv(content: str, path: Path, key: str | None, columns: PairColumns) -> list[Pair]:  # noqa: ARG001
    """Tabs separate and nothing quotes, as in GLUE's files."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return _rows(reader, path, columns)


def _rows(reader: Any, path: Path, columns: PairColumns) -> list[Pair]:
    """The table's rows: by a header's names, or the input and its answer where there is no header."""
    try:
        table = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None
    names = [name.strip().lower() for name in table[0][1]] if table else []
    inputs = [names.index(name) for name in columns.inputs if name in names]
    answers = [names.index(name) for name in columns.answers if name in names]
    has_header = bool(inputs and answers)
    first, second, width = (inputs[0], answers[0], len(names)) if has_header else (0, 1, 2)
    pairs = []
    for line, cells in table[1:] if has_header else table:
        if len(cells) != width:
            raise InputError(
                f"{path}: line {line}: expected {width} columns, {columns.input} and {columns.answer}, "
                f"found {len(cells)}"
            )
        pairs.append(Pair(f"line {line}", cells[first], cells[second].strip()))
    return pairs


def _json(content: str, path: Path, key: str | None, columns: PairColumns) -> list[Pair]:
    value = _parse(content, str(path))
    if isinstance(value, dict):
        if key not in value:
            lists = [name for name, items in value.items() if isinstance(items, list)]
            raise InputError(f"{path} holds several lists: name one of them, like {path.name}:{(lists or ['test'])[0]}")
        value = value[key]
    elif key is not None:
        raise InputError(f"{path} holds one list: leave {key!r} out")
    if not isinstance(value, list):
        raise InputError(f"{path}: expected a list of [{columns.input}, {columns.answer}], found {shorten(value)}")
    return [_record(item, path, f"item {number}", columns) for number, item in enumerate(value)]


def _jsonl(content: str, path: Path, key: str | None, columns: PairColumns) -> list[Pair]:  # noqa: ARG001
    # Not splitlines: a text may hold characters such as U+2028, which JSON leaves as they are.
    lines = [(f"line {number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    return [_record(_parse(line, f"{path}: {name}"), path, name, columns) for name, line in lines]


def _parse(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from None


def _record(item: Any, path: Path, name: str, columns: PairColumns) -> Pair:
    """A list of two or an object; an answer may be a number."""
    if isinstance(item, dict):
        item = [
            next((item[each] for each in names if each in item), None) for names in (columns.inputs, columns.answers)
        ]
    is_pair = isinstance(item, list) and len(item) == 2
    if not is_pair or not isinstance(item[0], str) or isinstance(item[1], bool) or not isinstance(item[1], str | int):
        expected = f'[{columns.input}, {columns.answer}] or {{"{columns.input}", "{columns.answer}"}}'
        raise InputError(f"{path}: {name}: expected {expected}, found {shorten(item)}")
    return Pair(name, item[0], str(item[1]))


_TABLES: dict[str, Callable[[str, Path, str | None, PairColumns], list[Pair]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json,
    ".jsonl": _jsonl,
}
