"""How much memory a program's activations take at once."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.doctor.model_view import Program


@dataclass(frozen=True)
class Peak:
    """The moment when a program holds the most.

    Attributes:
        size_bytes: the values that are alive then, without constants.
        node: the label of the node that runs then.
        operator: that node's operator.
    """

    size_bytes: int
    node: str
    operator: str


def peak_memory(program: Program) -> Peak:
    """The largest sum of the values that are alive at once.

    A value lives from the node that makes it to the last one that reads it; inputs live from the start and outputs to
    the end. That is what a planner without overlap of inputs and outputs can reach at best; what alignment, packed
    weights and the runtime itself take comes on top.
    """
    last: dict[str, int] = {}
    for index, node in enumerate(program.nodes):
        last.update(dict.fromkeys((*node.inputs, *node.outputs), index))
    last.update(dict.fromkeys(program.outputs, len(program.nodes)))
    ends: dict[int, list[str]] = {}
    for key, index in last.items():
        ends.setdefault(index, []).append(key)
    alive = dict.fromkeys(program.inputs, 0)
    alive = {key: program.values[key].size_bytes for key in alive}
    now = sum(alive.values())
    peak = Peak(now, "", "the inputs")
    for index, node in enumerate(program.nodes):
        for key in node.outputs:
            if key not in alive and program.values[key].constant is None:
                alive[key] = program.values[key].size_bytes
                now += alive[key]
        if now > peak.size_bytes:
            peak = Peak(now, node.label, node.operator)
        for key in ends.get(index, ()):
            now -= alive.pop(key, 0)
    return peak
