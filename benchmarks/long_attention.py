"""Time and memory of attention against the length of the input: dense, chunked, and the two approximate kernels.

    python -m benchmarks.long_attention

Self-attention of MiniLM's shape (12 heads of 32) over 128 to 4096 positions, in torch and as LiteRT runs it, each in a
process of its own with one thread. Times are processor milliseconds, medians of the rounds; memory is by what the
process's largest resident set grew from when the model and its inputs were there. Writes
benchmarks/results/long_attention.json and docs/long_attention.png.
Chunked attention is a graph of all pairs of blocks, lowered up to 1024 positions only.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.tables import REPOSITORY, RESULTS
from edgeformer.attention import ALL_KERNELS
from edgeformer.convert.target import converter_for
from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.process import peak_rss_bytes

HEADS, HEAD_DIM = 12, 32
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
NAMES = ("dense", "chunked", "sliding_window", "linear")
LONGEST_LOWERED = {"chunked": 1024}
SECONDS = 2.0
"""For the rounds of one measurement, of which there are at least `FEWEST`."""
FEWEST = 5


class SelfAttention(nn.Module):
    """One kernel between three inputs and an output, with padding hidden."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.kernel = ALL_KERNELS[name]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor]:
        """q, k, v (1, H, S, D) and bias (1, 1, 1, S) to (1, H, S, D)."""
        return (self.kernel(q, k, v, bias, HEAD_DIM**-0.5),)


def program(name: str, length: int) -> Program:
    """Self-attention of one length by one kernel."""
    shape = (1, HEADS, length, HEAD_DIM)
    inputs = tuple(TensorSpec(each, "float32", shape) for each in "qkv")
    bias = TensorSpec("bias", "float32", (1, 1, 1, length))
    return Program("attention", SelfAttention(name).eval(), (*inputs, bias), (TensorSpec("out", "float32", shape),))


def inputs_of(length: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Seeded inputs by name; nothing is hidden."""
    random = np.random.default_rng(0)
    drawn = {name: random.standard_normal((1, HEADS, length, HEAD_DIM)).astype(np.float32) for name in "qkv"}
    return drawn | {"bias": np.zeros((1, 1, 1, length), np.float32)}


def measure(run: Callable[[], object]) -> dict[str, float]:
    """Processor time of a call, and what memory it takes."""
    before = peak_rss_bytes()
    run()
    memory = peak_rss_bytes() - before
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < FEWEST or time.perf_counter() < end:
        start = time.process_time()
        run()
        times.append(1e3 * (time.process_time() - start))
    return {"cpu_ms": round(statistics.median(times), 3), "memory_mb": round(memory / 1e6, 2), "rounds": len(times)}


def in_torch(name: str, length: int, _: Path) -> dict[str, float]:
    """Measure a kernel as torch runs it."""
    module = SelfAttention(name)
    tensors = [torch.from_numpy(array) for array in inputs_of(length).values()]
    with torch.inference_mode():
        return measure(lambda: module(*tensors))


def in_litert(name: str, length: int, folder: Path) -> dict[str, float]:  # noqa: ARG001
    """Measure a lowered kernel."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(next(folder.glob("*.tflite"))), num_threads=1)
    runner = interpreter.get_signature_runner()
    inputs = inputs_of(length)
    return measure(lambda: runner(**inputs))


ENGINES: Mapping[str, Callable[[str, int, Path], dict[str, float]]] = {"torch": in_torch, "litert": in_litert}


def measured_apart(engine: str, name: str, length: int) -> dict[str, Any]:
    """Measure in a process of its own, which lowers nothing."""
    with tempfile.TemporaryDirectory() as folder:
        if engine == "litert":
            converter_for("litert").lower_fp32([program(name, length)], Path(folder))
        command = [sys.executable, "-m", "benchmarks.long_attention", "--only", engine, name, str(length), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    row = {"engine": engine, "kernel": name, "length": length} | json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(row), flush=True)
    return row


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time above, memory below, an engine in each column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, len(ENGINES), sharex=True, sharey="row")
    for column, engine in enumerate(ENGINES):
        for line, (key, label) in enumerate((("cpu_ms", "processor time, ms"), ("memory_mb", "memory, MB"))):
            axis = axes[line][column]
            for name in NAMES:
                chosen = [row for row in rows if (row["engine"], row["kernel"]) == (engine, name)]
                axis.plot([row["length"] for row in chosen], [row[key] for row in chosen], "o-", label=name)
            axis.set(xscale="log", yscale="log", ylabel=label)
            axis.set_xticks(LENGTHS, labels=[str(length) for length in LENGTHS])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[0][column].set_title(engine)
        axes[1][column].set_xlabel("positions")
    axes[0][0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure everything, or one thing for it."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs=4, metavar=("ENGINE", "KERNEL", "LENGTH", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.only:
        engine, name, length, folder = arguments.only
        print(json.dumps(ENGINES[engine](name, int(length), Path(folder))))
        return
    rows = [
        measured_apart(engine, name, length)
        for engine in ENGINES
        for name in NAMES
        for length in LENGTHS
        if engine == "torch" or length <= LONGEST_LOWERED.get(name, LENGTHS[-1])
    ]
    document = {"machine": platform.machine(), "heads": HEADS, "head_dim": HEAD_DIM, "threads": 1, "rows": rows}
    (RESULTS / "long_attention.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    plot(rows, REPOSITORY / "docs" / "long_attention.png")


if __name__ == "__main__":
    main()
