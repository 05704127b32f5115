"""What a pipeline of speech or generated text sees of an engine: tokens in, logits out; the caches stay inside.

Two decoders do it over a bundle's programs: one keeps the self-attention cache here, the other in the programs. A
speech model encodes audio first; a text model has nothing to encode.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.specs import CacheSizes as CacheSizes
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError

Floats = NDArray[np.float32]


class CacheBucket(Protocol):
    """What a decoder needs of a bucket in the manifest: an `AudioBucket`, or a `TextBucket`."""

    @property
    def rows(self) -> int:
        """L, slots of the self-attention cache."""

    @property
    def positions(self) -> int:
        """T, positions of the audio; 0 of text."""

    @property
    def encode(self) -> str | None:
        """The program that encodes audio; None of text."""

    @property
    def prefill(self) -> str:
        """The program that takes several tokens at once."""

    @property
    def decode(self) -> str:
        """The program that takes one token."""


@dataclass(frozen=True)
class DecoderOutput:
    """What follows a token.

    Attributes:
        logits: (V,) float32, the caller's to change until the next call.
        alignment: (A, T) float32, attention of the alignment heads from this token to the audio; rows do not sum to 1
            where silence stands in for a part of the window. (0, 0) of text.
    """

    logits: Floats
    alignment: Floats


class TokenDecoder(Protocol):
    """One bucket's programs with their caches. Not for several threads at once.

    The self-attention cache has L rows, each of which holds one token that was fed. A hypothesis is the set of rows
    that its tokens lie in: `mask` (L,) float32 holds 0 for these and a large negative number for all others. So
    greedy decoding uses row = position, and beams share the rows of what they have in common: nothing is ever copied.
    """

    rows: int
    """L."""

    prefill_tokens: int
    """P, the most tokens that `prefill` takes."""

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token, written to `row`; it sees the rows of `mask` and itself."""

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once: the first at `position` into `row`, the others right behind it.

        Each sees the rows of `mask`, those before it in this call, and itself.

        Returns:
            What follows the tokens number wanted[0] and wanted[1] of this call. Only the second has an alignment;
            the first one's is empty, (A, 0).
        """

    def close(self) -> None:
        """Release the caches. A second call does nothing."""


class SpeechDecoder(TokenDecoder, Protocol):
    """A decoder of speech, which sees the audio that was encoded last."""

    def encode(self, mel: Floats) -> None:
        """Encode a recording; everything fed before is forgotten. mel: (1, n_mels, 2 T) float32."""


# The rows of a decoder's cache that a hypothesis sees, as an additive attention mask.


SEEN = np.float32(0)
HIDDEN = np.float32(-1000)
"""Finite and far inside float16; exp of it is 0 for every spread of scores below 900."""


def hidden_rows(rows: int) -> Floats:
    """A mask (L,) float32 that hides every row."""
    return np.full(rows, HIDDEN, np.float32)


def free_rows(masks: list[Floats]) -> list[int]:
    """The rows that no mask (L,) sees, in order: what was written there is no longer needed."""
    hidden = masks[0] < 0
    for mask in masks[1:]:
        hidden &= mask < 0
    return [int(row) for row in np.flatnonzero(hidden)]


# A decoder whose self-attention cache is kept here, in numpy: for every engine that runs programs on arrays.


Run = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""`Engine.run`."""


class HostCache:
    """Writes new rows into the self-attention keys and values of a bucket, which lie in arrays of the caller's."""

    def __init__(self, bucket: CacheBucket, spec: CacheSizes, arrays: Mapping[str, Tensor]) -> None:
        """arrays: by name, with each layer's `self_k_<i>` [H, D, L] and `self_v_<i>` [H, L, D], flat float32."""
        heads, head_dim, rows = spec.heads, spec.head_dim, bucket.rows
        layers = range(spec.layers)
        self._keys = [arrays[f"self_k_{layer}"].reshape(heads, head_dim, rows) for layer in layers]
        self._values = [arrays[f"self_v_{layer}"].reshape(heads, rows, head_dim) for layer in layers]

    def write(self, row: int, count: int, new: Mapping[str, Tensor]) -> None:
        """Store the first `count` of the N tokens of a program's `new_k_<i>` [H, D, N] and `new_v_<i>` [H, N, D]."""
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            heads, head_dim, _ = keys.shape
            keys[:, :, row : row + count] = new[f"new_k_{layer}"].reshape(heads, head_dim, -1)[:, :, :count]
            values[:, row : row + count] = new[f"new_v_{layer}"].reshape(heads, -1, head_dim)[:, :count]

    def clear(self) -> None:
        """Let go of the arrays."""
        self._keys, self._values = [], []


