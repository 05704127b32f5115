"""`bench --data`: latency over a user's own texts or clips, from input to answer, beside peers on the same inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.bench.peers import PLAIN_ONNX, onnx_models, onnxruntime_session, plain_onnx, speech_peers
from edgeformer.bench.whisper_formats import size_bytes
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.checkpoints.sentence import NO_PROMPT
from edgeformer.data.annotated import AUDIO_SUFFIXES
from edgeformer.data.labelled import spread
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.models.text import compute_all_tokens
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bench.workload import INPUTS_PER_TURN, EachInput, read_inputs
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT, Requirement
from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.registry import load_attribute

PEERS = ("onnxruntime", "torch")
"""Those that take a text of any length without padding."""


@dataclass(frozen=True)
class OverData:
    """How one kind of input is measured on a user's own data.

    Attributes:
        takes: what the data are, for messages.
        save: (bundle, data, column or None, rounds, place) writes the inputs that all contenders answer.
        names: of the peers that answer such inputs.
        contenders: (names, bundle, checkpoint, inputs, folder) to those peers.
    """

    takes: str
    save: Callable[[Bundle, Path, str | None, int, Path], None]
    names: tuple[str, ...]
    contenders: Callable[[Sequence[str], Bundle, Checkpoint, Path, Path], list[Contender]]


def over_data(bundle: Bundle) -> OverData:
    """How the bundle's task is measured on data.

    Raises:
        InputError: it is not.
    """
    found = TASKS[bundle.manifest.task].peers.over_data
    if found is None:
        raise InputError(f"--data takes texts or clips, and the task is {bundle.manifest.task}: leave it out")
    kind: OverData = load_attribute(found)
    return kind


def check_peers(kind: OverData, names: Sequence[str]) -> None:
    """Raises InputError: a peer that does not answer such data."""
    unknown = [name for name in names if name not in kind.names]
    if unknown:
        raise InputError(f"--data measures peers on {kind.takes}, expected {', '.join(kind.names)}, found {unknown[0]}")


# Texts.
MAX_CLIP_S = 600
"""Of a clip: what is longer is cut there."""
FACTORY = "edgeformer_runtime.bench.workload:data_run"


def save_texts(_: Bundle, data: Path, column: str | None, rounds: int, place: Path) -> None:
    """Write the texts that all contenders answer, spread over the file: a few in each round, so that few repeat.

    Raises:
        InputError: the file has none.
    """
    from edgeformer_runtime.cli.text_files import Columns, read_texts

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
    check_peers(TEXTS, names)
    if checkpoint.tokenizer_json is None:
        raise InputError("--data takes texts, and this model has no tokenizer: leave --data out")
    tokenizer, longest = folder / "tokenizer.json", bundle.manifest.programs[-1].inputs[0].shape[1]
    tokenizer.write_text(checkpoint.tokenizer_json, encoding="utf-8")
    shared: dict[str, Any] = {"inputs": str(inputs), "tokenizer": str(tokenizer), "longest": longest}
    found = []
    if "onnxruntime" in names:
        models = onnx_models(peer_programs(checkpoint, longest), folder)
        for precision, model in zip(("fp32", "dynamic-int8"), models, strict=True):
            arguments = {**shared, "model": str(model)}
            factory = f"{__name__}:onnxruntime_run"
            found.append(Contender("onnxruntime", "onnxruntime", precision, factory, arguments, model.stat().st_size))
    if "torch" in names:
        size = sum(file.stat().st_size for file in checkpoint.weight_files)
        arguments = {**shared, "source": str(checkpoint.folder), "task": bundle.manifest.task}
        found.append(Contender("torch", "torch", "fp32", f"{__name__}:torch_run", arguments, size))
    return found


def peer_programs(checkpoint: Checkpoint, longest: int, attention: str | None = None) -> tuple[Program, ...]:
    """The model as peers get it: every token of its last block is computed, as public implementations do."""
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
    (program,) = peer_programs(checkpoint, longest, TORCH_ATTENTION)
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


TEXTS = OverData("texts", save_texts, PEERS, peers_over)


# Clips.


def save_clips(bundle: Bundle, data: Path, column: str | None, rounds: int, place: Path) -> None:
    """Write the samples of the clips that all contenders transcribe, spread over the folder's files by name.

    Raises:
        InputError: `data` is no folder with audio, or a file of it cannot be read.
    """
    if column is not None or not data.is_dir():
        raise InputError(f"--data takes a folder of audio files for this bundle, and no --column, found {data}")
    found = sorted(path for path in data.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"no clips in {data}: expected {', '.join(AUDIO_SUFFIXES)}")
    spec = bundle.manifest.preprocessing
    assert isinstance(spec, AudioPreprocessing)
    place.mkdir()
    for number, path in enumerate(spread(found, rounds * INPUTS_PER_TURN)):
        with open_audio(path, spec.sample_rate) as reader:
            np.save(place / f"{number:06}.npy", reader.read(MAX_CLIP_S * spec.sample_rate))


def transcribers_over(
    names: Sequence[str], _: Bundle, checkpoint: Checkpoint, inputs: Path, folder: Path
) -> list[Contender]:
    """Peers as contenders that transcribe the same samples.

    Raises:
        InputError: a peer that transcribes nothing.
    """
    check_peers(CLIPS, names)
    found = []
    for each in speech_peers(names, checkpoint):
        settings = {"engine": each.engine, "arguments": each.arguments, "inputs": str(inputs)}
        factory = f"{__name__}:transcriber_run"
        found.append(Contender(each.name, each.name, each.precision, factory, settings, size_bytes(each.model)))
    if "onnxruntime" in names:
        for row in plain_onnx(checkpoint, folder):
            plain = bundle_over(row.path, inputs, NO_REQUIREMENT)
            found.append(replace(plain, name=PLAIN_ONNX, engine="onnxruntime", bundle_sha256=None))
    return found


def transcriber_run(engine: str, arguments: Mapping[str, str], inputs: str, threads: int) -> EachInput:
    """One of `whisper_engines`, from samples to text."""
    transcribe = load_attribute(f"edgeformer.bench.whisper_engines:{engine}")(**arguments, threads=threads)
    return EachInput(lambda samples: transcribe(samples, None), read_inputs(inputs))


CLIPS = OverData("clips", save_clips, ("faster-whisper", "whisper.cpp", "onnxruntime", "torch"), transcribers_over)
