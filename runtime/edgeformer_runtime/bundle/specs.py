"""What goes into a model and what comes out of it, as data: the records that a manifest holds for each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgeformer_runtime.errors import InputError

MAX_TOKENIZER_BYTES = 64 << 20
SHORTEST_TEXT = 2
"""Tokens of the shortest bucket, and of the shortest text of a file with a symbolic length."""
MAX_FILTERS_FILE_BYTES = 64 << 20
"""Of the files with the filter bank of a log-mel spectrogram."""


class Preprocessing(Protocol):
    """How raw input becomes the inputs of programs: a frozen record, told apart from others by its kind."""

    @property
    def kind(self) -> str:
        """As "text"."""


class Postprocessing(Protocol):
    """How outputs of programs become an answer: a frozen record, told apart from others by its kind."""

    @property
    def kind(self) -> str:
        """As "classification"."""


@dataclass(frozen=True)
class TextPreprocessing:
    """Text to token ids. Every program of the bundle is a bucket whose length is dimension 1 of `input_ids`.

    `tokenizer` names a tokenizers JSON file, or is None when the checkpoint had none and callers bring token ids.
    `vocab_size` is the number of rows of the model's embedding table: token ids must be below it. None: unknown.
    """

    tokenizer: str | None
    pad_token_id: int
    vocab_size: int | None = None
    kind: str = "text"


@dataclass(frozen=True)
class Classification:
    """Scores from logits: `activation` is "softmax" (one label holds) or "sigmoid" (any number of them)."""

    labels: tuple[str, ...]
    activation: str
    kind: str = "classification"


@dataclass(frozen=True)
class Score:
    """The program's only output is one number: a score as it is (`activation` "none"), or of which the sigmoid is."""

    activation: str
    kind: str = "score"


@dataclass(frozen=True)
class Embedding:
    """The program's output is the embedding itself, pooled and, where `normalized`, of L2 norm 1."""

    dim: int
    normalized: bool
    kind: str = "embedding"


# How a speech model's programs are called and its tokens read.

HOST_STATE = "host"
PROGRAM_STATE = "program"
STATES = (HOST_STATE, PROGRAM_STATE)


@dataclass(frozen=True)
class SpeechTokens:
    """The ids of the tokens that steer a Whisper decoder (Radford et al. 2022, figure 1). None: the model has none.

    Attributes:
        start: starts every transcript.
        end: ends every transcript.
        start_of_previous: starts a prompt, the text that came before.
        no_speech: the model's word for "nobody speaks"; its probability after `start` is what matters.
        no_timestamps: asks for text alone.
        first_timestamp: 0.00 seconds; each further id is `seconds_per_timestamp` later.
        transcribe, translate: the task, of multilingual models.
        languages: id by language code ("en"), of multilingual models; else empty.
    """

    start: int
    end: int
    start_of_previous: int | None
    no_speech: int | None
    no_timestamps: int
    first_timestamp: int
    transcribe: int | None
    translate: int | None
    languages: dict[str, int]

    @property
    def reference_language(self) -> str:
        """The language of the reference answer: English, or the first that a model without English knows."""
        return min(self.languages) if self.languages and "en" not in self.languages else "en"


@dataclass(frozen=True)
class AudioBucket:
    """Programs for audio of up to `positions` positions of the encoder.

    Attributes:
        positions: T, positions that are computed from audio.
        tail: positions of precomputed silence that stand in for the rest of the window; attention has S = T + tail.
        rows: L, slots of the decoder's self-attention cache: tokens of prompt and transcript together.
        encode, prefill, decode: names of programs.
    """

    positions: int
    tail: int
    rows: int
    encode: str
    prefill: str
    decode: str


