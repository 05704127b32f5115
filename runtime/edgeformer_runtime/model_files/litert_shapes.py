"""What each operator of LiteRT that a reader knows makes of its inputs' shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeformer_runtime.model_files import Shape, refuse
from edgeformer_runtime.model_files import shape_rules as rules
from edgeformer_runtime.model_files.encodings import Table

SAME_PADDING, VALID_PADDING = 0, 1


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        shape: its sizes.
        dtype: its number in TensorType.
        constant: whether the file holds its bytes.
        numbers: gives those of a small constant of integers; None: it is none.
    """

    shape: Shape
    dtype: int
    constant: bool
    numbers: Callable[[], list[int]] | None = None


@dataclass(frozen=True)
class Call:
    """An operator with its operands, None where one is absent, and its options."""

    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor]
    options: Table | None

    def tensor(self, index: int) -> Tensor:
        """An operand."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            refuse(f"its operand {index} is missing")
        return found

    def shape(self, index: int) -> Shape:
        """An operand's shape."""
        return self.tensor(index).shape

    def has(self, index: int) -> bool:
        """Whether an operand is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int) -> list[int]:
        """The integers of an operand that decides a shape."""
        found = self.tensor(index)
        if found.numbers is None:
            refuse(f"its operand {index} decides its shape and is no small constant of integers")
        return found.numbers()

    def single(self, index: int) -> int:
        """The only integer of an operand."""
        found = self.constant(index)
        if len(found) != 1:
            refuse(f"its operand {index} is to be one number")
        return found[0]

    def option(self, field: int, code: str = "i", default: int = 0) -> int:
        """A number of the options."""
        return int(self.options.scalar(field, code, default)) if self.options is not None else default


Rule = Callable[[Call], Sequence[Shape]]


def _first(call: Call) -> list[Shape]:
    return [call.shape(0)]


def _broadcast(call: Call) -> list[Shape]:
    return [rules.broadcast(*(call.shape(index) for index in range(len(call.inputs))))]


def _fully_connected(call: Call) -> list[Shape]:
    source, weights = call.shape(0), call.shape(1)
    if len(weights) != 2 or call.option(1, "b"):
        refuse(f"its weights are {weights}, or shuffled")
    units, depth = weights
    if call.has(2) and math.prod(call.shape(2)) != units:
        refuse(f"its bias is {call.shape(2)} for {units} units")
    if call.option(2, "?"):
        if not source or source[-1] != depth:
            refuse(f"there is no product of {source} and {weights}")
        return [(*source[:-1], units)]
    if not depth or math.prod(source) % depth:
        refuse(f"there is no product of {source} and {weights}")
    return [(math.prod(source) // depth, units)]


def _batch_matmul(call: Call) -> list[Shape]:
    left, right = call.shape(0), call.shape(1)
    if len(left) < 2 or len(right) < 2:
        refuse("it multiplies what are no matrices")
    left = (*left[:-2], left[-1], left[-2]) if call.option(0, "?") else left
    right = (*right[:-2], right[-1], right[-2]) if call.option(1, "?") else right
    return [rules.matmul(left, right)]


def _conv(call: Call) -> list[Shape]:
    image, kernel = call.shape(0), call.shape(1)
    if len(image) != 4 or len(kernel) != 4 or not kernel[3] or image[3] % kernel[3]:
        refuse(f"it has no convolution of {image} with {kernel}")
    groups = image[3] // kernel[3]
    if not groups or kernel[0] % groups:
        refuse(f"it has no convolution of {image} with {kernel}")
    _check_bias(call, kernel[0])
    height, width = _sides(call, image, kernel[1:3], (call.option(2), call.option(1)), (5, 4))
    return [(image[0], height, width, kernel[0])]


def _depthwise(call: Call) -> list[Shape]:
    image, kernel = call.shape(0), call.shape(1)
    if len(image) != 4 or len(kernel) != 4 or kernel[0] != 1 or not image[3] or kernel[3] % image[3]:
        refuse(f"it has no convolution of {image} with {kernel}")
    if call.option(3) not in (0, kernel[3] // image[3]):
        refuse("its multiplier is not its kernel's")
    _check_bias(call, kernel[3])
    height, width = _sides(call, image, kernel[1:3], (call.option(2), call.option(1)), (6, 5))
    return [(image[0], height, width, kernel[3])]


def _check_bias(call: Call, channels: int) -> None:
    if call.has(2) and math.prod(call.shape(2)) != channels:
        refuse(f"its bias is {call.shape(2)} for {channels} channels")


def _pool(call: Call) -> list[Shape]:
    image = call.shape(0)
    if len(image) != 4:
        refuse(f"it has no windows over {image}")
    height, width = _sides(call, image, (call.option(4), call.option(3)), (call.option(2), call.option(1)), None)
    return [(image[0], height, width, image[3])]


def _sides(
    call: Call, image: Shape, kernel: Sequence[int], strides: Sequence[int], dilations: tuple[int, int] | None
) -> list[int]:
    padding = call.option(0, "b")
    spread = [call.option(field, default=1) for field in dilations] if dilations else [1, 1]
    sides = []
    for size, length, stride, dilation in zip(image[1:3], kernel, strides, spread, strict=True):
        if padding == SAME_PADDING:
            rules.window(size, 1, stride, dilation, 0, 0)
            if length < 1:
                refuse("a window of no elements")
            sides.append(-(-size // stride))
        elif padding == VALID_PADDING:
            sides.append(rules.window(size, length, stride, dilation, 0, 0))
        else:
            refuse(f"it has the padding {padding}")
    return sides


def _resize(call: Call) -> list[Shape]:
    image, sides = call.shape(0), call.constant(1)
    return [rules.resized(image, (1, 2), sides)]


def _reshape(call: Call) -> list[Shape]:
    wanted: Sequence[int]
    if call.has(1):
        wanted = call.constant(1)
    elif call.options is not None:
        wanted = call.options.integers(0)
    else:
        refuse("it has no shape")
    return [rules.reshaped(call.shape(0), wanted, zero_copies=False)]


def _transpose(call: Call) -> list[Shape]:
    return [rules.permuted(call.shape(0), call.constant(1))]


def _concatenation(call: Call) -> list[Shape]:
    return [rules.concatenated([call.shape(index) for index in range(len(call.inputs))], call.option(0))]


def _pack(call: Call) -> list[Shape]:
    shapes = [call.shape(index) for index in range(len(call.inputs))]
    if not shapes or any(shape != shapes[0] for shape in shapes) or call.option(0) != len(shapes):
        refuse("it packs what is not alike, or another number of tensors than it states")
    axis = rules.axis_of(call.option(1), len(shapes[0]) + 1)
    return [(*shapes[0][:axis], len(shapes), *shapes[0][axis:])]


def _unpack(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis = rules.axis_of(call.option(1), len(shape))
    if not shape or shape[axis] != call.option(0):
        refuse(f"it unpacks {call.option(0)} tensors from {shape}")
    return [(*shape[:axis], *shape[axis + 1 :])] * shape[axis]


def _split(call: Call) -> list[Shape]:
    shape, count = call.shape(1), call.option(0)
    axis = rules.axis_of(call.single(0), len(shape))
    if count < 1 or not shape or shape[axis] % count:
        refuse(f"{shape} cannot be split into {count}")
    return [(*shape[:axis], shape[axis] // count, *shape[axis + 1 :])] * count


def _split_v(call: Call) -> list[Shape]:
    shape, sizes = call.shape(0), call.constant(1)
    axis = rules.axis_of(call.single(2), len(shape))
    if not shape or min(sizes, default=-1) < 0 or sum(sizes) != shape[axis] or call.option(0) != len(sizes):
        refuse(f"{shape} cannot be split into {sizes[:9]}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _slice(call: Call) -> list[Shape]:
    shape, starts, sizes = call.shape(0), call.constant(1), call.constant(2)
    if not len(starts) == len(sizes) == len(shape):
        refuse(f"it takes {len(starts)} starts and {len(sizes)} sizes of {shape}")
    found = [room - begin if size == -1 else size for room, begin, size in zip(shape, starts, sizes, strict=True)]
    for room, begin, size in zip(shape, starts, found, strict=True):
        if not (0 <= begin <= room and 0 <= size <= room - begin):
            refuse(f"it takes {sizes[:9]} elements from {starts[:9]} on of {shape}")
    return [tuple(found)]


def _strided_slice(call: Call) -> list[Shape]:
    shape, starts, ends, steps = call.shape(0), call.constant(1), call.constant(2), call.constant(3)
    begin_mask, end_mask, shrink = call.option(0), call.option(1), call.option(4)
    if (
        not len(starts) == len(ends) == len(steps) <= len(shape)
        or call.option(2)
        or call.option(3)
        or call.option(5, "?")
    ):
        refuse("its starts, ends and steps are not as many, or it has an ellipsis, new axes or offsets")
    found = []
    for axis, size in enumerate(shape):
        if axis >= len(starts):
            found.append(size)
            continue
        begin, end, step = starts[axis], ends[axis], steps[axis]
        if shrink >> axis & 1:
            if not -size <= begin < size or step < 1:
                refuse(f"it takes number {begin} of {size}")
            continue
        if step < 1:
            refuse(f"it has the step {step}")
        found.append(
            rules.sliced(size, 0 if begin_mask >> axis & 1 else begin, size if end_mask >> axis & 1 else end, step)
        )
    return [tuple(found)]


def _gather(call: Call) -> list[Shape]:
    table, indices, batch = call.shape(0), call.shape(1), call.option(1)
    axis = rules.axis_of(call.option(0), len(table))
    if not table or batch < 0 or batch > min(axis, len(indices)) or table[:batch] != indices[:batch]:
        refuse(f"it gathers by {indices} from {table} in {batch} batches")
    _check_indices(call.tensor(1), table[axis])
    return [(*table[:axis], *indices[batch:], *table[axis + 1 :])]


def _gather_nd(call: Call) -> list[Shape]:
    table, indices = call.shape(0), call.shape(1)
    depth = indices[-1] if indices else 0
    if not 1 <= depth <= len(table):
        refuse(f"it gathers by {indices} from {table}")
    if call.tensor(1).numbers is not None:
        for place, index in enumerate(call.constant(1)):
            if not 0 <= index < table[place % depth]:
                refuse(f"it gathers number {index} of {table[place % depth]}")
    return [(*indices[:-1], *table[depth:])]


def _embedding_lookup(call: Call) -> list[Shape]:
    indices, table = call.shape(0), call.shape(1)
    if len(indices) != 1 or len(table) < 2:
        refuse(f"it looks {indices} up in {table}")
    _check_indices(call.tensor(0), table[0])
    return [(*indices, *table[1:])]


def _check_indices(indices: Tensor, size: int) -> None:
    """Constant indices lie in their axis; those that are computed LiteRT checks itself."""
    if indices.numbers is not None:
        for index in indices.numbers():
            if not 0 <= index < size:
                refuse(f"it gathers number {index} of {size}")


def _reduce(call: Call) -> list[Shape]:
    return [rules.reduced(call.shape(0), set(call.constant(1)), bool(call.option(0, "?")))]


def _arg(call: Call) -> list[Shape]:
    return [rules.reduced(call.shape(0), [call.single(1)], keep=False)]


def _pad(call: Call) -> list[Shape]:
    pairs = call.constant(1)
    if len(pairs) != 2 * len(call.shape(0)):
        refuse(f"it pads {call.shape(0)} by {pairs[:9]}")
    return [rules.padded(call.shape(0), list(zip(pairs[::2], pairs[1::2], strict=True)))]


def _tile(call: Call) -> list[Shape]:
    return [rules.tiled(call.shape(0), call.constant(1))]


def _fill(call: Call) -> list[Shape]:
    return [_wanted(call.constant(0))]


def _broadcast_to(call: Call) -> list[Shape]:
    wanted = _wanted(call.constant(1))
    if rules.broadcast(call.shape(0), wanted) != wanted:
        refuse(f"{call.shape(0)} cannot be broadcast to {wanted}")
    return [wanted]


def _wanted(sizes: Sequence[int]) -> Shape:
    if any(size < 0 for size in sizes):
        refuse(f"it is to become {list(sizes)[:9]}")
    return tuple(sizes)


def _expand_dims(call: Call) -> list[Shape]:
    return [rules.unsqueezed(call.shape(0), [call.single(1)])]


def _squeeze(call: Call) -> list[Shape]:
    axes = () if call.options is None else call.options.integers(0)
    return [rules.squeezed(call.shape(0), axes or None)]


def _dynamic_update_slice(call: Call) -> list[Shape]:
    target, update, starts = call.shape(0), call.shape(1), call.shape(2)
    if (
        len(update) != len(target)
        or starts != (len(target),)
        or any(size > room for size, room in zip(update, target, strict=True))
    ):
        refuse(f"it writes {update} into {target}")
    return [target]


def _one_hot(call: Call) -> list[Shape]:
    indices, depth, axis = call.shape(0), call.single(1), call.option(0, default=-1)
    if depth < 0:
        refuse(f"it has the depth {depth}")
    place = rules.axis_of(axis, len(indices) + 1)
    return [(*indices[:place], depth, *indices[place:])]


UNARY = """ABS CAST CEIL COS CUMSUM DEQUANTIZE ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGICAL_NOT LOGISTIC
LOG_SOFTMAX NEG QUANTIZE RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SIGN SIN SOFTMAX SQRT SQUARE TANH L2_NORMALIZATION"""
BINARY = """ADD DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR MAXIMUM
MINIMUM MUL NOT_EQUAL POW PRELU SELECT_V2 SQUARED_DIFFERENCE SUB"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY.split(), _first),
    **dict.fromkeys(BINARY.split(), _broadcast),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL"), _reduce),
    "ARG_MAX": _arg,
    "ARG_MIN": _arg,
    "AVERAGE_POOL_2D": _pool,
    "BATCH_MATMUL": _batch_matmul,
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DYNAMIC_UPDATE_SLICE": _dynamic_update_slice,
    "EMBEDDING_LOOKUP": _embedding_lookup,
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "MAX_POOL_2D": _pool,
    "ONE_HOT": _one_hot,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SELECT": _broadcast,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
"""By the operator's name in BuiltinOperator."""

MOVES = frozenset({
    "BROADCAST_TO", "CAST", "EXPAND_DIMS", "RESHAPE", "SLICE", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE",
    "UNPACK",
})  # fmt: skip
"""The results' numbers are those of the first operand."""

INDICES = {"EMBEDDING_LOOKUP": 0, "GATHER": 1, "GATHER_ND": 1}
"""Which operand numbers the rows of another one, the table."""


def indexed_rows(name: str, call: Call) -> int:
    """How many rows the table of a call in `INDICES` has; its rule has seen that the call is sound."""
    table = call.shape(1 - INDICES[name])
    if name == "GATHER_ND":
        return min(table[: call.shape(1)[-1]])
    return table[rules.axis_of(call.option(0) if name == "GATHER" else 0, len(table))]
