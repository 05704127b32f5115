"""How far a model's attention scores spread, and the mask that hides padding from them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from edgeformer.attention import APPROXIMATE_KERNELS, AttentionKernel
from edgeformer.attention.kernels import EXACT_MASK, MASK_VALUE, ScoreRange
from edgeformer.models.text import TextConfig, TextModel
from edgeformer.tasks.text import FILLER, TEXTS

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint

SAMPLE_LENGTH = 64
"""Tokens of a sample with its padding; a longer one changes the range little and takes as much longer."""

_ROWS = 4
"""Of random tokens, beside the texts: a vocabulary holds tokens that no few texts have."""


def sample_inputs(config: TextConfig, tokenizer_json: str | None) -> Mapping[str, Tensor]:
    """Padded samples (B, S) int32 by input name, with as much padding as the shortest text leaves."""
    length = min(SAMPLE_LENGTH, config.max_position_embeddings)
    ids, types = ([], []) if tokenizer_json is None else _texts(tokenizer_json)
    ids += _random_ids(config.vocab_size, length)
    shape = (len(ids), length)
    inputs = {name: torch.zeros(shape, dtype=torch.int32) for name in config.input_names}
    for row, tokens in enumerate(ids):
        kept = torch.tensor(tokens[:length], dtype=torch.int32)
        inputs["input_ids"][row, : len(kept)] = kept
        inputs["attention_mask"][row, : len(kept)] = 1
        if row < len(types) and "token_type_ids" in inputs:
            inputs["token_type_ids"][row, : len(kept)] = torch.tensor(types[row][:length], dtype=torch.int32)
    return inputs


def _texts(tokenizer_json: str) -> tuple[list[list[int]], list[list[int]]]:
    tokenizer = Tokenizer.from_str(json.dumps({**json.loads(tokenizer_json), "truncation": None, "padding": None}))
    texts = [*TEXTS, {"text": f"{FILLER} {FILLER}"}]
    encodings = [tokenizer.encode(sample["text"], sample.get("pair")) for sample in texts]
    # A tokenizer without special tokens gives nothing for an empty text.
    encodings = [encoding for encoding in encodings if encoding.ids]
    return [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]


def _random_ids(vocab_size: int, length: int) -> list[list[int]]:
    generator = random.Random(0)
    return [
        [generator.randrange(vocab_size) for _ in range(max(1, length * (row + 1) // _ROWS))] for row in range(_ROWS)
    ]


def text_scores(module: nn.Module, checkpoint: Checkpoint) -> ScoreRange:
    """The range of a text model on `sample_inputs`, whatever head it has."""
    inputs = sample_inputs(checkpoint.config, checkpoint.tokenizer_json)
    if isinstance(module, TextModel):
        none = torch.zeros_like(inputs["input_ids"])
        inputs = {name: inputs.get(name, none) for name in module.input_names(checkpoint.config)}
    return score_range(module, inputs)


@torch.no_grad()
def score_range(
    module: nn.Module, inputs: Mapping[str, Tensor], parts: Iterable[nn.Module] | None = None
) -> ScoreRange:
    """The range of a module's attention scores on these inputs, padding's own scores included.

    Args:
        module: a model with attention.
        inputs: its arguments.
        parts: the modules whose attention counts; None: all.
    """
    spreads, sizes = [0.0], [0.0]

    def recording(kernel: AttentionKernel) -> AttentionKernel:
        def record(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
            scores = torch.matmul(q * scale, k.transpose(2, 3))  # (B, H, T, S)
            spreads.append(float((scores.amax(dim=-1) - scores.amin(dim=-1)).max()))
            sizes.append(float(scores.abs().max()))
            return kernel(q, k, v, bias, scale)

        return record

    attending = [(part, kernel) for part in parts or module.modules() if (kernel := _kernel_of(part)) is not None]
    with exact_masks(module):  # before the kernels are hidden, by which it knows approximate ones
        try:
            for part, kernel in attending:
                vars(part)["attention"] = recording(kernel)
            module(*inputs.values())
        finally:
            for part, kernel in attending:
                vars(part)["attention"] = kernel
    return ScoreRange(_largest(spreads), _largest(sizes))


def _largest(values: Iterable[float]) -> float:
    """Infinity where one is no number."""
    return max(value if math.isfinite(value) else math.inf for value in values)


def _kernel_of(part: nn.Module) -> AttentionKernel | None:
    """The attention kernel that a module calls itself; parts of it are kept elsewhere."""
    found: AttentionKernel | None = vars(part).get("attention")
    return found


@contextmanager
def exact_masks(module: nn.Module) -> Iterator[None]:
    """Within the context, a model hides padding as minus infinity does.

    Approximate kernels keep theirs: they read from the mask which positions there are.
    """
    encoders = [part for part in _masking(module) if not _is_approximate(part)]
    masks = [encoder.mask_value for encoder in encoders]
    try:
        for encoder in encoders:
            encoder.mask_value = EXACT_MASK
        yield
    finally:
        for encoder, mask in zip(encoders, masks, strict=True):
            encoder.mask_value = mask


def _masking(module: nn.Module) -> list[Any]:
    """The parts that make a mask: encoders of texts, and transformers' modules whose attention is ours."""
    return [part for part in module.modules() if hasattr(part, "mask_value")]


def _is_approximate(module: nn.Module) -> bool:
    return any(_kernel_of(part) in APPROXIMATE_KERNELS.values() for part in module.modules())


def set_mask(module: nn.Module, scores: ScoreRange) -> tuple[str, ...]:
    """Give a model the mask that its scores need; None stays where the usual one does.

    Returns:
        A note where another one was needed.
    """
    if scores.mask == MASK_VALUE:
        return ()
    for part in _masking(module):
        part.mask_value = scores.mask
    return (
        f"attention scores are up to {scores.spread:.0f} apart: padding is hidden with {scores.mask:g}, not "
        f"{MASK_VALUE:g}" + ("" if scores.fits_float16 else ", which float16 does not hold: fp16 is not to be had"),
    )
