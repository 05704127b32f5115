"""What all converters share. The contract itself is in `edgeformer.targets`."""

from __future__ import annotations

from edgeformer.targets import Converter, Lowered

__all__ = ["Converter", "Lowered"]
