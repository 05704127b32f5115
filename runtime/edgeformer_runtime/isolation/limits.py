"""What a helper process may use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeformer_runtime.errors import InputError

BASE_MEMORY_BYTES = 1 << 30
"""For the interpreter, the engine's library and what preprocessing needs."""
COPIES = 8
"""Of the bundle: engines pack weights anew, some once for each program."""


@dataclass(frozen=True)
class Limits:
    """The limits of a helper process.

    Attributes:
        memory_bytes: of private memory; None: 1 GiB and eight times the bundle.
        open_s: for the bundle to open, or to be verified.
        call_s: for one answer; of speech for each window of sound.
    """

    memory_bytes: int | None = None
    open_s: float = 120.0
    call_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("open_s", "call_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}: expected seconds above 0, found {value!r}")
        if self.memory_bytes is not None and self.memory_bytes < 1 << 20:
            raise InputError(f"memory_bytes: expected at least 1 MiB, found {self.memory_bytes!r}")

    def memory_for(self, bundle_bytes: int) -> int:
        """The bytes that a bundle of this size gets."""
        return self.memory_bytes or BASE_MEMORY_BYTES + COPIES * bundle_bytes