class HostStateDecoder:
    """A decoder over `Engine.run`: the caches go in as arrays, new rows come out and are written here."""

    def __init__(self, run: Run, bucket: CacheBucket, spec: CacheSizes) -> None:
        """Decode with the programs of a bucket, whose state is "host"."""
        self.rows = bucket.rows
        self.prefill_tokens = spec.prefill_tokens
        self._run = run
        self._bucket = bucket
        size = spec.heads * spec.head_dim * bucket.rows
        names = (f"self_{part}_{layer}" for layer in range(spec.layers) for part in "kv")
        self._arrays: dict[str, Tensor] = {name: np.zeros(size, np.float32) for name in names}
        self._cache = HostCache(bucket, spec, self._arrays)
        self._cross: dict[str, Tensor] = {}
        self._encoded = bucket.encode is None
        self._closed = False

    def encode(self, mel: Floats) -> None:
        """Encode a recording; see `SpeechDecoder.encode`."""
        check_open(self._closed, True)
        self._cross = dict(self._run(encoder_of(self._bucket), {"mel": mel}))
        self._encoded = True

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `TokenDecoder.step`."""
        check_open(self._closed, self._encoded)
        check_rows(row, 1, self.rows)
        check_mask(mask, self.rows)
        inputs = {"token": _int32(token), "position": _int32(position), "mask": mask}
        outputs = self._run(self._bucket.decode, inputs | self._arrays | self._cross)
        self._cache.write(row, 1, outputs)
        return DecoderOutput(_floats(outputs["logits"]), alignment_of(outputs, self._bucket))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `TokenDecoder.prefill`."""
        check_open(self._closed, self._encoded)
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        check_rows(row, len(tokens), self.rows)
        check_mask(mask, self.rows)
        inputs = {"tokens": padded, "positions": positions, "mask": mask, "wanted": _int32(*wanted)}
        outputs = self._run(self._bucket.prefill, inputs | self._arrays | self._cross)
        self._cache.write(row, len(tokens), outputs)
        logits = _floats(outputs["logits"])
        alignment = alignment_of(outputs, self._bucket)
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        self._closed = True
        self._cross, self._arrays = {}, {}
        self._cache.clear()


_NO_AUDIO = np.zeros((0, 0), np.float32)


def alignment_of(outputs: Mapping[str, Any], bucket: CacheBucket) -> Floats:
    """The columns of a program's alignment (A, S) that stand for audio; (0, 0) of text, whose programs have none."""
    return np.asarray(outputs["alignment"], np.float32)[:, : bucket.positions] if bucket.positions else _NO_AUDIO


def encoder_of(bucket: CacheBucket) -> str:
    """The program that encodes audio.

    Raises:
        EngineError: the bucket is of text.
    """
    if bucket.encode is None:
        raise EngineError("a decoder of text has nothing to encode")
    return bucket.encode


def check_open(closed: bool, encoded: bool) -> None:
    """Raises EngineError: the decoder is closed, or is fed tokens before any audio."""
    if closed:
        raise EngineError("the decoder is closed")
    if not encoded:
        raise EngineError("the speech decoder has encoded nothing yet: call encode first")


def check_rows(row: int, count: int, rows: int) -> None:
    """Raises InputError: `count` tokens from `row` on do not lie in a cache of so many rows."""
    if not 0 <= row <= rows - count:
        raise InputError(f"expected {count} of the cache's slots 0 to {rows - 1}, found {row} to {row + count - 1}")


def check_mask(mask: Floats, rows: int) -> None:
    """Raises InputError: the mask is not (L,) float32."""
    if mask.dtype != np.float32 or mask.shape != (rows,):
        raise InputError(f"mask: expected float32 ({rows},), found {mask.dtype} {mask.shape}")


