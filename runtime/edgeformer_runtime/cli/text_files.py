"""Texts from files and streams, one at a time: .csv and .tsv tables, .jsonl, and .txt or stdin with a text per line."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.cli.console import late_progress, print_text
from edgeformer_runtime.cli.run import STDIN, RunOptions, answer_all, answer_each, best_of
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.pipelines import AT_A_TIME, Pipeline
from edgeformer_runtime.registry import did_you_mean
from edgeformer_runtime.tasks.task import TASKS

TEXT_NAMES = ("text", "sentence")
"""What public tables call their column of texts."""
MAX_LINE_BYTES = 8 << 20
"""Of a line of a table, which may hold more than texts; a text has its own, smaller bound."""
_MAX_FIELD_CHARACTERS = 2 << 20
_TOO_LONG = f"expected at most {MAX_LINE_BYTES} bytes in a line"


@dataclass(frozen=True)
class Row:
    """What a line gives: a text, or what is wrong with it.

    Attributes:
        line: where it ends, counted from 1.
        text: None where the line cannot be used.
        pair: the second text, where one was asked for.
        problem: what is wrong, None where there is a text.
    """

    line: int
    text: str | None = None
    pair: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns of a table, or keys of an object, are meant.

    Attributes:
        text: the name of the texts' column; None: one of `TEXT_NAMES`, or the only column.
        pair: the name of the second texts' column; None: there are no pairs.
    """

    text: str | None = None
    pair: str | None = None

    @property
    def named(self) -> bool:
        """Whether any was named."""
        return self.text is not None or self.pair is not None


def is_table(name: str) -> bool:
    """Whether a name ends as those of the files that `read_texts` reads."""
    return Path(name).suffix.lower() in _READERS


def read_texts(path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a file as they are read, so that the first answer need not wait for the last row.

    Raises:
        InputError: the file cannot be read, or does not have these columns. A row that cannot be used is no error: its
            `problem` says why.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None or path.is_dir():
        found = "a folder" if path.is_dir() else path.name
        raise InputError(f"expected a file of texts, {', '.join(_READERS)}, found {found}")
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    with file:
        yield from read(file, columns, path.name)


def read_lines(file: IO[bytes], columns: Columns, name: str) -> Iterator[Row]:
    """A text per line; only a line feed ends one, as a text may hold other separators."""
    if columns.named:
        raise InputError(f"{name} has a text per line: expected --column with {_TABLES} alone")
    for number, line in enumerate(_lines(file), 1):
        text = line.removesuffix("\n").removesuffix("\r")
        is_whole = line.endswith("\n") or len(line.encode("utf-8", "surrogateescape")) < MAX_LINE_BYTES
        yield _checked(Row(number, text)) if is_whole else Row(number, problem=_TOO_LONG)


def _csv(file: IO[bytes], columns: Columns, name: str) -> Iterator[Row]:
    yield from _table(csv.reader(_lines(file), strict=True), columns, name)


def _tsv(file: IO[bytes], columns: Columns, name: str) -> Iterator[Row]:
    """Tabs separate and nothing quotes, as in GLUE's files."""
    yield from _table(csv.reader(_lines(file), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True), columns, name)


def _table(reader: Any, columns: Columns, name: str) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    places: tuple[int, int | None] | None = None
    width = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # What follows the dash is advice to who writes Python.
            yield Row(reader.line_num, problem=str(error).partition(" - ")[0])
            continue
        if not cells:
            continue
        if places is None:
            width = len(cells)
            places, is_header = _places(cells, columns, name)
            if is_header:
                continue
        if len(cells) != width:
            yield Row(reader.line_num, problem=f"expected {width} columns, found {len(cells)}")
            continue
        text, pair = places
        yield _checked(Row(reader.line_num, cells[text], None if pair is None else cells[pair]))


def _places(first: Sequence[str], columns: Columns, name: str) -> tuple[tuple[int, int | None], bool]:
    """Where the texts and their pairs stand, and whether the first row is a header."""
    names = [cell.strip().lower() for cell in first]
    wanted = TEXT_NAMES if columns.text is None else (columns.text.strip().lower(),)
    found = next((names.index(each) for each in wanted if each in names), None)
    if found is None and len(first) == 1:
        _check_separator(first[0], wanted, name)
        if not columns.named:
            return (0, None), False
    pair = None if columns.pair is None else columns.pair.strip().lower()
    missing = columns.text if found is None else columns.pair if pair is not None and pair not in names else None
    if found is None or missing is not None:
        asked = "name the one with the texts by --column"
        if missing is not None:
            asked = f"there is no {shorten(missing)}. {did_you_mean(missing, names).capitalize()}".rstrip(". ")
        raise InputError(f"{name} has the columns {shorten([*first], 200)}: {asked}")
    return (found, None if pair is None else names.index(pair)), True


def _check_separator(header: str, wanted: Sequence[str], name: str) -> None:
    """Refuse a header that other signs separate, as spreadsheets write it: its rows would be taken for whole texts."""
    for separator in ";\t|":
        names = [each.strip().strip('"').lower() for each in header.split(separator)]
        if len(names) > 1 and any(each in wanted for each in names):
            raise InputError(f"{name} separates columns by {separator!r}: expected commas in a .csv, tabs in a .tsv")


def _jsonl(file: IO[bytes], columns: Columns, name: str) -> Iterator[Row]:  # noqa: ARG001
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield _record(number, line, columns)


def _record(number: int, line: str, columns: Columns) -> Row:
    """A text, a list that starts with one, or an object that holds one."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, problem=f"not JSON: {error}")
    pair = None
    names = TEXT_NAMES if columns.text is None else (columns.text,)
    if isinstance(value, dict):
        pair = value.get(columns.pair)
        value = next((value[each] for each in names if each in value), None)
    elif isinstance(value, list) and value and not columns.named:
        value = value[0]
    if not isinstance(value, str) or (columns.pair is not None and not isinstance(pair, str)):
        wanted = " and ".join(f'"{each}"' for each in (names[0], columns.pair) if each is not None)
        return Row(number, problem=f"expected a text, or an object with {wanted}, found {shorten(line.strip(), 60)}")
    return _checked(Row(number, value, pair))


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Lines with their line feed, the rest of those that are too long left out.

    What is no UTF-8 becomes surrogates, which `_checked` finds in the row that they are in.
    """
    mark = codecs.BOM_UTF8
    while line := file.readline(MAX_LINE_BYTES):
        if mark and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError("expected UTF-8 text, found UTF-16: save the file as UTF-8")
        yield line.removeprefix(mark).decode("utf-8", "surrogateescape")
        mark = b""
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)


