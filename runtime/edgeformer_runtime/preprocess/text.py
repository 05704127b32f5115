"""Text to token ids in the smallest bucket that fits, exactly as the checkpoint's own tokenizer does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.tokenizer import Encoding, Tokenizer
from edgeformer_runtime.tasks.programs import MASK_POSITION

if TYPE_CHECKING:
    from numpy.typing import NDArray

RawText = str | tuple[str, str] | Sequence[int]
"""A text, a pair of texts, or token ids with the special tokens already among them."""


MAX_WINDOWED_CHARACTERS = 200_000
"""Of a text that is read in windows: all of it goes through the tokenizer, which takes up to a second for so many."""
MAX_WINDOWS = 4096
"""Of one input: each is a run of the model."""

TEXT, PAIR, SPECIAL = 0, 1, -1
"""What a token is of."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the tokens of an encoded text, padding left out, stand in the texts that were given.

    Attributes:
        offsets: (N, 2) int64: a token's first character and the one behind its last, of the text that it is of.
        texts: (N,) int64: `TEXT`, `PAIR` or `SPECIAL`.
        words: (N,) int64: the number of the token's word in its text; -1 of special ones.
        continues: (N,) bool: the token continues the word of the one before it, as transformers sees it.
    """

    offsets: NDArray[np.int64]
    texts: NDArray[np.int64]
    words: NDArray[np.int64]
    continues: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Places:
        """The places of some tokens."""
        return Places(self.offsets[rows], self.texts[rows], self.words[rows], self.continues[rows])


@dataclass(frozen=True)
class Encoded:
    """Token ids of one input in its bucket.

    Attributes:
        program: the bucket's program.
        inputs: its declared inputs, each (1, S) int32.
        truncated: the input was longer than the largest bucket and lost its end.
        places: where its tokens stand in the given texts; None where nobody asked.
    """

    program: str
    inputs: dict[str, Tensor]
    truncated: bool
    places: Places | None = None


class TextEncoder:
    """Turns raw text into the inputs of a program. Calls from several threads are safe: nothing changes after init."""

    def __init__(
        self,
        spec: TextPreprocessing,
        tokenizer_json: str | None,
        programs: Sequence[ProgramSpec],
        windowed: bool = False,
        known: bool = False,
    ) -> None:
        """Load the tokenizer.

        Args:
            spec: the manifest's preprocessing.
            tokenizer_json: the text of the tokenizer file, None where the spec names none.
            programs: the buckets; dimension 1 of their inputs is the length.
            windowed: texts are read in windows, by `windows` alone, and nothing of them is cut off.
            known: the tokenizer file was checked before, as `Bundle.known` says.

        Raises:
            BundleError: the tokenizer file cannot be used.
        """
        self._spec = spec
        self._buckets = sorted((program.inputs[0].shape[1], program) for program in programs)  # lengths are unique
        self._longest = self._buckets[-1][0]
        where = spec.tokenizer or "the tokenizer"
        longest = None if windowed else self._longest
        self._tokenizer = None if tokenizer_json is None else Tokenizer(tokenizer_json, where, longest, known)
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

    def windows(self, text: str, pair: str | None, stride: int) -> tuple[Encoded, ...]:
        """All of a text, or of a text and its pair, in as many windows of the longest bucket as it takes.

        Windows divide the last of the texts, the other stands whole in each. Neighbours share `stride` tokens, or half
        of what fits into a window where that is no more.

        Raises:
            InputError: there is no tokenizer, or a text that no window or no tokenizer takes.
        """
        if self._tokenizer is None:
            raise InputError("this bundle has no tokenizer, and its answers are places in a text")
        for given in (text, pair or ""):
            if len(given) > MAX_WINDOWED_CHARACTERS:
                raise InputError(f"the text has {len(given)} characters: expected at most {MAX_WINDOWED_CHARACTERS}")
        encoding = self._tokenizer.encode(text, pair)
        self._check_ids(encoding.ids)
        places = self._places(encoding, text, pair)
        divided = np.flatnonzero(places.texts == (TEXT if pair is None else PAIR))  # in one piece
        around = len(encoding.ids) - len(divided)
        room = self._longest - around
        if room < 1:
            raise InputError(
                f"{around} tokens stand in every window, special ones included, and fill the {self._longest} positions "
                "of this bundle: shorten the first text"
            )
        stride = stride if stride < room else room // 2
        starts = range(0, max(1, len(divided) - stride), room - stride) if len(divided) > room else range(1)
        if len(starts) > MAX_WINDOWS:
            raise InputError(f"the text takes {len(starts)} windows: expected at most {MAX_WINDOWS}")
        first = int(divided[0]) if len(divided) else len(encoding.ids)
        rows = np.arange(len(encoding.ids))
        ids, type_ids = np.array(encoding.ids), np.array(encoding.type_ids)
        found = []
        for start in starts:
            kept = np.concatenate((rows[:first], divided[start : start + room], rows[first + len(divided) :]))
            window = self._pad(ids[kept].tolist(), type_ids[kept].tolist(), truncated=False)
            found.append(replace(window, places=places.take(kept)))
        return tuple(found)

    def at_masks(self, text: str, mask: str, mask_id: int) -> tuple[Encoded, ...]:
        """Encode a text once for each mask in it, whose place `MASK_POSITION` says.

        Args:
            text: what is cut like any other where it is too long.
            mask, mask_id: the token that stands for another, and its id, which is no padding's.

        Raises:
            InputError: as `encode`, or there is no mask in what the model reads of the text.
        """
        encoded = self._encode_text(text, None)
        found = np.flatnonzero(encoded.inputs["input_ids"][0] == mask_id)
        if not len(found):
            where = f"the first {self._longest} tokens of the text, which is cut there" if encoded.truncated else "it"
            raise InputError(f"expected a text with {mask}, found none in {where}")
        marks = np.zeros((len(found), 1, *encoded.inputs["input_ids"].shape[1:]), np.int32)
        marks[np.arange(len(found)), 0, found] = 1
        return tuple(replace(encoded, inputs={**encoded.inputs, MASK_POSITION: mark}) for mark in marks)

    def token_of(self, word: str) -> int:
        """The id of a token of the vocabulary, or of the only one of a word.

        Raises:
            InputError: it is not one token.
        """
        assert self._tokenizer is not None
        known = self._tokenizer.token_id(word)
        ids = self._tokenizer.text_tokens(word) if known is None else [known]
        if len(ids) != 1 or ids[0] >= (self._vocab_size or 0):
            tokens = ", ".join(map(repr, self._tokenizer.pieces(ids[:4]))) or "none"
            raise InputError(
                f"expected words that are one token each, found {shorten(word, 40)}, whose tokens are {tokens}"
            )
        return ids[0]

    def text_of(self, token: int) -> str:
        """A token by itself as the tokenizer writes it."""
        assert self._tokenizer is not None
        return self._tokenizer.token_text(token)

    def _places(self, encoding: Encoding, text: str, pair: str | None) -> Places:
        assert self._tokenizer is not None
        given = (text, pair or "")
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        texts = [SPECIAL if number is None else number for number in encoding.sequence_ids]
        words = [-1 if number is None else number for number in encoding.word_ids]
        continues = [
            number != SPECIAL and self._continues(token, given[number], int(start), int(end))
            for token, number, (start, end) in zip(self._tokenizer.pieces(encoding.ids), texts, offsets, strict=True)
        ]
        return Places(offsets, np.array(texts, np.int64), np.array(words, np.int64), np.array(continues, np.bool_))

    def _continues(self, token: str, text: str, start: int, end: int) -> bool:
        """As transformers' pipeline for token classification tells it: of tokens with a mark of continuation by their
        length, which the mark makes another than the text's; of others by the space before them.
        """
        assert self._tokenizer is not None
        if token == self._tokenizer.unknown:
            return False
        if self._tokenizer.continuation is not None:
            return len(token) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

    def _check_ids(self, ids: Sequence[int]) -> None:
        if self._vocab_size is not None and max(ids, default=0) >= self._vocab_size:
            raise InputError(f"the tokenizer gave token id {max(ids)}, this model's are 0 to {self._vocab_size - 1}")

    def _encode_text(self, text: str, pair: str | None) -> Encoded:
        if self._tokenizer is None:
            raise InputError("this bundle has no tokenizer and takes token ids only: pass a list of integers")
        if pair is not None and self._tokenizer.special_tokens(pair=True) >= self._longest:
            raise InputError(f"a pair of texts does not fit into the {self._longest} positions of this bundle")
        encoding = self._tokenizer.encode(text, pair)
        self._check_ids(encoding.ids)
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
            MASK_POSITION: ([], 0),
        }
        inputs: dict[str, Tensor] = {}
        for spec in program.inputs:
            values, padding = columns[spec.name]
            row = np.full((1, length), padding, dtype=np.int32)
            row[0, : len(values)] = values
            inputs[spec.name] = row
        return Encoded(program.name, inputs, truncated)
