"""What operators make of shapes, alike in every format."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from edgeformer_runtime.model_files import MAX_SIZE, Shape, refuse


def broadcast(*shapes: Shape) -> Shape:
    """As numpy broadcasts."""
    if shapes and all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for sizes in zip(*padded, strict=True):
        wanted = {size for size in sizes if size != 1}
        if len(wanted) > 1:
            refuse(f"the shapes {', '.join(map(str, shapes))} do not go together")
        result.append(wanted.pop() if wanted else 1)
    return tuple(result)


def axis_of(axis: int, rank: int) -> int:
    """An axis from 0 on."""
    if not -rank <= axis < rank:
        refuse(f"there is no axis {axis} in {rank}")
    return axis % rank if rank else 0


def axes_of(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """Several axes, each once."""
    found = [axis_of(axis, rank) for axis in axes]
    if len(set(found)) != len(found):
        refuse("an axis occurs twice")
    return tuple(found)


def permuted(shape: Shape, order: Sequence[int]) -> Shape:
    """A transpose's."""
    if sorted(order) != list(range(len(shape))):
        refuse(f"{list(order)[:9]} is no order of {len(shape)} axes")
    return tuple(shape[axis] for axis in order)


def matmul(left: Shape, right: Shape) -> Shape:
    """A product's, batches broadcast, vectors as numpy has them."""
    if not left or not right:
        refuse("a product of a scalar")
    first = (1, *left) if len(left) == 1 else left
    second = (*right, 1) if len(right) == 1 else right
    if first[-1] != second[-2]:
        refuse(f"there is no product of {left} and {right}")
    rows = () if len(left) == 1 else (first[-2],)
    columns = () if len(right) == 1 else (second[-1],)
    return (*broadcast(first[:-2], second[:-2]), *rows, *columns)


def concatenated(shapes: Sequence[Shape], axis: int) -> Shape:
    """Of one or more shapes that are alike but for an axis."""
    if not shapes:
        refuse("nothing is concatenated")
    first = shapes[0]
    axis = axis_of(axis, len(first))
    for shape in shapes:
        if len(shape) != len(first) or any(
            a != b for index, (a, b) in enumerate(zip(shape, first, strict=True)) if index != axis
        ):
            refuse(f"the shapes {first} and {shape} cannot be concatenated")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def reduced(shape: Shape, axes: Iterable[int], keep: bool) -> Shape:
    """A mean's or sum's."""
    gone = set(axes_of(axes, len(shape)))
    if keep:
        return tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def reshaped(shape: Shape, wanted: Sequence[int], zero_copies: bool) -> Shape:
    """A reshape's: -1 takes what is left, and where `zero_copies`, 0 the size of the same axis."""
    sizes = list(wanted)
    if zero_copies:
        if any(not size and axis >= len(shape) for axis, size in enumerate(sizes)):
            refuse(f"{shape} cannot become {sizes[:9]}")
        sizes = [size or shape[axis] for axis, size in enumerate(sizes)]
    if sizes.count(-1) > 1 or any(size < -1 for size in sizes):
        refuse(f"{shape} cannot become {sizes[:9]}")
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        if not rest or math.prod(shape) % rest:
            refuse(f"{shape} cannot become {sizes[:9]}")
        sizes[sizes.index(-1)] = math.prod(shape) // rest
    if math.prod(sizes) != math.prod(shape):
        refuse(f"{shape} cannot become {sizes[:9]}")
    return tuple(sizes)


def squeezed(shape: Shape, axes: Iterable[int] | None) -> Shape:
    """Without the axes, of size 1, or without all such."""
    if axes is None:
        return tuple(size for size in shape if size != 1)
    gone = set(axes_of(axes, len(shape)))
    if any(shape[axis] != 1 for axis in gone):
        refuse(f"{shape} cannot be squeezed")
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def unsqueezed(shape: Shape, axes: Iterable[int]) -> Shape:
    """With axes of size 1, numbered as in the result."""
    new = list(axes)
    gone = set(axes_of(new, len(shape) + len(new)))
    rest = iter(shape)
    return tuple(1 if axis in gone else next(rest) for axis in range(len(shape) + len(new)))


