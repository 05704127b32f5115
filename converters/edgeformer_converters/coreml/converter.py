"""Lowering to Core ML: one `.mlpackage`, a function per program, made on any system that coremltools runs on."""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeformer.convert.layer_plan import FORMATS
from edgeformer.convert.target import Precision, Target
from edgeformer.foreign_code import quiet_tools
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered, PlannedLayer, PlannedLayers, common_problems, plan_problems
from edgeformer_converters.coreml.target import MACOS_OF_IOS, TARGET
from edgeformer_converters.mil.interpreter import MilInterpreter
from edgeformer_converters.mil.program import PACKAGE_DATA, PACKAGE_MODEL, Function, read_program
from edgeformer_runtime.bundle.manifest import Requirements
from edgeformer_runtime.errors import InputError

PACKAGE = "model.mlpackage"
MAIN = "main"
NUMPY_DTYPES = {"float32": np.float32, "int32": np.int32}


class CoreMLConverter:
    """coremltools' torch.export frontend, for iOS 18 and macOS 15 or, for one program without states, older ones.

    fp16 stores and computes in float16; the other precisions compute in float16, too, and store weights and embedding
    tables smaller (`WEIGHTS`): coremltools quantizes activations on macOS only. Operators whose values float16 may not
    hold stay in float32 (`fits_float16`). Inputs are int32 and outputs float32 at every precision.
    Buffers that a program changes become states, which functions share by name; Core ML has them in float16 only, so at
    fp32 too they are rounded to that. Core ML itself is not needed to convert; `mil/interpreter.py` runs the result.
    """

    quantizes_files = False
    packages = ("coremltools", "torch")

    def __init__(self, target: Target = TARGET, ios: int = 18) -> None:
        """Lower for this release of iOS and later ones.

        Raises:
            InputError: a release that is not in `MACOS_OF_IOS`.
        """
        target.check_ios(ios)
        self._ios = ios
        self.target = target
        self.precisions = tuple(name for name in target.precisions if name not in WEIGHTS or ios >= WEIGHTS[name].ios)
        self.requires = Requirements(runtime="0.1.0", ios=f"{ios}.0", macos=f"{MACOS_OF_IOS[ios]}.0")

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What Core ML cannot do with these programs, one sentence each."""
        problems = common_problems(self.target, self.precisions, ("coremltools",), programs, precision)
        several = self.target.one_program_before_ios
        if self._ios < several and len(programs) > 1:
            problems.append(
                f"several programs in one package need iOS {several}, iOS {self._ios} was asked for: "
                "give one --seq-len, and for speech leave --min-ios out"
            )
        formats = FORMATS if self._ios >= INT4.ios else FORMATS[:3]
        problems += plan_problems(self.target, programs, dict.fromkeys((nn.Linear, nn.Conv2d, nn.Embedding), formats))
        for program in programs:
            problems += [
                f"coreml takes tensors of rank 1 to 5, {program.name}.{spec.name} has shape {spec.shape}"
                for spec in (*program.inputs, *program.outputs)
                if not 1 <= len(spec.shape) <= 5
            ]
        return problems

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Write `model.mlpackage` into the empty folder: function "main" for one program, else one per program."""
        return self._lower(programs, "fp32", folder)

    def lower_precision(
        self,
        programs: Sequence[Program],
        fp32: Lowered,
        precision: Precision,
        folder: Path,
    ) -> Lowered:
        """Convert the programs again, at another precision.

        What calibration inputs drive beyond a quarter of float16's range at fp32 stays in float32.
        """
        return self._lower(programs, precision.name, folder, values_beyond_half(programs, fp32))

    def _lower(
        self, programs: Sequence[Program], precision: str, folder: Path, wide: frozenset[str] = frozenset()
    ) -> Lowered:
        package = folder / PACKAGE
        layers = PlannedLayers(programs) if precision == "mixed" else None
        with quiet_tools(), torch.no_grad(), without_moved_writes(), TemporaryDirectory() as scratch:
            if len(programs) == 1:
                entries = {programs[0].name: (PACKAGE, MAIN)}
                _convert(programs[0], precision, self._ios, wide, layers).save(str(package))
            else:
                entries = {program.name: (PACKAGE, program.name) for program in programs}
                _save_functions(programs, precision, self._ios, wide, layers, Path(scratch), package)
            if layers is not None:
                layers.require_all(self.target.name)
            names = normalize_package(package)
            functions = read_program(package)
        if precision != "fp32":
            _refuse_overflow(functions)
        operators = Counter(each.type for function in functions.values() for each in function.operations)
        return Lowered(
            folder, tuple(f"{PACKAGE}/{name}" for name in names), entries, dict(sorted(operators.items())), None
        )


