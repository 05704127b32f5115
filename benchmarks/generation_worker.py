"""The process of one contender of the generation benchmark, and the engines that it may load.

It imports nothing before the contender does, so that its memory is the contender's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from edgeformer_runtime.bench.worker import Questions, finish, serve
from edgeformer_runtime.registry import load_attribute


class Writer(Protocol):
    """A model that goes on with tokens."""

    def write(self, prompt: list[int], count: int) -> list[int]:
        """So many of the likeliest tokens, nothing kept from before."""

    def surprises(self, tokens: list[int]) -> list[float] | None:
        """Of each token but the first its log probability in nats, less than 0; None: the engine does not tell."""


class GenerationWorker:
    """Answers the questions of `generation_peers.measure`."""

    def __init__(self) -> None:
        self._writer: Writer | None = None

    @property
    def questions(self) -> Questions:
        """What `bench.Child` may ask."""
        return {"load": self.load, "write": self.write, "surprises": self.surprises, "finish": finish}

    def load(self, factory: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
        """Call the factory."""
        start = time.perf_counter()
        self._writer = load_attribute(factory)(**arguments, threads=threads)
        return {"load_ms": (time.perf_counter() - start) * 1e3}

    def write(self, prompt: list[int], count: int) -> dict[str, Any]:
        """Tokens, with the processor seconds of all threads, and what is resident behind them."""
        assert self._writer is not None
        cpu = time.process_time()
        tokens = self._writer.write(prompt, count)
        return {"cpu_s": time.process_time() - cpu, "tokens": tokens, "resident_bytes": resident_bytes()}

    def surprises(self, tokens: list[int]) -> dict[str, Any]:
        """See `Writer.surprises`."""
        assert self._writer is not None
        return {"surprises": self._writer.surprises(tokens)}


def resident_bytes() -> int:
    """Of this process now, what it shares included."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def main() -> None:
    """Answer until stdin ends."""
    serve(GenerationWorker().questions)


class BundleWriter:
    """A bundle, through its pipeline."""

    def __init__(self, path: str, threads: int) -> None:
        from edgeformer_runtime import load

        self._pipeline: Any = load(path, threads)

    def write(self, prompt: list[int], count: int) -> list[int]:
        """See `Writer`."""
        from edgeformer_runtime.decoding.options import GenerateOptions

        self._pipeline.forget()
        return list(self._pipeline.run(prompt, GenerateOptions(max_tokens=count)).tokens)

    def surprises(self, tokens: list[int]) -> list[float]:
        """See `Writer`."""
        from edgeformer_runtime.verify.decoder_replay import log_probability

        self._pipeline.forget()
        cache = self._pipeline.cache_for(len(tokens))
        behind = (cache.logits_after(tokens[:count]) for count in range(1, len(tokens)))
        return [log_probability(logits, token) for logits, token in zip(behind, tokens[1:], strict=True)]


