"""Makes small public-format checkpoints with transformers: random weights, a real WordPiece vocabulary."""

from __future__ import annotations

import string
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = "turn the lights off on in living room what is weather like please remind me to call bank about my"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary() -> list[str]:
    """Special tokens, some words, and every letter alone and as a continuation."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    return [*SPECIAL, *WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]


def tokenizer() -> Tokenizer:
    """A lower-casing WordPiece tokenizer over `vocabulary()`, as BERT has it."""
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary()))}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return made


def save_mobilebert(folder: Path, *, with_tokenizer: bool = True, num_labels: int = 3, **config: object) -> Path:
    """A MobileBERT classifier of two narrow layers; `config` overrides single settings."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "vocab_size": len(dict.fromkeys(vocabulary())),
        "hidden_size": 64,
        "embedding_size": 32,
        "intra_bottleneck_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
        "num_feedforward_networks": 2,
        "num_labels": num_labels,
        "initializer_range": 0.1,
    }
    model = transformers.MobileBertForSequenceClassification(transformers.MobileBertConfig(**(settings | config)))
    model.eval().save_pretrained(folder)
    if with_tokenizer:
        tokenizer().save(str(folder / "tokenizer.json"))
    return folder