def padded_tokens(tokens: Sequence[int], position: int, wanted: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """The tokens and their positions as `prefill` takes them, (P,) int32 each.

    Padding repeats the last token, so that its id and its position exist; it comes last, where no token sees it.

    Raises:
        InputError: no token, more than P, or a wanted one that is not among them.
    """
    count = len(tokens)
    if not 1 <= count <= size:
        raise InputError(f"prefill: expected 1 to {size} tokens, found {count}")
    if not all(0 <= index < count for index in wanted):
        raise InputError(f"prefill: expected wanted tokens of 0 to {count - 1}, found {', '.join(map(str, wanted))}")
    indices = np.minimum(np.arange(size), count - 1)
    return np.asarray(tokens, np.int32)[indices], (position + indices).astype(np.int32)


def _int32(*values: int) -> Tensor:
    return np.array(values, np.int32)


def _floats(tensor: Tensor) -> Floats:
    """The array itself: `check_outputs` has seen that it is float32."""
    return np.asarray(tensor, np.float32)


# A decoder whose self-attention cache lives inside the programs: they write the rows that they are told to.


RunInPlace = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""As `Engine.run`, but the `cross` tensors may be of the engine's own kind: what encode gives goes back as it is."""


class StateOwners:
    """Whose tokens the programs of an engine hold: of each bucket the decoder's that encoded or, of text, opened last.

    An engine whose decoders share its programs has one; where each decoder has programs of its own, each has one, too.
    """

    def __init__(self) -> None:
        self._owners: dict[CacheBucket, weakref.ref[ProgramStateDecoder]] = {}

    def take(self, bucket: CacheBucket, decoder: ProgramStateDecoder) -> None:
        """The state of a bucket's programs is this decoder's from now on."""
        self._owners[bucket] = weakref.ref(decoder)

    def check(self, bucket: CacheBucket, decoder: ProgramStateDecoder) -> None:
        """Refuse a decoder that another one took the state from.

        Raises:
            EngineError: it has to encode again; of text, to be opened again.
        """
        owner = self._owners.get(bucket)
        if owner is None or owner() is not decoder:
            what = f"{bucket.positions} positions" if bucket.positions else f"{bucket.rows} slots"
            again = "open it again" if bucket.encode is None else "encode again"
            raise EngineError(f"another decoder of {what} has taken the programs' state: {again}")


class ProgramStateDecoder:
    """A decoder over programs that keep their state between calls.

    Where several decoders of one bucket share the programs, the state belongs to the one that encoded last, or of text
    was opened last: the others are refused until they encode again. Engines that can give each decoder programs of its
    own.
    """

    def __init__(
        self,
        run: RunInPlace,
        bucket: CacheBucket,
        spec: CacheSizes,
        owners: StateOwners,
        release: Callable[[], None] | None = None,
    ) -> None:
        """Decode with the programs of a bucket, whose state is "program".

        Args:
            run: runs the programs that keep the state.
            bucket: names the programs.
            spec: the manifest's.
            owners: of the same programs.
            release: called once, when the decoder is closed.
        """
        self.rows = bucket.rows
        self.prefill_tokens = spec.prefill_tokens
        self._run = run
        self._release = release
        self._bucket = bucket
        self._owners = owners
        self._cross: dict[str, Any] = {}
        self._encoded = bucket.encode is None
        self._closed = False
        if self._encoded:
            owners.take(bucket, self)

    def encode(self, mel: Floats) -> None:
        """Encode audio; see `SpeechDecoder.encode`. The masks to come hide the slots of what was fed before."""
        check_open(self._closed, True)
        self._cross = dict(self._run(encoder_of(self._bucket), {"mel": mel}))
        self._encoded = True
        self._owners.take(self._bucket, self)

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `TokenDecoder.step`."""
        self._check_encoded()
        check_rows(row, 1, self.rows)
        check_mask(mask, self.rows)
        steered = {"token": _int32(token), "position": _int32(position), "row": _int32(row), "mask": mask}
        outputs = self._run(self._bucket.decode, steered | self._cross)
        return DecoderOutput(outputs["logits"], alignment_of(outputs, self._bucket))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `TokenDecoder.prefill`."""
        self._check_encoded()
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        check_rows(row, len(tokens), self.rows)
        check_mask(mask, self.rows)
        # Rows beyond the last one go nowhere, so padding corrupts no row of another hypothesis.
        rows = np.full(self.prefill_tokens, self.rows, np.int32)
        rows[: len(tokens)] = np.arange(row, row + len(tokens))
        steered = {"tokens": padded, "positions": positions, "rows": rows, "mask": mask, "wanted": _int32(*wanted)}
        outputs = self._run(self._bucket.prefill, steered | self._cross)
        logits, alignment = outputs["logits"], alignment_of(outputs, self._bucket)
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._cross = {}
            if self._release is not None:
                self._release()

    def _check_encoded(self) -> None:
        check_open(self._closed, self._encoded)
        self._owners.check(self._bucket, self)
