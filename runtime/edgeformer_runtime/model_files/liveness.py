"""How much of a graph is alive at once, which is what an engine needs at least."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from edgeformer_runtime.model_files.refusal import refuse

MAX_LIVE_ELEMENTS = 1 << 28
"""Of all computed tensors together: four times the largest one."""

Key = TypeVar("Key", bound=Hashable)


def check_live(steps: Sequence[tuple[Iterable[Key], Iterable[Key]]], sizes: Mapping[Key, int]) -> None:
    """Refuse a graph that computes more at once than any of ours.

    Args:
        steps: what each operator reads and writes, in order.
        sizes: the elements of each tensor that is computed.

    Raises:
        Broken: says how much is alive.
    """
    last: dict[Key, int] = {}
    for number, (inputs, outputs) in enumerate(steps):
        last.update(dict.fromkeys((*inputs, *outputs), number))
    ends: dict[int, list[Key]] = {}
    for key, number in last.items():
        ends.setdefault(number, []).append(key)
    alive = peak = 0
    for number, (_, outputs) in enumerate(steps):
        alive += sum(sizes.get(key, 0) for key in outputs)
        peak = max(peak, alive)
        alive -= sum(sizes.get(key, 0) for key in ends.get(number, ()))
    if peak > MAX_LIVE_ELEMENTS:
        refuse(f"{peak} elements are alive at once: expected at most 2^28")
