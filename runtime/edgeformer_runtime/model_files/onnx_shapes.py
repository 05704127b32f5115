"""What each operator of ONNX that a reader knows makes of its inputs' shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeformer_runtime.model_files import Shape, refuse
from edgeformer_runtime.model_files import shape_rules as rules
from edgeformer_runtime.model_files.onnx_values import INT64, Known

Attribute = int | str | list[int] | Known | None


@dataclass(frozen=True)
class Call:
    """A node.

    Attributes:
        inputs: its operands; None: absent.
        attributes: integers, texts, lists of integers and tensors by name; others are None.
        outputs: how many results are named.
        symbolic: the graph takes inputs of any length up to the one that these shapes are of. No rule may then give a
            size that falls while the length rises: what is within the limits for the longest is so for all.
    """

    inputs: Sequence[Known | None]
    attributes: Mapping[str, Attribute]
    outputs: int
    symbolic: bool = False

    def shape(self, index: int) -> Shape:
        """An operand's shape."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            refuse(f"its operand {index} is missing")
        return found.shape

    def has(self, index: int) -> bool:
        """Whether an operand is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int, may_vary: bool = False) -> list[int]:
        """The integers of an operand that decides a shape; `may_vary`: a size of another value is allowed, too."""
        self.shape(index)
        found = self.inputs[index]
        if found is None or found.numbers is None or len(found.shape) > 1 or (found.varies and not may_vary):
            refuse(f"its operand {index} decides its shape and is no small constant")
        return found.numbers()

    def integer(self, name: str, default: int | None = None) -> int:
        """An attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            refuse(f"it has no integer {name}")
        return value

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """An attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, list):
            refuse(f"it has no integers {name}")
        return value

    def axes(self, index: int) -> list[int] | None:
        """Axes, which an operand or, in older opsets, an attribute has; None: neither."""
        if "axes" in self.attributes:
            return self.integers("axes")
        return self.constant(index) if self.has(index) else None


Rule = Callable[[Call], Sequence[Shape | Known]]


def _same(call: Call) -> list[Shape]:
    return [call.shape(0)] * call.outputs


def _first(call: Call) -> list[Shape]:
    """The input's shape; further outputs are left for training and refused."""
    if call.outputs != 1:
        refuse("it has outputs beyond the first")
    return [call.shape(0)]


def _broadcast(call: Call) -> list[Shape]:
    return [rules.broadcast(*(call.shape(index) for index in range(len(call.inputs))))]


def _matmul(call: Call) -> list[Shape]:
    return [rules.matmul(call.shape(0), call.shape(1))]


def _quantized_matmul(call: Call) -> list[Shape]:
    return [rules.matmul(call.shape(0), call.shape(3))]


def _gemm(call: Call) -> list[Shape]:
    left, right = call.shape(0), call.shape(1)
    if len(left) != 2 or len(right) != 2:
        refuse("it multiplies what are no matrices")
    left = left[::-1] if call.integer("transA", 0) else left
    right = right[::-1] if call.integer("transB", 0) else right
    result = rules.matmul(left, right)
    if call.has(2) and rules.broadcast(call.shape(2), result) != result:
        refuse("its bias does not go with its result")
    return [result]


