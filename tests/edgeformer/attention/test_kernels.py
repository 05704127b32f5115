"""Every kernel against the definition of attention, softmax(q k^T * scale + bias) v, evaluated in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgeformer.attention import ALL_KERNELS, KERNELS
from edgeformer.attention.kernels import MASK_VALUE, additive_mask, chunked
from edgeformer.convert.target import TARGETS

SHAPES = [  # B, H, T, S, D
    (1, 4, 16, 16, 8),
    (1, 1, 1, 300, 4),
    (3, 4, 20, 33, 8),
    (2, 12, 150, 270, 16),
    (1, 2, 1301, 70, 8),  # more queries than dense takes at once
]
BIASES = ["none", "padding", "per_head", "full", "one_row"]


def reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = torch.einsum("bhtd,bhsd->bhts", q.double(), k.double()) * scale
    if bias is not None:
        scores = scores + bias.double()
    return torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), v.double()).float()


def make_bias(kind: str, b: int, h: int, t: int, s: int) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "padding":
        mask = (torch.arange(s) < torch.randint(1, s + 1, (b, 1))).int()
        return additive_mask(mask)
    shape = {"per_head": (1, h, t, s), "full": (b, h, t, s), "one_row": (1, 1, 1, s)}[kind]
    return torch.randn(shape)


@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_is_exact(name: str, shape: tuple[int, ...], kind: str) -> None:
    torch.manual_seed(0)
    b, h, t, s, d = shape
    q, k, v = torch.randn(b, h, t, d), torch.randn(b, h, s, d), torch.randn(b, h, s, d)
    bias = make_bias(kind, b, h, t, s)
    for scale in (d**-0.5, 0.3):
        out = KERNELS[name](q, k, v, bias, scale)
        assert out.shape == (b, h, t, d)
        torch.testing.assert_close(out, reference(q, k, v, bias, scale), rtol=0, atol=1e-5)


@pytest.mark.parametrize("blocks", [(1, 1), (7, 5), (64, 1000)])
def test_chunked_does_not_depend_on_its_blocks(blocks: tuple[int, int]) -> None:
    torch.manual_seed(1)
    q, k, v = torch.randn(2, 3, 23, 8) * 4, torch.randn(2, 3, 31, 8) * 4, torch.randn(2, 3, 31, 8)
    bias = make_bias("padding", 2, 3, 23, 31)
    out = chunked(q, k, v, bias, 0.5, query_block=blocks[0], key_block=blocks[1])
    torch.testing.assert_close(out, reference(q, k, v, bias, 0.5), rtol=0, atol=1e-5)


def test_chunked_refuses_empty_blocks() -> None:
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match="at least 1"):
        chunked(x, x, x, None, 1.0, key_block=0)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_exports_to_static_graph(name: str) -> None:
    class Attention(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            return KERNELS[name](q, k, v, bias, 0.25)

    torch.manual_seed(2)
    inputs = (
        torch.randn(1, 2, 140, 16),
        torch.randn(1, 2, 130, 16),
        torch.randn(1, 2, 130, 16),
        torch.zeros(1, 1, 1, 130),
    )
    exported = torch.export.export(Attention(), inputs)
    torch.testing.assert_close(exported.module()(*inputs), reference(*inputs, 0.25), rtol=0, atol=1e-5)


def test_dense_stays_three_dimensional_for_one_sequence() -> None:
    """What keeps it in one XNNPACK partition: the only operators between the products are 3-D."""

    class Attention(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            return KERNELS["dense"](q, k, v, bias, 0.25)

    x = torch.ones(1, 2, 4, 16)
    graph = torch.export.export(Attention(), (x, x, x, torch.zeros(1, 1, 1, 4))).graph
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    first, last = (i for i, name in enumerate(names) if "bmm" in name)
    assert not [n for n in names[first:last] if "expand" in n or "clone" in n]


def test_fused_uses_the_default_scale() -> None:
    class Attention(torch.nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return KERNELS["fused"](q, q, q, None, 0.9)

    graph = torch.export.export(Attention(), (torch.ones(1, 2, 4, 16),)).graph
    (sdpa,) = [n for n in graph.nodes if "scaled_dot_product_attention" in str(n.target)]
    assert "scale" not in sdpa.kwargs
    assert len(sdpa.args) < 7


def test_mask_hides_padding_completely() -> None:
    mask = additive_mask(torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.int32))
    assert mask.shape == (2, 1, 1, 3)
    assert mask.dtype == torch.float32
    assert mask.flatten().tolist() == [0, 0, MASK_VALUE, 0, MASK_VALUE, MASK_VALUE]
    # A hidden score that leads by 800 still weighs exactly nothing, in half precision too.
    for dtype in (torch.float32, torch.float16):
        weights = (torch.tensor([0.0, 0.0, 800.0], dtype=dtype) + mask[0, 0, 0].to(dtype)).softmax(-1)
        assert weights.tolist() == [0.5, 0.5, 0.0]


def test_every_target_has_a_kernel() -> None:
    assert {target.attention for target in TARGETS.values()} <= set(KERNELS)


@pytest.mark.parametrize("length", [pytest.param(1301, marks=pytest.mark.slow), 601])
@pytest.mark.parametrize("kernel", ALL_KERNELS)
def test_slices_of_an_export_end_where_their_tensors_do(kernel: str, length: int) -> None:
    """Readers of bundles refuse a model file whose slices reach beyond."""

    class Attention(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
            return ALL_KERNELS[kernel](q, k, v, additive_mask(mask), 0.5)

    inputs = [torch.zeros(1, 2, length, 4) for _ in range(3)]
    graph = torch.export.export(Attention(), (*inputs, torch.ones(1, length))).run_decompositions({}).graph
    slices = [node for node in graph.nodes if node.target is torch.ops.aten.slice.Tensor]
    beyond = [
        (node.args, tuple(node.args[0].meta["val"].shape))
        for node in slices
        if len(node.args) > 3 and node.args[0].meta["val"].shape[node.args[1]] < node.args[3] < 2**62
    ]
    assert not beyond
