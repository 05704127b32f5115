"""What `run` does once its bundle is open: texts, images and sound, from the command line to the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.choices import check_choice
from edgeformer_runtime.cli.console import err, late_progress, out, print_json, print_text, progress_bar
from edgeformer_runtime.cli.tables import answers_table
from edgeformer_runtime.cli.text_files import Columns, Row, is_table, read_lines, read_texts
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.delivery import check_names
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.pipelines.results import ClassificationResult
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.transcript import ALIASES, FORMATS, Transcript, render, write

DEFAULT_TOP = 3
STDIN = "-"
SUBTITLES = ("srt", "vtt")

# What each kind of preprocessing takes, for messages.
TAKES = {
    "text": "texts: expected them without options for images or sound",
    "image": "images: expected their paths",
    "audio": "sound: expected paths of files",
}

# And what it asks for where nothing was given.
ASKS_FOR = {
    "text": "texts, or - for a text per line of stdin, or --input FILE",
    "image": "paths of images",
    "audio": "paths of files of sound",
}


@dataclass(frozen=True)
class RunOptions:
    """The options of `run` as they were given; None or False: not given. Each fits some kinds of input only."""

    pair: str | None = None
    token_ids: bool = False
    top: int | None = None
    language: str | None = None
    task: str | None = None
    beam_size: int | None = None
    timestamps: bool = False
    words: bool = False
    prompt: str | None = None
    file_format: str | None = None
    folder: Path | None = None
    file: str | None = None
    column: str | None = None
    pair_column: str | None = None

    def __post_init__(self) -> None:
        check_names(self.folder)

    def given(self) -> dict[str, bool]:
        """For each option whether it was given."""
        spelled = {"file_format": "--format", "folder": "--out", "file": "--input"}
        return {
            spelled.get(name, "--" + name.replace("_", "-")): value not in (None, False)
            for name, value in vars(self).items()
        }


OPTIONS_OF: dict[str, tuple[str, ...]] = {
    "text": ("--pair", "--token-ids", "--top", "--input", "--column", "--pair-column"),
    "image": ("--top",),
    "audio": ("--language", "--task", "--beam-size", "--timestamps", "--words", "--prompt", "--format", "--out"),
}


def answer_inputs(pipeline: Pipeline[Any, Any], inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """Answer inputs and print the answers.

    Raises:
        InputError: an option does not fit what the bundle takes, or an input cannot be used.
    """
    _check_options(pipeline.bundle.manifest, inputs, options)
    if pipeline.bundle.manifest.preprocessing.kind == "audio":
        _transcribe(pipeline, inputs, options, as_json)
        return
    if options.file is not None or list(inputs) == [STDIN]:
        answer_lines(pipeline, _rows(options), options)
        return
    results = []
    with progress_bar("running") as report:
        given, raws = _raw_inputs(pipeline.bundle.manifest, inputs, options)
        for index, raw in enumerate(raws):
            results.append(pipeline.run(raw))
            report(index + 1, len(raws))
    for index, result in enumerate(results):
        if result.truncated:
            err.print(f"note: input {index} was too long for the bundle and lost its end")
    if as_json:
        print_json([{"input": raw} | _best(result, options) for raw, result in zip(raws, results, strict=True)])
    else:
        out.print(answers_table(given, results, options.top or DEFAULT_TOP))


def _check_options(manifest: Manifest, inputs: Sequence[str], options: RunOptions) -> None:
    kind = manifest.preprocessing.kind
    given = options.given() | {STDIN: STDIN in inputs and kind != "text"}
    for option, is_given in given.items():
        if is_given and option not in OPTIONS_OF[kind]:
            raise InputError(f"{manifest.name} takes {TAKES[kind]}, found {option}")
    if not inputs and options.file is None:
        raise InputError(f"expected {ASKS_FOR[kind]}")
    if kind != "text":
        return
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


def _transcribe(transcriber: Any, inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """Transcribe files to the terminal, or to files in a folder."""
    file_format = options.file_format or "txt"
    targets = _targets(inputs, options, file_format, as_json)
    asked = TranscribeOptions(
        language=options.language,
        task=options.task or "transcribe",
        beam_size=options.beam_size or 1,
        # Subtitles without any times would show half a minute of text at once.
        timestamps=options.timestamps or (file_format in SUBTITLES and not options.words),
        word_timestamps=options.words,
        initial_prompt=options.prompt,
    )
    documents = []
    for name, target in zip(inputs, targets, strict=True):
        transcript = _with_progress(transcriber, name, asked)
        _tell_doubts(name, transcript)
        if as_json:
            documents.append({"input": name} | transcript.to_json())
        elif target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(transcript, target)
            out.print(str(target))
        elif len(inputs) == 1:
            print_text(render(transcript, file_format))
        else:
            out.print(f"{name}: {transcript.text}")
    if as_json:
        print_json(documents)


def _targets(inputs: Sequence[str], options: RunOptions, file_format: str, as_json: bool) -> list[Path] | list[None]:
    """The file that each transcript goes to, or None for each."""
    check_choice(file_format, FORMATS, "--format", ALIASES)
    if as_json and (options.file_format or options.folder):
        raise InputError("--json excludes --format and --out: use --format json to write files")
    if options.folder is None:
        if len(inputs) > 1 and file_format != "txt":
            raise InputError(f"--format {file_format} of {len(inputs)} files needs a folder for them: give --out")
        return [None] * len(inputs)
    folder = options.folder
    check_outside(folder)
    targets = [folder / f"{Path(name).stem}.{file_format}" for name in inputs]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise InputError(f"--out: two inputs would be written to {twice}: give them one at a time")
    return targets


def _tell_doubts(name: str, transcript: Transcript) -> None:
    """Say on stderr where the text is the best that was found and still an improbable or repetitive one."""
    doubtful = [segment for segment in transcript.segments if segment.doubtful]
    if doubtful:
        times = ", ".join(f"{segment.start:.1f} to {segment.end:.1f} s" for segment in doubtful)
        err.print(
            f"note: {name}: doubtful at {times}: no attempt gave a probable text there, and this is the likeliest"
        )


def _with_progress(transcriber: Transcriber, name: str, options: TranscribeOptions) -> Transcript:
    with progress_bar("transcribing, seconds") as report:

        def show(done: float, total: float | None) -> None:
            report(round(done), round(max(done, total or done)))

        return transcriber.run(name, options, show)


def _rows(options: RunOptions) -> Iterator[Row]:
    """The rows of `--input`, or of stdin."""
    columns = Columns(options.column, options.pair_column)
    if options.file in (None, STDIN):
        return read_lines(sys.stdin.buffer, columns, "stdin")
    return read_texts(Path(str(options.file)), columns)


def answer_lines(pipeline: Pipeline[Any, Any], rows: Iterator[Row], options: RunOptions) -> None:
    """Answer rows one by one as JSON Lines: each answer is out before the next row is read.

    Raises:
        InputError: some rows could not be answered; each of them has its line, with "error", among the answers.
    """
    problems: list[str] = []
    count = 0
    with late_progress("answering") as report:
        for count, row in enumerate(rows, 1):
            answer = _answer_to(pipeline, row, options)
            if "error" in answer:
                problems.append(f"line {row.line}: {answer['error']}")
            sys.stdout.write(json.dumps({"line": row.line} | answer, allow_nan=False) + "\n")
            sys.stdout.flush()
            report(count)
    if count == 0 and options.file is not None:
        raise InputError(f"{options.file} holds no texts: expected one per row")
    if problems:
        raise InputError(f"{len(problems)} of {count} lines could not be answered, first {problems[0]}")


def _answer_to(pipeline: Pipeline[Any, Any], row: Row, options: RunOptions) -> dict[str, Any]:
    """The answer to a row, or {"error"}."""
    if row.text is None:
        return {"error": row.problem}
    try:
        raw = _raw_text(row.text, options.pair if row.pair is None else row.pair, options.token_ids)
        result = pipeline.run(raw)
    except (InputError, EngineError) as error:
        return {"input": row.text, "error": str(error)}
    return {"input": raw, **_best(result, options), **({"truncated": True} if result.truncated else {})}


def _best(result: Any, options: RunOptions) -> dict[str, Any]:
    """A result's JSON: of a classifier with its best labels alone, where their number was given."""
    if options.top is not None and isinstance(result, ClassificationResult):
        result = result.top(options.top)
    found: dict[str, Any] = result.to_json()
    return found


def _raw_inputs(manifest: Manifest, inputs: Sequence[str], options: RunOptions) -> tuple[list[str], list[Any]]:
    """The inputs as they were given, and what they are to the pipeline."""
    if manifest.preprocessing.kind == "image":
        return list(inputs), list(inputs)
    return list(inputs), [_raw_text(text, options.pair, options.token_ids) for text in inputs]


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
