"""State inside ExecuTorch programs: buffers that methods share, written in place, and memory planned for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.traceback import NodeSource

from edgeformer.models.family import Program

aten = torch.ops.aten

NORM_DIVISOR = 8.0
"""What layer norms divide by before they square. Whisper tiny's encoder leaves float16 with 2, and of 32 the squares of
its decoder's first norm lose their digits: logits are off by .25 then, with 8 by .04, with norms in float32 by .02."""


def changed_buffers(exported: Any) -> tuple[str, ...]:
    """The names of the buffers that an exported program writes with `copy_`, which is its state."""
    buffers = exported.graph_signature.inputs_to_buffers
    writes = _calls(exported.graph, aten.copy_.default)
    return tuple(buffers[node.args[0].name] for node in writes if node.args[0].name in buffers)


def write_rows_by_index(module: GraphModule) -> None:
    """Turn selections over a whole cache, which Core ML needs, into writes of the rows alone.

    `cache.copy_(torch.where(row_numbers == rows, new, cache))` on the eight caches of Whisper tiny, 256 rows each,
    takes 6.9 ms of CPU for each token, and writing the row 0.03 ms. Rows beyond the cache still go nowhere: their
    tokens write the first token's row again.
    """
    graph = module.graph
    for check in _calls(graph, aten._assert_tensor_metadata.default):
        graph.erase_node(check)
    for copy in _calls(graph, aten.copy_.default):
        cache, chosen = copy.args[:2]
        if getattr(chosen, "target", None) is not aten.where.self or chosen.args[2] is not cache:
            continue
        condition, new = chosen.args[0], chosen.args[1]
        rows = _rows_of(condition)
        if rows is None:
            continue
        axis = [size > 1 for size in condition.meta["val"].shape].index(True)
        with graph.inserting_before(copy):
            if rows.meta["val"].numel() > 1:
                new = new.args[1 if axis == 1 else 0]  # of the product with the placement of rows
                rows, new = _inside(graph, rows, new, axis, cache.meta["val"].shape[axis])
            written = graph.call_function(aten.index_put.default, (cache, [None] * axis + [rows], new))
        copy.update_arg(1, written)
    graph.eliminate_dead_code()
    module.recompile()


def _rows_of(condition: Any) -> Any:
    """The rows (N,) int32 that a condition compares the numbers of all rows with; None where it is something else."""
    node = condition
    while node.target in (aten.reshape.default, aten.view.default, aten.any.dim):
        node = node.all_input_nodes[0]
    if node.target is not aten.eq.Tensor:
        return None
    rows = node.all_input_nodes[-1]
    while rows.target in (aten.reshape.default, aten.view.default):
        rows = rows.all_input_nodes[0]
    return rows if rows.op == "placeholder" else None


def _inside(graph: Graph, rows: Any, new: Any, axis: int, count: int) -> tuple[Any, Any]:
    """Rows and what to write there, with the first token's in place of those whose row is beyond the cache."""
    numbers = graph.call_function(aten.arange.default, (rows.meta["val"].numel(),), {"dtype": torch.int32})
    tokens = graph.call_function(aten.mul.Tensor, (numbers, graph.call_function(aten.lt.Scalar, (rows, count))))
    return (
        graph.call_function(aten.index_select.default, (rows, 0, tokens)),
        graph.call_function(aten.index_select.default, (new, axis, tokens)),
    )


def normalize_in_delegate(module: GraphModule) -> None:
    """Spell layer normalisation with what XNNPACK can do: means are products with a column of 1 / C.

    Every layer norm outside cuts the graph in two: a Whisper decoder of two layers is one partition instead of eight.
    One that half precision has put between two casts is computed in float16: XNNPACK casts nothing.
    """
    graph = module.graph
    columns: dict[tuple[int, torch.dtype], Any] = {}
    for node in _calls(graph, aten.layer_norm.default):
        given: list[Any] = list(node.args[:5])
        x, shape, weight, bias, epsilon = given + [None, None, 1e-5][len(given) - 2 :]
        if len(shape) != 1:
            continue
        key = (shape[0], torch.float16 if _is_widened(x) else torch.float32)
        x, weight, bias = (each.args[0] if _is_widened(each) else each for each in (x, weight, bias))
        if key not in columns:
            columns[key] = _column_of_mean(module, *key)
        with graph.inserting_before(node):
            result = _normalized(graph, x, columns[key], epsilon)
            for combine, constant in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
                if constant is not None:
                    result = graph.call_function(combine, (result, constant))
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    module.recompile()


