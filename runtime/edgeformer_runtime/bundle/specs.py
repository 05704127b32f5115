"""How a speech model's programs are called and its tokens read, as data: the part that a manifest holds."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer_runtime.errors import InputError

HOST_STATE = "host"
PROGRAM_STATE = "program"
STATES = (HOST_STATE, PROGRAM_STATE)


@dataclass(frozen=True)
class SpeechTokens:
    """The ids of the tokens that steer a Whisper decoder (Radford et al. 2022, figure 1). None: the model has none.

    Attributes:
        start: begins every transcript.
        end: ends every transcript.
        start_of_previous: begins a prompt, the text that came before.
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
    """Programs for sound of up to `positions` positions of the encoder.

    Attributes:
        positions: T, positions that are computed from sound.
        tail: positions of precomputed silence that stand in for the rest of the window; attention has S = T + tail.
        rows: L, rows of the decoder's self-attention cache: tokens of prompt and transcript together.
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
        alignment_heads: A, heads whose attention to the sound the programs give, for the times of words.
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
