"""MIL's resizing against torch's, and against the grid points that coremltools documents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mil_calls import IMAGE, RANDOM, Case, call, check, vector

T = torch.from_numpy(IMAGE)
GRID = RANDOM.uniform(-1.2, 1.2, (2, 5, 7, 2)).astype(np.float32)
MATRIX = np.float32([[0.8, 0.2, 0.1, -0.3, 1.1, 0]])
PIXELS = (GRID + 1) / 2 * np.float32([7, 5])
RESAMPLE = {"x": IMAGE, "sampling_mode": "bilinear", "padding_value": 0.0}
NORMALIZED = RESAMPLE | {"coordinates": GRID, "coordinates_mode": "normalized_minus_one_to_one"}

CASES: list[Case] = [
    ("upsample_nearest_neighbor", {"x": IMAGE, "scale_factor_height": 2, "scale_factor_width": 3},
     IMAGE.repeat(2, 2).repeat(3, 3)),
    ("upsample_nearest_neighbor", {"x": IMAGE, "scale_factor_height": 1.5, "scale_factor_width": 1.0},
     F.interpolate(T, scale_factor=(1.5, 1.0))),
    ("resize_nearest_neighbor", {"x": IMAGE, "target_size_height": 9, "target_size_width": 5},
     F.interpolate(T, (9, 5))),
    ("upsample_bilinear", {"x": IMAGE, "scale_factor_height": 2, "scale_factor_width": 3, "align_corners": False},
     F.interpolate(T, scale_factor=(2, 3), mode="bilinear")),
    ("upsample_bilinear", {"x": IMAGE, "scale_factor_height": 2, "scale_factor_width": 2},
     F.interpolate(T, scale_factor=2, mode="bilinear", align_corners=True)),
    ("resize_bilinear", {"x": IMAGE, "target_size_height": 4, "target_size_width": 11,
                         "sampling_mode": "UNALIGN_CORNERS"}, F.interpolate(T, (4, 11), mode="bilinear")),
    ("resize", {"x": IMAGE, "shape": vector(5, 0, 11), "resized_dims": 2, "sampling_mode": "STRICT_ALIGN_CORNERS"},
     F.interpolate(T, (6, 11), mode="bilinear", align_corners=True)),
    ("resize", {"x": IMAGE, "shape": vector(9, 5), "resized_dims": 2, "interpolation_mode": "NEAREST_NEIGHBOR"},
     F.interpolate(T, (9, 5))),
    ("crop", {"x": IMAGE, "crop_height": vector(1, 2), "crop_width": vector(0, 3)}, IMAGE[:, :, 1:-2, :-3]),
    ("resample", NORMALIZED | {"padding_mode": "constant", "align_corners": True},
     F.grid_sample(T, torch.from_numpy(GRID), align_corners=True)),
    ("resample", NORMALIZED | {"padding_mode": "symmetric", "align_corners": False},
     F.grid_sample(T, torch.from_numpy(GRID), padding_mode="reflection", align_corners=False)),
    ("resample", RESAMPLE | {"coordinates": PIXELS, "coordinates_mode": "unnormalized", "padding_mode": "border",
                             "align_corners": False},
     F.grid_sample(T, torch.from_numpy(GRID), padding_mode="border", align_corners=True)),
    ("resample", RESAMPLE | {"coordinates": (GRID + 1) / 2, "coordinates_mode": "normalized_zero_to_one",
                             "padding_mode": "border", "align_corners": False},
     F.grid_sample(T, torch.from_numpy(GRID), padding_mode="border", align_corners=False)),
    ("affine", {"x": IMAGE, "transform_matrix": MATRIX, "output_height": 9, "output_width": 7,
                "sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": 0.0,
                "coordinates_mode": "normalized_minus_one_to_one", "align_corners": True},
     F.grid_sample(T, F.affine_grid(torch.from_numpy(MATRIX).reshape(1, 2, 3).expand(2, 2, 3), [2, 4, 9, 7], True),
                   align_corners=True)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operator(case: Case) -> None:
    check(case)


# What coremltools documents at resize_bilinear for an input of two values, 0 and 1.
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("UNALIGN_CORNERS", [0.0, 0.1, 0.5, 0.9, 1.0]),
        ("STRICT_ALIGN_CORNERS", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("ALIGN_CORNERS", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("DEFAULT", [0.0, 0.4, 0.8, 1.0, 1.0]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", [0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0]),
        ("DEFAULT", [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
        ("OFFSET_CORNERS", [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
    ],
)
def test_sampling_modes_are_those_documented(mode: str, expected: list[float]) -> None:
    ramp = np.float32([[[0.0, 1.0]]])
    got = call("resize_bilinear", x=ramp, target_size_height=1, target_size_width=len(expected), sampling_mode=mode)
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("resample", NORMALIZED | {"padding_mode": "reflection", "align_corners": False}),
        ("resample", NORMALIZED | {"padding_mode": "constant", "align_corners": True, "padding_value": 1.0}),
        ("resize_bilinear", {"x": IMAGE, "sampling_mode": "ELSEWHERE"}),
        ("resize", {"x": IMAGE, "shape": vector(2, 2), "resized_dims": 2, "interpolation_mode": "NEAREST_NEIGHBOR",
                    "sampling_mode": "OFFSET_CORNERS"}),
        ("upsample_bilinear", {"x": IMAGE, "align_corners": True, "half_pixel_centers": True}),
    ],
)  # fmt: skip
def test_a_variant_that_is_not_implemented_is_an_error(name: str, inputs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not supported"):
        call(name, **inputs)
