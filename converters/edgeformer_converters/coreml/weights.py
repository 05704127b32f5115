"""How Core ML stores weights smaller than in half: coremltools' compressions, as data.

Each replaces weights and embedding tables by an operator that Core ML evaluates once, when it loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