@dataclass(frozen=True)
class Transcription:
    """From the decoder's logits to text.

    Attributes:
        tokenizer: the bundle's tokenizers file; decoding is byte-level BPE.
        tokens: the special tokens.
        suppress: ids that are never an answer.
        suppress_at_start: ids that are no first answer.
        vocab_size: V, length of the logits.
        layers, heads, head_dim: of the decoder; they shape its caches.
        alignment_heads: A, heads whose attention to the audio the programs give, for the times of words.
        prefill_tokens: P, tokens that `prefill` takes at once.
        state: who keeps the decoder's self-attention cache: "host" (it is an input, and new rows are outputs) or
            "program" (the program writes the rows that it is told to).
        seconds_per_timestamp: from one timestamp token to the next.
        max_initial_timestamp: the latest first timestamp of a window, in seconds.
        buckets: in the order of their positions; the last one takes the whole window.
    """

    tokenizer: str
    tokens: SpeechTokens
    suppress: tuple[int, ...]
    suppress_at_start: tuple[int, ...]
    vocab_size: int
    layers: int
    heads: int
    head_dim: int
    alignment_heads: int
    prefill_tokens: int
    state: str
    seconds_per_timestamp: float
    max_initial_timestamp: float
    buckets: tuple[AudioBucket, ...]
    kind: str = "transcription"

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise InputError(f"transcription: state must be one of {', '.join(STATES)}, found {self.state!r}")
        positions = [bucket.positions for bucket in self.buckets]
        if not positions or positions != sorted(set(positions)):
            raise InputError(f"transcription: expected buckets of rising positions, found {positions}")
        sizes = (self.vocab_size, self.layers, self.heads, self.head_dim, self.alignment_heads, self.prefill_tokens)
        if min(sizes) < 1 or min(positions) < 1 or min(bucket.rows for bucket in self.buckets) < 4:
            raise InputError("transcription: sizes must be at least 1, and a cache has at least 4 rows")


def bucket_of(head: Transcription, encode: str) -> AudioBucket:
    """The bucket whose `encode` program has that name."""
    return next(bucket for bucket in head.buckets if bucket.encode == encode)


# What a speech model expects of its audio, as data: the part of audio preprocessing that a manifest holds.


