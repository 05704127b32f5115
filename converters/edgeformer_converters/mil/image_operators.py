"""MIL's operators that resize and resample images; see `mil_operators` for the conventions.

Where a result's position lies in the input is said by coremltools' sampling modes, documented at its `resize_bilinear`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.arguments import ints

HALF_PIXEL = "UNALIGN_CORNERS"


def _grid(size: int, count: int, mode: str) -> Tensor:
    """Where `count` positions lie in 0 .. size - 1: (count,) float64."""
    index = torch.arange(count, dtype=torch.float64)
    if mode in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"}:
        if count == 1:
            return index + (0.0 if mode == "STRICT_ALIGN_CORNERS" else (size - 1) / 2)
        points = index * (size - 1) / (count - 1)
    elif mode == "DEFAULT":
        points = index * size / count
    elif mode == "OFFSET_CORNERS":
        points = (index + 0.5) * max(1, size - 1) / count
    elif mode == HALF_PIXEL:
        points = (index + 0.5) * size / count - 0.5
    else:
        raise ValueError(f"sampling mode {mode!r} is not supported")
    return points.clamp(0, size - 1)


def _linear(x: Tensor, axis: int, count: int, mode: str) -> Tensor:
    """Linear interpolation along one axis."""
    axis %= x.dim()
    points = _grid(x.shape[axis], count, mode)
    lower = points.floor().long()
    upper = (lower + 1).clamp(max=x.shape[axis] - 1)
    weight = (points - lower).to(torch.float32).reshape([-1, *[1] * (x.dim() - 1 - axis)])
    return x.index_select(axis, lower) * (1 - weight) + x.index_select(axis, upper) * weight


def _nearest(x: Tensor, axis: int, count: int, scale: float | None = None) -> Tensor:
    """The value at or before each position; `scale` where it is not count / size itself."""
    size = x.shape[axis]
    index = torch.arange(count)
    source = index * size // count if scale is None else (index / scale).floor().long()
    return x.index_select(axis, source.clamp(max=size - 1))


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """The last two axes, enlarged by repeating values."""
    for axis, scale in ((-2, scale_factor_height), (-1, scale_factor_width)):
        x = _nearest(x, axis, int(scale * x.shape[axis]), scale)
    return x


def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """The last two axes at another size."""
    return _nearest(_nearest(x, -2, target_size_height), -1, target_size_width)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """The last two axes, enlarged by linear interpolation; centres of pixels lie at halves unless corners align."""
    centered = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centered:
        raise ValueError("upsample_bilinear with align_corners and half_pixel_centers is not supported")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else HALF_PIXEL if centered else "DEFAULT"
    height, width = int(scale_factor_height * x.shape[-2]), int(scale_factor_width * x.shape[-1])
    return resize_bilinear(x, height, width, mode)


def resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    """The last two axes at another size, by linear interpolation."""
    return _linear(_linear(x, -2, target_size_height, sampling_mode), -1, target_size_width, sampling_mode)


def resize(
    x: Tensor, shape: Tensor, resized_dims: int, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Tensor:
    """The last `resized_dims` axes at the last sizes of `shape`; 0 keeps a size."""
    if interpolation_mode == "NEAREST_NEIGHBOR" and sampling_mode != "DEFAULT":
        raise ValueError(f"resize to the nearest neighbour with sampling mode {sampling_mode!r} is not supported")
    sizes = ints(shape)[-resized_dims:] if resized_dims else []
    for axis, size in zip(range(-resized_dims, 0), sizes, strict=True):
        if size and interpolation_mode == "NEAREST_NEIGHBOR":
            x = _nearest(x, axis, size)
        elif size:
            x = _linear(x, axis, size, sampling_mode)
    return x


def crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    """The last two axes without so many values at their begins and ends."""
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    return F.pad(x, [-left, -right, -top, -bottom])


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """x (B, C, H, W) at coordinates (B, H', W', 2), in the order (x, y)."""
    height, width = x.shape[-2:]
    if coordinates_mode == "unnormalized":
        corners = torch.tensor([width - 1, height - 1]) / 2
        coordinates, align_corners = coordinates / corners - 1, True
    elif coordinates_mode == "normalized_zero_to_one":
        coordinates = coordinates * 2 - 1
    elif coordinates_mode != "normalized_minus_one_to_one":
        raise ValueError(f"resample with coordinates_mode {coordinates_mode!r} is not supported")
    # What lies outside: F.grid_sample reflects about the centres of pixels where corners align, else about their edges.
    outside = {
        "constant": "zeros",
        "border": "border",
        "reflection": "reflection" if align_corners else None,
        "symmetric": None if align_corners else "reflection",
    }.get(padding_mode)
    if outside is None or (padding_mode == "constant" and padding_value):
        raise ValueError(f"resample with {padding_mode!r} padding of {padding_value} is not supported")
    return F.grid_sample(x, coordinates.to(torch.float32), sampling_mode, outside, align_corners)


def affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """x (B, C, H, W) seen through transforms (B or 1, 6) of the result's coordinates."""
    batch, channels = x.shape[:2]
    matrices = transform_matrix.reshape(-1, 2, 3).expand(batch, 2, 3)
    grid = F.affine_grid(matrices, [batch, channels, output_height, output_width], align_corners)
    return resample(x, grid, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)


IMAGE_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "affine": affine,
    "crop": crop,
    "resample": resample,
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
