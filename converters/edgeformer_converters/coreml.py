"""Lowering to Core ML: one `.mlpackage`, a function per program, made on any system that coremltools runs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from edgeformer.precision import Precision
from edgeformer.programs import Program
from edgeformer_converters.base import Lowered
from edgeformer_converters.checks import common_problems
from edgeformer_converters.coreml_package import normalize_package
from edgeformer_converters.mil_program import Function, read_program
from edgeformer_converters.quiet import quiet_tools
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Requirements

PACKAGE = "model.mlpackage"
MAIN = "main"
NUMPY_DTYPES = {"float32": np.float32, "int32": np.int32}
# coremltools' own threshold: below it are biases, norms and small tables, whose bytes do not matter.
QUANTIZE_MIN_ELEMENTS = 2048


class CoreMLConverter:
    """coremltools' torch.export frontend, for iOS 18 and macOS 15 (fused attention, functions that share weights).

    fp16 stores and computes in half. dynamic-int8 stores weights and embedding tables in int8, one scale per channel,
    and computes in half: coremltools quantizes activations on macOS only, so they stay float16. Inputs are int32 and
    outputs float32 at every precision. Buffers that a program changes become states, which functions share by name;
    Core ML has them in float16 only, so at fp32 too they are rounded to that. Core ML itself is not needed to convert;
    `mil_reference` executes the result.
    """

    target = "coreml"
    precisions: tuple[str, ...] = ("fp32", "fp16", "dynamic-int8")
    requires = Requirements(runtime="0.1.0", ios="18.0", macos="15.0")
    quantizes_files = False
    packages = ("coremltools", "torch")

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What Core ML cannot do with these programs, one sentence each."""
        problems = common_problems(self.target, self.precisions, ("coremltools",), programs, precision)
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
        fp32: Lowered,  # noqa: ARG002 - half precision is a pass of the conversion itself, not of its result
        precision: Precision,
        folder: Path,
    ) -> Lowered:
        """Convert the programs again, at another precision."""
        return self._lower(programs, precision.name, folder)

    def _lower(self, programs: Sequence[Program], precision: str, folder: Path) -> Lowered:
        package = folder / PACKAGE
        with quiet_tools(), torch.no_grad(), _writes_last(), TemporaryDirectory() as scratch:
            if len(programs) == 1:
                entries = {programs[0].name: (PACKAGE, MAIN)}
                _convert(programs[0], precision).save(str(package))
            else:
                entries = {program.name: (PACKAGE, program.name) for program in programs}
                _save_functions(programs, precision, Path(scratch), package)
            names = normalize_package(package)
            functions = read_program(package)
        if precision != "fp32":
            _refuse_overflow(functions)
        operators = Counter(each.type for function in functions.values() for each in function.operations)
        return Lowered(
            folder, tuple(f"{PACKAGE}/{name}" for name in names), entries, dict(sorted(operators.items())), None
        )


def _convert(program: Program, precision: str) -> Any:
    import coremltools as ct

    exported = torch.export.export(program.module, program.example_inputs()).run_decompositions({})
    _remove_aliases(exported)
    model = ct.convert(
        exported,
        inputs=[
            ct.TensorType(name=spec.name, shape=spec.shape, dtype=NUMPY_DTYPES[spec.dtype]) for spec in program.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=NUMPY_DTYPES[spec.dtype]) for spec in program.outputs],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
        skip_model_load=True,
    )
    if precision != "dynamic-int8":
        return model
    quantizer = ct.optimize.coreml.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=QUANTIZE_MIN_ELEMENTS
    )
    return ct.optimize.coreml.linear_quantize_weights(
        model, ct.optimize.coreml.OptimizationConfig(global_config=quantizer)
    )


@contextmanager
def _writes_last() -> Iterator[None]:
    """Keep writes of states at the end, where they are: the pass that would move them forward fails on several."""
    from coremltools.converters.mil.mil.passes.defs.optimize_state import canonicalize_inplace_pattern

    apply = canonicalize_inplace_pattern.apply
    canonicalize_inplace_pattern.apply = lambda _, program: None  # noqa: ARG005
    try:
        yield
    finally:
        canonicalize_inplace_pattern.apply = apply


def _remove_aliases(exported: torch.export.ExportedProgram) -> None:
    """Drop the operator that a slice of a whole tensor becomes: coremltools does not know it."""
    graph = exported.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def _save_functions(programs: Sequence[Program], precision: str, scratch: Path, package: Path) -> None:
    import coremltools as ct

    functions = ct.utils.MultiFunctionDescriptor()
    for program in programs:
        path = str(scratch / f"{program.name}.mlpackage")
        _convert(program, precision).save(path)
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


CONVERTER = CoreMLConverter()
