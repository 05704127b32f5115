"""Batches of texts of similar length: little padding, and still a random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

_SORT_WINDOW = 32
"""Batches that are sorted by length together: little padding, and still a random order."""


@dataclass(frozen=True)
class Batch:
    """rows (B,) indices into the data; input_ids, attention_mask, token_type_ids (B, S) int32."""

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of a text model's forward."""
        return self.input_ids, self.attention_mask, self.token_type_ids


@dataclass(frozen=True)
class Encoded:
    """Token ids (N, S) int32, padded with 0, and the length (N,) int64 of each row."""

    ids: Tensor
    lengths: Tensor

    def batch(self, rows: Tensor) -> Batch:
        """The given rows, as short as the longest of them."""
        lengths = self.lengths[rows]
        input_ids = self.ids[rows, : int(lengths.max())]
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).int()
        return Batch(rows, input_ids, mask, torch.zeros_like(input_ids))


def encode(tokenizer: Tokenizer, texts: Sequence[str], seq_len: int) -> Encoded:
    """Token ids of each text, cut to seq_len with [SEP] kept."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    cut = [ids if len(ids) <= seq_len else [*ids[: seq_len - 1], ids[-1]] for ids in rows]
    padded = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.int32) for ids in cut], batch_first=True)
    return Encoded(padded, torch.tensor([len(ids) for ids in cut]))


def shuffled_rows(lengths: Tensor, batch_size: int, rng: torch.Generator | None = None) -> list[Tensor]:
    """The row numbers of one epoch's batches: random order, similar length within a batch.

    Args:
        lengths: (N,) of the examples.
        batch_size: of each batch but perhaps one.
        rng: source of the order; None: torch's own.
    """
    batches: list[Tensor] = []
    for window in torch.split(torch.randperm(len(lengths), generator=rng), batch_size * _SORT_WINDOW):
        batches += torch.split(window[lengths[window].argsort(stable=True)], batch_size)
    return [batches[number] for number in torch.randperm(len(batches), generator=rng).tolist()]