def tanh_gelus(graph: Graph) -> list[Any]:
    """Where GELU's approximation by tanh is asked for."""
    return [node for node in _calls(graph, aten.gelu.default) if node.kwargs.get("approximate") == "tanh"]


def write_out_tanh_gelu(module: GraphModule) -> None:
    """Spell GELU's approximation by tanh with what XNNPACK can do: its own GELU is always the exact one.

    The two differ by up to 4.7e-4, which a tiny GPT-2 with large random weights makes 2.8e-4 of its largest logit.
    """
    for node in tanh_gelus(module.graph):
        _replace(module.graph, node, _tanh_gelu)
    module.recompile()


def _normalized(graph: Graph, x: Any, column: Any, epsilon: float) -> Any:
    """x (..., C) less its mean, divided by its standard deviation; `column` (1, C) holds 1 / C."""

    def call(target: Any, *args: Any) -> Any:
        return graph.call_function(target, args)

    centered = call(aten.sub.Tensor, x, call(aten.linear.default, x, column))
    # Powers of two change no digit, and what both factors of the result share cancels out.
    small = call(aten.mul.Tensor, centered, 1 / NORM_DIVISOR)
    variance = call(aten.linear.default, call(aten.mul.Tensor, small, small), column)
    inverse = call(aten.rsqrt.default, call(aten.add.Tensor, variance, epsilon / NORM_DIVISOR**2))
    return call(aten.mul.Tensor, small, inverse)


def _column_of_mean(module: GraphModule, size: int, dtype: torch.dtype) -> Any:
    """A constant (1, size) of the graph, at its beginning, whose product with a row is the row's mean."""
    name = f"mean_of_{size}_{dtype}".replace(".", "_")
    module.register_buffer(name, torch.full((1, size), 1.0 / size, dtype=dtype))
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        return module.graph.get_attr(name)


def _is_widened(x: Any) -> bool:
    """Whether half precision has put a cast to float32 here."""
    return getattr(x, "target", None) is aten.to.dtype and x.args[1] is torch.float32


def slice_instead_of_select(module: GraphModule) -> None:
    """Pick one entry of an axis by a slice and a change of shape, which XNNPACK can do, unlike select."""
    graph = module.graph
    for node in _calls(graph, aten.select.int):
        x, axis, index = node.args
        if not node.meta["val"].is_floating_point():
            continue
        with graph.inserting_before(node):
            entry = graph.call_function(aten.slice.Tensor, (x, axis, index, index + 1)) if _is_long(x, axis) else x
            result = graph.call_function(aten.reshape.default, (entry, list(node.meta["val"].shape)))
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    module.recompile()


def _is_long(x: Any, axis: int) -> bool:
    return bool(x.meta["val"].shape[axis] > 1)


def memory_plans(programs: Sequence[Program], exported: Mapping[str, Any]) -> dict[str, Any]:
    """A memory planning pass for each program. Those that change the same buffers share one, and with it the place.

    The state of every group starts at the same place, so a loaded file needs memory for the largest group alone: one
    group at a time is alive in it. Inputs are not planned: the caller's memory is read where it lies.
    """
    from executorch.exir.passes import MemoryPlanningPass

    class SharedState(MemoryPlanningPass):  # type: ignore[misc]
        """ExecuTorch calls `run_multimethod` once for each method, and it may run only once."""

        placed = False

        def run_multimethod(self) -> None:
            if not self.placed:
                self.placed = True
                super().run_multimethod()

    plans: dict[int, Any] = {}
    by_program = {}
    for program in programs:
        changed = changed_buffers(exported[program.name])
        group = id(program.module.get_buffer(changed[0]) if changed else program)
        by_program[program.name] = plans.setdefault(
            group, SharedState(share_mutable_buffers=bool(changed), alloc_graph_input=False)
        )
    return by_program


def _calls(graph: Graph, target: Any) -> list[Any]:
    """The nodes that call an operator; Any, as what their arguments are is known from the operator alone."""
    return list(graph.find_nodes(op="call_function", target=target))


# Rewrites of an exported graph that ExecuTorch's quantized and half-precision kernels need.


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