def _convert(program: Program, precision: str, ios: int, wide: frozenset[str], layers: PlannedLayers | None) -> Any:
    import coremltools as ct

    exported = torch.export.export(program.module, program.example_inputs()).run_decompositions(
        {
            torch.ops.aten.gelu.default: _spelled_gelu,
            # Of masks, which coremltools 9 knows under the other names.
            torch.ops.aten.__and__.Tensor: torch.logical_and,
            torch.ops.aten.__or__.Tensor: torch.logical_or,
        }
    )
    _remove_aliases(exported)
    model = ct.convert(
        exported,
        inputs=[
            ct.TensorType(name=spec.name, shape=spec.shape, dtype=NUMPY_DTYPES[spec.dtype]) for spec in program.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=NUMPY_DTYPES[spec.dtype]) for spec in program.outputs],
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, f"iOS{ios}"),
        compute_precision=(
            ct.precision.FLOAT32
            if precision == "fp32"
            else ct.transform.FP16ComputePrecision(
                lambda operation: fits_float16(wide, operation) and not (layers and stays_float(layers, operation))
            )
        ),
        skip_model_load=True,
    )
    if layers is not None:
        return compress_by_plan(model, layers)
    return WEIGHTS[precision].compress(model) if precision in WEIGHTS else model


@contextmanager
def without_moved_writes() -> Iterator[None]:
    """Within the context coremltools leaves writes of states at the end of a program, where they are.

    Its pass `canonicalize_inplace_pattern` would move them forward, and fails with a KeyError where a program writes
    several. `PassPipeline.remove_passes` leaves it out of `ct.convert`, but compressing weights runs the default passes
    once more and takes no pipeline: so the pass itself is switched off, in this process alone, and put back.
    """
    from coremltools.converters.mil.mil.passes.defs.optimize_state import canonicalize_inplace_pattern

    apply = canonicalize_inplace_pattern.apply
    canonicalize_inplace_pattern.apply = lambda _, program: None  # noqa: ARG005
    try:
        yield
    finally:
        canonicalize_inplace_pattern.apply = apply


def _spelled_gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """coremltools 9 takes every exported GELU for the exact one; it recognises the approximation by these operators."""
    if approximate == "none":
        return NotImplemented
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def _remove_aliases(exported: torch.export.ExportedProgram) -> None:
    """Drop the operator that a slice of a whole tensor becomes: coremltools does not know it."""
    graph = exported.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def _save_functions(
    programs: Sequence[Program],
    precision: str,
    ios: int,
    wide: frozenset[str],
    layers: PlannedLayers | None,
    scratch: Path,
    package: Path,
) -> None:
    import coremltools as ct

    functions = ct.utils.MultiFunctionDescriptor()
    for program in programs:
        path = str(scratch / f"{program.name}.mlpackage")
        _convert(program, precision, ios, wide, layers).save(path)
        functions.add_function(path, src_function_name=MAIN, target_function_name=program.name)
    functions.default_function_name = programs[0].name
    ct.utils.save_multifunction(functions, str(package))


