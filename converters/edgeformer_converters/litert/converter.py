"""Lowering to LiteRT: one `.tflite` whose signatures are the programs and share their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from fractions import Fraction
from functools import cache, partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeformer.convert.layer_plan import FORMATS
from edgeformer.convert.target import PLANNED, Precision, Target
from edgeformer.foreign_code import quiet_tools
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered, common_problems, plan_problems
from edgeformer_converters.litert.graph import LiteRTGraph, store_compactly
from edgeformer_converters.litert.quantize import quantize_by_plan, quantize_to_int8
from edgeformer_converters.litert.target import TARGET
from edgeformer_runtime.bundle.manifest import Requirements

MODEL_FILE = "model.tflite"
LAYER_FORMATS = {nn.Linear: FORMATS, nn.Conv2d: FORMATS, nn.Embedding: FORMATS}
"""What each kind of layer can be stored in."""


class LiteRTConverter:
    """litert-torch for fp32; the AI Edge Quantizer takes that file to fp16 weights or int8.

    dynamic-int8 stores weights per channel in int8 (embedding tables included, biases and norms in float32) and
    quantizes activations while it runs. static-int8 takes the ranges of activations from calibration inputs. fp16
    stores the weights in float16; a CPU computes in float32, a GPU in float16. weight-int8 stores them in int8 and
    computes in float32. int4 is dynamic-int8 with linear layers' weights in 4 bits, per channel; mixed has a format
    for each layer.
    """

    # Apple: what the LiteRT pods build for; Android: the oldest API of the LiteRT 2 archive.
    requires = Requirements(runtime="0.1.0", ios="15.0", macos="12.0", android_api=23)
    quantizes_files = True
    packages = ("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "torch")

    def __init__(self, target: Target = TARGET) -> None:
        """`target`: with this module's format."""
        self.target = target
        self.precisions = target.precisions

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What LiteRT cannot do with these programs, one sentence each."""
        modules = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
        return [
            *common_problems(self.target, self.precisions, modules, programs, precision),
            *plan_problems(self.target, programs, LAYER_FORMATS),
        ]

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Write `model.tflite` with one signature per program into the empty folder."""
        traced = to_trace(programs)
        with quiet_tools(), torch.no_grad(), TemporaryDirectory() as scratch:
            exported = Path(scratch) / MODEL_FILE
            _export(traced, exported)
            if len(traced) < len(programs):
                try:
                    add_lengths(exported, programs)
                except NotAlikeError:  # nothing is lost but time
                    _export(programs, exported)
            store_compactly(exported, folder / MODEL_FILE)
        return self._lowered(programs, folder)

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Quantize the fp32 `.tflite` into another one."""
        source = fp32.folder / MODEL_FILE
        with quiet_tools(), TemporaryDirectory() as scratch:
            quantized = Path(scratch) / MODEL_FILE
            if precision.name == "fp16":
                _store_weights_in_half(source, quantized)
            elif precision.name in PLANNED:
                quantize_by_plan(programs, source, quantized)
            else:
                quantize_to_int8(programs, precision.name, source, quantized)
            store_compactly(quantized, folder / MODEL_FILE)
        return self._lowered(programs, folder)

    def _lowered(self, programs: Sequence[Program], folder: Path) -> Lowered:
        with quiet_tools():
            graph = LiteRTGraph(folder / MODEL_FILE)
            operators, partitions = graph.count_operators(), count_partitions(graph)
        entries = {program.name: (MODEL_FILE, program.name) for program in programs}
        return Lowered(folder, (MODEL_FILE,), entries, operators, partitions)


def _export(programs: Sequence[Program], path: Path) -> None:
    """Write a `.tflite` with one signature per program, as the tool makes it."""
    import litert_torch

    _spare_repetitions()
    with ExitStack() as stack:
        converter: Any = litert_torch
        for program in programs:
            stack.enter_context(plain_norms(program.module))
            inputs = {spec.name: tensor for spec, tensor in zip(program.inputs, program.example_inputs(), strict=True)}
            converter = converter.signature(program.name, _NamedOutputs(program).eval(), sample_kwargs=inputs)
        converter.convert().export(str(path))


@cache
def _spare_repetitions() -> None:
    """Let litert-torch do once what it does several times. The same bytes.

    It has JAX lower an operator of the same shapes once for each signature: of two speech lengths at fp32 that is a
    fifth of the CPU time, and every further one shares more. And it decomposes a program when it is exported and again
    when it is lowered, a third of the time of either.
    """
    from litert_torch._convert import core
    from litert_torch.backend.jax_bridge import _wrap

    exporting: Any = core
    exporting.export_torch_signature = partial(core.export_torch_signature, run_decompositions=False)
    bridge: Any = _wrap
    lower, texts = bridge._lower_to_ir_text, dict[Any, str]()

    def lower_once(
        jaxfn: Any, args: Any, kwargs: Any, ir_input_names: Any = None
    ) -> tuple[Callable[[], str], list[Any]]:
        make_text, inputs = lower(jaxfn, args, kwargs, ir_input_names=ir_input_names)
        key = bridge.get_cache_fingerprint((jaxfn, args, kwargs, ir_input_names))  # shapes, dtypes and the code

        def text() -> str:
            if key not in texts:
                texts[key] = make_text()
            return texts[key]

        return (make_text if key is None else text), inputs

    bridge._lower_to_ir_text = lower_once
    bridge._stablehlo_to_vhlo = cache(bridge._stablehlo_to_vhlo)


class _NamedOutputs(nn.Module):
    """A program that takes and returns its tensors by name: these become the names in the signature."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.module = program.module
        self.names = tuple(spec.name for spec in program.outputs)
        self.order = tuple(spec.name for spec in program.inputs)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Inputs by name to outputs by name."""
        return dict(zip(self.names, self.module(*(inputs[name] for name in self.order)), strict=True))


def _store_weights_in_half(source: Path, destination: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    manager = recipe_manager.RecipeManager()
    manager.add_weight_only_config(
        ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=recipe.AlgorithmName.FLOAT_CASTING
    )
    quantizer.Quantizer(str(source), manager.get_quantization_recipe()).quantize().export_model(str(destination))


def count_partitions(graph: LiteRTGraph) -> int:
    """How many partitions XNNPACK makes of all signatures; signatures of the same operators are counted alike."""
    counts: dict[tuple[str, ...], int] = {}
    for index, operators in enumerate(graph.sequences()):
        if operators not in counts:
            counts[operators] = _partitions(graph.alone(index))
    return sum(counts[operators] for operators in graph.sequences())


def _partitions(content: bytearray) -> int:
    """How many partitions XNNPACK makes of a model's first graph."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=bytes(content), num_threads=1)
    interpreter.allocate_tensors()
    # The delegate's nodes are appended to the plan under this name; the nodes that they replace stay listed.
    return [node["op_name"] for node in interpreter._get_ops_details()].count("DELEGATE")


