"""How Core ML stores weights smaller than in half: coremltools' compressions, as data.

Each replaces weights and embedding tables by an operator that Core ML evaluates once, when it loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edgeformer.models.program import Program
from edgeformer_converters.checks import Lowered, PlannedLayer, PlannedLayers
from edgeformer_converters.mil.interpreter import MilInterpreter
from edgeformer_converters.mil.program import Function, read_program

# coremltools' own threshold: below it are biases, norms and small tables, whose bytes do not matter.
MIN_ELEMENTS = 2048


@dataclass(frozen=True)
class Linear:
    """Integers with a scale per output channel, or per block of it, where asymmetric with an offset, too."""

    ios: int
    dtype: str
    mode: str
    granularity: str
    block_size: int = 32

    def compress(self, model: Any) -> Any:
        """A copy of a coremltools model whose weights are stored so; those that blocks do not divide stay in half."""
        import coremltools.optimize.coreml as optimize

        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=self.quantizer()))

    def quantizer(self, least: int = MIN_ELEMENTS) -> Any:
        """coremltools' configuration for it, of weights with at least so many elements."""
        import coremltools.optimize.coreml as optimize

        return optimize.OpLinearQuantizerConfig(
            mode=self.mode,
            dtype=self.dtype,
            granularity=self.granularity,
            block_size=self.block_size,
            weight_threshold=least,
        )


@dataclass(frozen=True)
class Palette:
    """Indices of `bits` bits into a table of a tensor's 2^bits k-means centres."""

    ios: int
    bits: int

    def compress(self, model: Any) -> Any:
        """A copy of a coremltools model whose weights are stored so."""
        import coremltools.optimize.coreml as optimize

        palettizer = optimize.OpPalettizerConfig(mode="kmeans", nbits=self.bits, weight_threshold=MIN_ELEMENTS)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=palettizer))


INT8 = Linear(16, "int8", "linear_symmetric", "per_channel")
# With offsets the classifier of images is off by .25 instead of .46, for 3 % more bytes.
INT4 = Linear(18, "int4", "linear", "per_block")

WEIGHTS: Mapping[str, Linear | Palette] = {
    "dynamic-int8": INT8,
    "palette6": Palette(16, 6),
    # One table per tensor: tables per 16 channels are larger, and no nearer on small models.
    "palette4": Palette(16, 4),
    "int4": INT4,
}
"""By precision, with the first release of iOS that reads it."""


# A format for each layer in Core ML: the layer's constant is found by its values.
#
# fp32 layers compute in float32; the other ones in half, with weights in half, in int8 or in int4.


_INPUTS_FIRST = ("matmul",)
"""Operators that may take weights as (I, O)."""


def stays_float(layers: PlannedLayers, operation: Any) -> bool:
    """Whether an operation of coremltools reads the weights of a layer that a plan leaves in float32."""
    return any(layer.format == "fp32" for _, layer in _weights(layers, operation))


def compress_by_plan(model: Any, layers: PlannedLayers) -> Any:
    """A copy of a coremltools model whose layers' weights are stored as planned; those found are marked.

    A layer of int4 whose channels blocks do not divide stays in half, as in the precision int4.
    """
    import coremltools.optimize.coreml as optimize

    chosen = {"int8": INT8.quantizer(least=0), "int4": INT4.quantizer(least=0)}
    configs: dict[str, Any] = {}
    for function in model._mil_program.functions.values():
        for operation in function.operations:
            for constant, layer in _weights(layers, operation):
                if layer.format in chosen:
                    configs[constant] = chosen[layer.format]
    if not configs:
        return model
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(op_name_configs=configs))


def _weights(layers: PlannedLayers, operation: Any) -> list[tuple[str, PlannedLayer]]:
    """Names of constants that an operation reads, casts looked through, with the layers whose weights they are."""
    found = []
    for operand in operation.inputs.values():
        value = getattr(operand, "val", None)
        maker = getattr(operand, "op", None)
        if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype.kind != "f" or maker is None:
            continue
        if operation.op_type == "const":
            continue
        while maker.op_type == "cast":
            maker = maker.x.op
        transposed = operation.op_type in _INPUTS_FIRST and not operation.transpose_y.val
        layer = layers.find(value, transposed)
        if layer is not None:
            found.append((str(maker.name), layer))
    return found


# What float16 cannot hold of a program, found by running it: published MobileBERT's hidden states pass 1e7.


LARGEST_TRUSTED = float(torch.finfo(torch.float16).max) / 4
"""Other inputs reach more than the ones that were looked at."""


def values_beyond_half(programs: Sequence[Program], fp32: Lowered) -> frozenset[str]:
    """The names of the values that calibration inputs drive beyond a quarter of float16's range.

    Args:
        programs: those without calibration inputs are left out.
        fp32: their packages, in which coremltools' names are those that it has before it turns to half precision.
    """
    names: set[str] = set()
    for program in programs:
        if program.calibration:
            file, entry = fp32.entries[program.name]
            names |= _beyond(program, read_program(fp32.folder / file)[entry])
    return frozenset(names)


def _beyond(program: Program, function: Function) -> set[str]:
    floats = [each.name for operation in function.operations for each in operation.outputs if each.dtype == "FLOAT32"]
    interpreter = MilInterpreter(replace(function, outputs=tuple(dict.fromkeys((*function.outputs, *floats)))))
    found: set[str] = set()
    for inputs in program.calibration:
        given = {spec.name: value.numpy() for spec, value in zip(program.inputs, inputs, strict=True)}
        values = interpreter.run(given)
        found |= {name for name in floats if values[name].size and not np.abs(values[name]).max() <= LARGEST_TRUSTED}
    return found


def fits_float16(wide: frozenset[str], operation: Any) -> bool:
    """Whether an operation of coremltools neither reads nor makes any of the values named `wide`."""
    operands: list[Any] = list(operation.outputs)
    for operand in operation.inputs.values():
        operands += operand if isinstance(operand, list | tuple) else [operand]
    return not any(value.name in wide for value in operands if value is not None)