def _checked(row: Row) -> Row:
    """The row, or what is wrong with its texts."""
    for text in (row.text, row.pair):
        found = next((letter for letter in text or "" if "\udc80" <= letter <= "\udcff"), None)
        if found is not None:
            return Row(row.line, problem=f"expected UTF-8 text, found byte {ord(found) - 0xDC00:#04x}")
    return row


_READERS: dict[str, Callable[[IO[bytes], Columns, str], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".txt": read_lines,
}
_TABLES = ".csv, .tsv and .jsonl"


# Texts as arguments of `run`, or row by row.


def run_texts(pipeline: Pipeline[Any, Any], inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """`run` of texts, or of the rows of a file or of stdin."""
    _check_texts(inputs, options)
    if options.file is not None or list(inputs) == [STDIN]:
        answer_lines(pipeline, _rows(options), options)
        return
    raws = [_raw_text(text, options.pair, options.token_ids) for text in inputs]
    answer_all(pipeline, inputs, raws, options, as_json)


def run_prompts(pipeline: Pipeline[Any, Any], inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """`run` of prompts: one that asks for a text sees it as it is written; else as `run_texts`."""
    written = not as_json and options.file is None and options.suggest is None and len(inputs) == 1
    from edgeformer_runtime.pipelines.generation import TextGenerator

    if not written or inputs[0] == STDIN or not isinstance(pipeline, TextGenerator):
        run_texts(pipeline, inputs, options, as_json)
        return
    _check_texts(inputs, options)
    asked = TASKS[pipeline.bundle.manifest.task].gives.call_options(options)
    for piece in pipeline.stream(_raw_text(inputs[0], None, options.token_ids), asked):
        print_text(piece.text)
        sys.stdout.flush()
    print_text("\n")


def _check_texts(inputs: Sequence[str], options: RunOptions) -> None:
    if options.pair is not None and options.token_ids:
        raise InputError("--pair and --token-ids exclude each other")
    if options.file is not None and inputs:
        raise InputError("expected texts or --input, found both")
    if STDIN in inputs and len(inputs) > 1:
        raise InputError("- reads stdin, a text per line: expected it alone")
    if options.file is None and (options.column or options.pair_column):
        raise InputError("expected --column and --pair-column with --input: they name columns of its file")
    if options.pair_column is not None and (options.pair is not None or options.token_ids):
        raise InputError("--pair-column excludes --pair and --token-ids")
    for text in inputs:
        _check_no_file(text)


def _check_no_file(text: str) -> None:
    """Refuse what is meant as a file: its name would be answered in place of its texts."""
    named = is_table(text) and not any(letter.isspace() for letter in text)
    try:
        exists = Path(text).is_file() and (named or bool(Path(text).suffix) or "/" in text)
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        exists = False
    if exists and is_table(text):
        raise InputError(f"{text} is a file, and arguments are texts: give --input {text}, or its name as text to -")
    if exists:
        raise InputError(f"{text} is a file, and arguments are texts: --input takes .csv, .tsv, .jsonl and .txt")
    if named:
        raise InputError(f"there is no file {text}: give --input FILE, or its name as text to -")


def _rows(options: RunOptions) -> Iterator[Row]:
    """The rows of `--input`, or of stdin."""
    columns = Columns(options.column, options.pair_column)
    if options.file in (None, STDIN):
        return read_lines(sys.stdin.buffer, columns, "stdin")
    return read_texts(Path(str(options.file)), columns)


def answer_lines(pipeline: Pipeline[Any, Any], rows: Iterator[Row], options: RunOptions) -> None:
    """Answer rows as JSON Lines, in their order.

    Of a file so many are read ahead as are answered at a time; of stdin each answer is out before the next row is read.

    Raises:
        InputError: some rows could not be answered; each of them has its line, with "error", among the answers.
    """
    problems: list[str] = []
    count = 0
    ahead = 1 if options.file in (None, STDIN) else AT_A_TIME
    with late_progress("answering") as report:
        while some := list(islice(rows, ahead)):
            for row, answer in _answers_to(pipeline, some, options):
                count += 1
                if "error" in answer:
                    problems.append(f"line {row.line}: {answer['error']}")
                sys.stdout.write(json.dumps({"line": row.line} | answer, allow_nan=False) + "\n")
                sys.stdout.flush()
                report(count)
    if count == 0 and options.file is not None:
        raise InputError(f"{options.file} holds no texts: expected one per row")
    if problems:
        raise InputError(f"{len(problems)} of {count} lines could not be answered, first {problems[0]}")


def _answers_to(
    pipeline: Pipeline[Any, Any], rows: Sequence[Row], options: RunOptions
) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each row with its answer, or with {"error"}."""
    read = [(row, _raw_of(row, options)) for row in rows]
    found = answer_each(pipeline, [raw for _, raw in read if not isinstance(raw, InputError)], options)
    for row, raw in read:
        result = raw if isinstance(raw, InputError) else next(found)
        if row.text is None:
            yield row, {"error": row.problem}
        elif isinstance(result, EdgeFormerError):
            yield row, {"input": row.text, "error": str(result)}
        else:
            cut = {"truncated": True} if result.truncated else {}
            yield row, {"input": raw, **best_of(pipeline, result, options), **cut}


def _raw_of(row: Row, options: RunOptions) -> Any:
    """What a row is to the pipeline, or why it is nothing."""
    try:
        if row.text is None:
            raise InputError(str(row.problem))
        return _raw_text(row.text, options.pair if row.pair is None else row.pair, options.token_ids)
    except InputError as error:
        return error


def _raw_text(text: str, pair: str | None, token_ids: bool) -> Any:
    """What a text is to the pipeline."""
    if token_ids:
        return _token_ids(text)
    return text if pair is None else (text, pair)


def _token_ids(text: str) -> list[int]:
    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise InputError(f"expected token ids with commas, like 101,2054,102, found {text!r}") from None
