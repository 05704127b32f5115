"""`demo --speech`: Whisper tiny.en, converted to LiteRT at int8, verified, and asked what is said in a few sounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import typer

from edgeformer.convert.convert import ConvertOptions, convert, steps_of
from edgeformer.convert.tables import print_converted
from edgeformer.progress import Steps
from edgeformer.speech_weights import find_weights
from edgeformer.zoo import speech_sample
from edgeformer_runtime import load
from edgeformer_runtime.cli.console import out, progress_bar
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.preprocess.audio import open_audio

TASK = "speech-recognition"
TARGET, PRECISION = "litert", "dynamic-int8"

AUDIO_SECONDS = (5.0, 10.0, 20.0)
"""Beside the whole window; each length more is lowered on its own, and a demo is in a hurry."""

_ANY_RATE = 16000
_WEIGHT_STEPS = 2


def run_speech_demo(folder: Path, files: Sequence[Path], weights: str | None) -> None:
    """Convert, verify and transcribe; exits with 1 when a gate failed.

    Args:
        folder: where the bundle goes.
        files: sounds to transcribe beside the sample that ships.
        weights: a folder or hub id; None: see `find_weights`.

    Raises:
        InputError: a file is no sound, or there are no weights.
    """
    for file in files:
        open_audio(file, _ANY_RATE).close()  # refuse what cannot be read before a minute of work
    with Steps(_WEIGHT_STEPS) as steps:
        found = find_weights(weights, steps)
    out.print(f"Weights: {found.origin} (licence: {found.license or 'see their source'})")
    options = ConvertOptions(
        source=found.source,
        revision=found.revision,
        out=folder,
        targets=(TARGET,),
        precisions=(PRECISION,),
        task=TASK,
        audio_seconds=AUDIO_SECONDS,
    )
    with Steps(steps_of(options)) as steps:
        rows = convert(options, steps)
    print_converted(rows)
    if not all(row.ok for row in rows):
        raise typer.Exit(1)
    (row,) = rows
    sample, _ = speech_sample()
    transcriber = cast(Transcriber, load(row.path))
    with transcriber:
        for file in (sample, *files):
            _transcribe(transcriber, file)
    out.print(f"Next: edgeformer run {row.path} {sample} --words --format srt")


def _transcribe(transcriber: Transcriber, file: Path) -> None:
    """Print what is said in a sound, and how long it took to find out."""
    with progress_bar(f"transcribing {file.name}") as report:
        transcript = transcriber.run(file, progress=lambda done, seconds: report(round(done), round(seconds or done)))
    assert transcript.statistics is not None
    seconds = transcript.statistics.total_ms / 1e3
    out.print(
        f"{file.name}, {transcript.duration:.1f} s, heard in {seconds:.2f} s by one thread, "
        f"{seconds / transcript.duration:.3f} of its length:"
    )
    out.print(f"  {transcript.text}")
