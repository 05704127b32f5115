"""MIL's operators that normalise; see `mil_operators` for the conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.arguments import axes_of


def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the axes, then gamma and beta of those axes' shape."""
    over = axes_of(axes, x)
    centered = x - x.mean(over, keepdim=True)
    normed = centered * torch.rsqrt(centered.square().mean(over, keepdim=True) + epsilon)
    sizes = [x.shape[axis] if axis in over else 1 for axis in range(x.dim())]
    scaled = normed if gamma is None else normed * gamma.reshape(sizes)
    return scaled if beta is None else scaled + beta.reshape(sizes)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """x (B, C, ...) normalised by stored statistics per channel."""
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """x (B, C, ...) with mean 0 and variance 1 over space, then gamma and beta per channel."""
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """x divided by its Euclidean norm over the last three axes."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x (B, C, ...) divided by a power of the mean square over `size` neighbouring channels."""
    if size % 2 == 0:
        raise ValueError(f"local_response_norm over {size} channels is not supported: an even number has no middle")
    return F.local_response_norm(x, size, alpha, beta, k)


NORM_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
}
