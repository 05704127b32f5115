"""Rewrites of an exported graph that ExecuTorch's quantized and half-precision kernels need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.traceback import NodeSource

aten = torch.ops.aten


@contextmanager
def shared_provenance() -> Iterator[None]:
    """Let graph passes share their notes on where a node came from instead of copying them.

    Nobody changes these notes, they grow with every one of some forty passes, and copying them takes a quarter of the
    time of lowering a quantized MobileBERT.
    """
    NodeSource.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]


def widen_embedding_ids(module: GraphModule) -> None:
    """Cast the ids of every embedding to int64: the kernel for quantized tables takes nothing else."""
    for node in module.graph.find_nodes(op="call_function", target=aten.embedding.default):
        ids = node.args[1]
        assert isinstance(ids, Node)
        if ids.meta["val"].dtype != torch.int64:
            with module.graph.inserting_before(node):
                node.update_arg(1, module.graph.call_function(aten.to.dtype, (ids, torch.int64)))
    module.recompile()


def compute_in_half(module: GraphModule) -> None:
    """Store floats in float16 and compute in it, between inputs and outputs of int32 and float32.

    Layer normalisation stays in float32: it lies outside XNNPACK anyway, and its sums of squares leave float16's range.
    GELU becomes its tanh form (at most 5e-4 away), since XNNPACK has no half-precision GELU.
    """
    module.half()
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=aten._assert_tensor_metadata.default):
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "call_function":
            node.args = torch.fx.node.map_aggregate(node.args, _half_dtype)
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _half_dtype)
    for node in graph.find_nodes(op="placeholder"):
        if node.meta["val"].dtype == torch.float32:
            with graph.inserting_after(node):
                half = graph.call_function(aten.to.dtype, (node, torch.float16))
            node.replace_all_uses_with(half, delete_user_cb=lambda user, half=half: user is not half)
    for node in graph.find_nodes(op="call_function", target=aten.gelu.default):
        _replace(graph, node, _tanh_gelu)
    for node in graph.find_nodes(op="call_function", target=aten.layer_norm.default):
        _keep_in_float32(graph, node)
    output = graph.output_node()
    with graph.inserting_before(output):
        for result in output.all_input_nodes:
            output.replace_input_with(result, graph.call_function(aten.to.dtype, (result, torch.float32)))
    module.recompile()


def _half_dtype(argument: Any) -> Any:
    return torch.float16 if argument is torch.float32 else argument


def _tanh_gelu(graph: Graph, x: Node) -> Node:
    def call(operator: Callable[..., Tensor], *args: Node | float) -> Node:
        return graph.call_function(operator, args)

    # x (1 + 0.044715 x^2): squaring first keeps its sign where float16 overflows to infinity, and tanh is 1 there.
    squared = call(aten.mul.Tensor, x, x)
    factor = call(aten.add.Tensor, call(aten.mul.Tensor, squared, 0.044715), 1.0)
    inner = call(aten.mul.Tensor, call(aten.mul.Tensor, factor, x), math.sqrt(2 / math.pi))
    half = call(aten.mul.Tensor, x, 0.5)
    return call(aten.mul.Tensor, half, call(aten.add.Tensor, call(aten.tanh.default, inner), 1.0))


def _replace(graph: Graph, node: Node, build: Callable[[Graph, Node], Node]) -> None:
    with graph.inserting_before(node):
        node.replace_all_uses_with(build(graph, node.all_input_nodes[0]))
    graph.erase_node(node)


def _keep_in_float32(graph: Graph, node: Node) -> None:
    with graph.inserting_before(node):
        wide = {each: graph.call_function(aten.to.dtype, (each, torch.float32)) for each in node.all_input_nodes}
    for narrow, cast in wide.items():
        node.replace_input_with(narrow, cast)
    with graph.inserting_after(node):
        result = graph.call_function(aten.to.dtype, (node, torch.float16))
    node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)
