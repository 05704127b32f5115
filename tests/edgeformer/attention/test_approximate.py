"""Approximate kernels against their definitions in float64, where they are exact, and that nobody gets one unasked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgeformer.attention import ALL_KERNELS, APPROXIMATE_KERNELS, KERNELS
from edgeformer.attention.kernels import additive_mask, linear, sliding_window
from edgeformer.convert.target import TARGETS


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    scores = torch.einsum("bhtd,bhsd->bhts", q.double(), k.double()) * scale + bias.double()
    return torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), v.double()).float()


def drawn(batch: int, heads: int, length: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and a mask (B, S) that hides the end of each sequence but the first's."""
    torch.manual_seed(length)
    lengths = torch.randint(length // 3, length + 1, (batch, 1))
    lengths[0] = length
    q, k, v = (torch.randn(batch, heads, length, dim) for _ in range(3))
    return q, k, v, (torch.arange(length) < lengths).int()


@pytest.mark.parametrize(
    ("batch", "length", "block", "first"),
    [(1, 300, 64, 1), (2, 257, 32, 3), (1, 40, 8, 8), (3, 64, 8, 1), (2, 250, 8, 2)],
)
@pytest.mark.parametrize("masked", [False, True])
def test_sliding_window(batch: int, length: int, block: int, first: int, masked: bool) -> None:
    q, k, v, mask = drawn(batch, 3, length, 8)
    at = torch.arange(length)
    near = (at[:, None] // block - at // block).abs() <= 1
    seen = near | (at[:, None] < first) | (at < first)
    bias = additive_mask(mask) if masked else None
    expected = attend(q, k, v, torch.where(seen, 0.0, -1e9) + (bias if masked else torch.zeros(())), 0.35)
    out = sliding_window(q, k, v, bias, 0.35, block=block, first=first)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    # What a classifier's last layer asks for: the first position alone, which sees all.
    out = sliding_window(q[:, :, :1], k, v, bias, 0.35, block=block, first=first)
    torch.testing.assert_close(out, expected[:, :, :1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch", "length", "segments"), [(1, 300, 128), (2, 257, 10), (3, 40, 39), (1, 50, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_linear(batch: int, length: int, segments: int, masked: bool) -> None:
    q, k, v, mask = drawn(batch, 3, length, 8)
    size = -(-length // segments)
    segment = torch.arange(length) // size
    weights = mask.double() if masked else torch.ones(batch, length, dtype=torch.float64)
    members = torch.nn.functional.one_hot(segment).double() * weights[:, :, None]  # (B, S, segments)
    counts = members.sum(1)  # (B, segments)
    keys, values = (
        torch.einsum("bsn,bhsd->bhnd", members, x.double()) / counts.clamp(min=1)[:, None, :, None] for x in (k, v)
    )
    expected = attend(q, keys, values, counts.log()[:, None, None], 0.35)
    out = linear(q, k, v, additive_mask(mask) if masked else None, 0.35, segments=segments)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_linear_is_exact_where_the_keys_of_a_segment_are_equal() -> None:
    q, k, v, _ = drawn(1, 2, 60, 8)
    k = k[:, :, ::4].repeat_interleave(4, dim=2)
    expected = attend(q, k, v, torch.zeros(()), 0.35)
    torch.testing.assert_close(linear(q, k, v, None, 0.35, segments=15), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", APPROXIMATE_KERNELS)
def test_short_inputs_come_out_exact(name: str) -> None:
    q, k, v, mask = drawn(2, 2, 128, 8)
    bias = additive_mask(mask)
    out = APPROXIMATE_KERNELS[name](q, k, v, bias, 0.35)
    torch.testing.assert_close(out, attend(q, k, v, bias, 0.35), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", APPROXIMATE_KERNELS)
def test_what_has_no_window_and_no_mean_is_refused(name: str) -> None:
    q, k, v, _ = drawn(1, 2, 300, 8)
    kernel = APPROXIMATE_KERNELS[name]
    for bias in (torch.zeros(300, 300), torch.zeros(1, 2, 1, 300)):
        with pytest.raises(ValueError, match="alike for all queries and heads"):
            kernel(q, k, v, bias, 1.0)
    with pytest.raises(ValueError, match="expected as many queries as keys, found 7 and 300"):
        sliding_window(q[:, :, :7], k, v, None, 1.0)
    with pytest.raises(ValueError, match="1 to 4 global positions"):
        sliding_window(q, k, v, None, 1.0, block=4, first=5)
    with pytest.raises(ValueError, match="at least 1 segment"):
        linear(q, k, v, None, 1.0, segments=0)


@pytest.mark.parametrize("name", APPROXIMATE_KERNELS)
def test_memory_does_not_grow_with_the_square(name: str) -> None:
    """No tensor of the exported graph has T * S elements per head."""

    class Attention(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            return APPROXIMATE_KERNELS[name](q, k, v, bias, 0.25)

    length = 4096
    x = torch.zeros(1, 1, length, 2)
    exported = torch.export.export(Attention(), (x, x, x, torch.zeros(1, 1, 1, length)))
    sizes = [node.meta["val"].numel() for node in exported.graph.nodes if hasattr(node.meta.get("val"), "numel")]
    assert 0 < max(sizes) < length * length / 15


def test_nobody_gets_one_unasked() -> None:
    assert not set(APPROXIMATE_KERNELS) & set(KERNELS)
    assert not set(APPROXIMATE_KERNELS) & {target.attention for target in TARGETS.values()}
    assert set(ALL_KERNELS) == set(APPROXIMATE_KERNELS) | set(KERNELS)
