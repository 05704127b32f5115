"""Per-layer weight formats: which layers of a model can have one, what a format does to a weight, and the plan itself.

A plan is JSON; layers that it does not name have its default:

    {"version": 1, "default": "int8", "layers": {"classifier": "fp32", "bert.pooler.dense": "int4"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeformer.convert.target import PRECISION_ALIASES, Precision, Target
from edgeformer.models.config import read_object
from edgeformer.models.family import Program
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath
from edgeformer_runtime.registry import check_choice, did_you_mean

PLAN_VERSION = 1
FORMATS = ("fp32", "fp16", "int8", "int4")
"""From the most exact to the smallest."""
BITS = MappingProxyType({"fp32": 32, "fp16": 16, "int8": 8, "int4": 4})
LARGEST_INT8, LARGEST_INT4 = 127, 7
"""Steps from 0 to the largest weight: integers are symmetric."""
SCALE_BYTES = 4
MAX_PLANNED_LAYERS = 10_000
CHECKPOINT_FILE, CHECKPOINT_KEY = "edgeformer.json", "quantization"
"""Where a checkpoint holds a plan of its own."""

LEAST_WEIGHTS = 1024
"""A smaller table stays as it is: it is not worth the operator that would read it."""
_POSITION_TABLES = ("position_embeddings", "embed_positions")
"""Exports slice these and fold them into other constants. They are few, and stay in float."""

# A recipe or a plan is read, and refused, before torch is imported.
if TYPE_CHECKING:
    from torch import Tensor, nn

QuantizableLayer: TypeAlias = "nn.Linear | nn.Conv2d | nn.Embedding"


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what is no format, or none that changes anything.

    Raises:
        InputError: one of them is.
    """
    for each in formats:
        check_choice(each, FORMATS[1:], "format of layers", PRECISION_ALIASES)


@dataclass(frozen=True)
class LayerPlan:
    """A weight format for each quantizable layer.

    Attributes:
        layers: format by the layer's name in our module (`named_modules`).
        default: the format of every other layer; but where it is int4, tables and convolutions have int8, since few
            targets can do more.
    """

    layers: Mapping[str, str] = field(default_factory=dict)
    default: str = "int8"

    def __post_init__(self) -> None:
        if len(self.layers) > MAX_PLANNED_LAYERS:
            raise InputError(f"layer plan: {len(self.layers)} layers: expected {MAX_PLANNED_LAYERS} at most")
        object.__setattr__(self, "layers", MappingProxyType(dict(sorted(self.layers.items()))))
        for name, found in (*self.layers.items(), ("default", self.default)):
            if found not in FORMATS:
                raise InputError(
                    f"layer plan: {did_you_mean(str(found)[:40], FORMATS)}expected one of {', '.join(FORMATS)} as the "
                    f"format of {shorten(name)[1:-1]}, found {shorten(found)}"
                )

    def format_of(self, layer: str) -> str:
        """The format of a layer by its name, whatever kind it is."""
        return self.layers.get(layer, self.default)

    def formats(self, module: nn.Module) -> dict[str, str]:
        """The format of each quantizable layer of a module, by its name."""
        return {
            name: self.format_of(name) if name in self.layers else _at_most_int8(self.default, layer)
            for name, layer in quantizable_layers(module).items()
        }

    def check(self, module: nn.Module) -> None:
        """Refuse a plan that names what the module does not have.

        Raises:
            InputError: a layer that is missing, or whose weights no format fits.
        """
        known = quantizable_layers(module)
        unknown = [name for name in self.layers if name not in known]
        if unknown:
            raise InputError(
                f"layer plan: the model has no quantizable layer {', '.join(shorten(n)[1:-1] for n in unknown[:3])}"
                f"{f' and {len(unknown) - 3} more' if len(unknown) > 3 else ''}: "
                f"{did_you_mean(unknown[0][:200], known)}"
                f"expected names like {', '.join(list(known)[:3])}"
            )

    def weight_bytes(self, module: nn.Module) -> int:
        """What the quantizable layers' weights take in these formats, scales included; each tied weight once."""
        formats = self.formats(module)
        return sum(weight_bytes(layer.weight, formats[name]) for name, layer in quantizable_layers(module).items())

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {"version": PLAN_VERSION, "default": self.default, "layers": dict(self.layers)}

    @classmethod
    def from_json(cls, value: Any, where: str = "layer plan") -> LayerPlan:
        """A plan from parsed JSON; InputError says what in `where` is wrong."""
        if not isinstance(value, dict) or value.keys() - {"version", "default", "layers"}:
            raise InputError(f'{where}: expected an object with "version", "default" and "layers"')
        if value.get("version") != PLAN_VERSION:
            raise InputError(f"{where}: expected version {PLAN_VERSION}, found {shorten(value.get('version'))}")
        layers, default = value.get("layers", {}), value.get("default", "int8")
        if not isinstance(layers, dict) or not all(isinstance(each, str) for each in (default, *layers.values())):
            raise InputError(f'{where}: expected formats by the names of layers as "layers", and a format as "default"')
        return cls(layers, default)

    @classmethod
    def read(cls, path: StrPath) -> LayerPlan:
        """A plan from a file; InputError if it is none."""
        return cls.from_json(read_object(Path(path)), Path(path).name)

    def write(self, path: StrPath) -> None:
        """Write a file that `read` reads."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")


def plan_of_checkpoint(folder: Path) -> LayerPlan | None:
    """The plan in a checkpoint's `edgeformer.json`, under "quantization"; None where there is none."""
    file = folder / CHECKPOINT_FILE
    if not file.is_file():
        return None
    found = read_object(file).get(CHECKPOINT_KEY)
    return None if found is None else LayerPlan.from_json(found, f"{CHECKPOINT_FILE}: {CHECKPOINT_KEY}")


