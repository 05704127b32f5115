"""The tasks of audio: speech recognition, classification of recordings, and audio to judge such models by."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeformer.models.family import FULL_WINDOW, TAIL_WINDOW, ProgramOptions
from edgeformer.tasks.task import Metric, Peers, Task, TaskSpec, Training
from edgeformer.tasks.text import ACCURACY, MAX_CALIBRATION_SAMPLES, TENSOR_PEERS, TOKENIZER_FILE
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import PROGRAM_STATE, AudioPreprocessing, Classification, Transcription
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.log_mel import RecordingEncoder, mel_filter_bank, write_mel_filters
from edgeformer_runtime.preprocess.silence import quietest_cut
from edgeformer_runtime.tasks.speech import RecordingPreprocessing

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.family import Program
    from edgeformer.models.whisper.generation import SpeechSettings
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.bundle.vectors import Case
    from edgeformer_runtime.engines import Engine

MEL_FILTERS_FILE = "mel_filters.safetensors"
SAMPLE_FILE = "vectors/audio.wav"
ENGLISH = "en"

# Of Whisper's spectrograms (Radford et al. 2022, in its code's log_mel_spectrogram): not in any public config.
LOG_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0

SPEECH_FILE = Path(__file__).parents[1] / "zoo" / "speech_sample.flac"
"""Half a minute of synthetic English speech that `tools/zoo/make_speech_sample.py` made."""
FIRST_SENTENCE_S = 3.55
"""Of its first sentence, with the pause behind it."""


def _spec(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    from edgeformer.models.whisper.programs import transcription_layout

    settings, tokenizer = checkpoint.speech, checkpoint.tokenizer_json
    assert settings is not None and tokenizer is not None  # read_speech refuses a checkpoint without them
    audio = audio_preprocessing(settings, checkpoint.config.num_mel_bins)
    head = Transcription(
        tokenizer=TOKENIZER_FILE,
        tokens=settings.tokens,
        suppress=settings.suppress,
        suppress_at_start=settings.suppress_at_start,
        seconds_per_timestamp=settings.seconds_per_timestamp,
        max_initial_timestamp=settings.max_initial_timestamp,
        **vars(transcription_layout(checkpoint.config, options)),
    )
    filters = mel_filter_bank(audio.n_mels, audio.n_fft, audio.sample_rate)
    capacities = [bucket.positions * audio.samples_per_position for bucket in head.buckets]
    wav, counts = speech(capacities, audio.sample_rate, head.tokens.reference_language == ENGLISH)
    return TaskSpec(
        task=RECOGNITION,
        preprocessing=audio,
        postprocessing=head,
        assets={
            TOKENIZER_FILE: tokenizer.encode(),
            MEL_FILTERS_FILE: write_mel_filters(filters),
            SAMPLE_FILE: wav,
        },
        samples=tuple({"audio": SAMPLE_FILE, "samples": count} for count in counts),
        state_roundings=float(head.state == PROGRAM_STATE),
    )


def audio_preprocessing(speech: SpeechSettings, n_mels: int) -> AudioPreprocessing:
    """How audio becomes the input of a Whisper with so many mel bands."""
    return AudioPreprocessing(
        sample_rate=speech.sample_rate,
        n_fft=speech.n_fft,
        hop_length=speech.hop_length,
        n_mels=n_mels,
        mel_filters=MEL_FILTERS_FILE,
        window_seconds=speech.window_seconds,
        log_floor=LOG_FLOOR,
        dynamic_range=DYNAMIC_RANGE,
    )


def speech(capacities: Sequence[int], sample_rate: int, knows_english: bool = True) -> tuple[bytes, tuple[int, ...]]:
    """Audio, and for each bucket how many samples from its start fit this bucket and not the one below.

    Each ends in a pause if there is one: a word cut in two has no right answer that a small error would not change.
    Nor has half a minute of English for a model that is to write another language: it repeats one sentence.

    Args:
        capacities: the most samples of each bucket, rising.
        sample_rate: of the model, in Hz.
        knows_english: whether English is among the languages that the model writes.

    Returns:
        A WAV file of one channel with 16 bits, and a count for each bucket.
    """
    longest = capacities[-1]
    with open_audio(SPEECH_FILE, sample_rate) as reader:
        spoken = reader.read(longest)
    if not knows_english:
        spoken = np.resize(spoken[: round(FIRST_SENTENCE_S * sample_rate)], longest)
    samples = np.zeros(longest, np.float32)
    samples[: len(spoken)] = spoken
    below = (0, *capacities)
    counts = tuple(
        quietest_cut(samples, max(start + 1, end // 2), end, sample_rate)
        for start, end in zip(below, capacities, strict=False)
    )
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(sample_rate)
        wav.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return file.getvalue(), counts


def _record(bundle: Bundle, engine: Engine, samples: Sequence[Mapping[str, Any]]) -> list[Case]:
    """A case for each bucket."""
    from edgeformer_runtime.pipelines.speech import Transcriber
    from edgeformer_runtime.verify.decoder_replay import record

    transcriber = Transcriber(bundle, engine)
    return [record(transcriber, *pair) for pair in zip(samples, transcriber.spec.buckets, strict=True)]


def _rerun(bundle: Bundle, engine: Engine, cases: Sequence[Case], per_program: int, steps: int) -> None:  # noqa: ARG001
    """The shortest audio, as the programs of all buckets have the same weights: it is encoded, its prompt is decoded,
    and so many tokens after it.
    """
    from edgeformer_runtime.bundle.specs import bucket_of
    from edgeformer_runtime.pipelines.speech import Transcriber, read_wav
    from edgeformer_runtime.verify.decoder_replay import steps as decode

    transcriber = Transcriber(bundle, engine)
    case = next(case for case in cases if case.program == transcriber.spec.buckets[0].encode)
    bucket = bucket_of(transcriber.spec, case.program)
    mel = transcriber.mel(read_wav(bundle, case.raw), bucket)
    tokens = iter(case.expected["tokens"][:steps])
    decode(transcriber.decoder(bucket), mel, case.expected["prompt"], lambda _: next(tokens, None))


def _program_options(manifest: Manifest) -> ProgramOptions:
    head = cast(Transcription, manifest.postprocessing)
    return ProgramOptions(
        audio_positions=tuple(bucket.positions for bucket in head.buckets),
        window=TAIL_WINDOW if any(bucket.tail for bucket in head.buckets) else FULL_WINDOW,
        prefill_tokens=head.prefill_tokens,
        decoder_state=head.state,
    )


WORD_ERRORS = Metric(
    name="wer",
    change="wer_rise",
    is_error=True,
    answers="edgeformer.evaluate.speech:transcripts",
    interval="edgeformer.evaluate.speech:word_error_interval",
    noun="word errors",
    same="edgeformer.evaluate.speech:same_words",
    answers_are_texts=True,
)
"""Errors per word of the reference."""

RECOGNITION = Task(
    name="speech-recognition",
    noun="speech recogniser",
    takes="audio",
    spec=_spec,
    evaluation="edgeformer.evaluate.speech:evaluate_speech",
    peers=Peers(
        ("faster-whisper", "whisper.cpp", "onnxruntime", "torch"),
        "edgeformer.bench.peers:speech_contenders",
        over_data="edgeformer.bench.data:CLIPS",
    ),
    aliases=("asr", "automaticspeechrecognition", "speech", "transcription"),
    writes=True,
    scores="edgeformer.models.whisper.family:decoder_scores",
    # The largest of some hundred thousand logits is farther out than that of a few labels, and a word in ten that
    # sounds alike may be another. Below fp16 it is the letters that count: Whisper base in dynamic-int8 is off by .16
    # of the largest output of its encoder, and writes what it wrote before.
    tolerance_scale=(4 / 3, 2.0),
    # Keys and values of the base model at int8, whose letters stay: 0.27 of the largest with programs for 15 s alone.
    least_backstop=0.4,
    layers_as_outputs=True,
    record=_record,
    rerun=_rerun,
    program_options=_program_options,
    metric=WORD_ERRORS,
    training=Training(
        read="edgeformer.compress.speech:read_clips",
        probe="edgeformer.compress.speech:SpeechProbe",
        recipes=("whisper-fewer-layers",),
    ),
    checks={
        "alignment_heads": "edgeformer.doctor.check_task:check_alignment_heads",
        "tokenizer": "edgeformer.doctor.check_task:check_decoding",
    },
)


# Labels of recordings.


GATE_RECORDINGS = 16
"""Drawn, for every bundle to be judged on."""
LONGEST_RECORDING_S = 12.0
"""Of those: drawing longer ones says nothing more of a long program."""


def _recording_spec(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    spec = cast(RecordingPreprocessing, checkpoint.config.preprocessing)
    bank = spec.filter_bank
    # Of a filter bank the one program gets a recording that fills it, and one that is continued with zeros.
    lengths = [bank.samples // 3, bank.samples] if bank is not None else [each.inputs[0].shape[1] for each in programs]
    wav, counts = speech(sorted({max(each, spec.shortest_samples) for each in lengths}), spec.sample_rate)
    return TaskSpec(
        task=AUDIO_CLASSIFICATION,
        preprocessing=spec,
        postprocessing=Classification(checkpoint.labels, checkpoint.activation),
        assets={SAMPLE_FILE: wav},
        samples=tuple({"audio": SAMPLE_FILE, "samples": max(count, spec.shortest_samples)} for count in counts),
    )


def recordings(lengths: Iterable[int], sample_rate: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Recordings (N,) of such lengths: chords that glide and fade over noise, each another."""
    generator = np.random.default_rng(2)
    for length in lengths:
        at = np.arange(length) / sample_rate  # (N,) seconds
        total = generator.normal(0, 10 ** generator.uniform(-4, -1), length)
        for _ in range(int(generator.integers(1, 5))):
            start, end = generator.uniform(60, sample_rate / 5, 2)
            rate, begin, level = generator.uniform(0.5, 8), generator.uniform(0, 0.7), generator.uniform(0.02, 0.25)
            phase = 2 * np.pi * (start * at + (end - start) * at**2 / (2 * at[-1] + 1e-3))
            fading = (1 + np.cos(2 * np.pi * rate * at)) / 2 * (at >= begin * at[-1])
            total += level * fading * (np.sin(phase) + np.sin(2 * phase) / 2)
        yield total.clip(-1, 1).astype(np.float32)


