"""How light the runtime is: size, packages, import, memory and cold start, beside the libraries that it stands for.

    python -m benchmarks.footprint [--update-docs | --json FILE]

Each contender is installed by pip into an environment of its own and answers once in a fresh process for each round.
Rounds are interleaved, figures are medians, and the files are in the page cache. Ratios are of the times to the first
answer; the rounds are divided into repeats, whose ratios say where another run finds them.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.intervals import center, prediction_interval
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from tools.code_key import REPOSITORY

RESULTS = Path(__file__).parent / "results" / "footprint.json"
WORKER = Path(__file__).with_name("footprint_worker.py")
RUNTIME = REPOSITORY / "runtime"
ZOO = REPOSITORY / "edgeformer" / "zoo"
REPEATS, ROUNDS = 5, 3
"""Repeats, and rounds in each."""
INPUTS = {"text": "turn the lights off", "image": str(ZOO / "images" / "ship.png")}
CHECKPOINTS = {"text": "clinc150-mobilebert", "image": "cifar10-tinyvit"}
NOT_COUNTED = ("pip", "setuptools", "wheel")


@dataclass(frozen=True)
class Contender:
    """What is installed, and how it is used.

    Attributes:
        name: for the table.
        worker: what `footprint_worker.py` calls it.
        packages: for pip.
        module: whose import is timed.
        target: the bundles' target that it runs; None: the checkpoint itself.
        tasks: which it can do.
        precisions: which it runs.
    """

    name: str
    worker: str
    packages: tuple[str, ...]
    module: str
    target: str | None
    tasks: tuple[str, ...] = ("text", "image")
    precisions: tuple[str, ...] = ("fp32", "dynamic-int8")


CONTENDERS = (
    Contender("EdgeFormer", "edgeformer", (f"{RUNTIME}[images]",), "edgeformer_runtime", "litert"),
    Contender(
        "ai-edge-litert by hand",
        "litert",
        ("ai-edge-litert==2.3.0", "tokenizers", "Pillow"),
        "ai_edge_litert.interpreter",
        "litert",
    ),
    Contender(
        "onnxruntime by hand", "onnxruntime", ("onnxruntime==1.32.0", "tokenizers", "Pillow"), "onnxruntime", "onnx"
    ),
    Contender(
        "transformers + torch",
        "transformers",
        ("torch==2.13.0", "transformers==5.23.0"),
        "transformers, torch",
        None,
        tasks=("text",),
        precisions=("fp32",),
    ),
)
BARE = (str(RUNTIME),)
"""What `pip install edgeformer-runtime` brings: no extras."""

ENGINE, NUMPY = "ai-edge-litert", "numpy"


@dataclass(frozen=True)
class Installed:
    """An environment.

    Attributes:
        packages: how many distributions, without pip.
        bytes: of their files, compiled bytecode included.
        own_bytes: of those that are neither numpy nor the engine nor needed by the engine alone.
    """

    packages: int
    bytes: int
    own_bytes: int


@dataclass(frozen=True)
class Cold:
    """Medians over the rounds of one contender with one model.

    Attributes:
        answer: the label.
        first_answer_s: wall time from the start of the process to the answer.
        load_s: of it, importing and loading.
        loaded_bytes: resident when the model is loaded.
        peak_bytes: resident at most.
        ratio: of the time to the first answer to the first contender's with the same model.
        ratio_interval: where another run finds it; None for the first contender.
    """

    answer: str
    first_answer_s: float
    load_s: float
    loaded_bytes: float
    peak_bytes: float
    ratio: float
    ratio_interval: tuple[float, float] | None


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of a new environment with those packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)
    return python


def measure_installed(python: Path) -> Installed:
    """What an environment takes on disk."""
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    found = {_canonical(each.name): each for each in distributions(path=[str(site)])}
    sizes = {name: _size(each) for name, each in found.items() if name not in NOT_COUNTED}
    roots = [name for name in sizes if not any(name in _needs(found[other]) for other in sizes if other != name)]
    kept: set[str] = set()
    waiting = roots
    while waiting:
        name = waiting.pop()
        if name in sizes and name not in kept and name not in (ENGINE, NUMPY):
            kept.add(name)
            waiting.extend(_needs(found[name]))
    return Installed(len(sizes), sum(sizes.values()), sum(sizes[name] for name in kept))


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needs(distribution: Distribution) -> set[str]:
    """The distributions that one asks for, extras included; those that are not installed do not matter."""
    return {_canonical(re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0]) for each in distribution.requires or []}


def _size(distribution: Distribution) -> int:
    paths = (Path(str(distribution.locate_file(file))) for file in distribution.files or [])
    return sum(path.stat().st_size for path in paths if path.is_file())


def import_s(python: Path, module: str) -> float:
    """The time that an import takes in a fresh process, the process's own start left out."""
    script = f"import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
    return float(subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=True).stdout)