def plan_for(precision: Precision, target: Target, checkpoint: Path, file: Path | None) -> LayerPlan | None:
    """The formats of the layers, at precisions that have one for each; None at others.

    Args:
        precision: of a bundle.
        target: where int4 has offsets, the target's own tool stores it.
        checkpoint: the folder of the one that is converted, which may hold a plan.
        file: a plan that was given.

    Raises:
        InputError: the precision is mixed, and there is no plan.
    """
    if precision.name == "int4":
        return None if target.int4.has_offsets else LayerPlan(default="int4")
    if precision.name != "mixed":
        return None
    plan = LayerPlan.read(file) if file is not None else plan_of_checkpoint(checkpoint)
    if plan is None:
        raise InputError(
            f"mixed needs a format for each layer: give --plan FILE, or a checkpoint whose {CHECKPOINT_FILE} has a "
            f'"{CHECKPOINT_KEY}"'
        )
    return plan


def quantizable_layers(module: nn.Module) -> dict[str, QuantizableLayer]:
    """By name, the layers that can have a format of their own, in the order in which the module holds them.

    Linear layers, pointwise convolutions, and tables that tokens are looked up in. Spatial convolutions stay in float:
    TinyViT-5M's are 0.7 % of its bytes and lose the most.
    """
    return {name: layer for name, layer in module.named_modules() if _is_quantizable(name, layer)}


def is_matmul(layer: nn.Module) -> bool:
    """Whether a layer multiplies the channels of each position by one matrix."""
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _at_most_int8(format: str, layer: QuantizableLayer) -> str:
    from torch import nn

    return "int8" if format == "int4" and not isinstance(layer, nn.Linear) else format


def _is_quantizable(name: str, layer: nn.Module) -> bool:
    from torch import nn

    if isinstance(layer, nn.Embedding):
        return name.rpartition(".")[2] not in _POSITION_TABLES and layer.weight.numel() >= LEAST_WEIGHTS
    return is_matmul(layer)


def quantized(weight: Tensor, format: str, block: int | None = None) -> Tensor:
    """The values that a weight has in a format: rounded to nearest, symmetric, one scale per row.

    Args:
        weight: (O, ...) float32; the first axis has the output channels, or the rows of a table.
        format: one of `FORMATS`.
        block: columns that share a scale; None: the whole row.

    Returns:
        The same shape, float32.
    """
    import torch

    if format == "fp32":
        return weight
    if format == "fp16":
        return weight.half().float()
    largest = 2 ** (BITS[format] - 1) - 1
    rows = weight.reshape(len(weight), -1)
    width = rows.shape[1] if block is None else block
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % width)).reshape(len(rows), -1, width)
    scale = padded.abs().amax(2, keepdim=True) / largest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    steps = torch.round(padded / scale).clamp(-largest, largest)
    return (steps * scale).reshape(len(rows), -1)[:, : rows.shape[1]].reshape(weight.shape)


def weight_bytes(weight: Tensor, format: str) -> int:
    """What a weight takes in a format, with one scale per row."""
    scales = SCALE_BYTES * len(weight) if format.startswith("int") else 0
    return -(-weight.numel() * BITS[format] // 8) + scales


def planned(programs: tuple[Program, ...], module: nn.Module, plan: LayerPlan) -> tuple[Program, ...]:
    """The programs, each knowing the formats of the layers that it has.

    Args:
        programs: of a family.
        module: whose names the plan uses, and which the programs were made of.

    Raises:
        InputError: a layer of a program that is none of the module's.
    """
    plan.check(module)
    formats = plan.formats(module)
    names = {id(layer.weight): name for name, layer in quantizable_layers(module).items()}
    return tuple(
        replace(
            program,
            layer_formats={
                inner: formats[_name_in(module, inner, layer, names)]
                for inner, layer in quantizable_layers(program.module).items()
            },
        )
        for program in programs
    )


def _name_in(module: nn.Module, inner: str, layer: QuantizableLayer, names: Mapping[int, str]) -> str:
    """A program's layer in the module's words: the layer of that weight, of that name, or that it is a part of."""
    if id(layer.weight) in names:
        return names[id(layer.weight)]
    known, name = set(names.values()), inner
    while name and name not in known:
        name = name.rpartition(".")[0]
    if not name:
        raise InputError(f"layer plan: the layer {inner} of the export is no part of {type(module).__name__}")
    return name
