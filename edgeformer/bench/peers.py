"""Peers on the same weights: of text and image models, on tensors, and of speech models.

The first are ONNX Runtime, OpenVINO, torch and ncnn. Of speech: faster-whisper, whisper.cpp, a plain export in ONNX
Runtime, and transformers in torch.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer.attention import KERNELS
from edgeformer.bench.whisper_formats import PeerModels, size_bytes
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.checkpoints.sentence import NO_PROMPT
from edgeformer.convert.target import TARGETS, converter_for
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.models.text import compute_all_tokens
from edgeformer_runtime.bench.contender import Contender, Run, bundle_contender
from edgeformer_runtime.bench.workload import workload
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.bundle.vectors import longest_case
from edgeformer_runtime.delivery import cache_folder
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.speech import SAMPLES_INPUT

if TYPE_CHECKING:
    from edgeformer.convert.result import Converted

# Peers of text and image models, on tensors.

# PyTorch's fused attention is its fastest on a CPU, so that is what the peer gets; pnnx knows it by name.
TORCH_ATTENTION = "fused"

NCNN_TOLERANCE = 0.01
"""How far ncnn's output may be from torch's, as a part of the largest value: pnnx does not tell what it gets wrong."""


MASK = "attention_mask"
_PNNX_TYPES = {"float32": "f32", "int32": "i32"}


def tensor_contenders(
    names: Sequence[str], bundle: Bundle, checkpoint: Checkpoint, folder: Path, program: str | None, batch: int
) -> list[Contender]:
    """See `command.peer_contenders`."""
    case = longest_case(bundle, program)
    inputs = folder / "inputs.npz"
    np.savez(inputs, **{name: np.repeat(array, batch, axis=0) for name, array in case.inputs.items()})  # type: ignore[arg-type]
    programs = _programs(checkpoint, case.inputs, TARGETS["onnx"].attention, batch)
    found: list[Contender] = []

    def add(name: str, precision: str, arguments: dict[str, str], size_bytes: int) -> None:
        factory = f"edgeformer.bench.peers:{name}_run"
        arguments = {**arguments, "inputs": str(inputs)}
        found.append(Contender(name, name, precision, factory, arguments, size_bytes, case.program, batch))

    if {"onnxruntime", "openvino"} & set(names):
        fp32, int8 = onnx_models(programs, folder)
        rows = [("onnxruntime", "fp32", fp32), ("onnxruntime", "dynamic-int8", int8), ("openvino", "fp32", fp32)]
        if "openvino" in names and _has_bfloat16():
            rows.append(("openvino", "bf16", fp32))
        for name, precision, model in rows:
            if name in names:
                add(name, precision, {"model": str(model), "precision": precision}, model.stat().st_size)
    if "torch" in names:
        size = sum(file.stat().st_size for file in checkpoint.weight_files)
        add("torch", "fp32", {"source": str(checkpoint.folder), "task": bundle.manifest.task}, size)
    if "ncnn" in names:
        if batch > 1:
            raise InputError("the peer ncnn takes one input at a time: expected --batch 1 with it")
        inputs = folder / "ncnn-inputs.npz"
        model = _ncnn_model(checkpoint, case.inputs, inputs, folder)
        size = model.stat().st_size + model.with_suffix(".bin").stat().st_size
        add("ncnn", "fp32", {"model": str(model)}, size)
    return found


def onnxruntime_run(model: str, inputs: str, precision: str, threads: int) -> Run:  # noqa: ARG001
    """ONNX Runtime on the CPU with its default graph optimisations (all); the precision is the model's own.

    Its int8 is asked to be right on every x86 CPU, as a latency is compared with those of right answers.
    """
    session = onnxruntime_session(model, threads)
    arrays = _arrays(inputs)
    return lambda: session.run(None, arrays)


def onnxruntime_session(model: str, threads: int) -> Any:
    """See `onnxruntime_run`."""
    import onnxruntime

    from edgeformer_runtime.engines.onnx import PRECISE_INT8, saturates

    options = onnxruntime.SessionOptions()
    if saturates():
        options.add_session_config_entry(*PRECISE_INT8)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_run(model: str, inputs: str, precision: str, threads: int) -> Run:
    """OpenVINO on the CPU, tuned for latency. It computes in bfloat16 by itself where the CPU can: hence the hint."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    arrays = _arrays(inputs)
    return lambda: request.infer(arrays)


def torch_run(source: str, task: str, inputs: str, threads: int) -> Run:
    """Our module eagerly in torch, with torch's fused attention."""
    import torch

    torch.set_num_threads(threads)
    arrays = _arrays(inputs)
    (program,) = _programs(
        open_checkpoint(source, task=task, prompt=NO_PROMPT), arrays, TORCH_ATTENTION, _batch(arrays)
    )
    tensors = [torch.from_numpy(arrays[spec.name]) for spec in program.inputs]

    def run() -> object:
        with torch.inference_mode():
            return program.module(*tensors)

    return run