Run = tuple[float, str, dict[str, float]]
"""Seconds from the start of a process to its answer, the answer, and what the worker says of itself."""


def first_answer(python: Path, contender: Contender, task: str, model: Path) -> Run:
    """One run of `footprint_worker.py`."""
    begin = time.perf_counter()
    command = [str(python), "-I", str(WORKER), contender.worker, task, str(model), INPUTS[task]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        answer = process.stdout.readline().strip()
        taken = time.perf_counter() - begin
        figures: dict[str, float] = json.loads(process.stdout.readline())
    return taken, answer, figures


def make_models(folder: Path) -> dict[tuple[str, str, str], Path]:
    """The zoo's models by task, target and precision."""
    models: dict[tuple[str, str, str], Path] = {}
    for task, checkpoint in CHECKPOINTS.items():
        options = ConvertOptions(
            checkpoint, folder, ("litert", "onnx"), ("fp32", "dynamic-int8"), seq_lens=(32,), name=task
        )
        for converted in convert(options):
            if not converted.ok:
                raise SystemExit(f"{converted.path.name}: {'; '.join(converted.problems)}")
            models[task, converted.target, converted.precision] = converted.path
    return models


def measure_cold(
    pythons: dict[str, Path], models: dict[tuple[str, str, str], Path], rounds: int
) -> dict[tuple[str, str, str], Cold]:
    """Cold starts by contender, task and precision, in turns; rounds in each repeat."""
    jobs = {
        (each.name, task, precision): (
            each,
            ZOO / CHECKPOINTS[task] if each.target is None else models[task, each.target, precision],
        )
        for each in CONTENDERS
        for task in each.tasks
        for precision in each.precisions
    }
    found: dict[tuple[str, str, str], list[Run]] = {key: [] for key in jobs}
    for number in range(REPEATS * rounds + 1):
        for key, (contender, model) in jobs.items():
            run = first_answer(pythons[contender.name], contender, key[1], model)
            if number:  # the first round fills the page cache
                found[key].append(run)
    return {key: _cold(runs, found[CONTENDERS[0].name, *key[1:]], rounds) for key, runs in found.items()}


def _cold(runs: Sequence[Run], base: Sequence[Run], rounds: int) -> Cold:
    """The medians of a contender's runs, beside the first contender's."""
    (answer,) = {run[1] for run in runs}
    figures = {key: statistics.median(run[2][key] for run in runs) for key in runs[0][2]}
    ratios = [
        statistics.median(run[0] for run in runs[start : start + rounds])
        / statistics.median(run[0] for run in base[start : start + rounds])
        for start in range(0, len(runs), rounds)
    ]
    interval = None if runs is base else prediction_interval(ratios)
    first = statistics.median(run[0] for run in runs)
    return Cold(answer, first, **figures, ratio=center(ratios), ratio_interval=interval)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--update-docs", action="store_true", help="write the tables of docs/benchmarks.md and the README"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"in each of {REPEATS} repeats")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeformer-thin-") as scratch:
        folder = Path(scratch)
        print("installing", flush=True)
        pythons = {
            each.name: environment(folder / f"env{index}", each.packages) for index, each in enumerate(CONTENDERS)
        }
        bare = measure_installed(environment(folder / "bare", BARE))
        print("converting", flush=True)
        models = make_models(folder / "models")
        print("measuring", flush=True)
        imports: dict[str, list[float]] = {each.name: [] for each in CONTENDERS}
        for _ in range(REPEATS * arguments.rounds):
            for each in CONTENDERS:
                imports[each.name].append(import_s(pythons[each.name], each.module))
        cold = measure_cold(pythons, models, arguments.rounds)
        installed = {each.name: measure_installed(pythons[each.name]) for each in CONTENDERS}
    document: dict[str, Any] = {
        "machine": f"{platform.machine()}, {platform.system()}, one thread, Python {platform.python_version()}",
        "rounds": REPEATS * arguments.rounds,
        "bare": asdict(bare),
        "contenders": [
            {
                "name": each.name,
                **asdict(installed[each.name]),
                "import_s": statistics.median(imports[each.name]),
                "cold": [
                    {"task": task, "precision": precision, **asdict(figures)}
                    for (name, task, precision), figures in cold.items()
                    if name == each.name
                ],
            }
            for each in CONTENDERS
        ],
    }
    arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if arguments.update_docs:
        tables.update_docs()
    print(arguments.json)


if __name__ == "__main__":
    main()
