"""Writes a trained MobileBERT classifier in the public Hugging Face format, with its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeformer.checkpoints.weights import save_weights

CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-classification
---
# clinc150-mobilebert

Tells which of 150 requests to a phone assistant an English sentence makes ("wake me up at seven": `alarm`). A small
MobileBERT (Sun et al. 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices") of
{layers} layers, {parameters:,} parameters, stored as float16.

| | accuracy |
|---|---|
| test, {test_count} in-scope sentences | {test_accuracy:.2%} |
| validation, {val_count} in-scope sentences | {val_accuracy:.2%} |

    python -m tools.zoo.train_clinc150 --data data_small.json --evaluate edgeformer/zoo/clinc150-mobilebert

prints the first figure. Made, with seed {seed}, by

    python -m tools.zoo.train_clinc150 --data data_small.json --teacher all-MiniLM-L6-v2 --out clinc150-mobilebert

from the 7,500 in-scope training sentences of `data_small.json` of https://github.com/clinc/oos-eval, and variants of
them, taught by a linear classifier on the sentence embeddings of all-MiniLM-L6-v2. The word embeddings begin as that
model's, in {embedding_size} dimensions; the vocabulary is a part of its vocabulary.

## Limits

It always names one of its 150 intents: out-of-scope sentences are not recognised as such, except by a low score. It was
trained on typed American English of at most {seq_len} tokens; the embeddings of later positions, up to
{positions}, are an average of the last ones that training saw.

## Attribution

- Data: Stefan Larson, Anish Mahendran, Joseph J. Peper, Christopher Clarke, Andrew Lee, Parker Hill, Jonathan K.
  Kummerfeld, Kevin Leach, Michael A. Laurenzano, Lingjia Tang and Jason Mars, "An Evaluation Dataset for Intent
  Classification and Out-of-Scope Prediction", EMNLP-IJCNLP 2019, CC BY 3.0.
- Word embeddings, vocabulary and teacher: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""


def public_config(architecture: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A config.json of a MobileBertForSequenceClassification."""
    return {
        "architectures": ["MobileBertForSequenceClassification"],
        "model_type": "mobilebert",
        **architecture,
        "pad_token_id": 0,
        "problem_type": "single_label_classification",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "dtype": "float16",
    }


def publish(module: nn.Module, config: Mapping[str, Any], tokenizer_json: str, folder: Path) -> None:
    """Write config.json, model.safetensors in float16 and tokenizer.json into a new folder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json + "\n", encoding="utf-8")
    state = {name: tensor.to(torch.float16).contiguous() for name, tensor in module.state_dict().items()}
    save_weights(state, folder / "model.safetensors")
