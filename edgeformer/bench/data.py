"""`bench --data`: latency over a user's own texts, from text to answer, beside peers that pad nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.bench.peers import onnx_models, onnxruntime_session
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.checkpoints.sentence import NO_PROMPT
from edgeformer.data.labelled import spread
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.models.text import compute_all_tokens
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bench.workload import INPUTS_PER_TURN, EachInput, read_inputs
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import Requirement
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.task import TASKS

PEERS = ("onnxruntime", "torch")
"""Those that take a text of any length without padding."""
FACTORY = "edgeformer_runtime.bench.workload:data_run"


def save_texts(bundle: Bundle, data: Path, column: str | None, rounds: int, place: Path) -> None:
    """Write the texts that all contenders answer, spread over the file: a few in each round, so that few repeat.

    Raises:
        InputError: the bundle takes no texts, or the file has none.
    """
    from edgeformer_runtime.cli.text_files import Columns, read_texts

    if TASKS[bundle.manifest.task].takes.kind != "text":
        raise InputError(f"--data takes texts, and the task is {bundle.manifest.task}: leave it out")
    texts = [row.text for row in read_texts(data, Columns(column)) if row.text is not None]
    if not texts:
        raise InputError(f"no texts in {data}: expected a text in each row")
    place.write_text(json.dumps(spread(texts, rounds * INPUTS_PER_TURN)), encoding="utf-8")


def bundle_over(path: Path, inputs: Path, required: Requirement) -> Contender:
    """A bundle as a contender that answers the inputs, one after the other."""
    with Bundle.open(path, required, allow_refused=True) as bundle:
        manifest = bundle.manifest
        return Contender(
            name=path.resolve().name.removesuffix(".zip"),
            engine=manifest.target,
            precision=manifest.precision,
            factory=FACTORY,
            arguments={"path": str(path), "inputs": str(inputs), "required": required.to_json()},
            size_bytes=bundle.model_size_bytes,
            bundle_sha256=bundle.manifest_sha256,
        )


def peers_over(
    names: Sequence[str], bundle: Bundle, checkpoint: Checkpoint, inputs: Path, folder: Path
) -> list[Contender]:
    """Peers as contenders that answer the same texts: the `tokenizers` library, and the model at each text's length.

    Raises:
        InputError: a peer that pads, or a model without a tokenizer.
    """
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InputError(f"--data measures peers that pad nothing, expected {', '.join(PEERS)}, found {unknown[0]}")
    if checkpoint.tokenizer_json is None:
        raise InputError("--data takes texts, and this model has no tokenizer: leave it out")
    tokenizer, longest = folder / "tokenizer.json", bundle.manifest.programs[-1].inputs[0].shape[1]
    tokenizer.write_text(checkpoint.tokenizer_json, encoding="utf-8")
    shared: dict[str, Any] = {"inputs": str(inputs), "tokenizer": str(tokenizer), "longest": longest}
    found = []
    if "onnxruntime" in names:
        models = onnx_models(_programs(checkpoint, longest), folder)
        for precision, model in zip(("fp32", "dynamic-int8"), models, strict=True):
            arguments = {**shared, "model": str(model)}
            factory = f"{__name__}:onnxruntime_run"
            found.append(Contender("onnxruntime", "onnxruntime", precision, factory, arguments, model.stat().st_size))
    if "torch" in names:
        size = sum(file.stat().st_size for file in checkpoint.weight_files)
        arguments = {**shared, "source": str(checkpoint.folder), "task": bundle.manifest.task}
        found.append(Contender("torch", "torch", "fp32", f"{__name__}:torch_run", arguments, size))
    return found


def _programs(checkpoint: Checkpoint, longest: int, attention: str | None = None) -> tuple[Program, ...]:
    from edgeformer.attention import KERNELS
    from edgeformer.convert.target import TARGETS

    module, _ = load_module(checkpoint, KERNELS[attention or TARGETS["onnx"].attention])
    compute_all_tokens(module)
    return checkpoint.programs(module, ProgramOptions(seq_lens=(longest,)))


def onnxruntime_run(inputs: str, tokenizer: str, longest: int, model: str, threads: int) -> EachInput:
    """ONNX Runtime over a graph with a symbolic length."""
    session = onnxruntime_session(model, threads)
    names = [each.name for each in session.get_inputs()]
    encode = _encoder(tokenizer, longest)
    return EachInput(lambda text: session.run(None, encode(text, names)), read_inputs(inputs))


def torch_run(inputs: str, tokenizer: str, longest: int, source: str, task: str, threads: int) -> EachInput:
    """Our module eagerly in torch, with torch's fused attention."""
    import torch

    from edgeformer.bench.peers import TORCH_ATTENTION

    torch.set_num_threads(threads)
    checkpoint = open_checkpoint(source, task=task, prompt=NO_PROMPT)
    (program,) = _programs(checkpoint, longest, TORCH_ATTENTION)
    names = [spec.name for spec in program.inputs]
    encode = _encoder(tokenizer, longest)

    def run(text: str) -> object:
        with torch.inference_mode():
            return program.module(*(torch.from_numpy(array) for array in encode(text, names).values()))

    return EachInput(run, read_inputs(inputs))


def _encoder(tokenizer: str, longest: int) -> Any:
    """A function of a text and the inputs' names to (1, tokens) int32 arrays, as one writes it by hand."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(tokenizer)
    library.no_padding()
    library.enable_truncation(longest)

    def encode(text: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        found = library.encode(text)
        columns = {
            "input_ids": found.ids,
            "attention_mask": found.attention_mask,
            "token_type_ids": found.type_ids,
        }
        return {name: np.array([columns[name]], np.int32) for name in names}

    return encode
