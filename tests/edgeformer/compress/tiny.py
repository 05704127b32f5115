"""Tiny data and models to compress in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from edgeformer.attention import KERNELS
from edgeformer.compress.compress import Compressed, CompressOptions, compress
from edgeformer.models import tinyvit
from tests.checkpoint_factory import save_mobilebert, tokenizer

LABELS = ("lights", "weather", "call")
SENTENCES = {
    "lights": [
        "turn the lights off",
        "turn on the lights in the living room",
        "lights off please",
        "turn the lights on",
    ],
    "weather": ["what is the weather like", "weather please", "what is the weather like in room", "is the weather on"],
    "call": ["call my bank", "please call the bank", "remind me to call about my bank", "call me"],
}
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}}

FINETUNE = """
seq_len = 16
[[step]]
kind = "finetune"
training = { epochs = 6, batch_size = 4, learning_rate = 2e-3 }
"""


LONG = """
seq_len = 16
[[step]]
kind = "distill"
loss = { logits = 1.0, labels = 0.5, hidden = 0.5 }
training = { epochs = 25, batch_size = 2, learning_rate = 1e-3 }
"""


def save_texts(path: Path) -> Path:
    """Twelve sentences with three labels."""
    path.write_text(json.dumps([[text, label] for label, texts in SENTENCES.items() for text in texts]))
    return path


def save_classifier(folder: Path, **config: object) -> Path:
    """A MobileBERT of two layers that has the labels."""
    return save_mobilebert(folder, **(NAMES | config))  # type: ignore[arg-type]


def save_bert(folder: Path, *, classifier: bool = True, **config: object) -> Path:
    """A BERT of three narrow layers, a classifier or bare."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "vocab_size": tokenizer().get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        **(NAMES if classifier else {}),
        **config,
    }
    kind = transformers.BertForSequenceClassification if classifier else transformers.BertModel
    kind(transformers.BertConfig(**settings)).eval().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def save_distilbert(folder: Path) -> Path:
    """A DistilBERT classifier of two layers."""
    torch.manual_seed(2)
    config = transformers.DistilBertConfig(
        vocab_size=tokenizer().get_vocab_size(),
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        max_position_embeddings=64,
        initializer_range=0.1,
        **NAMES,
    )
    transformers.DistilBertForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


TINYVIT = {
    "architecture": "tiny_vit_5m_224",
    "num_classes": 3,
    "label_names": ["dark", "middle", "bright"],
    "model_args": {
        "embed_dims": [8, 16, 32],
        "depths": [1, 1, 2],
        "num_heads": [1, 2, 4],
        "window_sizes": [4, 4, 4],
        "mlp_ratio": 2.0,
    },
    "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0},
}


def save_tinyvit(folder: Path, **model_args: object) -> Path:
    """A TinyViT of three narrow stages in timm's hub layout."""
    torch.manual_seed(3)
    raw = {**TINYVIT, "model_args": {**TINYVIT["model_args"], **model_args}}  # type: ignore[dict-item]
    module = tinyvit.build(tinyvit.parse_config(raw), "image-classification", 3, KERNELS["dense"])
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "attention_biases" in name:
                parameter.normal_()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder


def save_images(folder: Path, each: int = 6) -> Path:
    """Noise around three levels of gray, a folder per label."""
    rng = np.random.default_rng(0)
    for level, label in ((40, "dark"), (128, "middle"), (215, "bright")):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(rng.normal(level, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def save_clips(folder: Path) -> Path:
    """Four recordings of a second with a text beside each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, text in enumerate(("turn the lights off", "what is the weather", "the music is on", "please")):
        soundfile.write(folder / f"{number}.wav", rng.normal(0, 0.1, 16000).astype(np.float32), 16000)
        (folder / f"{number}.txt").write_text(text)
    return folder


def save_recipe(path: Path, text: str) -> Path:
    """A recipe's file."""
    path.write_text(text)
    return path


def run(source: Path, recipe: str, data: Path | str, out: Path, **options: Any) -> Compressed:
    """`compress` with a recipe's text."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = save_recipe(out.parent / "recipe.toml", recipe)
    return compress(CompressOptions(str(source), str(path), str(data), out, **options))