@contextmanager
def plain_norms(module: nn.Module) -> Iterator[None]:
    """Let each LayerNorm be nine operators instead of litert-torch's fifteen.

    With their factors as rows, the weights of the linear layers behind are the same in every program. Otherwise LiteRT
    multiplies the factors into these, but not where the input is a single row, so that Whisper's decode and prefill
    would share half of their weights.
    """
    # A class made of it may normalise another axis, as SqueezeBERT's and ConvNeXt's do.
    norms = [part for part in module.modules() if type(part) is nn.LayerNorm]
    for norm in norms:
        norm.__dict__["forward"] = partial(_layer_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)  # programs share their layers


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation (Ba et al. 2016, equation 3) over the last axis of x (..., C), by hand."""
    centred = x - x.mean(dim=-1, keepdim=True)
    out = centred * torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + norm.eps)
    shape = (1,) * (x.dim() - 1) + (-1,)
    if norm.weight is not None:
        out = out * norm.weight.reshape(shape)
    return out if norm.bias is None else out + norm.bias.reshape(shape)


# More lengths of a program, made of the graphs of two: tracing each takes seconds, and they differ in sizes.
#
# What differs between the two graphs are sizes of tensors, and the integers of reshapes and slices. Each grows linearly
# with a size that the program's inputs or outputs have, of which a text has one and a step of a speech decoder two: the
# slots of its cache, and the positions of the audio. Constants that differ are buffers of the programs' modules, which
# each program has, or tables of positions, of which a shorter one is the beginning of a longer one.
# Nothing here has to be believed: a graph that is like neither of this is not made, and each program's vectors are
# verified at fp32 before anything is delivered.


class NotAlikeError(Exception):
    """The two graphs differ in more than their sizes."""


class _Group(NamedTuple):
    """Alike programs: the two that are traced, and those that are made of them."""

    short: Program
    long: Program
    made: tuple[Program, ...]


def to_trace(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs that have to be lowered so that `add_lengths` can make the others: two of those that are alike."""
    made = {program.name for group in _groups(programs) for program in group.made}
    return tuple(program for program in programs if program.name not in made)


