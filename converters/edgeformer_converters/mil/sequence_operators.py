"""MIL's recurrent operators; see `mil_operators` for the conventions.

`gru` is not here: its documentation contradicts itself on where its reset gate acts, and coremltools writes a torch GRU
out in plain operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise ValueError(f"the recurrent activation {name!r} is not supported")
    return ACTIVATIONS[name]


def _order(length: int, direction: str) -> range:
    """The order of time steps."""
    if direction not in {"forward", "reverse"}:
        raise ValueError(f"direction {direction!r} is not supported")
    return range(length) if direction == "forward" else range(length - 1, -1, -1)


def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """Elman's network over x (S, B, I) from initial_h (B, H): every step (S, B, H) or the last, and the last (B, H)."""
    act = _activation(activation)
    hidden, steps = initial_h, [initial_h] * x.shape[0]
    for time in _order(x.shape[0], direction):
        hidden = act(F.linear(x[time], weight_ih, bias) + F.linear(hidden, weight_hh))
        steps[time] = hidden
    return torch.stack(steps) if output_sequence else hidden.unsqueeze(0), hidden


def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997) over x (S, B, I), gates in the order i, f, o, z.

    Both directions have their halves of initial_h and initial_c (B, 2 H). Gives every step (S, B, H or 2 H), or the
    last, then the last hidden and the last cell state. Peepholes and clipping are not supported.
    """
    acts = (_activation(recurrent_activation), _activation(cell_activation), _activation(activation))
    if direction != "bidirectional":
        return _lstm(x, initial_h, initial_c, weight_ih, weight_hh, bias, direction, output_sequence, acts)
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("a bidirectional lstm needs weights for the way back")
    (h, h_back), (c, c_back) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    there = _lstm(x, h, c, weight_ih, weight_hh, bias, "forward", output_sequence, acts)
    back = _lstm(x, h_back, c_back, weight_ih_back, weight_hh_back, bias_back, "reverse", output_sequence, acts)
    steps, hidden, cell = (torch.cat(pair, -1) for pair in zip(there, back, strict=True))
    return steps, hidden, cell


def _lstm(
    x: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    direction: str,
    output_sequence: bool,
    acts: tuple[Callable[[Tensor], Tensor], ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction."""
    gate_act, cell_act, out_act = acts
    steps = [hidden] * x.shape[0]
    for time in _order(x.shape[0], direction):
        into, forget, out, candidate = (F.linear(x[time], weight_ih, bias) + F.linear(hidden, weight_hh)).chunk(4, -1)
        cell = gate_act(forget) * cell + gate_act(into) * cell_act(candidate)
        hidden = gate_act(out) * out_act(cell)
        steps[time] = hidden
    return torch.stack(steps) if output_sequence else hidden.unsqueeze(0), hidden, cell


RECURRENT_OPERATORS: Mapping[str, Callable[..., Any]] = {"lstm": lstm, "rnn": rnn}