@dataclass(frozen=True)
class AudioPreprocessing:
    """Audio to a log-mel spectrogram (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak
    Supervision", section 2.2).

    Attributes:
        sample_rate: of the model, in Hz; audio of another rate is resampled.
        n_fft: samples of one frame, under a periodic Hann window.
        hop_length: samples from one frame to the next; an encoder position is two frames.
        n_mels: bands of the mel scale.
        mel_filters: the bundle's file with the filter bank: safetensors, one float32 tensor `mel_filters` of shape
            (n_mels, n_fft // 2 + 1).
        window_seconds: the longest audio that one run of the model takes.
        log_floor: what powers are raised to before the logarithm (base 10).
        dynamic_range: how far below the largest value of the window others may lie, in powers of ten.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    mel_filters: str
    window_seconds: int
    log_floor: float
    dynamic_range: float
    kind: str = "audio"

    def __post_init__(self) -> None:
        for name, value in (
            ("sample_rate", self.sample_rate),
            ("n_fft", self.n_fft),
            ("hop_length", self.hop_length),
            ("n_mels", self.n_mels),
            ("window_seconds", self.window_seconds),
            ("log_floor", self.log_floor),
            ("dynamic_range", self.dynamic_range),
        ):
            if value <= 0:
                raise InputError(f"audio preprocessing: {name} must be above 0, found {value!r}")
        if self.n_fft % 2 or self.hop_length > self.n_fft:
            raise InputError(
                f"audio preprocessing: expected an even n_fft of at least hop_length, found {self.n_fft} and "
                f"{self.hop_length}"
            )

    @property
    def samples_per_position(self) -> int:
        """Samples that one position of the encoder stands for: two frames, as its second convolution has stride 2."""
        return 2 * self.hop_length


# What a program takes and gives, tensor by tensor.


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype ("float32", "int32", ...) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ProgramSpec:
    """One callable of a model file: `entry` is the signature, function or method that runs it inside `file`."""

    name: str
    file: str
    entry: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


# The inputs and outputs of a speech bucket's programs, from the numbers in its manifest. BUNDLE.md has it in words.
# Key: T positions computed from audio, S = T + tail, L slots of the self-attention cache, P tokens of a prefill, H
# heads, D head dim, V vocabulary, A alignment heads. Caches are flat: keys [H, D, S or L], values [H, S or L, D].

FRAMES_PER_POSITION = 2


@dataclass(frozen=True)
class ProgramLayout:
    """One program's name and tensors."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class CacheSizes(Protocol):
    """The numbers that shape the programs of a decoder with a cache: of a `Transcription`, or of a `Generation`."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def layers(self) -> int:
        """Of the decoder."""

    @property
    def heads(self) -> int:
        """H, of keys and values."""

    @property
    def head_dim(self) -> int:
        """D."""

    @property
    def prefill_tokens(self) -> int:
        """P."""

    @property
    def state(self) -> str:
        """ "host" or "program"."""


class SpeechSizes(CacheSizes, Protocol):
    """Those of a `Transcription`; whoever makes programs knows no more of it."""

    @property
    def alignment_heads(self) -> int:
        """A."""


def cache_names(layers: int, kind: str) -> tuple[str, ...]:
    """`<kind>_k_0`, `<kind>_v_0`, `<kind>_k_1`, ...: the names of one kind of cache ("cross", "self", "new")."""
    return tuple(f"{kind}_{part}_{layer}" for layer in range(layers) for part in "kv")


def bucket_layout(spec: SpeechSizes, bucket: AudioBucket, n_mels: int) -> tuple[ProgramLayout, ...]:
    """`encode`, `prefill` and `decode` of a bucket, in this order."""
    mel = TensorSpec("mel", "float32", (1, n_mels, FRAMES_PER_POSITION * bucket.positions))
    return (
        ProgramLayout(bucket.encode, (mel,), _cross(spec, bucket)),
        ProgramLayout(
            bucket.prefill,
            (
                *_decoder_inputs(spec, bucket, ("tokens", "positions", "rows"), spec.prefill_tokens),
                TensorSpec("wanted", "int32", (2,)),
            ),
            _decoder_outputs(spec, bucket, (2, spec.vocab_size), spec.prefill_tokens),
        ),
        ProgramLayout(
            bucket.decode,
            _decoder_inputs(spec, bucket, ("token", "position", "row"), 1),
            _decoder_outputs(spec, bucket, (spec.vocab_size,), 1),
        ),
    )


def _decoder_inputs(
    spec: SpeechSizes, bucket: AudioBucket, names: tuple[str, str, str], count: int
) -> tuple[TensorSpec, ...]:
    """What prefill and decode take: tokens, positions and rows under their names, the mask, and the caches."""
    tokens, positions, rows = (TensorSpec(name, "int32", (count,)) for name in names)
    mask = TensorSpec("mask", "float32", (bucket.rows,))
    if spec.state != HOST_STATE:
        return (tokens, positions, rows, mask, *_cross(spec, bucket))
    return (tokens, positions, mask, *_caches(spec, "self", bucket.rows), *_cross(spec, bucket))


def _decoder_outputs(
    spec: SpeechSizes, bucket: AudioBucket, logits: tuple[int, ...], count: int
) -> tuple[TensorSpec, ...]:
    """What prefill and decode give: logits, alignment, and the rows that a host has to keep."""
    alignment = TensorSpec("alignment", "float32", (spec.alignment_heads, bucket.positions + bucket.tail))
    new = _caches(spec, "new", count) if spec.state == HOST_STATE else ()
    return (TensorSpec("logits", "float32", logits), alignment, *new)


def _cross(spec: SpeechSizes, bucket: AudioBucket) -> tuple[TensorSpec, ...]:
    return _caches(spec, "cross", bucket.positions + bucket.tail)


def _caches(spec: SpeechSizes, kind: str, length: int) -> tuple[TensorSpec, ...]:
    size = spec.heads * spec.head_dim * length
    return tuple(TensorSpec(name, "float32", (size,)) for name in cache_names(spec.layers, kind))
