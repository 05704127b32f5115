"""What a bundle holds besides the model, by task: how raw input becomes tensors, and outputs an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.convert.target import Precision
from edgeformer.models.program import Program, ProgramOptions
from edgeformer.models.whisper.generation import SpeechSettings
from edgeformer.models.whisper.programs import transcription_layout
from edgeformer.tasks import samples
from edgeformer_runtime.bundle.manifest import (
    Classification,
    Embedding,
    Postprocessing,
    Preprocessing,
    TextPreprocessing,
)
from edgeformer_runtime.bundle.specs import AudioPreprocessing, Transcription
from edgeformer_runtime.bundle.vectors import Tolerances
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank, write_mel_filters

TOKENIZER_FILE = "tokenizer.json"
MEL_FILTERS_FILE = "mel_filters.safetensors"
SOUND_FILE = "vectors/audio.wav"
ENGLISH = "en"

# Of Whisper's spectrograms (Radford et al. 2022, in its code's log_mel_spectrogram): not in any public config.
LOG_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0

SPEECH_TOLERANCE_SCALE = (4 / 3, 2.0)
"""The largest of some hundred thousand logits is farther out than that of a few labels, and a word in ten that sounds
alike may be another. Below fp16 it is the letters that count: Whisper base in dynamic-int8 is off by .16 of the
largest output of its encoder, and writes what it wrote before."""


@dataclass(frozen=True)
class Interface:
    """The parts of a bundle around the model.

    Attributes:
        preprocessing, postprocessing: the manifest's entries.
        assets: files that they name, with their contents.
        samples: inputs, in the form that vectors store, that touch every program; deterministic.
        tolerance_scale: factors of a precision's tolerances, for outputs and for scores.
    """

    preprocessing: Preprocessing
    postprocessing: Postprocessing
    assets: dict[str, bytes]
    samples: tuple[dict[str, Any], ...]
    tolerance_scale: tuple[float, float] = (1.0, 1.0)

    def tolerances(self, precision: Precision) -> Tolerances:
        """How far outputs and answers of a precision may be from the recorded ones."""
        head, allowed = self.postprocessing, precision.allowance
        for_outputs, for_scores = self.tolerance_scale
        if allowed is None:
            return Tolerances(precision.output_tolerance * for_outputs, precision.score_tolerance * for_scores)
        backstop = allowed.backstop
        if isinstance(head, Transcription):  # what a user can lose are letters; outputs only tell a broken model
            return Tolerances(backstop.output, precision.score_tolerance * for_scores)
        score = backstop.probability if isinstance(head, Classification) else backstop.component
        return Tolerances(backstop.output, score)


def interface_for(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> Interface:
    """The interface of a checkpoint's task, for the programs that its family made with these options."""
    return INTERFACES[checkpoint.task](checkpoint, programs, options)


def _text(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> Interface:  # noqa: ARG001
    tokenizer = checkpoint.tokenizer_json
    lengths = sorted(program.inputs[0].shape[1] for program in programs)
    output = programs[0].outputs[0]
    return Interface(
        preprocessing=TextPreprocessing(
            TOKENIZER_FILE if tokenizer else None, checkpoint.pad_token_id, checkpoint.config.vocab_size
        ),
        postprocessing=(
            Classification(checkpoint.labels, checkpoint.activation)
            if checkpoint.task == "text-classification"
            else Embedding(dim=output.shape[-1], normalized=checkpoint.normalize)
        ),
        assets={TOKENIZER_FILE: tokenizer.encode()} if tokenizer else {},
        samples=(
            samples.texts(lengths) if tokenizer else tuple(samples.token_ids(lengths, checkpoint.config.vocab_size))
        ),
    )


def _image(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> Interface:  # noqa: ARG001
    assets = {f"vectors/image_{index}.png": content for index, content in enumerate(samples.images())}
    return Interface(
        preprocessing=checkpoint.config.preprocessing,
        postprocessing=Classification(checkpoint.labels, checkpoint.activation),
        assets=assets,
        samples=tuple({"image": name} for name in assets),
    )


def _speech(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> Interface:  # noqa: ARG001
    speech, tokenizer = checkpoint.speech, checkpoint.tokenizer_json
    assert speech is not None and tokenizer is not None  # read_speech refuses a checkpoint without them
    sound = audio_preprocessing(speech, checkpoint.config.num_mel_bins)
    head = Transcription(
        tokenizer=TOKENIZER_FILE,
        tokens=speech.tokens,
        suppress=speech.suppress,
        suppress_at_start=speech.suppress_at_start,
        seconds_per_timestamp=speech.seconds_per_timestamp,
        max_initial_timestamp=speech.max_initial_timestamp,
        **vars(transcription_layout(checkpoint.config, options)),
    )
    filters = mel_filter_bank(sound.n_mels, sound.n_fft, sound.sample_rate)
    capacities = [bucket.positions * sound.samples_per_position for bucket in head.buckets]
    wav, counts = samples.speech(capacities, sound.sample_rate, head.tokens.reference_language == ENGLISH)
    return Interface(
        preprocessing=sound,
        postprocessing=head,
        assets={
            TOKENIZER_FILE: tokenizer.encode(),
            MEL_FILTERS_FILE: write_mel_filters(filters),
            SOUND_FILE: wav,
        },
        samples=tuple({"audio": SOUND_FILE, "samples": count} for count in counts),
        tolerance_scale=SPEECH_TOLERANCE_SCALE,
    )


def audio_preprocessing(speech: SpeechSettings, n_mels: int) -> AudioPreprocessing:
    """How sound becomes the input of a Whisper with so many mel bands."""
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


INTERFACES: dict[str, Callable[[Checkpoint, tuple[Program, ...], ProgramOptions], Interface]] = {
    "text-classification": _text,
    "text-embedding": _text,
    "image-classification": _image,
    "speech-recognition": _speech,
}
