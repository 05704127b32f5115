"""MIL's convolutions and pools against torch's, and "same" padding against what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mil_calls import IMAGE, Case, call, check, vector

T = torch.from_numpy(IMAGE)
WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
GROUPED = torch.randn(4, 3, 3, 2, generator=torch.Generator().manual_seed(1))
BIAS = torch.arange(6.0)
KERNEL, STRIDE = vector(3, 3), vector(2, 2)
AROUND = vector(1, 1, 1, 1)

CASES: list[Case] = [
    ("conv", {"x": IMAGE, "weight": WEIGHT, "bias": BIAS}, F.conv2d(T, WEIGHT, BIAS)),
    ("conv", {"x": IMAGE, "weight": WEIGHT, "pad_type": "custom", "pad": AROUND, "dilations": vector(2, 1)},
     F.conv2d(T, WEIGHT, None, 1, 1, (2, 1))),
    ("conv", {"x": IMAGE, "weight": WEIGHT, "pad_type": "same"}, F.conv2d(T, WEIGHT, None, padding="same")),
    ("conv", {"x": IMAGE[:, :, 0], "weight": WEIGHT[:, :, 0]}, F.conv1d(T[:, :, 0], WEIGHT[:, :, 0])),
    ("conv_transpose", {"x": IMAGE, "weight": GROUPED, "bias": BIAS[:3], "strides": STRIDE},
     F.conv_transpose2d(T, GROUPED, BIAS[:3], 2)),
    ("conv_transpose", {"x": IMAGE, "weight": GROUPED, "strides": vector(2, 1), "pad_type": "custom",
                        "pad": vector(1, 1, 0, 0), "groups": 2, "dilations": vector(1, 2)},
     F.conv_transpose2d(T, GROUPED, None, (2, 1), (1, 0), 0, 2, (1, 2))),
    # Rows that torch's output_padding asks for lie in what padding has cut off.
    ("conv_transpose", {"x": IMAGE, "weight": GROUPED, "strides": STRIDE, "pad_type": "custom", "pad": AROUND,
                        "output_shape": vector(2, 3, 12, 15)},
     F.conv_transpose2d(T, GROUPED, None, 2, 1, 1)),
    ("conv_transpose", {"x": IMAGE, "weight": GROUPED, "strides": STRIDE, "pad_type": "same"},
     F.conv_transpose2d(T, GROUPED, None, 2)[:, :, :12, :16]),
    ("max_pool", {"x": IMAGE, "kernel_sizes": KERNEL, "pad_type": "valid", "strides": STRIDE}, F.max_pool2d(T, 3, 2)),
    ("max_pool", {"x": IMAGE, "kernel_sizes": KERNEL, "pad_type": "custom", "strides": STRIDE, "pad": AROUND},
     F.max_pool2d(T, 3, 2, 1)),
    ("max_pool", {"x": IMAGE, "kernel_sizes": KERNEL, "pad_type": "valid", "strides": STRIDE, "ceil_mode": True},
     F.max_pool2d(T, 3, 2, ceil_mode=True)),
    ("max_pool", {"x": IMAGE[:, :, 0], "kernel_sizes": vector(2), "pad_type": "valid"}, F.max_pool1d(T[:, :, 0], 2, 1)),
    ("avg_pool", {"x": IMAGE, "kernel_sizes": KERNEL, "pad_type": "custom", "strides": STRIDE, "pad": AROUND},
     F.avg_pool2d(T, 3, 2, 1)),
    ("avg_pool", {"x": IMAGE, "kernel_sizes": KERNEL, "pad_type": "custom", "strides": STRIDE, "pad": AROUND,
                  "exclude_padding_from_average": True}, F.avg_pool2d(T, 3, 2, 1, count_include_pad=False)),
    ("avg_pool", {"x": IMAGE, "kernel_sizes": KERNEL, "pad_type": "custom", "strides": STRIDE, "pad": AROUND,
                  "ceil_mode": True}, F.avg_pool2d(T, 3, 2, 1, ceil_mode=True)),
    ("l2_pool", {"x": IMAGE, "kernel_sizes": vector(2, 2), "pad_type": "valid", "strides": STRIDE},
     F.lp_pool2d(T, 2.0, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operator(case: Case) -> None:
    check(case)


def test_groups_see_their_own_channels() -> None:
    weight = torch.randn(6, 2, 3, 3)
    got = call("conv", x=IMAGE, weight=weight, groups=2, strides=STRIDE)
    np.testing.assert_allclose(got[:, :3], F.conv2d(T[:, :2], weight[:3], stride=2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[:, 3:], F.conv2d(T[:, 2:], weight[3:], stride=2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("pad_type", "before"), [("same", (0, 1)), ("same_lower", (1, 0))])
def test_same_padding_puts_the_odd_one_behind_or_in_front(pad_type: str, before: tuple[int, int]) -> None:
    # 8 columns in steps of 2 under a kernel of 3 need one more.
    got = call("max_pool", x=IMAGE, kernel_sizes=vector(1, 3), strides=vector(1, 2), pad_type=pad_type)
    expected = F.max_pool2d(F.pad(T, before, value=-torch.inf), (1, 3), (1, 2))
    assert got.shape[-1] == 4
    np.testing.assert_array_equal(got, expected)


def test_another_padding_is_an_error() -> None:
    with pytest.raises(ValueError, match="pad_type 'wrap' is not supported"):
        call("conv", x=IMAGE, weight=WEIGHT, pad_type="wrap")
