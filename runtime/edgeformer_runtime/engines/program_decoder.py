"""A speech decoder whose self-attention cache lives inside the programs: they write the rows that they are told to."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.engines.decoder import DecoderOutput, Floats
from edgeformer_runtime.engines.host_decoder import check_mask, check_open, check_rows, padded_tokens
from edgeformer_runtime.errors import EngineError

RunInPlace = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""As `Engine.run`, but the `cross` tensors may be of the engine's own kind: what encode gives goes back as it is."""

# Which decoder heard last, for each place that keeps the state of a bucket: `run` belongs to that place.
_LISTENERS: weakref.WeakKeyDictionary[Any, dict[AudioBucket, weakref.ref[Any]]] = weakref.WeakKeyDictionary()


class ProgramStateDecoder:
    """A `SpeechDecoder` over programs that keep their state between calls.

    Where several decoders of one bucket share a place for it (the same engine's `run`), it belongs to the one that
    encoded last: the others are refused until they encode again. Engines that can give each decoder a place of its own.
    """

    def __init__(
        self, run: RunInPlace, bucket: AudioBucket, spec: Transcription, release: Callable[[], None] | None = None
    ) -> None:
        """Decode with the programs of a bucket, whose state is "program".

        Args:
            run: a bound method; whatever it is bound to keeps the state.
            bucket: names the programs.
            spec: the manifest's.
            release: called once, when the decoder is closed.
        """
        self.rows = bucket.rows
        self.prefill_tokens = spec.prefill_tokens
        self._run = run
        self._release = release
        self._bucket = bucket
        self._listeners = _LISTENERS.setdefault(getattr(run, "__self__", run), {})
        self._cross: dict[str, Any] = {}
        self._closed = False

    def encode(self, mel: Floats) -> None:
        """Hear a sound; see `SpeechDecoder.encode`. The rows of what was fed before are hidden by the masks to come."""
        check_open(self._closed, True)
        self._cross = dict(self._run(self._bucket.encode, {"mel": mel}))
        self._listeners[self._bucket] = weakref.ref(self)

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `SpeechDecoder.step`."""
        self._check_heard()
        check_rows(row, 1, self.rows)
        check_mask(mask, self.rows)
        steered = {"token": _int32(token), "position": _int32(position), "row": _int32(row), "mask": mask}
        outputs = self._run(self._bucket.decode, steered | self._cross)
        return DecoderOutput(outputs["logits"], self._sound(outputs["alignment"]))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `SpeechDecoder.prefill`."""
        self._check_heard()
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        check_rows(row, len(tokens), self.rows)
        check_mask(mask, self.rows)
        # Rows beyond the last one go nowhere, so padding corrupts no row of another hypothesis.
        rows = np.full(self.prefill_tokens, self.rows, np.int32)
        rows[: len(tokens)] = np.arange(row, row + len(tokens))
        steered = {"tokens": padded, "positions": positions, "rows": rows, "mask": mask, "wanted": _int32(*wanted)}
        outputs = self._run(self._bucket.prefill, steered | self._cross)
        logits, alignment = outputs["logits"], self._sound(outputs["alignment"])
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._cross = {}
            if self._release is not None:
                self._release()

    def _check_heard(self) -> None:
        check_open(self._closed, bool(self._cross))
        last = self._listeners.get(self._bucket)
        if last is None or last() is not self:
            raise EngineError(
                f"another decoder of {self._bucket.positions} positions has taken the programs' state: encode again"
            )

    def _sound(self, alignment: Floats) -> Floats:
        """The columns of (A, S) that stand for sound."""
        return alignment[:, : self._bucket.positions]


def _int32(*values: int) -> Any:
    return np.array(values, np.int32)
