"""How long work tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with what is finished and all there is: cases, examples, rounds, whatever is counted."""

AudioProgress = Callable[[float, float | None], None]
"""Called with the seconds of audio that are done, and those of all of it, None where that is unknown."""
