"""Labelled data to evaluate on: a folder of images per class, or a table of texts and labels."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeformer.data.pairs import PairColumns, locate, read_pairs, spread
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.choices import did_you_mean
from edgeformer_runtime.cli.text_files import TEXT_NAMES
from edgeformer_runtime.errors import InputError

TEXT_COLUMNS = PairColumns("texts", inputs=TEXT_NAMES, answers=("label", "category", "intent"))
"""What the columns of public tables of labelled texts are called."""

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
        data: for "image" a folder with a folder of images per label, or a zip of it; for "text" a .csv or .tsv table, a
            .json list of [text, label] or {"text", "label"}, or a .jsonl file of the same. `FILE:key` names a folder
            of a zip, or a list in a JSON object.
        kind: "image" or "text".
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
        raise InputError(f"{data} holds no examples: expected texts with labels, or a folder of images per label")
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
