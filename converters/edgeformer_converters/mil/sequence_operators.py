"""MIL's recurrent operators; see `operators.py` for the conventions.

`gru` is not here: its documentation contradicts itself on where its reset gate acts, and coremltools writes a torch GRU
out in plain operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.program import axes_of, ints

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


# MIL's lists of tensors, which loops fill: tuples that are never changed. See `operators.py` for the conventions.


TensorList = tuple[Tensor | None, ...]


def make_list(
    elem_shape: Sequence[int] | int | None = None,  # noqa: ARG001 - elements bring their shapes and types
    init_length: int = 1,
    dynamic_length: bool = True,  # noqa: ARG001 - a list grows when it is written behind its end
    dtype: str = "fp32",  # noqa: ARG001
) -> tuple[TensorList]:
    """A list of elements that nothing was written to."""
    return ((None,) * ints(init_length)[0],)


def list_length(ls: TensorList) -> int:
    """How many elements there are."""
    return len(ls)


def list_write(ls: TensorList, index: Tensor | int, value: Tensor) -> tuple[TensorList]:
    """The list with an element replaced."""
    return list_scatter(ls, torch.as_tensor(index).reshape(1), value.unsqueeze(0))


def list_read(ls: TensorList, index: Tensor | int) -> Tensor:
    """One element."""
    return list_gather(ls, torch.as_tensor(index).reshape(1))[0]


def list_gather(ls: TensorList, indices: Tensor) -> Tensor:
    """Elements at indices, stacked."""
    elements = [ls[index] for index in ints(indices)]
    if any(element is None for element in elements):
        raise ValueError("an element of the list is read before it is written")
    return torch.stack([element for element in elements if element is not None])


def list_scatter(ls: TensorList, indices: Tensor, value: Tensor) -> tuple[TensorList]:
    """The list with the elements at indices replaced by value's rows."""
    elements = dict(enumerate(ls)) | dict(zip(ints(indices), value, strict=True))
    return (tuple(elements.get(index) for index in range(max(elements, default=-1) + 1)),)


LIST_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "list_gather": list_gather,
    "list_length": list_length,
    "list_read": list_read,
    "list_scatter": list_scatter,
    "list_write": list_write,
    "make_list": make_list,
}


# MIL's operators that normalise; see `operators.py` for the conventions.


def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the axes, then gamma and beta of those axes' shape."""
    over = axes_of(axes, x)
    centered = x - x.mean(over, keepdim=True)
    normed = centered * torch.rsqrt(centered.square().mean(over, keepdim=True) + epsilon)
    sizes = [x.shape[axis] if axis in over else 1 for axis in range(x.dim())]
    scaled = normed if gamma is None else normed * gamma.reshape(sizes)
    return scaled if beta is None else scaled + beta.reshape(sizes)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """x (B, C, ...) normalised by stored statistics per channel."""
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """x (B, C, ...) with mean 0 and variance 1 over space, then gamma and beta per channel."""
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """x divided by its Euclidean norm over the last three axes."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x (B, C, ...) divided by a power of the mean square over `size` neighbouring channels."""
    if size % 2 == 0:
        raise ValueError(f"local_response_norm over {size} channels is not supported: an even number has no middle")
    return F.local_response_norm(x, size, alpha, beta, k)


NORM_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
}
