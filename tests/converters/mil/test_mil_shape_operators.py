"""MIL's operators that move values, and those of activation and norm that few models use, against numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mil_calls import IMAGE, Case, X, check, vector

T = torch.from_numpy(IMAGE)
SLOPE, FACTOR = np.float32([0.1, 0.2, 0.3, 0.4]), np.float32([1, 2, 3, 4])
COLUMN = (slice(None), None, None)
# (row, column, channel) in blocks of two: what tf.nn.depth_to_space does to (B, H, W, C).
DEEP = np.stack([IMAGE[:, :, row::2, column::2] for row in range(2) for column in range(2)], 1).reshape(2, 16, 3, 4)
PADDED = np.pad(IMAGE, ((0, 0), (0, 0), (0, 0), (1, 0)))
BATCHED = np.concatenate([PADDED[:, :, row::2, column::3] for row in range(2) for column in range(3)])

CASES: list[Case] = [
    ("pixel_shuffle", {"x": IMAGE, "upscale_factor": 2}, F.pixel_shuffle(T, 2)),
    ("pixel_unshuffle", {"x": IMAGE, "downscale_factor": 2}, F.pixel_unshuffle(T, 2)),
    ("space_to_depth", {"x": IMAGE, "block_size": 2}, DEEP),
    ("depth_to_space", {"x": DEEP, "block_size": 2}, IMAGE),
    ("space_to_batch", {"x": IMAGE, "block_shape": vector(2, 3), "paddings": np.int32([[0, 0], [1, 0]])},
     BATCHED),
    ("batch_to_space", {"x": BATCHED, "block_shape": vector(2, 3), "crops": np.int32([[1, 0], [1, 2]])},
     IMAGE[:, :, 1:, :-2]),
    ("pad", {"x": IMAGE, "pad": vector(0, 0, 0, 0, 1, 2, 3, 0), "mode": "reflect"},
     np.pad(IMAGE, ((0, 0), (0, 0), (1, 2), (3, 0)), mode="reflect")),
    ("pad", {"x": X, "pad": vector(2, 1, 0, 0, 1, 5), "mode": "replicate"},
     np.pad(X, ((2, 1), (0, 0), (1, 5)), mode="edge")),
    ("reshape_like", {"x": X, "ref_tensors": [torch.zeros(4, 7), torch.zeros(9, 2, 3)], "starts": [0, 1],
                      "ends": [1, 0], "end_masks": [False, True]}, X.reshape(4, 2, 3)),
    ("flatten2d", {"x": X}, X.reshape(2, 12)),
    ("flatten2d", {"x": X, "axis": -1}, X.reshape(6, 4)),
    ("fill_like", {"ref_tensor": X, "value": 2.0}, np.full((2, 3, 4), 2)),
    ("range_1d", {"start": 2, "end": 9, "step": 3}, [2, 5, 8]),
    ("range_1d", {"start": 0.5, "end": torch.tensor(2.0), "step": 0.5}, [0.5, 1.0, 1.5]),
    ("reverse", {"x": X, "axes": vector(0, 2)}, X[::-1, :, ::-1]),
    ("reverse", {"x": X}, X[::-1, ::-1, ::-1]),
    ("reverse_sequence", {"x": X, "lengths": vector(2, 3), "seq_axis": 1, "batch_axis": 0},
     np.stack([X[0][[1, 0, 2]], X[1][::-1]])),
    ("sliding_windows", {"x": X, "axis": 2, "size": 2, "stride": 2}, X.reshape(2, 3, 2, 2)),
    ("sliding_windows", {"x": X, "axis": -2, "size": 2}, np.stack([X[:, :2], X[:, 1:]], 1)),
    ("band_part", {"x": X, "lower": -1, "upper": 0}, np.tril(X)),
    ("band_part", {"x": X, "lower": 1, "upper": 1}, np.triu(np.tril(X, 1), -1)),
    ("cumsum", {"x": X, "axis": 1}, X.cumsum(1)),
    ("cumsum", {"x": X, "axis": -1, "exclusive": True, "reverse": True}, X[..., ::-1].cumsum(-1)[..., ::-1] - X),
    ("cumsum", {"x": np.int32([1, 2, 3])}, [1, 3, 6]),
    ("clamped_relu", {"x": X, "alpha": 0.5, "beta": 0.7}, np.minimum(np.where(X >= 0, X, 0.5 * X), 0.7)),
    ("linear_activation", {"x": X, "alpha": 2.0, "beta": 1.0}, 2 * X + 1),
    ("prelu", {"x": IMAGE, "alpha": SLOPE}, np.where(IMAGE >= 0, IMAGE, SLOPE[COLUMN] * IMAGE)),
    ("scaled_tanh", {"x": X, "alpha": 2.0, "beta": 0.5}, 2 * np.tanh(X / 2)),
    ("sigmoid_hard", {"x": X, "alpha": 0.5, "beta": 0.4}, np.clip(0.5 * X + 0.4, 0, 1)),
    ("softplus_parametric", {"x": IMAGE, "alpha": FACTOR, "beta": SLOPE},
     FACTOR[COLUMN] * np.log1p(np.exp(SLOPE[COLUMN] * IMAGE))),
    ("threshold", {"x": X, "alpha": 0.3}, np.maximum(X, np.float32(0.3))),
    ("thresholded_relu", {"x": X, "alpha": 0.3}, np.where(X >= 0.3, X, 0)),
    ("reduce_log_sum", {"x": np.abs(X), "axes": vector(-1)}, np.log(np.abs(X).sum(-1))),
    ("batch_norm", {"x": IMAGE, "mean": SLOPE, "variance": FACTOR, "gamma": FACTOR, "beta": SLOPE},
     F.batch_norm(T, *(torch.from_numpy(each) for each in (SLOPE, FACTOR, FACTOR, SLOPE)))),
    ("instance_norm", {"x": IMAGE, "gamma": FACTOR, "beta": SLOPE},
     F.instance_norm(T, None, None, torch.from_numpy(FACTOR), torch.from_numpy(SLOPE))),
    ("l2_norm", {"x": IMAGE}, IMAGE / np.sqrt((IMAGE**2).sum((1, 2, 3), keepdims=True) + 1e-6)),
    ("local_response_norm", {"x": IMAGE, "size": 3, "alpha": 0.5, "beta": 0.6, "k": 2.0},
     F.local_response_norm(T, 3, 0.5, 0.6, 2.0)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operator(case: Case) -> None:
    check(case)


def test_a_norm_over_an_even_number_of_channels_is_an_error() -> None:
    with pytest.raises(ValueError, match="not supported: an even number has no middle"):
        check(("local_response_norm", {"x": IMAGE, "size": 4}, None))
