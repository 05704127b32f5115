"""MIL's operators that slide a window over space: convolutions and pools; see `operators.py` for the conventions.

`pad_type` is "valid" (none), "custom" (`pad`, before and after each axis), "same" (as little as keeps
ceil(size / stride) positions, the odd one behind) or "same_lower" (the odd one in front).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeformer_converters.mil.program import ints, pad_pairs

Pads = list[tuple[int, int]]


def _per_axis(values: Tensor | None, rank: int) -> list[int]:
    return [1] * rank if values is None else ints(values)


def _reach(kernel: list[int], dilations: list[int]) -> list[int]:
    """What a kernel covers from its first to its last tap, per axis."""
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def _pads(pad_type: str, pad: Tensor | None, sizes: list[int], reach: list[int], strides: list[int]) -> Pads:
    """How much goes before and after each spatial axis."""
    kind = pad_type.lower()
    if kind in {"valid", "custom"}:
        return [(0, 0)] * len(sizes) if kind == "valid" or pad is None else pad_pairs(pad)
    totals = [
        max(0, stride * -(-size // stride) - size + each - stride)
        for size, each, stride in zip(sizes, reach, strides, strict=True)
    ]
    smaller = [(total // 2, total - total // 2) for total in totals]
    halves = {"same": smaller, "same_lower": [(after, before) for before, after in smaller]}
    if kind not in halves:
        raise ValueError(f"pad_type {pad_type!r} is not supported")
    return halves[kind]


def _padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    return F.pad(x, [size for pair in reversed(pads) for size in pair], value=value)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolution of x (B, C, ...) over 1 to 3 axes."""
    rank = weight.dim() - 2
    steps, spread = _per_axis(strides, rank), _per_axis(dilations, rank)
    pads = _pads(pad_type, pad, list(x.shape[2:]), _reach(list(weight.shape[2:]), spread), steps)
    convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(_padded(x, pads), weight, bias, steps, 0, spread, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv` over 1 to 3 axes; weight (C in, C out / groups, ...). Padding is cut off the result.

    `output_shape` (B, C out, ...), where given, says how much of the result is kept.
    """
    rank = weight.dim() - 2
    steps, spread = _per_axis(strides, rank), _per_axis(dilations, rank)
    transposed: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    whole = transposed(x, weight, None, steps, 0, 0, groups, spread)
    sizes = list(whole.shape[2:])
    kind = pad_type.lower()
    if kind == "same":
        kept = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
    elif kind in {"valid", "custom"}:
        kept = (
            sizes
            if kind == "valid" or pad is None
            else [size - sum(pair) for size, pair in zip(sizes, pad_pairs(pad), strict=True)]
        )
    else:
        raise ValueError(f"conv_transpose pad_type {pad_type!r} is not supported")
    kept = kept if output_shape is None else ints(output_shape)[2:]
    if kind == "custom" and pad is not None:
        first = [before for before, _ in pad_pairs(pad)]
    else:
        first = [max(0, size - keep) // 2 if kind == "same" else 0 for size, keep in zip(sizes, kept, strict=True)]
    # A negative pad cuts; where more is asked for than there is, the rest is zero.
    pads = [(-begin, begin + keep - size) for begin, keep, size in zip(first, kept, sizes, strict=True)]
    result = _padded(whole, pads)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _windows(x: Tensor, kernel: list[int], strides: list[int]) -> Tensor:
    """(B, C, ...) to (B, C, positions..., taps)."""
    for axis, (size, step) in enumerate(zip(kernel, strides, strict=True)):
        x = x.unfold(axis + 2, size, step)
    return x.flatten(-len(kernel))


def _ceil_extra(size: int, pair: tuple[int, int], kernel: int, stride: int) -> int:
    """How much further padding a last window that starts inside the input or its front padding reaches into."""
    padded = size + sum(pair)
    count = -(-(padded - kernel) // stride) + 1
    if sum(pair) and (count - 1) * stride >= size + pair[0]:
        count -= 1
    return max(0, (count - 1) * stride + kernel - padded)


def _pool_pads(
    x: Tensor, kernel: list[int], strides: list[int], pad_type: str, pad: Tensor | None, ceil_mode: bool
) -> tuple[Pads, Pads]:
    """The declared padding, and what rounding the number of positions up adds behind it."""
    sizes = list(x.shape[2:])
    pads = _pads(pad_type, pad, sizes, kernel, strides)
    each = zip(sizes, pads, kernel, strides, strict=True)
    return pads, [(0, _ceil_extra(*one) if ceil_mode else 0) for one in each]


def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value of each window of x (B, C, ...); padding never wins."""
    kernel, steps = ints(kernel_sizes), _per_axis(strides, x.dim() - 2)
    pads, extra = _pool_pads(x, kernel, steps, pad_type, pad, ceil_mode)
    return _windows(_padded(_padded(x, pads, -torch.inf), extra, -torch.inf), kernel, steps).amax(-1)


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The mean of each window of x (B, C, ...); padding counts as zeros, or not at all."""
    kernel, steps = ints(kernel_sizes), _per_axis(strides, x.dim() - 2)
    pads, extra = _pool_pads(x, kernel, steps, pad_type, pad, ceil_mode)
    counted = _padded(torch.ones((1, 1, *x.shape[2:])), pads, 0.0 if exclude_padding_from_average else 1.0)
    sums, counts = (_windows(_padded(each, extra), kernel, steps).sum(-1) for each in (_padded(x, pads), counted))
    return sums / counts


def l2_pool(
    x: Tensor, kernel_sizes: Tensor, pad_type: str, strides: Tensor | None = None, pad: Tensor | None = None
) -> Tensor:
    """The Euclidean norm of each window of x (B, C, ...)."""
    kernel, steps = ints(kernel_sizes), _per_axis(strides, x.dim() - 2)
    pads, _ = _pool_pads(x, kernel, steps, pad_type, pad, ceil_mode=False)
    return _windows(_padded(x.square(), pads), kernel, steps).sum(-1).sqrt()


WINDOW_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "avg_pool": avg_pool,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "l2_pool": l2_pool,
    "max_pool": max_pool,
}


# MIL's operators that resize and resample images; see `operators.py` for the conventions.
#
# Where a result's position lies in the input is said by coremltools' sampling modes, documented at its
# `resize_bilinear`.


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
    """The last two axes without so many values at their starts and ends."""
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
