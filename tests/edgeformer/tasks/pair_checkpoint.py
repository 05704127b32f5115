"""Tiny random CLIPs and SigLIPs, with CLIP's tokenizer and image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

POSITIONS, IMAGE, WIDTH = 24, 32, 16
_MERGES = (("c", "a"), ("ca", "t</w>"), ("o", "f</w>"), ("p", "h"), ("ph", "o"), ("t", "o</w>"), ("pho", "to</w>"))
_LAYERS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_pair(folder: Path, kind: str = "CLIP", eos: int | None = None) -> Any:
    """Write a checkpoint, and give its model in eval mode.

    Args:
        folder: where to.
        kind: "CLIP" or "Siglip".
        eos: of the text config; None: the tokenizer's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    joined = ["".join(pair) for pair in _MERGES]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=[*_MERGES], model_max_length=POSITIONS
    )
    tokenizer.save_pretrained(folder)
    text = {
        "vocab_size": len(tokens),
        "max_position_embeddings": POSITIONS,
        "bos_token_id": len(tokens) - 2,
        "eos_token_id": len(tokens) - 1 if eos is None else eos,
        "pad_token_id": 1,
        "projection_dim": WIDTH,
        "projection_size": WIDTH,
        **_LAYERS,
    }
    vision = {"image_size": IMAGE, "patch_size": 16, "projection_dim": WIDTH, **_LAYERS}
    if kind == "Siglip":
        text["projection_size"] = vision["hidden_size"]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, projection_dim=WIDTH)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    if kind == "Siglip":
        torch.nn.init.constant_(model.logit_scale, 1.5)
        torch.nn.init.constant_(model.logit_bias, -0.5)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": IMAGE}, "crop_size": IMAGE})
    )
    return model
