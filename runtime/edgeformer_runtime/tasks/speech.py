"""Tasks of audio: a transcript by the programs of a Whisper, and labels of a whole recording by one program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest, check_unique
from edgeformer_runtime.bundle.specs import (
    MAX_FILTERS_FILE_BYTES,
    MAX_TOKENIZER_BYTES,
    AudioPreprocessing,
    ProgramSpec,
    TensorSpec,
    Transcription,
    bucket_layout,
)
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.tasks.programs import CLASSIFICATION
from edgeformer_runtime.tasks.task import AnswerKind, CaseTensors, InputKind, NamedFile, Task

SAMPLED_VALUES = 512
"""What vectors keep of a long tensor, of millions of values."""


def _specs(manifest: Manifest) -> tuple[AudioPreprocessing, Transcription]:
    audio, head = manifest.preprocessing, manifest.postprocessing
    assert isinstance(audio, AudioPreprocessing) and isinstance(head, Transcription)
    return audio, head


def _describe_audio(spec: AudioPreprocessing) -> str:
    return f"audio, {spec.sample_rate} Hz, log-mel of {spec.n_mels} bands, up to {spec.window_seconds} s at once"


def _largest_number(manifest: Manifest, program: ProgramSpec, name: str) -> int | None:
    """Of tokens, by the size of the vocabulary; of positions and of slots of the cache, by their number."""
    _, head = _specs(manifest)
    if name in ("token", "tokens"):
        return head.vocab_size - 1
    if name in ("position", "positions", "row", "rows"):
        return next(math.prod(spec.shape) for spec in program.inputs if spec.name == "mask") - 1
    return head.prefill_tokens - 1 if name == "wanted" else None


AUDIO = InputKind(
    kind="audio",
    record=AudioPreprocessing,
    largest=_largest_number,
    files=lambda spec: (NamedFile("preprocessing.mel_filters", spec.mel_filters, MAX_FILTERS_FILE_BYTES),),
    stored_forms=(("audio", "samples"),),
    stored_file="audio",
    describe=_describe_audio,
    run="edgeformer_runtime.cli.run:run_audio",
    takes="audio: expected paths of files",
    asks_for="paths of files of audio",
    options=(
        "--language",
        "--task",
        "--beam-size",
        "--timestamps",
        "--words",
        "--vad",
        "--hotwords",
        "--clip-timestamps",
        "--max-line-width",
        "--max-line-count",
        "--prompt",
        "--format",
        "--out",
    ),
    frame="edgeformer_runtime.isolation.messages:file_frame",
    answer_s=600.0,  # audio may be long
    patience_s=15.0,  # a window that has begun is transcribed to its end
    extra="speech",
)


def _check_speech(manifest: Manifest) -> None:
    """The programs are those of the buckets, tensor by tensor."""
    audio, head = _specs(manifest)
    window = audio.window_seconds * audio.sample_rate
    if head.buckets[-1].positions * audio.samples_per_position != window:
        raise BundleError(f"{MANIFEST_NAME}: postprocessing.buckets: the last one must take {window} samples")
    layouts = [layout for bucket in head.buckets for layout in bucket_layout(head, bucket, audio.n_mels)]
    programs = {program.name: program for program in manifest.programs}
    if len(layouts) != len(programs) or {layout.name for layout in layouts} != programs.keys():
        raise BundleError(f"{MANIFEST_NAME}: programs: expected exactly those of postprocessing.buckets, each once")
    for layout in layouts:
        program = programs[layout.name]
        for key, expected, found in (
            ("inputs", layout.inputs, program.inputs),
            ("outputs", layout.outputs, program.outputs),
        ):
            if found != expected:
                wrong = next((a for a, b in zip(expected, found, strict=False) if a != b), None)
                hint = f"{len(expected)} of them" if wrong is None else f"{wrong.name} as {wrong.dtype} {wrong.shape}"
                raise BundleError(f"{MANIFEST_NAME}: program {program.name}: {key}: its bucket asks for {hint}")
    _check_ids(head)


def _check_ids(head: Transcription) -> None:
    """No token id is beyond the logits."""
    tokens = vars(head.tokens).copy()
    ids = [*tokens.pop("languages").values(), *tokens.values(), *head.suppress, *head.suppress_at_start]
    largest = max(token for token in ids if token is not None)
    if largest >= head.vocab_size:
        raise BundleError(f"{MANIFEST_NAME}: postprocessing: the token {largest} is not below vocab_size")


def _check_transcript(case: Mapping[str, Any], head: Transcription, where: str) -> None:
    expected = case["expected"]
    bucket = next((bucket for bucket in head.buckets if bucket.encode == case["program"]), None)
    if bucket is None or "text" not in expected:
        raise BundleError(f"{where}: expected a bucket's encode program, and a text with its prompt and tokens")
    tokens = [*expected["prompt"], *expected["tokens"]]
    if max(tokens) >= head.vocab_size or len(tokens) > bucket.rows or len(expected["prompt"]) > head.prefill_tokens:
        raise BundleError(
            f"{where}: expected: expected at most {bucket.rows} tokens below {head.vocab_size}, and a prompt of at most"
            f" {head.prefill_tokens}"
        )


def _encoders(manifest: Manifest) -> list[ProgramSpec]:
    """The programs that encode, with which a case starts."""
    _, head = _specs(manifest)
    names = {bucket.encode for bucket in head.buckets}
    return [program for program in manifest.programs if program.name in names]


def _case_tensors(manifest: Manifest, program: ProgramSpec, expected: Mapping[str, Any]) -> CaseTensors:
    """Samples of the tensors, which have millions of values, and of the logits of each step."""
    _, head = _specs(manifest)
    steps = len(expected["tokens"]) + 1
    logits = TensorSpec("logits", "float32", (steps, min(head.vocab_size, SAMPLED_VALUES)))
    inputs, outputs = (tuple(_sample(spec) for spec in specs) for specs in (program.inputs, program.outputs))
    return inputs, (*outputs, logits)


def _sample(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, (min(math.prod(spec.shape), SAMPLED_VALUES),))


def _describe_transcription(head: Transcription) -> str:
    languages = f"{len(head.tokens.languages)} languages" if head.tokens.languages else "English"
    return f"text of {languages}, {len(head.buckets)} lengths of audio, state kept by the {head.state}"


def _describe_buckets(manifest: Manifest) -> dict[str, str]:
    """A line per bucket, as there are dozens of programs."""
    audio, head = _specs(manifest)
    return {
        f"up to {bucket.positions * audio.samples_per_position / audio.sample_rate:g} s": (
            f"{bucket.encode}, {bucket.prefill}, {bucket.decode}: {bucket.positions} positions and {bucket.tail} of"
            f" silence, {bucket.rows} tokens"
        )
        for bucket in head.buckets
    }


TRANSCRIPTION = AnswerKind(
    kind="transcription",
    record=Transcription,
    check=_check_speech,
    files=lambda head: (NamedFile("postprocessing.tokenizer", head.tokenizer, MAX_TOKENIZER_BYTES),),
    check_expected=_check_transcript,
    describe=_describe_transcription,
    result="edgeformer_runtime.pipelines.transcript:Transcript",
    show=lambda transcript, _: str(transcript.text),
    has_confidence=True,
    plural="transcripts",
    replay="edgeformer_runtime.verify.decoder_replay:SpeechReplay",
    workload="edgeformer_runtime.verify.decoder_replay:speech_workload",
    options="edgeformer_runtime.decoding.options:TranscribeOptions",
    streams=True,
    stepwise=True,
    first_programs=_encoders,
    case_tensors=_case_tensors,
    describe_programs=_describe_buckets,
)

SPEECH_RECOGNITION = Task(
    name="speech-recognition",
    takes=AUDIO,
    gives=TRANSCRIPTION,
    pipeline="edgeformer_runtime.pipelines.speech:Transcriber",
    serve="edgeformer_runtime.serve.streams:add_speech_recognition",
)


# Labels of recordings: what a manifest says of their input, and the task.


@dataclass(frozen=True)
class FilterBank:
    """Logarithms of the energies in bands of the mel scale, as Kaldi computes them (Povey et al. 2011).

    Attributes:
        frames: T of the model's input. A recording of fewer is continued with logarithms of 0; of more it loses its
            end.
        n_mels: bands, of equal width on the mel scale 1127 ln(1 + Hz / 700).
        frame_samples: of one frame, under a symmetric Hann window.
        hop_samples: from one frame to the next; the first begins with the first sample.
        n_fft: what a frame is filled up to with zeros before its spectrum is taken.
        low_hz, high_hz: where the first band begins and the last one ends.
        preemphasis: the factor of the sample before, which is subtracted from each.
        log_floor: what energies are raised to before the natural logarithm.
        mean, std: of the model's input, which is (logarithm - mean) / std.
    """

    frames: int
    n_mels: int
    frame_samples: int
    hop_samples: int
    n_fft: int
    low_hz: float
    high_hz: float
    preemphasis: float
    log_floor: float
    mean: float
    std: float

    def __post_init__(self) -> None:
        sizes = (self.frames, self.n_mels, self.hop_samples)
        if min(sizes) < 1 or not 2 <= self.frame_samples <= self.n_fft or self.n_fft % 2:
            raise InputError(
                "filter bank: expected frames, n_mels and hop_samples above 0 and an even n_fft of at least "
                f"frame_samples, found {sizes}, {self.n_fft} and {self.frame_samples}"
            )
        if not (0 <= self.low_hz < self.high_hz and self.log_floor >= np.finfo(np.float32).tiny and self.std > 0):
            raise InputError(
                f"filter bank: expected 0 <= low_hz < high_hz, a log_floor that float32 holds and a std above 0, found "
                f"{self.low_hz:g}, {self.high_hz:g}, {self.log_floor:g} and {self.std:g}"
            )

    @property
    def samples(self) -> int:
        """Of the longest recording that loses nothing but what fills no frame."""
        return self.frame_samples + (self.frames - 1) * self.hop_samples


@dataclass(frozen=True)
class RecordingPreprocessing:
    """A recording to the input of a classifier.

    Attributes:
        sample_rate: of the model, in Hz; audio of another rate is resampled.
        shortest_samples: of a recording that the model can classify.
        normalize: whether samples get a mean of 0 and a variance of 1, taken over the whole recording.
        filter_bank: what is computed of the samples; None: they are the input themselves.
    """

    sample_rate: int
    shortest_samples: int
    normalize: bool
    filter_bank: FilterBank | None
    kind: str = "recording"

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.shortest_samples) < 1:
            raise InputError("recording: expected a sample_rate and shortest_samples of at least 1")
        bank = self.filter_bank
        if bank is None:
            return
        if self.normalize or bank.high_hz > self.sample_rate / 2 or self.shortest_samples < bank.frame_samples:
            raise InputError(
                "recording: a filter_bank takes samples as they are, ends at half the sample_rate, and has a whole "
                "frame in the shortest recording"
            )


RECORDING_PROGRAM = "recording"
"""What the names of its programs begin with."""
SAMPLES_INPUT, LENGTH_INPUT, ENERGIES_INPUT = "samples", "length", "energies"
MAX_SAMPLES = 1 << 24
"""Of a program's longest recording: a quarter of an hour at 16 kHz."""
ENERGIES_TOLERANCE = 1e-4
"""Of transforms that compute in float32."""


