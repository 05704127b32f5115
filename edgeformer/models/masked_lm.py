"""The head that predicts masked tokens (Devlin et al. 2018, task 1 of section 3.1), of any text encoder.

Names are those of public BERT checkpoints. Key: B batch, S length, C hidden size, E embedding size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.models.pooling import weighted_sum
from edgeformer.models.text import TextEncoder, TextModel
from edgeformer_runtime.tasks.programs import MASK_POSITION

FILL_MASK = "fill-mask"
"""The task."""


@dataclass(frozen=True)
class VocabularyHead:
    """What shapes the head.

    Attributes:
        hidden_size: C.
        embedding_size: E; where it is less than C the decoder has a part of its own for the rest (MobileBERT).
        vocab_size: V.
        activation: between the dense layer and its norm.
        layer_norm_eps: of that norm.
        tied: the decoder's weights are those of the word embeddings.
    """

    hidden_size: int
    embedding_size: int
    vocab_size: int
    activation: Callable[[Tensor], Tensor]
    layer_norm_eps: float
    tied: bool


class Transform(nn.Module):
    """A dense layer, an activation and a norm."""

    def __init__(self, head: VocabularyHead) -> None:
        super().__init__()
        self.dense = nn.Linear(head.hidden_size, head.hidden_size)
        self.activation = head.activation
        self.LayerNorm = nn.LayerNorm(head.hidden_size, eps=head.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) to the same."""
        out: Tensor = self.LayerNorm(self.activation(self.dense(x)))
        return out


class Predictions(nn.Module):
    """Logits of every token of the vocabulary."""

    def __init__(self, head: VocabularyHead) -> None:
        super().__init__()
        self.transform = Transform(head)
        self.embedding_size, more = head.embedding_size, head.hidden_size - head.embedding_size
        self.dense = nn.Linear(head.vocab_size, more, bias=False) if more else None
        # Tied weights stand in a checkpoint once, as the embeddings'.
        self.decoder = None if head.tied else nn.Linear(head.embedding_size, head.vocab_size)
        self.bias = nn.Parameter(torch.zeros(head.vocab_size)) if head.tied else None

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """x (B, C) and the word embeddings (V, E) to (B, V)."""
        x = self.transform(x)
        first = x[:, : self.embedding_size]
        logits: Tensor = F.linear(first, words, self.bias) if self.decoder is None else self.decoder(first)
        if self.dense is not None:
            logits = logits + torch.matmul(x[:, self.embedding_size :], self.dense.weight)
        return logits


class MaskedHead(nn.Module):
    """`Predictions` under the name that public checkpoints give it."""

    def __init__(self, head: VocabularyHead) -> None:
        super().__init__()
        self.predictions = Predictions(head)


class MaskedLanguageModel(TextModel):
    """Logits of the token at one position, so that a program gives V numbers and not S*V."""

    output_name = "logits"
    more_inputs = (MASK_POSITION,)

    def __init__(self, base: str, encoder: TextEncoder, head: VocabularyHead) -> None:
        super().__init__(base, encoder, head.vocab_size)
        self.cls = MaskedHead(head)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, mask_position: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor]:
        """input_ids, attention_mask, mask_position, token_type_ids (B, S) int32 to (logits (B, V) float32,).

        mask_position is 1 at the position whose token is predicted, and 0 elsewhere.
        """
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        masked = weighted_sum(hidden, mask_position.float())  # (B, C)
        words: Tensor = self.encoder.embeddings.get_submodule("word_embeddings").weight  # type: ignore[assignment]
        return (self.cls.predictions(masked, words),)
