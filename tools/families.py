"""Converts tiny random models of many of transformers' architectures to every target, and writes docs/families.md.

    python -m tools.families              # all of them, half an hour; then the page
    python -m tools.families roberta vit  # these; the others stay as they were found before
    python -m tools.families --page       # the page alone, from what was found

What an architecture gives is compared with transformers' own model, loaded from the same folder by itself.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import TARGETS, verification_engine
from edgeformer.models.family import ProgramOptions
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import EdgeFormerError
from tools.architectures import ARCHITECTURES, CLIP_S, DET, IMAGE, IMG, LENGTH, LENGTH_OF_QUESTIONS, QA, SEG

FOUND = Path("build/families.json")
PAGE = Path("docs/families.md")
START, END = "<!-- matrix -->", "<!-- /matrix -->"

TORCH = "torch"
SMALL = ("litert", "onnx")
"""Targets that make dynamic-int8 of the fp32 file in a second; the others lower anew, to the same graph."""
SENTENCES = ("turn the lights on please", "what is the weather like in my bank", "off")


def save(name: str, folder: Path) -> Any:
    """A random checkpoint with what surrounds it; transformers' own model of it, by itself."""
    import transformers

    start, end, fields = ARCHITECTURES[name]
    library: Any = transformers
    config_class = getattr(library, f"{start.removesuffix('Encoder')}Config")
    torch.manual_seed(0)
    model = getattr(library, start + end)(config_class(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):  # as trained: what goes through a deep network does not fade
                torch.nn.init.constant_(part.get_buffer("running_var"), 0.2)
    model.eval().save_pretrained(folder)
    if end in (f"For{IMG}", f"For{DET}", f"For{SEG}"):
        processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "resample": 2}
        processor |= {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        side = fields["image_size"] if type(fields.get("image_size")) is int else IMAGE
        processor["size"] = {"height": side, "width": side}
        if end == f"For{DET}":
            own = "Detr" if name == "table-transformer" else start
            processor |= {"image_processor_type": f"{own}ImageProcessor", "do_pad": True}
            processor["size"] = {"shortest_edge": 48, "longest_edge": 64}
        elif end == f"For{SEG}":
            processor["image_processor_type"] = f"{start}ImageProcessor"
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    elif model.main_input_name == "input_values":
        bank = {name: fields[name] for name in ("max_length", "num_mel_bins") if name in fields}
        kind = "ASTFeatureExtractor" if bank else "Wav2Vec2FeatureExtractor"
        extractor = {"feature_extractor_type": kind, "feature_size": 1, "sampling_rate": 16000, "do_normalize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(extractor | bank))
    else:
        from tests.checkpoint_factory import tokenizer

        tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return type(model).from_pretrained(folder, attn_implementation="eager").eval()


@torch.no_grad()
def distance(public: Any, program: Any, task: str, run: Callable[[Mapping[str, Any]], Any]) -> float:
    """The largest difference to transformers' own output, relative to its largest value, over some inputs.

    Args:
        public: what `save` gave.
        program: with the names and shapes of its inputs.
        task: the bundle's.
        run: from the program's inputs, by name, to its output.
    """
    apart = 0.0
    for number, sentence in enumerate(SENTENCES):
        inputs, asked = _inputs(program, number, sentence)
        expected = _expected(public(**asked, return_dict=True), task)
        found = run(inputs)
        found = found[:, : expected.shape[1]] if found.ndim == 3 else found
        apart = float(np.maximum(apart, np.abs(found - expected).max() / np.abs(expected).max()))  # keeps NaN
    return apart


def _bundle_distance(public: Any, bundle: Bundle) -> float:
    program = bundle.manifest.programs[0]
    engine: Any = verification_engine(bundle) or load(bundle.folder).engine
    name = program.outputs[0].name
    return distance(public, program, bundle.manifest.task, lambda inputs: engine.run(program.name, inputs)[name])


def _inputs(program: Any, number: int, sentence: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The program's and transformers'."""
    names = {spec.name: spec for spec in program.inputs}
    if "pixels" in names:
        pixels = torch.randn(names["pixels"].shape, generator=torch.Generator().manual_seed(number))
        whole = {name: np.ones(spec.shape, np.float32) for name, spec in names.items() if name != "pixels"}
        return {"pixels": pixels.numpy(), **whole}, {"pixel_values": pixels}
    if "energies" in names:
        energies = torch.randn(names["energies"].shape, generator=torch.Generator().manual_seed(number))
        return {"energies": energies.numpy()}, {"input_values": energies}
    if "samples" in names:
        samples = torch.randn(names["samples"].shape, generator=torch.Generator().manual_seed(number))
        length = samples.shape[1] - number * 777
        samples[:, length:] = 0
        given = {"samples": samples.numpy(), "length": np.array([length], np.int32)}
        return given, {"input_values": samples[:, :length]}
    from tests.checkpoint_factory import tokenizer

    ids = tokenizer().encode(sentence).ids[: program.inputs[0].shape[1]]
    padded = {name: np.zeros(spec.shape, np.int32) for name, spec in names.items()}
    padded["input_ids"][0, : len(ids)] = ids
    padded["attention_mask"][0, : len(ids)] = 1
    return padded, {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}


def _expected(answer: Any, task: str) -> Any:
    if "start_logits" in answer:
        return torch.stack((answer["start_logits"], answer["end_logits"]), -1).numpy()
    if task == "text-embedding":
        pooled = answer["last_hidden_state"].mean(1)
        return (pooled / pooled.norm(dim=-1, keepdim=True)).numpy()
    return answer["logits"].numpy()


def examine(name: str, targets: list[str], fp32_alone: bool) -> dict[str, Any]:
    """What each target makes of an architecture: difference, partitions and precisions, or why it refuses."""
    found: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        public = save(name, folder)
        found[TORCH] = _in_torch(folder, public)
        print(f"{name:20} {TORCH:10} {json.dumps(found[TORCH])}", flush=True)
        for target in () if "refused" in found[TORCH] else targets:
            started = time.process_time()
            try:
                found[target] = _examine(folder, Path(scratch) / "out", target, public, fp32_alone)
            except Exception as error:  # which users must never see: the page says so
                found[target] = {"refused": {"all": f"BROKEN: {type(error).__name__} {error}"[:300]}}
            found[target]["cpu_s"] = round(time.process_time() - started, 1)
            print(f"{name:20} {target:10} {json.dumps(found[target])}", flush=True)
            shutil.rmtree(Path(scratch) / "out", ignore_errors=True)
    return found


def _in_torch(folder: Path, public: Any) -> dict[str, Any]:
    """What our module gives before it is lowered, or why it is refused."""
    try:
        checkpoint = open_checkpoint(folder)
        module, _ = load_module(checkpoint, KERNELS["dense"])
        length = LENGTH_OF_QUESTIONS if checkpoint.task == "question-answering" else LENGTH
        (program,) = checkpoint.programs(module, ProgramOptions(seq_lens=(length,), clip_seconds=(CLIP_S,)))
    except EdgeFormerError as error:
        return {"refused": {"all": str(error)}}
    names = [spec.name for spec in program.inputs]

    def run(inputs: Mapping[str, Any]) -> Any:
        return module(*(torch.as_tensor(inputs[name]) for name in names))[0].numpy()

    return {"difference": distance(public, program, checkpoint.task, run)}


def _examine(folder: Path, out: Path, target: str, public: Any, fp32_alone: bool) -> dict[str, Any]:
    length = LENGTH_OF_QUESTIONS if ARCHITECTURES[folder.name][1] == f"For{QA}" else LENGTH
    precisions = ["fp32", *(["dynamic-int8"] if target in SMALL and not fp32_alone else [])]
    seconds = (CLIP_S,) if ARCHITECTURES[folder.name][2].get("conv_dim") else None
    try:
        made = convert(
            ConvertOptions(str(folder), out, (target,), tuple(precisions), seq_lens=(length,), audio_seconds=seconds)
        )
        passed = {each.precision: each for each in made.bundles if each.ok}
        refused = {each.precision: each.problems[0] for each in made.bundles if not each.ok}
        found: dict[str, Any] = {"precisions": list(passed), "refused": refused}
        if "fp32" in passed:
            found["difference"] = _bundle_distance(public, Bundle.open(passed["fp32"].path))
            found["partitions"] = passed["fp32"].partitions
        return found
    except EdgeFormerError as error:
        return {"refused": {"all": str(error)}}


def _table(found: Mapping[str, Any]) -> str:
    """The page's tables: what each target made of each architecture, and why what was refused was."""
    targets = (TORCH, *TARGETS)
    rows = [f"| architecture | {' | '.join(targets)} |", f"|---|{'---|' * len(targets)}"]
    refusals: list[str] = []
    for name in ARCHITECTURES:
        cells = []
        for target in targets:
            whole = found.get(name, {})
            refused = "refused" in whole.get(TORCH, {}) and target != TORCH
            cell, why = ("", []) if refused else _cell(whole.get(target, {}))
            cells.append(cell)
            refusals += [f"- {name}, {target}: {line}" for line in why]
        rows.append(f"| {ARCHITECTURES[name][0]}{ARCHITECTURES[name][1]} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", "Refused, in the words of `convert`:", "", *_merged(refusals)])


def _cell(one: Mapping[str, Any]) -> tuple[str, list[str]]:
    refused = one.get("refused", {})
    why = [line if name == "all" else f"{name}: {line}" for name, line in refused.items()]
    if "difference" not in one:
        return "refused" if refused else "not run", why
    parts = "" if one.get("partitions") is None else f", {one['partitions']}"
    lost = f", no {', '.join(refused)}" if refused else ""
    return f"{one['difference']:.0e}{parts}{lost}", why


def _merged(lines: list[str]) -> list[str]:
    """Lines that say the same of several targets, once."""
    said: dict[str, list[str]] = {}
    for line in lines:
        who, _, what = line.removeprefix("- ").partition(": ")
        said.setdefault(f"{who.partition(', ')[0]}\0{what}", []).append(who.partition(", ")[2])
    return [
        f"- {key.partition(chr(0))[0]} ({', '.join(targets)}): {key.partition(chr(0))[2]}"
        for key, targets in said.items()
    ]


def write_page(found: Mapping[str, Any]) -> None:
    """Put the tables into the page, between their marks."""
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{_table(found)}\n{END}{after}")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*ARCHITECTURES, []], help="architectures; none: all")
    parser.add_argument("--target", action="append", choices=tuple(TARGETS), help="only these")
    parser.add_argument("--torch", action="store_true", help="only compare the modules, before they are lowered")
    parser.add_argument("--fp32", action="store_true", help="at fp32 alone, in half the time")
    parser.add_argument("--page", action="store_true", help="only write the page of what was found before")
    asked = parser.parse_args(arguments)
    found = json.loads(FOUND.read_text()) if FOUND.is_file() else {}
    for name in () if asked.page else asked.names or ARCHITECTURES:
        found[name] = found.get(name, {}) | examine(
            name, [] if asked.torch else asked.target or list(TARGETS), asked.fp32
        )
        FOUND.parent.mkdir(exist_ok=True)
        FOUND.write_text(json.dumps(found, indent=1))
    write_page(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