def ncnn_run(model: str, inputs: str, threads: int) -> Run:
    """ncnn on the CPU, computing in fp32 as its file was written. Its tensors have no axis for the batch."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(model) or net.load_model(str(Path(model).with_suffix(".bin"))):
        raise InputError("ncnn has not all layers that pnnx wrote for this model: leave ncnn out of --against")
    arrays = {name: np.ascontiguousarray(array[0]) for name, array in _arrays(inputs).items()}
    (output,) = net.output_names()

    def run() -> object:
        extractor = net.create_extractor()
        for name in net.input_names():
            extractor.input(name, ncnn.Mat(arrays[name]))
        return np.array(extractor.extract(output)[1])

    return run


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def onnx_models(programs: tuple[Program, ...], folder: Path) -> tuple[Path, Path]:
    """The checkpoint as ONNX at fp32, and at dynamic int8 as ONNX Runtime's own tool makes it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    lowered = converter_for("onnx").lower_fp32(programs, folder)
    fp32 = folder / lowered.entries[programs[0].name][0]
    int8 = folder / "dynamic-int8.onnx"
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to infer shapes first, which the export has done
    try:
        # Signed weights are the faster kind on x86.
        quantize_dynamic(fp32, int8, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(disabled)
    return fp32, int8


def _ncnn_model(checkpoint: Checkpoint, arrays: Mapping[str, Tensor], inputs: Path, folder: Path) -> Path:
    """The checkpoint as pnnx, ncnn's own converter, writes it; the weights lie beside it.

    Args:
        checkpoint: the weights.
        arrays: an input of the model, by the program's names.
        inputs: where the same goes as ncnn takes it, by ncnn's names.
        folder: of the model.

    Raises:
        InputError: pnnx does not convert the model, ncnn lacks a layer of it, or computes something else with it.
    """
    import pnnx
    import torch

    (program,) = _programs(checkpoint, arrays, TORCH_ATTENTION, 1)
    # ncnn has no layer that makes floats of integers, so the mask comes as floats.
    taken = [arrays[spec.name].astype(np.float32 if spec.name == MASK else spec.dtype) for spec in program.inputs]
    np.savez(inputs, **{f"in{index}": array for index, array in enumerate(taken)})  # type: ignore[arg-type]
    tensors = tuple(torch.from_numpy(array) for array in taken)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants, which a static shape makes of everything
        expected = program.module(*tensors)[0].numpy().ravel()
        traced: Any = torch.jit.trace(program.module.eval(), tensors)  # type: ignore[no-untyped-call]
    traced.save(str(folder / "peer.pt"))
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]{_PNNX_TYPES[array.dtype.name]}" for array in taken)
    # It writes a dozen files beside the model and into the working folder.
    converter = [pnnx.EXEC_PATH, "peer.pt", f"inputshape={shapes}", "fp16=0"]
    subprocess.run(converter, cwd=folder, capture_output=True, check=False)
    model = folder / "peer.ncnn.param"
    if not model.is_file():
        raise InputError("pnnx does not convert this model: leave ncnn out of --against")
    found = _ncnn_output(model, inputs, folder)
    difference = np.abs(found - expected).max() / np.abs(expected).max() if found.shape == expected.shape else np.inf
    if not difference <= NCNN_TOLERANCE:
        raise InputError(f"ncnn's outputs of this model differ by {difference:.2g} from the bundle's: leave it out")
    return model


def _ncnn_output(model: Path, inputs: Path, folder: Path) -> np.ndarray:
    """What ncnn computes, flat, in a process of its own: a model that pnnx misread may end it."""
    result = folder / "ncnn-output.npy"
    script = f"from {__name__} import save_ncnn_output as save; import sys; save(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, model, inputs, result], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] if done.returncode > 0 else [Signals(-done.returncode).name]
        raise InputError(f"ncnn does not run this model ({', '.join(said)}): leave ncnn out of --against")
    found: np.ndarray = np.load(result)
    return found


def save_ncnn_output(model: str, inputs: str, result: str) -> None:
    """Run a model once and save its output, flat, as a .npy file."""
    np.save(result, np.asarray(ncnn_run(model, inputs, threads=1)()).ravel())


def _programs(checkpoint: Checkpoint, arrays: Mapping[str, Tensor], attention: str, batch: int) -> tuple[Program, ...]:
    """The program that takes such inputs as peers get it, all inputs and outputs with a first axis of `batch`."""
    module, _ = load_module(checkpoint, KERNELS[attention])
    compute_all_tokens(module)
    programs = checkpoint.programs(module, _options(checkpoint, arrays))
    return tuple(
        replace(
            program,
            inputs=tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in program.inputs),
            outputs=tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in program.outputs),
        )
        for program in programs
        if {spec.name for spec in program.inputs} == set(arrays)
    )


