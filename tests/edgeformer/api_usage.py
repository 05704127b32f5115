"""What a user writes against the public API: `mypy --strict` checks it with the packages, and nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import edgeformer as ef
from edgeformer.convert.options import ConvertOptions
from edgeformer.doctor.examiner import DoctorOptions


def told(step: str, finished: int, total: int) -> None:
    print(f"{step}: {finished} of {total}")


def use(folder: Path) -> None:
    result = ef.convert("intents", folder, target=["litert", "onnx"], precision="fp32", seq_len=32, progress=told)
    assert_type(result, ef.ConversionResult)
    assert_type(result[0], ef.Converted)
    assert_type([bundle.size_bytes for bundle in result], list[int])
    assert_type(ef.verify(result[0].path, threads=2), ef.Verification)
    assert_type(ef.evaluate(str(folder), folder / "data.csv", limit=100), ef.EvaluationResult)
    assert_type(ef.benchmark([bundle.path for bundle in result], threads=(1, 2)), ef.BenchmarkResult)
    assert_type(ef.doctor(folder, min_ios=17).ok, bool)
    smaller = ef.compress("intents", "data.csv", "smaller", recipe="prune-half", progress=print)
    assert_type(smaller, ef.Compressed | ef.Chain)
    with ef.load(folder) as pipeline:
        pipeline("turn the lights off")
    wanted: ef.Progress = told
    wanted("converting", 0, 1)
    assert_type(ConvertOptions("intents", folder).precisions, tuple[str, ...])
    assert_type(DoctorOptions().min_ios, str | None)
    try:
        ef.convert("intents", folder, target="tpu")
    except ef.InputError as error:
        assert isinstance(error, ef.EdgeFormerError)


def misuse(folder: Path) -> None:
    """Each is an error to mypy: an ignore that is not needed is one, too."""
    ef.convert("intents", folder, targets="litert")  # type: ignore[call-arg]
    ef.convert("intents")  # type: ignore[call-arg]
    ef.verify(folder, threads="two")  # type: ignore[arg-type]
    ef.frobnicate()  # type: ignore[attr-defined]