def add_lengths(path: Path, programs: Sequence[Program]) -> None:
    """Give a `.tflite` of `to_trace(programs)` the graphs and signatures of all the programs, in their order.

    Raises:
        NotAlikeError: two graphs differ in more than their sizes; the file is as it was.
    """
    file = LiteRTGraph(path)
    model = file.model
    signatures = {each.signatureKey.decode(): each for each in model.signatureDefs}
    graphs = {name: model.subgraphs[each.subgraphIndex] for name, each in signatures.items()}
    for group in _groups(programs):
        pair = _Pair(model.buffers, file.schema, (graphs[group.short.name], graphs[group.long.name]), group)
        for program in group.made:
            graphs[program.name] = pair.of(program)
            signatures[program.name] = copy(signatures[group.long.name])
            signatures[program.name].signatureKey = program.name.encode()
    model.subgraphs = [graphs[program.name] for program in programs]
    model.signatureDefs = [signatures[program.name] for program in programs]
    for index, signature in enumerate(model.signatureDefs):
        signature.subgraphIndex = index
    path.write_bytes(file.to_bytes())


def _groups(programs: Sequence[Program]) -> Iterator[_Group]:
    """The groups from which something can be made. The longest program is traced, and the longest other one that
    differs from it in every size that changes at all."""
    for alike in dict.fromkeys(program.alike for program in programs if program.alike):
        members = [program for program in programs if program.alike == alike]
        sizes = np.array([_sizes(program) for program in members])
        changing = (sizes != sizes[-1]).any(axis=0)
        for number in range(len(members) - 2, -1, -1):
            made = (*members[:number], *members[number + 1 : -1])
            if made and (sizes[number] != sizes[-1])[changing].all():
                yield _Group(members[number], members[-1], made)
                break


def _sizes(program: Program) -> list[int]:
    """Those of all inputs and outputs."""
    return list(chain.from_iterable(spec.shape for spec in (*program.inputs, *program.outputs)))