def _refuse_overflow(functions: Mapping[str, Function]) -> None:
    # coremltools keeps such a constant in float32 and casts its sum: softmax over a row of infinities is NaN.
    largest = torch.finfo(torch.float16).max
    for function in functions.values():
        for name, value in function.constants.items():
            tensor = torch.as_tensor(value) if isinstance(value, torch.Tensor | float) else torch.zeros(())
            if tensor.is_floating_point() and tensor.numel() and not float(tensor.abs().max()) <= largest:
                raise InputError(
                    f"constant {name} is beyond float16's {largest:.0f}: use a smaller mask value, such as -1000"
                )


# Makes a Core ML package depend on nothing but the model: no dates, no random identifiers, no leftovers of tools.


MANIFEST_FILE = "Manifest.json"
# Identifiers in a package's manifest only have to differ from each other.
IDENTIFIERS = uuid.uuid5(uuid.NAMESPACE_URL, "https://developer.apple.com/documentation/coreml")
CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"


def normalize_package(package: Path) -> tuple[str, ...]:
    """Rewrite a package so that two conversions of one model give the same bytes.

    Args:
        package: an `.mlpackage` folder that coremltools wrote.

    Returns:
        The package's files, relative to it, in order.
    """
    from coremltools.proto import Model_pb2

    manifest = json.loads((package / MANIFEST_FILE).read_text())
    items = {_identifier(item["path"]): item for item in manifest["itemInfoEntries"].values()}
    root = _identifier(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
    manifest |= {"itemInfoEntries": items, "rootModelIdentifier": root}
    (package / MANIFEST_FILE).write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")

    path = package / PACKAGE_DATA / PACKAGE_MODEL
    specification = Model_pb2.Model.FromString(path.read_bytes())
    specification.description.metadata.userDefined.pop(CONVERSION_DATE, None)
    path.write_bytes(specification.SerializeToString(deterministic=True))

    kept = {MANIFEST_FILE, *(str(PACKAGE_DATA / name) for name in (PACKAGE_MODEL, "weights/weight.bin"))}
    files = {str(file.relative_to(package)): file for file in package.rglob("*") if file.is_file()}
    for name, file in files.items():
        if name in kept:
            file.chmod(0o644)
        else:
            file.unlink()
    return tuple(sorted(name for name in files if name in kept))


def _identifier(path: str) -> str:
    return str(uuid.uuid5(IDENTIFIERS, path))


# How Core ML stores weights smaller than in float16: coremltools' compressions, as data.
#
# Each replaces weights and embedding tables by an operator that Core ML evaluates once, when it loads the model.


# coremltools' own threshold: below it are biases, norms and small tables, whose bytes do not matter.
MIN_ELEMENTS = 2048


@dataclass(frozen=True)
class Linear:
    """Integers with a scale per output channel, or per block of it, where asymmetric with an offset, too."""

    ios: int
    dtype: str
    mode: str
    granularity: str
    block_size: int = 32

    def compress(self, model: Any) -> Any:
        """A copy of a coremltools model with its weights stored so; those that blocks do not divide stay in float16."""
        import coremltools.optimize.coreml as optimize

        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=self.quantizer()))

    def quantizer(self, least: int = MIN_ELEMENTS) -> Any:
        """coremltools' configuration for it, of weights with at least so many elements."""
        import coremltools.optimize.coreml as optimize

        return optimize.OpLinearQuantizerConfig(
            mode=self.mode,
            dtype=self.dtype,
            granularity=self.granularity,
            block_size=self.block_size,
            weight_threshold=least,
        )


@dataclass(frozen=True)
class Palette:
    """Indices of `bits` bits into a table of a tensor's 2^bits k-means centres."""

    ios: int
    bits: int

    def compress(self, model: Any) -> Any:
        """A copy of a coremltools model whose weights are stored so."""
        import coremltools.optimize.coreml as optimize

        palettizer = optimize.OpPalettizerConfig(mode="kmeans", nbits=self.bits, weight_threshold=MIN_ELEMENTS)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=palettizer))


INT8 = Linear(16, "int8", "linear_symmetric", "per_channel")
# With offsets the classifier of images is off by .25 instead of .46, for 3 % more bytes.
INT4 = Linear(18, "int4", "linear", "per_block")

