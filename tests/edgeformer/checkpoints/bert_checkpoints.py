"""A small BERT classifier in the public format, which tests change and then open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer_runtime.errors import InputError

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def save_bert(folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**(SIZES | config)))
    model.save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    edit(state)
    save_file(state, path)


def message(source: Path | str, **arguments: Any) -> str:
    """The one line with which opening and loading is refused."""
    with pytest.raises(InputError) as caught:
        load_module(open_checkpoint(str(source), **arguments), KERNELS["dense"])
    text = str(caught.value)
    assert "\n" not in text
    assert str(Path.home()) not in text
    return text
