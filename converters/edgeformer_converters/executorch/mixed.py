"""A format for each layer in ExecuTorch: the layer's operators are those that read its parameter.

| format | PT2E's annotation | how XNNPACK computes |
|---|---|---|
| fp32 | none | in float |
| int8 | weights per channel, activations quantized per row while it runs | in int8 |
| int4 | the same with weights of 4 bits, -7 to 7 | in int8, two weights a byte |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from edgeformer.models.program import Program
from edgeformer_runtime.errors import InputError

LEAST_INT4, LARGEST_INT4 = -8, 7
"""The range by which XNNPACK's partitioner knows weights of 4 bits."""
_OPERATORS = {
    torch.ops.aten.linear.default: 1,
    torch.ops.aten.conv2d.default: 1,
    torch.ops.aten.embedding.default: 0,
}
"""With the place of the weights among their arguments."""


def quantize_by_plan(module: Any, program: Program) -> Any:
    """Quantize an exported module's layers as `program.layer_formats` says; activations while it runs.

    Raises:
        InputError: a layer that the export holds, but that no operator reads as it is.
    """
    from executorch.backends.transforms.duplicate_dynamic_quant_chain import DuplicateDynamicQuantChainPass
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer

    _require_layers(module, program)
    quantizers: list[Any] = [_tables_quantizer(program)]
    for format in ("int8", "int4"):
        config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
        if format == "int4":
            config = replace(config, weight=_in_four_bits(config.weight))
        quantizer = XNNPACKQuantizer().set_filter_function(_reads(program, format))
        for operator in (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default):
            quantizer.set_operator_type(operator, config)
        quantizers.append(quantizer)
    prepared = prepare_pt2e(module, ComposableQuantizer(quantizers))
    prepared(*program.example_inputs())
    converted = convert_pt2e(prepared)
    DuplicateDynamicQuantChainPass()(converted)
    return converted


def _layer_of(node: torch.fx.Node) -> str | None:
    """The name of the layer whose weight an operator reads; None of other operators."""
    place = _OPERATORS.get(node.target) if node.op == "call_function" else None  # type: ignore[call-overload]
    if place is None:
        return None
    weights = node.args[place]
    assert isinstance(weights, torch.fx.Node)
    return str(weights.target).removesuffix(".weight") if weights.op == "get_attr" else None


def _reads(program: Program, format: str) -> Callable[[torch.fx.Node], bool]:
    """Whether an operator reads the weight of a layer that has this format."""

    def reads(node: torch.fx.Node) -> bool:
        name = _layer_of(node)
        return name is not None and program.layer_formats.get(name) == format

    return reads


def _require_layers(module: torch.fx.GraphModule, program: Program) -> None:
    """Each planned weight that the graph reads must be read by operators that can be told apart by it."""
    read = {_layer_of(node) for node in module.graph.nodes}
    held = {
        str(node.target).removesuffix(".weight") for node in module.graph.nodes if node.op == "get_attr" and node.users
    }
    lost = [name for name in program.layer_formats if name in held and name not in read]
    if lost:
        raise InputError(
            f"executorch: {program.name} reads the weights of {', '.join(lost[:3])} in a way that no format can be "
            "given to: take another attention kernel, or a precision for the whole model"
        )


def _tables_quantizer(program: Program) -> Any:
    """torchao's quantizer of embedding tables, per row in int8, for the planned ones."""
    from torchao.quantization.pt2e.quantizer.embedding_quantizer import EmbeddingQuantizer
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    planned = _reads(program, "int8")

    class PlannedTables(EmbeddingQuantizer):  # type: ignore[misc]
        """Takes its annotations back from the other tables."""

        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            """Annotate a graph in place."""
            super().annotate(model)
            for node in model.graph.find_nodes(op="call_function", target=torch.ops.aten.embedding.default):
                if not planned(node):
                    node.meta.pop(Q_ANNOTATION_KEY, None)
            return model

    return PlannedTables()


def _in_four_bits(spec: Any) -> Any:
    """A specification of int8 weights, for 4 bits, whose scale is the largest weight / 7 as everywhere else.

    PT2E would take 7.5, which leaves weights that were rounded to 7 steps between two of its own.
    """
    from torchao.quantization.pt2e.observer import PerChannelMinMaxObserver

    class SevenSteps(PerChannelMinMaxObserver):  # type: ignore[misc]
        """Takes the scale from the largest weight alone."""

        def calculate_qparams(self) -> tuple[Tensor, Tensor]:
            """(O,) scales and zero points."""
            scale, zero_point = super().calculate_qparams()
            return scale * ((LARGEST_INT4 - LEAST_INT4) / 2 / LARGEST_INT4), zero_point

    return replace(
        spec,
        quant_min=LEAST_INT4,
        quant_max=LARGEST_INT4,
        observer_or_fake_quant_ctr=SevenSteps.with_args(eps=2**-12),
    )
