"""A family as another author would add it, in this one file: the mean of a text's embeddings, and one dense layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.models.config import read_int
from edgeformer.models.family import Family
from edgeformer.models.pooling import masked_mean
from edgeformer.models.text import TextClassifier, TextEncoder, check_task, id2label, text_programs

BASE = "bag"


@dataclass(frozen=True)
class BagConfig:
    vocab_size: int
    hidden_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    input_names: tuple[str, ...] = ("input_ids", "attention_mask")


class BagOfWords(TextEncoder):
    def __init__(self, config: BagConfig) -> None:
        embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        super().__init__(embeddings, (), pooler_size=None, first_token_only=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:  # noqa: ARG002
        return masked_mean(self.embeddings(input_ids), attention_mask)[:, None]


def parse_config(raw: Mapping[str, Any]) -> BagConfig:
    return BagConfig(read_int(raw, "vocab_size", 1), read_int(raw, "hidden_size", 1))


def build(config: BagConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:  # noqa: ARG001
    check_task(task, num_labels)
    return TextClassifier(BASE, BagOfWords(config), config.hidden_size, num_labels).eval()


def with_layers(
    raw: Mapping[str, Any],
    config: BagConfig,
    left: Mapping[str, Sequence[int]],  # noqa: ARG001
) -> tuple[dict[str, Any], BagConfig]:
    return dict(raw), config


FAMILY = Family(
    name="bag-of-words",
    tasks=("text-classification",),
    parse_config=parse_config,
    build=build,
    rename=dict,
    publish=lambda state, _config: dict(state),
    unused=(),
    programs=text_programs,
    parse_labels=id2label,
    blocks=(f"{BASE}.embeddings",),
    with_layers=with_layers,
)