WEIGHTS: Mapping[str, Linear | Palette] = {
    "dynamic-int8": INT8,
    "palette6": Palette(16, 6),
    # One table per tensor: tables per 16 channels are larger, and no nearer on small models.
    "palette4": Palette(16, 4),
    "int4": INT4,
}
"""By precision, with the first release of iOS that reads it."""


# A format for each layer in Core ML: the layer's constant is found by its values.
#
# fp32 layers compute in float32; the other ones in float16, with weights in float16, in int8 or in int4.


_INPUTS_FIRST = ("matmul",)
"""Operators that may take weights as (I, O)."""


def stays_float(layers: PlannedLayers, operation: Any) -> bool:
    """Whether an operation of coremltools reads the weights of a layer that a plan leaves in float32."""
    return any(layer.format == "fp32" for _, layer in _weights(layers, operation))


def compress_by_plan(model: Any, layers: PlannedLayers) -> Any:
    """A copy of a coremltools model whose layers' weights are stored as planned; those found are marked.

    A layer of int4 whose channels blocks do not divide stays in float16, as in the precision int4.
    """
    import coremltools.optimize.coreml as optimize

    chosen = {"int8": INT8.quantizer(least=0), "int4": INT4.quantizer(least=0)}
    configs: dict[str, Any] = {}
    for function in model._mil_program.functions.values():
        for operation in function.operations:
            for constant, layer in _weights(layers, operation):
                if layer.format in chosen:
                    configs[constant] = chosen[layer.format]
    if not configs:
        return model
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(op_name_configs=configs))


def _weights(layers: PlannedLayers, operation: Any) -> list[tuple[str, PlannedLayer]]:
    """Names of constants that an operation reads, casts looked through, with the layers whose weights they are."""
    found = []
    for operand in operation.inputs.values():
        value = getattr(operand, "val", None)
        maker = getattr(operand, "op", None)
        if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype.kind != "f" or maker is None:
            continue
        if operation.op_type == "const":
            continue
        while maker.op_type == "cast":
            maker = maker.x.op
        transposed = operation.op_type in _INPUTS_FIRST and not operation.transpose_y.val
        layer = layers.find(value, transposed)
        if layer is not None:
            found.append((str(maker.name), layer))
    return found


# What float16 cannot hold of a program, found by running it: published MobileBERT's hidden states pass 1e7.


LARGEST_TRUSTED = float(torch.finfo(torch.float16).max) / 4
"""Other inputs reach more than the ones that were looked at."""


def values_beyond_half(programs: Sequence[Program], fp32: Lowered) -> frozenset[str]:
    """The names of the values that calibration inputs drive beyond a quarter of float16's range.

    Args:
        programs: those without calibration inputs are left out.
        fp32: their packages, in which coremltools' names are those that it has before it turns to half precision.
    """
    names: set[str] = set()
    for program in programs:
        if program.calibration:
            file, entry = fp32.entries[program.name]
            names |= _beyond(program, read_program(fp32.folder / file)[entry])
    return frozenset(names)


def _beyond(program: Program, function: Function) -> set[str]:
    floats = [each.name for operation in function.operations for each in operation.outputs if each.dtype == "FLOAT32"]
    interpreter = MilInterpreter(replace(function, outputs=tuple(dict.fromkeys((*function.outputs, *floats)))))
    found: set[str] = set()
    for inputs in program.calibration:
        given = {spec.name: value.numpy() for spec, value in zip(program.inputs, inputs, strict=True)}
        values = interpreter.run(given)
        found |= {name for name in floats if values[name].size and not np.abs(values[name]).max() <= LARGEST_TRUSTED}
    return found


def fits_float16(wide: frozenset[str], operation: Any) -> bool:
    """Whether an operation of coremltools neither reads nor makes any of the values named `wide`."""
    operands: list[Any] = list(operation.outputs)
    for operand in operation.inputs.values():
        operands += operand if isinstance(operand, list | tuple) else [operand]
    return not any(value.name in wide for value in operands if value is not None)