def _recording(manifest: Manifest) -> RecordingPreprocessing:
    spec = manifest.preprocessing
    assert isinstance(spec, RecordingPreprocessing)
    return spec


def _check_recording(manifest: Manifest) -> None:
    """The program of a filter bank takes its energies; others take samples, each up to another length."""
    spec = _recording(manifest)
    bank = spec.filter_bank
    where = f"{MANIFEST_NAME}: programs"
    if bank is not None:
        energies = TensorSpec(ENERGIES_INPUT, "float32", (1, bank.frames, bank.n_mels))
        if [program.inputs for program in manifest.programs] != [(energies,)]:
            raise BundleError(f"{where}: expected one with one input {energies.name!r}, float32 of {energies.shape}")
        return
    for program in manifest.programs:
        length = math.prod(program.inputs[0].shape)
        samples = TensorSpec(SAMPLES_INPUT, "float32", (1, length))
        if program.inputs != (samples, TensorSpec(LENGTH_INPUT, "int32", (1,))):
            raise BundleError(
                f"{where}: expected the inputs {SAMPLES_INPUT!r}, float32 of shape (1, N), and {LENGTH_INPUT!r}, int32 "
                "of shape (1,)"
            )
        if not spec.shortest_samples <= length <= MAX_SAMPLES:
            raise BundleError(f"{where}: expected {spec.shortest_samples} to {MAX_SAMPLES} samples, found {length}")
    check_unique((str(program.inputs[0].shape[1]) for program in manifest.programs), "length of a recording")