class _Pair:
    """Two graphs of programs that are alike."""

    def __init__(self, buffers: list[Any], schema: Any, graphs: tuple[Any, Any], group: _Group) -> None:
        self._buffers = buffers
        self._schema = schema
        self._short, self._long = graphs
        self._sizes = tuple(zip(_sizes(group.short), _sizes(group.long), strict=True))
        self._named = [_names(dict(program.module.named_buffers())) for program in (group.short, group.long)]
        self._made: dict[tuple[int, bytes], int] = {}
        self._program = group.long
        self._lines: dict[tuple[int, int], int] = {}

    def of(self, program: Program) -> Any:
        """The graph of another program."""
        self._program, self._lines = program, {}
        graph = copy(self._long)
        graph.name = program.name.encode()
        graph.tensors = [
            self._tensor(short, long) for short, long in _zipped(self._short.tensors, self._long.tensors, "tensors")
        ]
        graph.operators = [
            self._alike(short, long)
            for short, long in _zipped(self._short.operators, self._long.operators, "operators")
        ]
        for field in ("inputs", "outputs"):
            if list(getattr(self._short, field)) != list(getattr(self._long, field)):
                raise NotAlikeError(field)
        return graph

    def _tensor(self, short: Any, long: Any) -> Any:
        tensor = self._alike(short, long, but=("buffer", "name"))
        tensor.buffer = self._buffer(short, long, tensor)
        return tensor

    def _buffer(self, short: Any, long: Any, tensor: Any) -> int:
        """The buffer of a tensor's numbers."""
        before, after = (self._buffers[each.buffer].data for each in (short, long))
        if before is None and after is None:
            return int(long.buffer)
        if before is None or after is None:
            raise NotAlikeError("constants")
        if np.array_equal(before, after):
            return int(long.buffer)
        for name in self._named[0].get(before.tobytes(), set()) & self._named[1].get(after.tobytes(), set()):
            return self._stored(_bytes(self._program.module.get_buffer(name)), long.buffer)
        if len(before) == len(after) and long.type == self._schema.TensorType.INT32:
            integers = self._line(before.view(np.int32), after.view(np.int32))
            return self._stored(integers.astype(np.int32).view(np.uint8), long.buffer)
        size = int(np.prod(tensor.shape)) * len(after) // int(np.prod(long.shape))
        if len(before) == len(after) or size > len(after) or not np.array_equal(after[: len(before)], before):
            raise NotAlikeError("constants")
        return self._stored(after[:size], long.buffer)

    def _stored(self, data: NDArray[np.uint8], original: int) -> int:
        key = (original, data.tobytes())
        if key not in self._made:
            buffer = self._schema.BufferT()
            buffer.data = data
            self._buffers.append(buffer)
            self._made[key] = len(self._buffers) - 1
        return self._made[key]

    def _alike(self, short: Any, long: Any, but: Sequence[str] = ()) -> Any:
        """A table of the flatbuffer whose integers are those of two, at other sizes; all else has to be equal."""
        if type(short) is not type(long):
            raise NotAlikeError(type(long).__name__)
        made = copy(long)
        fields: Mapping[str, Any] = vars(long)
        for name, after in fields.items():
            before = getattr(short, name)
            if name not in but and not _equal(before, after):
                setattr(made, name, self._between(before, after))
        return made

    def _between(self, before: Any, after: Any) -> Any:
        if hasattr(after, "__dict__"):
            return self._alike(before, after)
        first, last = np.asarray(before), np.asarray(after)
        if first.dtype.kind != "i" or first.shape != last.shape or not first.ndim:
            raise NotAlikeError("fields")
        found = self._line(first, last)
        return found.tolist() if isinstance(after, list) else found.astype(last.dtype)

    def _line(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.int64]:
        """Integers of the program, each on the line through those of the pair."""
        pairs = zip(before.ravel().tolist(), after.ravel().tolist(), strict=True)
        return np.array([self._integer(*pair) for pair in pairs], np.int64).reshape(after.shape)

    def _integer(self, before: int, after: int) -> int:
        """It changes with the size of which its change is the plainest multiple: whole, if there is one, and small."""
        if before == after:
            return after
        if (before, after) not in self._lines:
            found = [
                (Fraction(after - before, last - first), size - last)
                for (first, last), size in zip(self._sizes, _sizes(self._program), strict=True)
                if first != last
            ]
            if not found:
                raise NotAlikeError("sizes")
            rise, steps = min(found, key=lambda each: (each[0].denominator, abs(each[0].numerator)))
            if (rise * steps).denominator != 1:
                raise NotAlikeError("sizes")
            self._lines[before, after] = after + int(rise * steps)
        return self._lines[before, after]


def _bytes(buffer: Any) -> NDArray[np.uint8]:
    """A module's buffer as a file holds it."""
    flat: NDArray[np.uint8] = buffer.detach().numpy().ravel().view(np.uint8)
    return flat


def _names(buffers: Mapping[str, Any]) -> dict[bytes, set[str]]:
    """The names of a module's buffers by what they hold."""
    names: dict[bytes, set[str]] = {}
    for name, buffer in buffers.items():
        names.setdefault(_bytes(buffer).tobytes(), set()).add(name)
    return names


def _zipped(short: Sequence[Any], long: Sequence[Any], what: str) -> list[tuple[Any, Any]]:
    if len(short) != len(long):
        raise NotAlikeError(what)
    return list(zip(short, long, strict=True))


def _equal(before: Any, after: Any) -> bool:
    if hasattr(after, "__dict__"):
        return type(before) is type(after) and all(
            _equal(getattr(before, name), each) for name, each in vars(after).items()
        )
    if isinstance(after, list):
        return isinstance(before, list) and len(before) == len(after) and all(map(_equal, before, after))
    return bool(np.array_equal(before, after)) if isinstance(after, np.ndarray) else bool(before == after)