def _recordings_for_gates(pipeline: Any) -> Iterator[tuple[str, Any]]:
    """Of each program's length in turn, and of parts of it."""
    spec, programs = pipeline.spec, pipeline.bundle.manifest.programs
    most = round(LONGEST_RECORDING_S * spec.sample_rate)
    lengths = [pipeline.longest_samples] if spec.filter_bank else [each.inputs[0].shape[1] for each in programs]
    parts = np.linspace(1, 0.3, GATE_RECORDINGS)
    counts = (min(most, int(lengths[index % len(lengths)] * part)) for index, part in enumerate(parts))
    drawn = recordings((max(count, spec.shortest_samples) for count in counts), spec.sample_rate)
    return ((f"drawn recording {index}", (samples, spec.sample_rate)) for index, samples in enumerate(drawn))


def _calibrate(programs: tuple[Program, ...], spec: TaskSpec, data: Path) -> tuple[Program, ...]:
    """Programs with the recordings of a folder as calibration inputs, `MAX_CALIBRATION_SAMPLES` at most.

    Raises:
        InputError: there are none, or one of them cannot be read.
    """
    from edgeformer.data.annotated import AUDIO_SUFFIXES
    from edgeformer.data.labelled import spread

    found = sorted(path for path in data.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"no calibration recordings in {data}: expected files ending in {', '.join(AUDIO_SUFFIXES)}")
    chosen = spread(found, MAX_CALIBRATION_SAMPLES)
    return tuple(replace(program, calibration=_encoded(program, spec, chosen)) for program in programs)


