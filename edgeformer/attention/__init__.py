"""Attention kernels: `(q, k, v, bias, scale) -> out`, all exact, each shaped for what one kind of target runs well."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

AttentionKernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
"""q (B, H, T, D); k, v (B, H, S, D); additive bias broadcastable to (B, H, T, S) or None; scale -> out (B, H, T, D)."""