def _options(checkpoint: Checkpoint, inputs: Mapping[str, Tensor]) -> ProgramOptions:
    """Of the program that takes such inputs: the tokens of a text's, the seconds of a recording's."""
    if "input_ids" in inputs:
        return ProgramOptions(seq_lens=(int(inputs["input_ids"].shape[1]),))
    if SAMPLES_INPUT in inputs:
        rate = checkpoint.config.preprocessing.sample_rate
        return ProgramOptions(clip_seconds=(inputs[SAMPLES_INPUT].shape[1] / rate,))
    return ProgramOptions(seq_lens=())


def _batch(inputs: Mapping[str, Tensor]) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _arrays(path: str | Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


# Peers of speech models.


FASTER_WHISPER_PRECISIONS = ("int8", "float32")
WHISPER_CPP_PRECISIONS = ("fp16", "q8_0")
ONNX_PRECISIONS = ("fp32", "dynamic-int8")


def speech_contenders(
    names: Sequence[str], bundle: Bundle, checkpoint: Checkpoint, folder: Path, program: str | None, batch: int
) -> list[Contender]:
    """See `command.peer_contenders`. Conversions are kept in the user's cache."""
    chosen = workload(bundle, program)
    audio = folder / "audio.npy"
    np.save(audio, _samples(bundle, chosen.case.raw))
    found = []
    for each in speech_peers(names, checkpoint):
        settings = {"engine": each.engine, "arguments": each.arguments, "audio": str(audio), "batch": batch}
        factory = "edgeformer.bench.peers:speech_run"
        size = size_bytes(each.model)
        found.append(Contender(each.name, each.name, each.precision, factory, settings, size, chosen.program, batch))
    if "onnxruntime" in names:
        for row in plain_onnx(checkpoint, folder):
            plain = bundle_contender(row.path, batch=batch)
            found.append(replace(plain, name=PLAIN_ONNX, engine="onnxruntime", bundle_sha256=None))
    return found


@dataclass(frozen=True)
class SpeechPeer:
    """An engine of `whisper_engines` with its arguments, and the file or folder of its model."""

    name: str
    precision: str
    engine: str
    arguments: Mapping[str, str]
    model: Path


def speech_peers(names: Sequence[str], checkpoint: Checkpoint) -> list[SpeechPeer]:
    """The peers among the names that have an engine of their own, with their models."""
    models = PeerModels(checkpoint, cache_folder() / "bench")
    found: list[SpeechPeer] = []

    def add(name: str, precision: str, engine: str, arguments: dict[str, str], model: Path) -> None:
        found.append(SpeechPeer(name, precision, engine, arguments, model))

    if "faster-whisper" in names:
        for precision in FASTER_WHISPER_PRECISIONS:
            model = models.ctranslate2(precision)
            arguments = {"folder": str(model), "precision": precision}
            add("faster-whisper", precision, "faster_whisper", arguments, model)
    if "whisper.cpp" in names:
        for precision in WHISPER_CPP_PRECISIONS:
            model = models.ggml(precision)
            add("whisper.cpp", precision, "whisper_cpp", {"file": str(model)}, model)
    if "torch" in names:
        model = models.public()
        add("torch", "fp32", "transformers", {"folder": str(model)}, model)
    return found


def speech_run(engine: str, arguments: dict[str, str], audio: str, batch: int, threads: int) -> Run:
    """One of `whisper_engines` on one recording, from samples to text."""
    transcribe = load_attribute(f"edgeformer.bench.whisper_engines:{engine}")(**arguments, threads=threads)
    samples = np.load(audio)

    def run() -> object:
        return [transcribe(samples, None) for _ in range(batch)]

    return run


PLAIN_ONNX = "onnxruntime, 30 s"


def plain_onnx(checkpoint: Checkpoint, folder: Path) -> list[Converted]:
    """What a plain export gives: always the whole window of 30 s, no silence that stands in for a part of it."""
    from edgeformer.convert.convert import ConvertOptions, convert

    options = ConvertOptions(
        source=str(checkpoint.folder),
        out=folder / "plain",
        targets=("onnx",),
        precisions=ONNX_PRECISIONS,
        window="full",
    )
    found = list(convert(options))
    for row in found:
        if not row.ok:
            raise EngineError(f"the peer onnxruntime at {row.precision}: {'; '.join(row.problems)}")
    return found


def _samples(bundle: Bundle, raw: dict[str, Any]) -> np.ndarray:
    """(N,) float32 of a recording, of which a case transcribes the first `samples`."""
    spec = bundle.manifest.preprocessing
    assert isinstance(spec, AudioPreprocessing)
    with open_audio(bundle.path(raw["audio"]), spec.sample_rate) as reader:
        return reader.read(raw["samples"])
