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


class StateOwners:
    """Whose tokens the programs of an engine hold: of each bucket the decoder's that encoded last.

    An engine whose decoders share its programs has one; where each decoder has programs of its own, each has one, too.
    """

    def __init__(self) -> None:
        self._owners: dict[AudioBucket, weakref.ref[ProgramStateDecoder]] = {}

    def take(self, bucket: AudioBucket, decoder: ProgramStateDecoder) -> None:
        """The state of a bucket's programs is this decoder's from now on."""
        self._owners[bucket] = weakref.ref(decoder)

    def check(self, bucket: AudioBucket, decoder: ProgramStateDecoder) -> None:
        """Refuse a decoder that another one took the state from.

        Raises:
            EngineError: it has to encode again.
        """
        owner = self._owners.get(bucket)
        if owner is None or owner() is not decoder:
            raise EngineError(
                f"another decoder of {bucket.positions} positions has taken the programs' state: encode again"
            )


class ProgramStateDecoder:
    """A `SpeechDecoder` over programs that keep their state between calls.

    Where several decoders of one bucket share the programs, the state belongs to the one that encoded last: the others
    are refused until they encode again. Engines that can give each decoder programs of its own.
    """

    def __init__(
        self,
        run: RunInPlace,
        bucket: AudioBucket,
        spec: Transcription,
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
        self._closed = False

    def encode(self, mel: Floats) -> None:
        """Encode audio; see `SpeechDecoder.encode`. The masks to come hide the slots of what was fed before."""
        check_open(self._closed, True)
        self._cross = dict(self._run(self._bucket.encode, {"mel": mel}))
        self._owners.take(self._bucket, self)

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `SpeechDecoder.step`."""
        self._check_encoded()
        check_rows(row, 1, self.rows)
        check_mask(mask, self.rows)
        steered = {"token": _int32(token), "position": _int32(position), "row": _int32(row), "mask": mask}
        outputs = self._run(self._bucket.decode, steered | self._cross)
        return DecoderOutput(outputs["logits"], self._audio(outputs["alignment"]))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `SpeechDecoder.prefill`."""
        self._check_encoded()
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        check_rows(row, len(tokens), self.rows)
        check_mask(mask, self.rows)
        # Rows beyond the last one go nowhere, so padding corrupts no row of another hypothesis.
        rows = np.full(self.prefill_tokens, self.rows, np.int32)
        rows[: len(tokens)] = np.arange(row, row + len(tokens))
        steered = {"tokens": padded, "positions": positions, "rows": rows, "mask": mask, "wanted": _int32(*wanted)}
        outputs = self._run(self._bucket.prefill, steered | self._cross)
        logits, alignment = outputs["logits"], self._audio(outputs["alignment"])
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._cross = {}
            if self._release is not None:
                self._release()

    def _check_encoded(self) -> None:
        check_open(self._closed, bool(self._cross))
        self._owners.check(self._bucket, self)

    def _audio(self, alignment: Floats) -> Floats:
        """The columns of (A, S) that stand for audio."""
        return alignment[:, : self._bucket.positions]


def _int32(*values: int) -> Any:
    return np.array(values, np.int32)
