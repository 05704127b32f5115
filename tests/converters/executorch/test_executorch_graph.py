"""The graph rewrites, each executed by torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeformer_converters.executorch.rewrites import (
    compute_in_half,
    tanh_gelus,
    widen_embedding_ids,
    write_out_tanh_gelu,
)


def exported(module: nn.Module, *inputs: Tensor) -> GraphModule:
    with torch.no_grad():
        return torch.export.export(module.eval(), inputs).module()


class Gelu(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        """GELU of x in whatever type the graph computes."""
        return (nn.functional.gelu(x.to(torch.float32)),)


def test_gelu_in_half_is_close_and_never_nan() -> None:
    x = torch.cat([torch.linspace(-6, 6, 1201), torch.tensor([-60_000.0, -300.0, 300.0, 60_000.0])])
    graph = exported(Gelu(), x)
    compute_in_half(graph)
    (got,) = graph(x)
    assert got.dtype == torch.float32
    # 5e-4 for the tanh form, and float16's step at |x| = 6, which is 4e-3.
    torch.testing.assert_close(got, nn.functional.gelu(x), rtol=2e-3, atol=2e-3)


class TanhGelu(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        """GPT-2's activation."""
        return (nn.functional.gelu(x, approximate="tanh"),)


def test_gelu_by_tanh_is_written_out() -> None:
    x = torch.cat([torch.linspace(-6, 6, 1201), torch.tensor([-300.0, 300.0])])
    graph = exported(TanhGelu(), x)
    assert len(tanh_gelus(graph.graph)) == 1
    write_out_tanh_gelu(graph)
    assert not tanh_gelus(graph.graph)
    (got,) = graph(x)
    torch.testing.assert_close(got, nn.functional.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6)
    exact = exported(Gelu(), x)
    write_out_tanh_gelu(exact)
    assert torch.equal(exact(x)[0], nn.functional.gelu(x))


def test_layer_norm_stays_in_float32() -> None:
    # Squares of these leave float16's range.
    x = torch.tensor([[-900.0, 300.0, 600.0, 0.0]])
    module = nn.Sequential(nn.LayerNorm(4, eps=1e-12), nn.Linear(4, 2))
    expected = module(x).detach()
    graph = exported(module, x)
    compute_in_half(graph)
    # A program casts its int32 inputs itself; this one's input is float.
    torch.testing.assert_close(graph(x.half()), expected, rtol=3e-3, atol=3e-3)


def test_ids_of_embeddings_become_int64() -> None:
    ids = torch.tensor([[1, 2]], dtype=torch.int32)
    table = nn.Embedding(4, 3)
    graph = exported(table, ids)
    widen_embedding_ids(graph)
    (node,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.embedding.default)
    cast = node.args[1]
    assert cast.target == torch.ops.aten.to.dtype
    assert cast.args[1] == torch.int64
    torch.testing.assert_close(graph(ids), table(ids))
