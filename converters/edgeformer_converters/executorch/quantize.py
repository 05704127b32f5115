"""int8 in ExecuTorch: PT2E quantization for XNNPACK, dynamic or from calibration inputs.

TinyViT-5M (seeded weights, which are harder than trained ones), one x86-64 thread, as many partitions as at fp32.
Columns as in `litert/quantize.py`; the rows from the second on have weights rounded to nearest and were measured over
six photographs:

| | ms | cosine | difference | file of fp32's |
|---|---|---|---|---|
| dynamic-int8: linear layers and convolutions | – | .9967 | .081 | .260 |
| the same, to nearest, attention's biases in float | 23.4 | .9934 | .118 | .396 |
| static: linear layers and all convolutions, biases in float | 25.6 | .9842 | .214 | .399 |
| static: linear layers and pointwise convolutions, ranges of histograms | 24.0 | .9919 | .156 | .266 |
| static: as above, ranges from the smallest to the largest value | 22.1 | .9891 | .178 | .266 |

static-int8 leaves convolutions to the dynamic kind, whose results stay float: in LiteRT and ONNX Runtime, static
pointwise convolutions alone made the largest difference twice as large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from edgeformer.convert.layer_plan import LARGEST_INT4, LARGEST_INT8
from edgeformer.models.family import MIN_MAX, Program
from edgeformer_converters.observe import ValueHistogram
from edgeformer_runtime.errors import InputError

# A smaller constant is not worth the operator that would read it. Whisper's, one value per position, has up to 1,500.
LEAST_ELEMENTS = 2048
ACTIVATIONS = ("input_activation", "output_activation")


def quantize_dynamically(module: Any, program: Program) -> Any:
    """Linear layers, convolutions and embedding tables of an exported module; activations while it runs."""
    from executorch.backends.transforms.duplicate_dynamic_quant_chain import DuplicateDynamicQuantChainPass
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import ComposableQuantizer
    from torchao.quantization.pt2e.quantizer.embedding_quantizer import EmbeddingQuantizer

    linear = XNNPACKQuantizer()
    linear.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(module, ComposableQuantizer([linear, EmbeddingQuantizer()]))
    # Dynamic quantization calibrates nothing, but its observers of weights have to see them once.
    prepared(*program.example_inputs())
    converted = convert_pt2e(prepared)
    # Linear layers that share an input would share what quantizes it, and could end up in another piece than that.
    DuplicateDynamicQuantChainPass()(converted)
    return converted


def quantize_statically(module: Any, program: Program) -> Any:
    """Linear layers of an exported module, from the program's calibration inputs; pointwise convolutions dynamically.

    Attention's products and softmax stay float, and so do spatial convolutions.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    method = program.calibration_method
    config = replace(config, **{side: _with_range(getattr(config, side), method) for side in ACTIVATIONS})
    quantizer = XNNPACKQuantizer().set_filter_function(_is_pointwise)
    quantizer.set_operator_type(torch.ops.aten.linear.default, config)
    dynamic = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer.set_operator_type(torch.ops.aten.conv2d.default, dynamic)
    prepared = prepare_pt2e(module, quantizer)
    for inputs in program.calibration:
        prepared(*inputs)
    return convert_pt2e(prepared)


def _with_range(spec: Any, method: str) -> Any:
    """A specification of activations whose range is taken by one of `edgeformer.convert.calibration.METHODS`."""
    from torchao.quantization.pt2e import MinMaxObserver

    class RangeObserver(MinMaxObserver):  # type: ignore[misc]
        """Takes its range from all values that it saw."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.histogram = ValueHistogram()

        def forward(self, x: Tensor) -> Tensor:
            """x of any shape, unchanged."""
            self.histogram.add(x.detach().numpy())
            seen: Tensor = super().forward(x)
            return seen

        def calculate_qparams(self) -> tuple[Tensor, Tensor]:
            """Scale and zero point."""
            low, high = self.histogram.range(method)
            found: tuple[Tensor, Tensor] = self._calculate_qparams(torch.tensor(low), torch.tensor(high))
            return found

    observer = MinMaxObserver if method == MIN_MAX else RangeObserver
    return replace(spec, observer_or_fake_quant_ctr=observer.with_args(eps=2**-12))


def _is_pointwise(node: torch.fx.Node) -> bool:
    """Whether a node is anything but a convolution with a kernel larger than 1 x 1."""
    if node.target is not torch.ops.aten.conv2d.default:
        return True
    return bool(node.args[1].meta["val"].shape[2:] == (1, 1))  # type: ignore[union-attr]


def store_attention_biases_in_int8(module: torch.fx.GraphModule) -> None:
    """Store each large constant that is added to attention scores in int8, dequantized where it is added."""
    for node in list(module.graph.nodes):
        if node.op != "get_attr" or not _leads_to_softmax(node):
            continue
        path, _, attribute = str(node.target).rpartition(".")
        owner = module.get_submodule(path)
        value = getattr(owner, attribute)
        if value.numel() < LEAST_ELEMENTS:
            continue
        scale = float(value.abs().max()) / LARGEST_INT8 or 1.0
        name = f"{node.target}_int8".replace(".", "_")
        module.register_buffer(name, torch.round(value / scale).to(torch.int8))
        with module.graph.inserting_before(node):
            stored = module.graph.get_attr(name)
            dequantized = module.graph.call_function(
                torch.ops.quantized_decomposed.dequantize_per_tensor.default,
                (stored, scale, 0, -LARGEST_INT8, LARGEST_INT8, torch.int8),
            )
        node.replace_all_uses_with(dequantized)
        module.graph.erase_node(node)
        delattr(owner, attribute)
    module.recompile()


def _leads_to_softmax(node: torch.fx.Node, added: bool = False) -> bool:
    """Whether a value reaches a softmax by one addition and otherwise changes of shape."""
    for user in node.users:
        name = str(user.target)
        if "softmax" in name and added:
            return True
        if any(shape in name for shape in ("reshape", "view", "expand")) and _leads_to_softmax(user, added):
            return True
        if ".add" in name and not added and _leads_to_softmax(user, True):
            return True
    return False


# A format for each layer in ExecuTorch: the layer's operators are those that read its parameter.
#
# | format | PT2E's annotation | how XNNPACK computes |
# |---|---|---|
# | fp32 | none | in float |
# | int8 | weights per channel, activations quantized per row while it runs | in int8 |
# | int4 | the same with weights of 4 bits, -7 to 7 | in int8, two weights a byte |


LEAST_INT4 = -8
"""The lower bound by which XNNPACK's partitioner knows weights of 4 bits; no weight has it."""
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
