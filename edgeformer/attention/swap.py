"""Another attention kernel for a model that exists, as a student gets it before it is distilled."""

from __future__ import annotations

from torch import nn

from edgeformer.attention import AttentionKernel
from edgeformer_runtime.errors import InputError


def swap_attention(module: nn.Module, kernel: AttentionKernel) -> int:
    """Give every attention of a model another kernel, in place. No weight changes.

    Args:
        module: a model of a family; its attentions keep their kernel in the attribute `attention`.
        kernel: what they use from now on.

    Returns:
        How many there are.

    Raises:
        InputError: the model has none.
    """
    # A submodule of that name is a block around an attention, and is not in its parent's own attributes.
    attentions = [part for part in module.modules() if callable(vars(part).get("attention"))]
    for part in attentions:
        part.attention = kernel  # type: ignore[assignment]  # no tensor and no module, but torch says so
    if not attentions:
        raise InputError(f"expected a model with attention, found none in {type(module).__name__}")
    return len(attentions)
