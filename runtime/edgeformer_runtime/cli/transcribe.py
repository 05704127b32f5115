"""What `run` does with audio: transcripts to the terminal, as JSON, or as files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.choices import check_choice
from edgeformer_runtime.cli.console import err, out, print_json, print_text, progress_bar
from edgeformer_runtime.cli.run import RunOptions
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.transcript import ALIASES, FORMATS, Transcript, render, write

SUBTITLES = ("srt", "vtt")


def run_audio(transcriber: Any, inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
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