def _describe_recording(spec: RecordingPreprocessing) -> str:
    if spec.filter_bank is None:
        return f"recording, {spec.sample_rate} Hz, samples{' of variance 1' if spec.normalize else ''}"
    seconds = spec.filter_bank.samples / spec.sample_rate
    return f"recording, {spec.sample_rate} Hz, {spec.filter_bank.n_mels} energies of a filter bank, up to {seconds:g} s"


RECORDING = InputKind(
    kind="recording",
    record=RecordingPreprocessing,
    check=_check_recording,
    largest=lambda _manifest, program, name: program.inputs[0].shape[1] if name == LENGTH_INPUT else None,
    stored_forms=AUDIO.stored_forms,
    stored_file=AUDIO.stored_file,
    tolerance=lambda _: ENERGIES_TOLERANCE,
    describe=_describe_recording,
    run="edgeformer_runtime.cli.run:run_files",
    takes="recordings: expected paths of files of audio",
    asks_for=AUDIO.asks_for,
    options=("--top",),
    frame=AUDIO.frame,
    extra=AUDIO.extra,
)

AUDIO_CLASSIFICATION = Task(
    name="audio-classification",
    takes=RECORDING,
    gives=CLASSIFICATION,
    pipeline="edgeformer_runtime.pipelines.speech:AudioClassifier",
    serve="edgeformer_runtime.serve.streams:add_audio_classification",
)
