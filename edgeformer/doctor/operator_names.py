"""One name for an operator that every format spells in its own way."""

from __future__ import annotations

SOFTMAX = frozenset({"softmax", "logsoftmax"})
LAYOUT = frozenset({"reshape", "view", "expanddims", "unsqueeze", "squeeze", "etview", "viewcopy", "flatten"})
"""They give the same numbers in the same order."""
ELEMENTWISE = frozenset(
    {
        "add", "sub", "mul", "div", "maximum", "minimum", "clamp", "clip", "max", "min", "neg", "relu", "relu6", "gelu",
        "tanh", "logistic", "sigmoid", "exp", "sqrt", "rsqrt", "square", "abs", "erf", "hardswish", "pow", "softsign",
        "squareddifference", "where", "select", "selectv2",
    }
)  # fmt: skip
"""Each number of the result comes of the numbers in its place."""

_ALIASES = {"multiply": "mul", "subtract": "sub", "negate": "neg", "divide": "div", "realdiv": "div"}


def plain_name(operator: str) -> str:
    """`aten::mul.Tensor_out`, `XNNMultiply`, `MUL` and `Mul` are all `mul`."""
    name = operator.split("::")[-1].split(".")[0]
    if name.startswith("XNN"):
        name = name.removeprefix("XNN").removeprefix("Static")
    name = name.lower().replace("_copy", "").replace("_", "")
    return _ALIASES.get(name, name)
