"""One contender of the footprint benchmark in a process of its own: loads a model, answers once, says what it took.

    python footprint_worker.py CONTENDER TASK MODEL INPUT

Run by the Python of the contender's own environment, so it imports nothing of this repository, and of other packages
only what somebody would who uses that library by hand. It prints the answer as soon as it has it, which is where the
cold start ends, and then one line of JSON. Images are read as the zoo's classifier takes them: square, bilinear.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = Callable[[str], str]
"""From an input, a text or an image's path, to a label."""


def edgeformer(task: str, model: Path) -> Answer:  # noqa: ARG001
    """A bundle, through the runtime."""
    from edgeformer_runtime import load

    pipeline = load(model)

    def answer(raw: str) -> str:
        result = pipeline(raw)
        return str(result.label) if hasattr(result, "label") else f"{len(result.vector)} numbers"

    return answer


def litert(task: str, model: Path) -> Answer:
    """A bundle's model file and tokenizer, through ai-edge-litert's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model / "model.tflite"), num_threads=1)
    prepare, name = _by_hand(task, model)

    def answer(raw: str) -> str:
        entry, inputs = prepare(raw)
        (output,) = interpreter.get_signature_runner(entry)(**inputs).values()
        return name(output)

    return answer


def onnxruntime(task: str, model: Path) -> Answer:
    """A bundle's model file and tokenizer, through ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    (file,) = model.glob("*.onnx")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    prepare, name = _by_hand(task, model)
    names = {each.name for each in session.get_inputs()}

    def answer(raw: str) -> str:
        _, inputs = prepare(raw)
        return name(session.run(None, {key: value for key, value in inputs.items() if key in names})[0])

    return answer


def transformers(task: str, model: Path) -> Answer:
    """The checkpoint itself, through transformers and torch. (TinyViT is timm's, which needs torchvision.)"""
    if task != "text":
        raise SystemExit("transformers has no TinyViT")
    import torch
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    module = AutoModelForSequenceClassification.from_pretrained(model).eval()

    def answer(raw: str) -> str:
        with torch.no_grad():
            logits = module(**tokenizer(raw, return_tensors="pt")).logits
        return str(module.config.id2label[int(logits.argmax())])

    return answer


CONTENDERS = {each.__name__: each for each in (edgeformer, litert, onnxruntime, transformers)}


def _by_hand(task: str, model: Path) -> tuple[Callable[[str], tuple[str, dict[str, Any]]], Callable[[Any], str]]:
    """What prepares an input for a bundle's program, which it names, and what makes an answer of the output."""
    import numpy as np

    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    spec, labels = manifest["preprocessing"], manifest["postprocessing"].get("labels")

    def name(output: Any) -> str:
        return f"{output.size} numbers" if labels is None else labels[int(output.argmax())]

    if task == "image":
        from PIL import Image

        side, mean, std = spec["height"], np.float32(spec["mean"]), np.float32(spec["std"])

        (program,) = manifest["programs"]

        def read(path: str) -> tuple[str, dict[str, Any]]:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), np.float32)
            scaled = ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
            return program["entry"], {"pixels": scaled}

        return read, name

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / spec["tokenizer"]))
    programs = sorted((program["inputs"][0]["shape"][1], program["entry"]) for program in manifest["programs"])
    wanted = {each["name"] for each in manifest["programs"][0]["inputs"]}
    tokenizer.no_padding()
    tokenizer.enable_truncation(programs[-1][0])

    def encode(text: str) -> tuple[str, dict[str, Any]]:
        encoded = tokenizer.encode(text)
        length, entry = next(each for each in programs if each[0] >= len(encoded.ids))
        encoded.pad(length, pad_id=spec["pad_token_id"])
        arrays = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        return entry, {key: np.array([ids], np.int32) for key, ids in arrays.items() if key in wanted}

    return encode, name


def _resident_bytes(key: str) -> int:
    """ "VmRSS", the resident memory of this process now, or "VmHWM", the most that it was."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    """Entry point."""
    contender, task, model, raw = sys.argv[1:]
    begin = time.perf_counter()
    answer = CONTENDERS[contender](task, Path(model))
    load_s = time.perf_counter() - begin
    loaded_bytes = _resident_bytes("VmRSS")
    print(answer(raw), flush=True)
    print(json.dumps({"load_s": load_s, "loaded_bytes": loaded_bytes, "peak_bytes": _resident_bytes("VmHWM")}))


if __name__ == "__main__":
    main()
