"""What `run` does once its bundle is open: texts, images and sound, from the command line to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer_runtime.console import err, out, print_json, progress_bar
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Manifest
from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.pipelines.transcript_files import FORMATS, render, write
from edgeformer_runtime.tables import answers_table

DEFAULT_TOP = 3
SUBTITLES = ("srt", "vtt")

# What each kind of preprocessing takes, for messages.
TAKES = {
    "text": "texts: expected them without options for images or sound",
    "image": "images: expected their paths",
    "audio": "sound: expected paths of files",
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

    def given(self) -> dict[str, bool]:
        """For each option whether it was given."""
        spelled = {"file_format": "--format", "folder": "--out"}
        return {
            spelled.get(name, "--" + name.replace("_", "-")): value not in (None, False)
            for name, value in vars(self).items()
        }


OPTIONS_OF: dict[str, tuple[str, ...]] = {
    "text": ("--pair", "--token-ids", "--top"),
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
        print_json([{"input": raw} | result.to_json() for raw, result in zip(raws, results, strict=True)])
    else:
        out.print(answers_table(given, results, options.top or DEFAULT_TOP))


def _check_options(manifest: Manifest, inputs: Sequence[str], options: RunOptions) -> None:
    kind = manifest.preprocessing.kind
    given = options.given() | {"-": "-" in inputs and kind != "text"}
    for option, is_given in given.items():
        if is_given and option not in OPTIONS_OF[kind]:
            raise InputError(f"{manifest.name} takes {TAKES[kind]}, found {option}")


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
        if as_json:
            documents.append({"input": name} | transcript.to_json())
        elif target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(transcript, target)
            out.print(str(target))
        elif len(inputs) == 1:
            sys.stdout.write(render(transcript, file_format))
        else:
            out.print(f"{name}: {transcript.text}")
    if as_json:
        print_json(documents)


def _targets(inputs: Sequence[str], options: RunOptions, file_format: str, as_json: bool) -> list[Path] | list[None]:
    """The file that each transcript goes to, or None for each."""
    if file_format not in FORMATS:
        raise InputError(f"--format: expected one of {', '.join(FORMATS)}, found {file_format!r}")
    if as_json and (options.file_format or options.folder):
        raise InputError("--json excludes --format and --out: use --format json to write files")
    if options.folder is None:
        if len(inputs) > 1 and file_format != "txt":
            raise InputError(f"--format {file_format} of {len(inputs)} files needs a folder for them: give --out")
        return [None] * len(inputs)
    folder = options.folder
    targets = [folder / f"{Path(name).stem}.{file_format}" for name in inputs]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise InputError(f"--out: two inputs would be written to {twice}: give them one at a time")
    return targets


def _with_progress(transcriber: Transcriber, name: str, options: TranscribeOptions) -> Transcript:
    with progress_bar("transcribing, seconds") as report:

        def show(done: float, total: float | None) -> None:
            report(round(done), round(max(done, total or done)))

        return transcriber.run(name, options, show)


def _raw_inputs(manifest: Manifest, inputs: Sequence[str], options: RunOptions) -> tuple[list[str], list[Any]]:
    """The inputs as they were given, with the lines of stdin in place of -, and what they are to the pipeline."""
    if manifest.preprocessing.kind == "image":
        return list(inputs), list(inputs)
    pair = options.pair
    if pair is not None and options.token_ids:
        raise InputError("--pair and --token-ids exclude each other")
    texts = [line for text in inputs for line in (_stdin_lines() if text == "-" else [text])]
    if options.token_ids:
        return texts, [_token_ids(text) for text in texts]
    return texts, [text if pair is None else (text, pair) for text in texts]


def _stdin_lines() -> list[str]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"stdin: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _token_ids(text: str) -> list[int]:
    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise InputError(f"expected token ids with commas, like 101,2054,102, found {text!r}") from None
