"""The inputs and outputs of a speech bucket's programs, from the numbers in its manifest. BUNDLE.md has it in words.

Key: T positions computed from sound, S = T + tail, L rows of the self-attention cache, P tokens of a prefill, H heads,
D head dim, V vocabulary, A alignment heads. Caches are flat: keys [H, D, S or L], values [H, S or L, D].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgeformer_runtime.bundle.specs import HOST_STATE, AudioBucket
from edgeformer_runtime.bundle.tensor_spec import TensorSpec

FRAMES_PER_POSITION = 2


@dataclass(frozen=True)
class ProgramLayout:
    """One program's name and tensors."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class SpeechSizes(Protocol):
    """The numbers of a `Transcription` that shape its programs; whoever makes programs knows no more of it."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def layers(self) -> int:
        """Of the decoder."""

    @property
    def heads(self) -> int:
        """H."""

    @property
    def head_dim(self) -> int:
        """D."""

    @property
    def alignment_heads(self) -> int:
        """A."""

    @property
    def prefill_tokens(self) -> int:
        """P."""

    @property
    def state(self) -> str:
        """ "host" or "program"."""


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
                *_steered(spec, bucket, ("tokens", "positions", "rows"), spec.prefill_tokens),
                TensorSpec("wanted", "int32", (2,)),
            ),
            _answered(spec, bucket, (2, spec.vocab_size), spec.prefill_tokens),
        ),
        ProgramLayout(
            bucket.decode,
            _steered(spec, bucket, ("token", "position", "row"), 1),
            _answered(spec, bucket, (spec.vocab_size,), 1),
        ),
    )


def _steered(spec: SpeechSizes, bucket: AudioBucket, names: tuple[str, str, str], count: int) -> tuple[TensorSpec, ...]:
    """What prefill and decode take: tokens, positions and rows under their names, the mask, and the caches."""
    tokens, positions, rows = (TensorSpec(name, "int32", (count,)) for name in names)
    mask = TensorSpec("mask", "float32", (bucket.rows,))
    if spec.state != HOST_STATE:
        return (tokens, positions, rows, mask, *_cross(spec, bucket))
    return (tokens, positions, mask, *_caches(spec, "self", bucket.rows), *_cross(spec, bucket))


def _answered(spec: SpeechSizes, bucket: AudioBucket, logits: tuple[int, ...], count: int) -> tuple[TensorSpec, ...]:
    """What prefill and decode give: logits, alignment, and the rows that a host has to keep."""
    alignment = TensorSpec("alignment", "float32", (spec.alignment_heads, bucket.positions + bucket.tail))
    new = _caches(spec, "new", count) if spec.state == HOST_STATE else ()
    return (TensorSpec("logits", "float32", logits), alignment, *new)


def _cross(spec: SpeechSizes, bucket: AudioBucket) -> tuple[TensorSpec, ...]:
    return _caches(spec, "cross", bucket.positions + bucket.tail)


def _caches(spec: SpeechSizes, kind: str, length: int) -> tuple[TensorSpec, ...]:
    size = spec.heads * spec.head_dim * length
    return tuple(TensorSpec(name, "float32", (size,)) for name in cache_names(spec.layers, kind))
