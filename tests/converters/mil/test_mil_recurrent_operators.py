"""MIL's recurrent operators against torch's layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mil_calls import Case, call, check
from torch import Tensor, nn

STEPS, BATCH, INPUT, HIDDEN = 5, 2, 3, 4


def _seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


X, H, C = _seeded(STEPS, BATCH, INPUT), _seeded(BATCH, HIDDEN), _seeded(BATCH, HIDDEN) / 2


def _ifoz(rows: Tensor) -> Tensor:
    """torch's order of gates, input, forget, cell, output, to MIL's."""
    into, forget, cell, out = rows.chunk(4)
    return torch.cat([into, forget, out, cell])


torch.manual_seed(3)
LSTM = nn.LSTM(INPUT, HIDDEN).requires_grad_(False)
BOTH = nn.LSTM(INPUT, HIDDEN, bidirectional=True).requires_grad_(False)
RNN = nn.RNN(INPUT, HIDDEN).requires_grad_(False)


def _weights(layer: nn.LSTM, torch_suffix: str, suffix: str) -> dict[str, Tensor]:
    into, hidden, *biases = (
        _ifoz(getattr(layer, f"{kind}_l0{torch_suffix}")) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return {f"weight_ih{suffix}": into, f"weight_hh{suffix}": hidden, f"bias{suffix}": biases[0] + biases[1]}


def _reversed_lstm() -> tuple[Tensor, Tensor, Tensor]:
    steps, (hidden, cell) = LSTM(X.flip(0), (H[None], C[None]))
    return steps.flip(0), hidden[0], cell[0]


def _both() -> tuple[Tensor, Tensor, Tensor]:
    steps, states = BOTH(X, (torch.stack([H, H * 2]), torch.stack([C, C / 2])))
    hidden, cell = (torch.cat(list(each), -1) for each in states)
    return steps, hidden, cell


START = {"x": X, "initial_h": H, "initial_c": C}
SIMPLE = {"x": X, "initial_h": H, "weight_ih": RNN.weight_ih_l0, "weight_hh": RNN.weight_hh_l0}
LAST = LSTM(X, (H[None], C[None]))
CASES: list[Case] = [
    ("lstm", START | _weights(LSTM, "", ""), (LAST[0][-1:], LAST[1][0][0], LAST[1][1][0])),
    ("lstm", START | _weights(LSTM, "", "") | {"output_sequence": True, "direction": "reverse"}, _reversed_lstm()),
    ("lstm", {"x": X, "initial_h": torch.cat([H, H * 2], 1), "initial_c": torch.cat([C, C / 2], 1),
              "direction": "bidirectional", "output_sequence": True}
     | _weights(BOTH, "", "") | _weights(BOTH, "_reverse", "_back"), _both()),
    ("rnn", SIMPLE | {"bias": RNN.bias_ih_l0 + RNN.bias_hh_l0, "output_sequence": True},
     (RNN(X, H[None])[0], RNN(X, H[None])[1][0])),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operator(case: Case) -> None:
    check(case)


def test_a_linear_network_backwards_is_written_out() -> None:
    into, hidden = torch.ones(1, 1), torch.full((1, 1), 0.5)
    x = torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1)
    steps, last = call(
        "rnn", x=x, initial_h=torch.zeros(1, 1), weight_ih=into, weight_hh=hidden, activation="linear",
        direction="reverse", output_sequence=True,
    )  # fmt: skip
    np.testing.assert_array_equal(steps.ravel(), [3, 4, 4])
    np.testing.assert_array_equal(last, [[3]])


@pytest.mark.parametrize("change", [{"activation": "hard_sigmoid"}, {"direction": "sideways"}])
def test_another_variant_is_an_error(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not supported"):
        call("lstm", **(START | _weights(LSTM, "", "") | change))