def _matmul_nbits(call: Call) -> list[Shape]:
    rows, columns, bits = call.integer("K"), call.integer("N"), call.integer("bits", 4)
    block = call.integer("block_size")
    if bits not in (2, 4, 8) or block < 16 or block & (block - 1) or min(rows, columns) < 1:
        refuse("its block size or bits are none that it has")
    blocks = -(-rows // block)
    if math.prod(call.shape(1)) != columns * blocks * (block * bits // 8):
        refuse("its packed weights have another size than it states")
    if math.prod(call.shape(2)) != columns * blocks or not call.shape(0) or call.shape(0)[-1] != rows:
        refuse("its scales or its input have another size than it states")
    if call.has(3) and math.prod(call.shape(3)) not in (columns * blocks, columns * -(-blocks * bits // 8)):
        refuse("its zero points have another size than it states")
    if any(call.has(index) for index in (4,)):
        refuse("it has indices of groups")
    return [(*call.shape(0)[:-1], columns)]


def _convolution(call: Call, kernel_at: int = 1) -> list[Shape]:
    image, kernel = call.shape(0), call.shape(kernel_at)
    groups = call.integer("group", 1)
    if len(image) < 3 or len(kernel) != len(image) or groups < 1 or kernel[0] % groups:
        refuse(f"it has no convolution of {image} with {kernel}")
    if image[1] != kernel[1] * groups:
        refuse(f"its kernel has {kernel[1]} channels in {groups} groups, its input {image[1]}")
    stated = call.integers("kernel_shape", list(kernel[2:]))
    if tuple(stated) != kernel[2:]:
        refuse("its kernel has another shape than it states")
    return [(image[0], kernel[0], *_windows(call, image[2:], stated))]


def _pool(call: Call) -> list[Shape]:
    image = call.shape(0)
    kernel = call.integers("kernel_shape")
    if len(image) < 3 or len(kernel) != len(image) - 2 or call.integer("ceil_mode", 0):
        refuse(f"it has no windows of {kernel[:9]} over {image}")
    return [(*image[:2], *_windows(call, image[2:], kernel))] * call.outputs


def _windows(call: Call, sizes: Shape, kernel: Sequence[int]) -> list[int]:
    rank = len(sizes)
    strides, dilations = call.integers("strides", [1] * rank), call.integers("dilations", [1] * rank)
    pads = call.integers("pads", [0] * 2 * rank)
    mode = call.attributes.get("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID") or len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        refuse("its strides, dilations or paddings do not go with its input")
    return [
        rules.window(sizes[axis], kernel[axis], strides[axis], dilations[axis], pads[axis], pads[rank + axis])
        for axis in range(rank)
    ]


def _global_pool(call: Call) -> list[Shape]:
    return [(*call.shape(0)[:2], *(1 for _ in call.shape(0)[2:]))]


def _reshape(call: Call) -> list[Shape]:
    return [rules.reshaped(call.shape(0), call.constant(1), not call.integer("allowzero", 0))]


def _flatten(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis = call.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        refuse(f"there is no axis {axis} in {len(shape)}")
    axis += len(shape) if axis < 0 else 0
    return [(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def _transpose(call: Call) -> list[Shape]:
    shape = call.shape(0)
    return [rules.permuted(shape, call.integers("perm", list(range(len(shape)))[::-1]))]


def _squeeze(call: Call) -> list[Shape]:
    return [rules.squeezed(call.shape(0), call.axes(1))]


def _unsqueeze(call: Call) -> list[Shape]:
    axes = call.axes(1)
    if axes is None:
        refuse("it has no axes")
    return [rules.unsqueezed(call.shape(0), axes)]


def _concat(call: Call) -> list[Shape]:
    shapes = [call.shape(index) for index in range(len(call.inputs))]
    return [rules.concatenated(shapes, call.integer("axis"))]


def _split(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis = rules.axis_of(call.integer("axis", 0), len(shape))
    count = call.outputs
    if call.has(1):
        sizes = call.constant(1)
    elif "split" in call.attributes:
        sizes = call.integers("split")
    else:
        if call.symbolic:
            refuse("it has no sizes, so that the last part may grow while the length falls")
        each = -(-shape[axis] // max(count, 1))
        sizes = [min(each, shape[axis] - each * index) for index in range(count)]
    if len(sizes) != count or sum(sizes) != shape[axis] or min(sizes, default=0) < 0:
        refuse(f"{shape[axis]} elements cannot be split into {sizes[:9]}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _slice(call: Call) -> list[Shape]:
    shape = list(call.shape(0))
    starts, ends = call.constant(1), call.constant(2, may_vary=True)
    axes = rules.axes_of(call.constant(3) if call.has(3) else range(len(starts)), len(shape))
    steps = call.constant(4) if call.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        refuse("its starts, ends, axes and steps are not as many")
    if call.symbolic and (min(starts, default=0) < 0 or min(steps, default=1) < 1):
        refuse("it counts from the end, so that it may grow while the length falls")
    for axis, begin, end, step in zip(axes, starts, ends, steps, strict=True):
        shape[axis] = rules.sliced(shape[axis], begin, end, step)
    return [tuple(shape)]


def _gather(call: Call) -> list[Shape]:
    table, indices = call.shape(0), call.shape(1)
    axis = rules.axis_of(call.integer("axis", 0), len(table))
    _check_indices(call, table[axis])
    return [(*table[:axis], *indices, *table[axis + 1 :])]


def _check_indices(call: Call, size: int) -> None:
    """Constant indices lie in their axis; those that are computed an engine checks itself."""
    indices = call.inputs[1]
    if indices is not None and indices.numbers is not None:
        for index in indices.numbers():
            if not -size <= index < size:
                refuse(f"it gathers number {index} of {size}")


def _gather_elements(call: Call) -> list[Shape]:
    table, indices = call.shape(0), call.shape(1)
    axis = rules.axis_of(call.integer("axis", 0), len(table))
    if len(indices) != len(table):
        refuse(f"it gathers by {indices} from {table}")
    _check_indices(call, table[axis])
    return [indices]


def _gather_nd(call: Call) -> list[Shape]:
    table, indices, batch = call.shape(0), call.shape(1), call.integer("batch_dims", 0)
    depth = indices[-1] if indices else 0
    if not 0 <= batch < min(len(table), len(indices) or 1) or not 1 <= depth <= len(table) - batch:
        refuse(f"it gathers by {indices} from {table}")
    return [(*indices[:-1], *table[batch + depth :])]


def _pad(call: Call) -> list[Shape]:
    shape = call.shape(0)
    pads = call.constant(1) if call.has(1) else call.integers("pads")
    axes = rules.axes_of(call.constant(3) if call.has(3) else range(len(shape)), len(shape))
    if len(pads) != 2 * len(axes):
        refuse(f"it pads {shape} by {pads[:9]}")
    pairs = [(0, 0)] * len(shape)
    for place, axis in enumerate(axes):
        pairs[axis] = pads[place], pads[len(axes) + place]
    return [rules.padded(shape, pairs)]


def _expand(call: Call) -> list[Shape]:
    return [rules.broadcast(call.shape(0), _wanted(call.constant(1)))]


def _constant_of_shape(call: Call) -> list[Shape]:
    return [_wanted(call.constant(0))]


def _wanted(sizes: Sequence[int]) -> Shape:
    if any(size < 0 for size in sizes):
        refuse(f"it is to become {list(sizes)[:9]}")
    return tuple(sizes)


def _tile(call: Call) -> list[Shape]:
    return [rules.tiled(call.shape(0), call.constant(1))]


def _range(call: Call) -> list[Shape]:
    begin, end, step = (
        numbers[0] if len(numbers) == 1 else refuse("a range's bound is no number")
        for numbers in (call.constant(index) for index in range(3))
    )
    if not step:
        refuse("a range has the step 0")
    return [(max(0, -(-(end - begin) // step)),)]


def _resize(call: Call) -> list[Shape]:
    """To sizes; scales would have to be read as floats, and a converter can write either."""
    shape, sizes = call.shape(0), call.constant(3)
    if call.has(1) or call.has(2) or call.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        refuse("it has a region, scales or a policy: expected sizes")
    if call.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        refuse("it crops")
    axes = call.integers("axes", list(range(len(shape))))
    if len(sizes) != len(axes) or any(
        size != shape[axis] for axis, size in zip(axes, sizes, strict=True) if rules.axis_of(axis, len(shape)) < 2
    ):
        refuse(f"{shape} cannot be resized to {sizes[:9]}: expected rows and columns")
    return [rules.resized(shape, [rules.axis_of(axis, len(shape)) for axis in axes], sizes)]


def _reduce(call: Call) -> list[Shape]:
    shape, axes = call.shape(0), call.axes(1)
    if axes is None or (not axes and not call.integer("noop_with_empty_axes", 0)):
        axes = list(range(len(shape)))
    return [rules.reduced(shape, axes, bool(call.integer("keepdims", 1)))]


def _arg(call: Call) -> list[Shape]:
    return [rules.reduced(call.shape(0), [call.integer("axis", 0)], bool(call.integer("keepdims", 1)))]


def _quantize(call: Call) -> list[Shape]:
    return [call.shape(0), (), ()]


def _shape(call: Call) -> list[Known]:
    shape = call.shape(0)
    sizes = list(shape[call.integer("start", 0) : call.integer("end", len(shape))])
    return [Known((len(sizes),), INT64, lambda: sizes, varies=True)]


UNARY = """Abs Cast Ceil Clip Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log LogSoftmax Mish
Neg Not QuantizeLinear DequantizeLinear Reciprocal Relu Round Selu Sigmoid Sign Sin Softmax Softplus Sqrt Tanh CumSum
LayerNormalization RMSNormalization InstanceNormalization GroupNormalization BatchNormalization Trilu ScatterND
ScatterElements"""
BINARY = """Add Sub Mul Div Pow Max Min Mean Sum And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Mod Where
PRelu"""
REDUCTIONS = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare"

RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY.split(), _first),
    **dict.fromkeys(BINARY.split(), _broadcast),
    **dict.fromkeys(REDUCTIONS.split(), _reduce),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "AveragePool": _pool,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "DynamicQuantizeLinear": _quantize,
    "Dropout": _same,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulNBits": _matmul_nbits,
    "MaxPool": _pool,
    "Pad": _pad,
    "QLinearConv": lambda call: _convolution(call, kernel_at=3),
    "QLinearMatMul": _quantized_matmul,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By the operator's name. `Constant` is not here: a graph's reader takes it as a constant."""

OWN_OPERATORS = frozenset({"MatMulNBits"})
"""Of ONNX Runtime's own domain; all others are of ONNX's."""

MOVES = frozenset({
    "Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
})  # fmt: skip
"""The results' numbers are those of the first operand."""

GATHERS = frozenset({"Gather", "GatherElements", "GatherND"})
"""Their second operand numbers the rows of the first."""


def indexed_rows(operator: str, call: Call) -> int:
    """How many rows the table of a call in `GATHERS` has; its rule has seen that the call is sound."""
    table = call.shape(0)
    if operator != "GatherND":
        return table[rules.axis_of(call.integer("axis", 0), len(table))]
    batch = call.integer("batch_dims", 0)
    return min(table[batch : batch + call.shape(1)[-1]])
