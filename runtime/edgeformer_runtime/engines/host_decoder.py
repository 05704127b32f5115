"""A speech decoder whose self-attention cache is kept here, in numpy: for every engine that runs programs on arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.decoder import DecoderOutput, Floats
from edgeformer_runtime.errors import EngineError, InputError

Run = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""`Engine.run`."""


class HostCache:
    """Writes new rows into the self-attention keys and values of a bucket, which lie in arrays of the caller's."""

    def __init__(self, bucket: AudioBucket, spec: Transcription, arrays: Mapping[str, Tensor]) -> None:
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
    """A `SpeechDecoder` over `Engine.run`: the caches go in as arrays, new rows come out and are written here."""

    def __init__(self, run: Run, bucket: AudioBucket, spec: Transcription) -> None:
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
        self._closed = False

    def encode(self, mel: Floats) -> None:
        """Encode a recording; see `SpeechDecoder.encode`."""
        self._check_open()
        self._cross = dict(self._run(self._bucket.encode, {"mel": mel}))

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `SpeechDecoder.step`."""
        self._check_open(encoded=True)
        check_rows(row, 1, self.rows)
        check_mask(mask, self.rows)
        inputs = {"token": _int32(token), "position": _int32(position), "mask": mask}
        outputs = self._run(self._bucket.decode, inputs | self._arrays | self._cross)
        self._cache.write(row, 1, outputs)
        return DecoderOutput(_floats(outputs["logits"]), self._audio(outputs["alignment"]))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `SpeechDecoder.prefill`."""
        self._check_open(encoded=True)
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        check_rows(row, len(tokens), self.rows)
        check_mask(mask, self.rows)
        inputs = {"tokens": padded, "positions": positions, "mask": mask, "wanted": _int32(*wanted)}
        outputs = self._run(self._bucket.prefill, inputs | self._arrays | self._cross)
        self._cache.write(row, len(tokens), outputs)
        logits = _floats(outputs["logits"])
        alignment = self._audio(outputs["alignment"])
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        self._closed = True
        self._cross, self._arrays = {}, {}
        self._cache.clear()

    def _check_open(self, encoded: bool = False) -> None:
        check_open(self._closed, not encoded or bool(self._cross))

    def _audio(self, alignment: Tensor) -> Floats:
        """The columns of (A, S) that stand for audio."""
        return _floats(alignment)[:, : self._bucket.positions]


def check_open(closed: bool, encoded: bool) -> None:
    """Raises EngineError: the decoder is closed, or is fed tokens before any audio."""
    if closed:
        raise EngineError("the speech decoder is closed")
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
