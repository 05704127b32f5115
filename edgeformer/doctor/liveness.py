"""How much memory a program's activations take at once."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.doctor.model_view import Node, Program
from edgeformer.doctor.operator_names import ELEMENTWISE, LAYOUT, SOFTMAX, plain_name

IN_PLACE = ELEMENTWISE | LAYOUT | SOFTMAX
"""What runtimes write over an operand of the same size that nobody reads afterwards."""


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
    the end. What is made of constants alone counts as a constant. What kernels and packed weights take, and what a
    planner loses to gaps, comes on top.
    """
    nodes = [node for node in program.nodes if not _is_constant(node, program)]
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys((*node.inputs, *node.outputs), index))
    last.update(dict.fromkeys(program.outputs, len(nodes)))
    alive = {key: program.values[key].size_bytes for key in program.inputs}
    now = sum(alive.values())
    peak = Peak(now, "", "the inputs")
    for index, node in enumerate(nodes):
        ended = [key for key in dict.fromkeys(node.inputs) if last[key] == index and key in alive]
        made = {key: program.values[key].size_bytes for key in node.outputs if key not in alive}
        reused = next((key for key in ended if _is_in_place(node) and alive[key] in made.values()), None)
        if reused is not None and reused not in program.inputs:
            now -= alive.pop(reused)
        alive |= made
        now += sum(made.values())
        if now > peak.size_bytes:
            peak = Peak(now, node.label, node.operator)
        now -= sum(alive.pop(key, 0) for key in (*ended, *made) if last[key] == index)
    return peak


def _is_in_place(node: Node) -> bool:
    return plain_name(node.operator) in IN_PLACE and len(node.outputs) == 1


def _is_constant(node: Node, program: Program) -> bool:
    """Whether a node reads constants alone, so that a runtime computes it when it opens the model."""
    return bool(node.inputs) and all(program.values[key].constant is not None for key in node.inputs)
