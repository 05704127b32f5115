"""The command `listen`: what a microphone hears as text, sentence by sentence, for people and for programs."""

from __future__ import annotations

import json
import queue
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeformer_runtime.cli.console import (
    BundlePath,
    Isolated,
    Json,
    RequiredKeys,
    RequiredName,
    RequiredVersion,
    Threads,
    err,
    print_text,
    required_of,
)
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate
    from edgeformer_runtime.pipelines.transcript import Segment
    from edgeformer_runtime.preprocess.audio import AudioReader, Samples

STDIN = "-"
SAMPLE_BYTES = 2
BLOCK_SECONDS = 0.1
"""Of audio that is read at once."""
MOST_WAITING_SECONDS = 60.0
"""Audio of a microphone that waits while a sentence is transcribed or a command runs; what comes then is lost."""
NO_PARTIALS_SECONDS = 3600.0
"""Between guesses that nobody asked for; a sentence ends before."""


def listen(
    bundle: BundlePath,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Audio file to hear in place of a microphone; - for raw 16 bit mono samples on stdin.",
        ),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1000, help="With --from -: samples per second.", show_default="the bundle's")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Microphone, as `arecord -L` or `python -m sounddevice` lists them.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(help="Program to call with each sentence as its last argument. No shell reads the sentence."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language, as en. Default: the model detects it.")] = None,
    pause: Annotated[float, typer.Option(min=0.1, max=10, help="Seconds of silence that end a sentence.")] = 0.7,
    vad: Annotated[bool, typer.Option("--vad", help="Wake only where a detector hears a voice.")] = False,
    partials: Annotated[bool, typer.Option("--partials", help="Print guesses while somebody speaks, too.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End after the first sentence.")] = False,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Isolated = False,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Print each sentence that a microphone hears, once it has ended. Silence costs next to nothing.

    --json prints an object per line: {"text", "start", "end", "language", "segments"} of a sentence, {"partial",
    "stable", "seconds"} of a guess.
    """
    from edgeformer_runtime import load
    from edgeformer_runtime.decoding.options import TranscribeOptions
    from edgeformer_runtime.pipelines.speech_stream import StreamOptions
    from edgeformer_runtime.tasks.task import TASKS

    if rate is not None and source != STDIN:
        raise InputError("--rate belongs to raw samples: expected --from - with it")
    if device is not None and source is not None:
        raise InputError(f"--device names a microphone: expected none with --from {source}")
    call = None if command is None else Command(command)
    required = required_of(require_signature, require_name, require_version)
    with load(bundle, threads, require_signature=required, isolated=isolated) as pipeline:
        manifest: Any = pipeline.bundle.manifest
        if not TASKS[manifest.task].gives.streams:
            raise InputError(f"listen: expected a bundle for speech-recognition, found one for {manifest.task}")
        options = StreamOptions(StreamOptions.partial_seconds if partials else NO_PARTIALS_SECONDS, pause, pause)
        ear = Ear(pipeline, TranscribeOptions(language=language, vad_filter=vad), options)
        told = 0
        with open_source(source, device, rate, manifest.preprocessing.sample_rate) as blocks:
            for heard in ear.hear(blocks):
                if isinstance(heard, Sentence):
                    _tell(heard, as_json)
                    told += 1
                    if call is not None:
                        call(heard.text)
                elif partials:
                    _tell_guess(heard, as_json)
                if once and told:
                    return


@dataclass(frozen=True)
class Sentence:
    """What was said between two pauses.

    Attributes:
        text: of all segments.
        start, end: in seconds since listening began.
        language: a code as "en".
        segments: as of `Transcript`, timed in the same way.
    """

    text: str
    start: float
    end: float
    language: str | None
    segments: tuple[Segment, ...]


@dataclass
class Ear:
    """Hears sentences. Each has a stream of its own: nothing grows over months, and each is in its own language.

    Attributes:
        pipeline: of a speech bundle; `Transcriber`, isolated or not.
        options: of the transcripts.
        stream_options: when a sentence ends.
    """

    pipeline: Any
    options: Any
    stream_options: StreamOptions

    def hear(self, blocks: Iterator[Samples]) -> Iterator[Sentence | StreamUpdate]:
        """Sentences, and updates with a guess between them, from blocks (n,) at the model's rate."""
        rate = self.pipeline.bundle.manifest.preprocessing.sample_rate
        samples = began = 0
        stream, said = self._open(), list[Any]()
        for block in blocks:
            samples += len(block)
            for update in stream.feed(block):
                said += update.final
                if update.partial:
                    yield update
            if said and (samples - began) / rate - said[-1].end >= self.stream_options.pause_seconds / 2:
                yield self._finished(stream, said, began / rate)
                stream, said, began = self._open(), [], samples
        last = self._finished(stream, said, began / rate)
        if last.segments:
            yield last

    def _open(self) -> Any:
        return self.pipeline.open_stream(self.options, self.stream_options)

    @staticmethod
    def _finished(stream: Any, said: list[Any], offset: float) -> Sentence:
        """The sentence that a stream has heard, which ends with it."""
        from dataclasses import replace

        segments = [*said, *(segment for update in stream.finish() for segment in update.final)]
        transcript = stream.transcript()

        def later(timed: Any) -> Any:
            return replace(timed, start=round(timed.start + offset, 3), end=round(timed.end + offset, 3))

        moved = tuple(later(replace(each, words=tuple(map(later, each.words)))) for each in segments)
        start, end = (moved[0].start, moved[-1].end) if moved else (offset, offset)
        return Sentence(transcript.text, start, end, transcript.language, moved)


def _tell(sentence: Sentence, as_json: bool) -> None:
    from edgeformer_runtime.bundle.strict_json import to_data

    if as_json:
        _print_line(to_data(sentence))
    else:
        print_text(f"{sentence.text}\n")
        sys.stdout.flush()


def _tell_guess(update: StreamUpdate, as_json: bool) -> None:
    if as_json:
        _print_line({"partial": update.partial, "stable": update.stable, "seconds": round(update.seconds, 3)})
    else:
        err.print(f"... {update.partial}")


def _print_line(value: dict[str, Any]) -> None:
    """JSON in one line, at once, of characters that can be shown."""
    print(json.dumps(value, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f"), flush=True)


class Command:
    """A program that is called with each sentence."""

    def __init__(self, command: str) -> None:
        """Take a command as a shell would split it.

        Raises:
            InputError: there is no such program.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise InputError(f"--command {command!r}: {error}") from None
        if not self._words or shutil.which(self._words[0]) is None:
            raise InputError(f"--command: no program {command!r} is found")

    def __call__(self, sentence: str) -> None:
        """Call it and wait. A failure is said on stderr, and listening goes on.

        A sentence that starts with a dash loses it, as the program would take it for an option.
        """
        done = subprocess.run([*self._words, sentence.lstrip("-\u2013\u2014 ")], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            err.print(f"note: {self._words[0]} ended with {done.returncode}")


# Where the audio comes from.


@contextmanager
def open_source(
    source: str | None, device: str | None, rate: int | None, model_rate: int
) -> Iterator[Iterator[Samples]]:
    """Blocks (n,) of samples at the model's rate, of a file, stdin or a microphone.

    Raises:
        InputError: the file cannot be read, or there is no microphone.
    """
    from edgeformer_runtime.preprocess.audio import open_audio

    if source is None:
        with microphone(device, model_rate) as (found_rate, arriving):
            yield _resampled(arriving, found_rate, model_rate)
    elif source == STDIN:
        stated = rate or model_rate
        size = SAMPLE_BYTES * round(BLOCK_SECONDS * stated)
        yield _resampled(iter(lambda: sys.stdin.buffer.read(size), b""), stated, model_rate)
    else:
        with open_audio(source, model_rate) as reader:
            yield _blocks(reader, round(BLOCK_SECONDS * model_rate))


def _blocks(reader: AudioReader, size: int) -> Iterator[Samples]:
    while len(samples := reader.read(size)):
        yield samples


def _resampled(arriving: Iterator[bytes], rate: float, model_rate: int) -> Iterator[Samples]:
    from edgeformer_runtime.preprocess.audio import PcmStream

    pcm = PcmStream(rate, SAMPLE_BYTES, 1, model_rate)
    for data in arriving:
        yield pcm.feed(data)
    yield pcm.finish()


@contextmanager
def microphone(device: str | None, rate: int) -> Iterator[tuple[float, Iterator[bytes]]]:
    """The rate of a microphone, the wanted one if it has that, and its 16 bit mono samples as they arrive.

    The package sounddevice records (PortAudio) if it is installed, or else the program arecord (ALSA). A thread takes
    the samples, so that none are lost while a sentence is transcribed.

    Raises:
        InputError: neither is there, or there is no such microphone; while it is read: it has gone.
    """
    # The rate, where the samples arrive, and what the microphone is called.
    recording: AbstractContextManager[tuple[float, Waiting, str]]
    recording = _sounddevice(device, rate) if find_spec("sounddevice") is not None else _arecord(device, rate)
    with recording as (found_rate, waiting, name):
        err.print(f"listening to {name} (Ctrl-C ends it)")
        yield found_rate, waiting.taken()


class Waiting:
    """Audio that has arrived and was not heard yet; bounded, and what is lost is told."""

    def __init__(self, rate: float) -> None:
        self._seconds_per_byte = 1 / (SAMPLE_BYTES * rate)
        self._queue: queue.Queue[bytes | InputError] = queue.Queue()
        self._lock = threading.Lock()
        self._waiting_s = self._lost_s = 0.0

    def put(self, data: bytes) -> None:
        """Samples, from the thread that records."""
        seconds = len(data) * self._seconds_per_byte
        with self._lock:
            if self._waiting_s + seconds > MOST_WAITING_SECONDS:
                self._lost_s += seconds
                return
            self._waiting_s += seconds
        self._queue.put(data)

    def end(self, why: str) -> None:
        """Nothing more arrives."""
        self._queue.put(InputError(why))

    def taken(self) -> Iterator[bytes]:
        """Samples in their order; waits for more.

        Raises:
            InputError: the microphone has gone.
        """
        while True:
            found = self._queue.get()
            if isinstance(found, InputError):
                raise found
            with self._lock:
                self._waiting_s -= len(found) * self._seconds_per_byte
                lost, self._lost_s = self._lost_s, 0.0
            if lost:
                err.print(f"note: {lost:.1f} s were lost: this machine is slower than speech, or the command is")
            yield found


@contextmanager
def _sounddevice(device: str | None, rate: int) -> Iterator[tuple[float, Waiting, str]]:
    try:
        sounddevice: Any = import_module("sounddevice")
    except OSError as error:  # it is installed, and PortAudio is not
        raise InputError(f"microphone: {error}: install PortAudio (apt install libportaudio2)") from None
    chosen: Any = int(device) if device is not None and device.isdecimal() else device
    form = {"device": chosen, "channels": 1, "dtype": "int16"}
    try:
        found = sounddevice.query_devices(chosen, "input")
        try:
            sounddevice.check_input_settings(**form, samplerate=rate)
        except sounddevice.PortAudioError:  # it knows its own rate alone
            rate = int(found["default_samplerate"])
        waiting = Waiting(rate)
        recording = sounddevice.RawInputStream(
            **form,
            samplerate=rate,
            blocksize=round(BLOCK_SECONDS * rate),
            callback=lambda data, *_: waiting.put(bytes(data)),
            finished_callback=lambda: waiting.end("the microphone has gone"),
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(f"microphone: {error}") from None
    with recording:
        yield rate, waiting, str(found["name"])


@contextmanager
def _arecord(device: str | None, rate: int) -> Iterator[tuple[float, Waiting, str]]:
    program = shutil.which("arecord")
    if program is None:
        raise InputError(
            "microphone: expected the program arecord (apt install alsa-utils) or the package sounddevice (pip install"
            " 'edgeformer-runtime[mic]'), found neither"
        )
    chosen = [] if device is None else ["-D", device]
    command = [program, "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(rate), *chosen]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    waiting = Waiting(rate)

    def record() -> None:
        assert process.stdout is not None and process.stderr is not None
        while data := process.stdout.read(SAMPLE_BYTES * round(BLOCK_SECONDS * rate)):
            waiting.put(data)
        said = process.stderr.read().decode(errors="replace").split()
        waiting.end(f"the microphone has gone: arecord: {' '.join(said) or 'it ended'}")

    threading.Thread(target=record, daemon=True).start()
    try:
        yield rate, waiting, f"the ALSA device {device or 'default'}"
    finally:
        process.terminate()
        process.wait()
