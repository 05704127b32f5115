"""What all converters share. The contract itself is in `edgeformer.convert.target`."""

from __future__ import annotations

from edgeformer.convert.target import Converter, Lowered

__all__ = ["Converter", "Lowered"]