def _encoded(program: Program, spec: TaskSpec, raws: Iterable[Any]) -> tuple[tuple[Any, ...], ...]:
    """A program's inputs for each recording, a tensor each; of longer ones their first part."""
    import torch

    reads = cast(RecordingPreprocessing, spec.preprocessing)
    encoder = RecordingEncoder(reads)
    most = program.inputs[0].shape[1] if reads.filter_bank is None else reads.filter_bank.samples

    def inputs(raw: Any) -> tuple[Any, ...]:
        samples, _ = encoder.read(raw, most)
        if reads.filter_bank is not None:
            return (torch.from_numpy(encoder.energies(samples)),)
        return torch.from_numpy(encoder.padded(samples, most)), torch.tensor([len(samples)], dtype=torch.int32)

    return tuple(map(inputs, raws))


def _audio_options(manifest: Manifest) -> ProgramOptions:
    spec = cast(RecordingPreprocessing, manifest.preprocessing)
    if spec.filter_bank is not None:
        return ProgramOptions()
    return ProgramOptions(
        clip_seconds=tuple(program.inputs[0].shape[1] / spec.sample_rate for program in manifest.programs)
    )


AUDIO_CLASSIFICATION = Task(
    name="audio-classification",
    noun="audio classifier",
    takes="recording",
    spec=_recording_spec,
    evaluation="edgeformer.evaluate.classification:evaluate_classification",
    peers=TENSOR_PEERS,
    aliases=("audioclassifier", "audio", "keywordspotting", "soundclassification", "speechclassification"),
    architecture="ForAudioClassification",
    heads=("classifier.",),
    headless="the checkpoint has no classifier of recordings: fine-tune it first",
    labelled=True,
    on_phones=False,
    judged_by_labels=True,
    scores="edgeformer.models.adapted_audio:audio_scores",
    score_backstop="probability",
    program_options=_audio_options,
    calibrate=_calibrate,
    gate_inputs=_recordings_for_gates,
    agreement="edgeformer.convert.agreement:compare_labels",
    metric=ACCURACY,
    checks={"labels": "edgeformer.doctor.check_task:check_labels"},
)