def padded(shape: Shape, pairs: Sequence[tuple[int, int]]) -> Shape:
    """A pad's, by (before, after) of each axis."""
    if len(pairs) != len(shape) or any(before < 0 or after < 0 for before, after in pairs):
        refuse(f"{shape} cannot be padded by {list(pairs)[:9]}")
    return tuple(before + size + after for size, (before, after) in zip(shape, pairs, strict=True))


def resized(shape: Shape, axes: Sequence[int], sizes: Sequence[int]) -> Shape:
    """Some axes at other sizes: an image of four, none of them empty."""
    if len(shape) != 4 or len(sizes) != len(axes) or min(*shape, *sizes) < 1:
        refuse(f"{shape} cannot be resized to {list(sizes)[:9]}")
    wanted = dict(zip(axes, sizes, strict=True))
    return tuple(wanted.get(axis, size) for axis, size in enumerate(shape))


def tiled(shape: Shape, repeats: Sequence[int]) -> Shape:
    """A tile's."""
    if len(repeats) != len(shape) or any(count < 0 for count in repeats):
        refuse(f"{shape} cannot be repeated {list(repeats)[:9]} times")
    return tuple(size * count for size, count in zip(shape, repeats, strict=True))


def sliced(size: int, begin: int, end: int, step: int) -> int:
    """How many of an axis's elements a slice takes; negative starts and ends count from the axis's end.

    An end of 2^31 - 1 and more, or for steps backwards of less than -2^31 + 2, is the axis's own. What reaches outside
    otherwise is refused, as engines clamp it in ways of their own.
    """
    if not step:
        refuse("a slice has the step 0")
    first = begin + size if begin < 0 else begin
    last = end + size if end < 0 else end
    if step > 0:
        last = size if end >= MAX_SIZE else last
        fits = 0 <= first <= size and 0 <= last <= size
    else:
        first = size - 1 if begin >= MAX_SIZE else first
        last = -1 if end <= 1 - MAX_SIZE else last
        fits = 0 <= first < max(size, 1) and -1 <= last < size
    if not fits:
        refuse(f"a slice from {begin} to {end} lies outside an axis of {size}")
    return max(0, -(-(last - first) // step))


def window(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """How many windows a convolution or pooling has along an axis."""
    if min(kernel, stride, dilation) < 1 or min(before, after) < 0:
        refuse(f"a window of {kernel} with stride {stride} and dilation {dilation}")
    room = size + before + after - (kernel - 1) * dilation - 1
    if room < 0:
        refuse(f"a window of {kernel} does not fit {size}")
    return room // stride + 1


# How much of a graph is alive at once, which is what an engine needs at least.


MAX_LIVE_ELEMENTS = 1 << 28
"""Of all computed tensors together: four times the largest one."""

Key = TypeVar("Key", bound=Hashable)


def check_live(steps: Sequence[tuple[Iterable[Key], Iterable[Key]]], sizes: Mapping[Key, int]) -> None:
    """Refuse a graph that computes more at once than any of ours.

    Args:
        steps: what each operator reads and writes, in order.
        sizes: the elements of each tensor that is computed.

    Raises:
        Broken: says how much is alive.
    """
    last: dict[Key, int] = {}
    for number, (inputs, outputs) in enumerate(steps):
        last.update(dict.fromkeys((*inputs, *outputs), number))
    ends: dict[int, list[Key]] = {}
    for key, number in last.items():
        ends.setdefault(number, []).append(key)
    alive = peak = 0
    for number, (_, outputs) in enumerate(steps):
        alive += sum(sizes.get(key, 0) for key in outputs)
        peak = max(peak, alive)
        alive -= sum(sizes.get(key, 0) for key in ends.get(number, ()))
    if peak > MAX_LIVE_ELEMENTS:
        refuse(f"{peak} elements are alive at once: expected at most 2^28")
