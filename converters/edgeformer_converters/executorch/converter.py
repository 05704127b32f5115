"""Lowering to ExecuTorch with XNNPACK: one `.pte` whose methods are the programs and share their weights."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeformer.convert.target import PLANNED, Precision, Target
from edgeformer.foreign_code import quiet_tools
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered, common_problems, plan_problems
from edgeformer_converters.executorch.quantize import (
    quantize_by_plan,
    quantize_dynamically,
    quantize_statically,
    store_attention_biases_in_int8,
)
from edgeformer_converters.executorch.rewrites import (
    changed_buffers,
    compute_in_half,
    memory_plans,
    normalize_in_delegate,
    shared_provenance,
    slice_instead_of_select,
    tanh_gelus,
    widen_embedding_ids,
    write_out_tanh_gelu,
    write_rows_by_index,
)
from edgeformer_converters.executorch.target import TARGET
from edgeformer_runtime.bundle.manifest import Requirements

MODEL_FILE = "model.pte"
LAYER_FORMATS = {nn.Linear: ("fp32", "int8", "int4"), nn.Conv2d: ("fp32", "int8"), nn.Embedding: ("fp32", "int8")}
"""What each kind of layer can be stored in. float16 weights make XNNPACK compute in float16: for whole models only."""


class ExecuTorchConverter:
    """to_edge_transform_and_lower with the XNNPACK partitioner.

    fp16 stores and computes in float16, which pays on ARMv8.2 cores and costs 40 % on x86, where it is emulated.
    dynamic-int8 is PT2E quantization: linear weights per channel in int8, activations quantized per row while the model
    runs, embedding tables per row in int8. static-int8 takes the ranges of activations from calibration inputs. int4 is
    dynamic-int8 with linear layers' weights in 4 bits, per channel; mixed has a format for each layer. The apps and
    engines that run these link ExecuTorch's quantized kernels.

    Buffers that programs change are state: methods of one loaded file share it, if the app lets methods share memory
    arenas (`share_memory_arenas` of ExecuTorch's Module; Python's Program does).
    """

    # What the Swift package and the Android archive of ExecuTorch 1.x ask for.
    requires = Requirements(runtime="0.1.0", ios="17.0", macos="12.0", android_api=23)
    quantizes_files = False
    packages = ("executorch", "torchao", "torch")

    def __init__(self, target: Target = TARGET) -> None:
        """`target`: with this module's format."""
        self.target = target
        self.precisions = target.precisions

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What ExecuTorch cannot do with these programs, one sentence each."""
        return [
            *common_problems(self.target, self.precisions, ("executorch", "torchao"), programs, precision),
            *plan_problems(self.target, programs, LAYER_FORMATS),
        ]

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Write `model.pte` with one method per program into the empty folder."""
        return _lower(programs, "fp32", folder)

    def lower_precision(
        self,
        programs: Sequence[Program],
        fp32: Lowered,  # noqa: ARG002 - both precisions are made before lowering, not from its result
        precision: Precision,
        folder: Path,
    ) -> Lowered:
        """Export, convert and lower the programs again at another precision."""
        return _lower(programs, precision.name, folder)


def _lower(programs: Sequence[Program], precision: str, folder: Path) -> Lowered:
    with quiet_tools(), torch.no_grad(), shared_provenance():
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower

        exported = {program.name: _without_tanh_gelu(_export(program, precision), program) for program in programs}
        stateful = any(map(changed_buffers, exported.values()))
        if stateful:
            exported = {program.name: _with_state(exported[program.name], program) for program in programs}
        edge = to_edge_transform_and_lower(
            exported,
            partitioner={name: [_partitioner()] for name in exported},
            # The validity check knows neither the quantized embedding nor int32 indices.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        if precision == "dynamic-int8" or precision in PLANNED:
            from executorch.exir.passes.quant_fusion_pass import QuantFusionPass

            # Without it the table is dequantized whole before every look-up.
            edge = edge.transform([QuantFusionPass(_fix_node_meta_val=True)])
        executable = edge.to_executorch(
            # Reinplacing spares a copy of each cache for each token.
            ExecutorchBackendConfig(memory_planning_pass=memory_plans(programs, exported), run_reinplace_pass=True)
            if stateful
            else None
        )
        with (folder / MODEL_FILE).open("wb") as file:
            executable.write_to_file(file)
        operators, partitions = _instructions(executable.executorch_program)
    entries = {program.name: (MODEL_FILE, program.name) for program in programs}
    return Lowered(folder, (MODEL_FILE,), entries, operators, partitions)


def _export(program: Program, precision: str) -> Any:
    inputs = program.example_inputs()
    if precision == "fp32":
        return torch.export.export(program.module, inputs)
    # An exported module holds the program's own parameters, which halving would change under the other programs.
    module = torch.export.export(copy.deepcopy(program.module), inputs).module()
    if precision == "fp16":
        compute_in_half(module)
        return torch.export.export(module, inputs)
    widen_embedding_ids(module)
    module = torch.export.export(module, inputs).module()
    if precision in PLANNED:
        quantized = quantize_by_plan(module, program)
    else:
        quantize = quantize_statically if precision == "static-int8" else quantize_dynamically
        quantized = quantize(module, program)
    if not set(program.layer_formats.values()) <= {"fp32"} or not program.layer_formats:
        store_attention_biases_in_int8(quantized)
    return torch.export.export(quantized, inputs)


def _without_tanh_gelu(exported: Any, program: Program) -> Any:
    """The exported program, with that activation as XNNPACK can compute it."""
    if not tanh_gelus(exported.graph):
        return exported
    module = exported.module()
    write_out_tanh_gelu(module)
    return torch.export.export(module, program.example_inputs())


def _with_state(exported: Any, program: Program) -> Any:
    """An exported program of a set that keeps state, in as few partitions as XNNPACK can take it."""
    module = exported.module()
    for rewrite in (write_rows_by_index, slice_instead_of_select, normalize_in_delegate):
        rewrite(module)
    for name in changed_buffers(exported):
        module.get_buffer(name).zero_()  # what calibration wrote into it
    return torch.export.export(module, program.example_inputs())


def _partitioner() -> Any:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir.backend.canonical_partitioners.pattern_op_partitioner import (
        generate_partitions_from_list_of_nodes,
    )

    class ConnectedPartitioner(XnnpackPartitioner):  # type: ignore[misc]
        """Takes the largest connected partitions of what XNNPACK can do.

        The partitioner's own grouping, operator by operator, leaves dynamically quantized MobileBERT in 6 partitions
        for 2 layers and 10 for 4, where fp32 has 2 whatever its depth.
        """

        def generate_partitions(self, ep: Any) -> Any:
            nodes = self.get_matched_nodes_from_configs(ep)
            return generate_partitions_from_list_of_nodes(ep.graph_module, nodes)

    return ConnectedPartitioner()


def _instructions(program: Any) -> tuple[dict[str, int], int]:
    """How often each kernel and delegate is called, over all methods, and the delegate calls of the first one."""
    calls: Counter[str] = Counter()
    delegated = []
    for plan in program.execution_plan:
        instructions = [each.instr_args for chain in plan.chains for each in chain.instructions]
        kernels = [plan.operators[each.op_index] for each in instructions if hasattr(each, "op_index")]
        calls.update(f"{kernel.name}.{kernel.overload}" for kernel in kernels)
        delegates = [plan.delegates[each.delegate_index].id for each in instructions if hasattr(each, "delegate_index")]
        calls.update(delegates)
        delegated.append(len(delegates))
    return dict(sorted(calls.items())), delegated[0]