class OnnxWriter:
    """The programs of a bundle in ONNX Runtime by hand: caches that stay in their places, bound once, and no more."""

    def __init__(self, path: str, threads: int) -> None:
        import json

        import numpy as np
        import onnxruntime as ort

        manifest = json.loads((Path(path) / "manifest.json").read_text(encoding="utf-8"))
        head, programs = manifest["postprocessing"], {each["name"]: each for each in manifest["programs"]}
        (bucket,) = head["buckets"]
        self._size, self._rows = head["prefill_tokens"], bucket["rows"]
        self._heads, self._dim, self._layers = head["heads"], head["head_dim"], head["layers"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._given: dict[str, Any] = {}
        self._calls: dict[bool, tuple[Any, Any, dict[str, Any]]] = {}
        for is_prefill, name in ((True, bucket["prefill"]), (False, bucket["decode"])):
            session = ort.InferenceSession(str(Path(path) / programs[name]["file"]), options)
            binding, results = session.io_binding(), {}
            for spec in programs[name]["inputs"]:
                array = self._given.setdefault(spec["name"], np.zeros(spec["shape"], spec["dtype"]))
                binding.bind_ortvalue_input(spec["name"], ort.OrtValue.ortvalue_from_numpy(array))
            for spec in programs[name]["outputs"]:
                results[spec["name"]] = np.zeros(spec["shape"], spec["dtype"])
                binding.bind_ortvalue_output(spec["name"], ort.OrtValue.ortvalue_from_numpy(results[spec["name"]]))
            self._calls[is_prefill] = session, binding, results

    def write(self, prompt: list[int], count: int) -> list[int]:
        """See `Writer`."""
        self._given["mask"][:] = -1000
        for at in range(0, len(prompt), self._size):
            logits = self._feed(prompt[at : at + self._size], at)
        tokens = [int(logits.argmax())]
        while len(tokens) < count:
            tokens.append(int(self._feed(tokens[-1:], len(prompt) + len(tokens) - 1).argmax()))
        return tokens

    def _feed(self, part: Sequence[int], place: int) -> Any:
        import numpy as np

        several = len(part) > 1
        session, binding, results = self._calls[several]
        if several:
            at = np.minimum(np.arange(self._size), len(part) - 1)
            self._given["tokens"][:], self._given["positions"][:] = np.asarray(part)[at], place + at
            self._given["wanted"][:] = len(part) - 1
        else:
            self._given["token"][:], self._given["position"][:] = part[0], place
        session.run_with_iobinding(binding)
        end = place + len(part)
        for layer in range(self._layers):
            keys, values = (results[f"new_{kind}_{layer}"] for kind in "kv")
            old = self._given[f"self_k_{layer}"].reshape(self._heads, self._dim, -1)
            old[:, :, place:end] = keys.reshape(self._heads, self._dim, -1)[:, :, : len(part)]
            old = self._given[f"self_v_{layer}"].reshape(self._heads, -1, self._dim)
            old[:, place:end] = values.reshape(self._heads, -1, self._dim)[:, : len(part)]
        self._given["mask"][place:end] = 0
        return results["logits"][-1] if several else results["logits"]

    def surprises(self, tokens: list[int]) -> list[float] | None:  # noqa: ARG002
        """See `Writer`: the bundle's own pipeline tells it."""
        return None


class TorchWriter:
    """transformers' own module in torch, with its dynamic cache."""

    def __init__(self, folder: str, threads: int) -> None:
        import torch
        import transformers as library

        torch.set_num_threads(threads)
        self._model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def write(self, prompt: list[int], count: int) -> list[int]:
        """See `Writer`."""
        import torch

        tokens: list[int] = []
        cache, given = None, prompt
        with torch.inference_mode():
            while len(tokens) < count:
                found = self._model(torch.tensor([given]), past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = found.past_key_values
                given = [int(found.logits[0, -1].argmax())]
                tokens += given
        return tokens

    def surprises(self, tokens: list[int]) -> list[float]:
        """See `Writer`."""
        import torch

        with torch.inference_mode():
            logits = self._model(torch.tensor([tokens])).logits[0, :-1].double().log_softmax(-1)
        return logits[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].tolist()


class LlamaWriter:
    """llama.cpp, in the build of the package xllamacpp."""

    def __init__(self, file: str, threads: int) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = file
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = 256, 1, True
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.cache_prompt = False
        parameters.port = 0
        self._server = xllamacpp.Server(parameters)

    def write(self, prompt: list[int], count: int) -> list[int]:
        """See `Writer`. The server tells the number of its tokens and not the tokens."""
        asked = {"prompt": prompt, "max_tokens": count, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        answer = self._server.handle_completions(asked)
        return [0] * int(answer["usage"]["completion_tokens"])

    def surprises(self, tokens: list[int]) -> list[float] | None:  # noqa: ARG002
        """See `Writer`: the server has no way to ask."""
        return None
