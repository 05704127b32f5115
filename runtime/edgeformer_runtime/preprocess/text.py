"""Text to token ids in the smallest bucket that fits, exactly as the checkpoint's own tokenizer does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.tokenizer import Tokenizer

RawText = str | tuple[str, str] | Sequence[int]
"""A text, a pair of texts, or token ids with the special tokens already among them."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one input in its bucket.

    Attributes:
        program: the bucket's program.
        inputs: its declared inputs, each (1, S) int32.
        truncated: the input was longer than the largest bucket and lost its end.
    """

    program: str
    inputs: dict[str, Tensor]
    truncated: bool


class TextEncoder:
    """Turns raw text into the inputs of a program. Calls from several threads are safe: nothing changes after init."""

    def __init__(
        self,
        spec: TextPreprocessing,
        tokenizer_json: str | None,
        programs: Sequence[ProgramSpec],
        known: bool = False,
    ) -> None:
        """Load the tokenizer.

        Args:
            spec: the manifest's preprocessing.
            tokenizer_json: the text of the tokenizer file, None where the spec names none.
            programs: the buckets; dimension 1 of their inputs is the length.
            known: the tokenizer file was checked before, as `Bundle.known` says.

        Raises:
            BundleError: the tokenizer file cannot be used.
        """
        self._spec = spec
        self._buckets = sorted((program.inputs[0].shape[1], program) for program in programs)  # lengths are unique
        self._longest = self._buckets[-1][0]
        where = spec.tokenizer or "the tokenizer"
        self._tokenizer = None if tokenizer_json is None else Tokenizer(tokenizer_json, where, self._longest, known)
        self._vocab_size = spec.vocab_size
        if self._vocab_size is None and self._tokenizer is not None:
            self._vocab_size = max(self._tokenizer.vocabulary_size, 1)

    def encode(self, raw: RawText) -> Encoded:
        """Encode one input.

        Raises:
            InputError: not text, text that is no Unicode, or token ids that the model does not have.
        """
        if isinstance(raw, str):
            return self._encode_text(raw, None)
        if isinstance(raw, Sequence) and len(raw) == 2 and isinstance(raw[0], str) and isinstance(raw[1], str):
            return self._encode_text(raw[0], raw[1])
        if isinstance(raw, Sequence) and not isinstance(raw, (bytes, bytearray)):
            return self._encode_ids(raw)
        raise InputError(
            f"expected a text, a pair of texts or a list of token ids, found {type(raw).__name__} {shorten(raw, 40)}"
        )

    def _encode_text(self, text: str, pair: str | None) -> Encoded:
        if self._tokenizer is None:
            raise InputError("this bundle has no tokenizer and takes token ids only: pass a list of integers")
        if pair is not None and self._tokenizer.special_tokens(pair=True) >= self._longest:
            raise InputError(f"a pair of texts does not fit into the {self._longest} positions of this bundle")
        encoding = self._tokenizer.encode(text, pair)
        if self._vocab_size is not None and max(encoding.ids, default=0) >= self._vocab_size:
            raise InputError(
                f"the tokenizer gave token id {max(encoding.ids)}, this model's are 0 to {self._vocab_size - 1}"
            )
        return self._pad(encoding.ids, encoding.type_ids, truncated=bool(encoding.overflowing))

    def _encode_ids(self, ids: Sequence[Any]) -> Encoded:
        if not ids:
            raise InputError("expected at least one token id, found none")
        limit = self._vocab_size or 1 << 31
        for token in ids:
            if not isinstance(token, (int, np.integer)) or isinstance(token, bool):
                raise InputError(f"expected token ids as integers, found {type(token).__name__} {shorten(token, 40)}")
            if not 0 <= token < limit:
                raise InputError(f"token id {token} is out of range: this model's are 0 to {limit - 1}")
        kept = [int(token) for token in ids[: self._longest]]
        return self._pad(kept, [0] * len(kept), truncated=len(ids) > self._longest)

    def _pad(self, ids: list[int], type_ids: list[int], truncated: bool) -> Encoded:
        length, program = next(bucket for bucket in self._buckets if bucket[0] >= len(ids))
        columns: Mapping[str, tuple[list[int], int]] = {
            "input_ids": (ids, self._spec.pad_token_id),
            "attention_mask": ([1] * len(ids), 0),
            "token_type_ids": (type_ids, 0),
        }
        inputs: dict[str, Tensor] = {}
        for spec in program.inputs:
            values, padding = columns[spec.name]
            row = np.full((1, length), padding, dtype=np.int32)
            row[0, : len(values)] = values
            inputs[spec.name] = row
        return Encoded(program.name, inputs, truncated)
