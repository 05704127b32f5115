"""The tables of `run`, `verify` and `inspect`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import (
    REFUSED_FILE,
    Manifest,
)
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.cli.console import printable
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.tasks.task import TASKS, AnswerKind
from edgeformer_runtime.verify.verify import LayerStage, Verification

LONGEST_REFUSAL = 400
SHOWN_INPUT_CHARACTERS = 60


def answers_table(shown: Sequence[str], results: Sequence[Result], gives: AnswerKind, top: int) -> Table:
    """One row per input with its answer, of which `top` parts are shown."""
    table = Table("input", "answer", "ms")
    for text, result in zip(shown, results, strict=True):
        total = "-" if result.statistics is None else f"{result.statistics.total_ms:.2f}"
        table.add_row(shorten(text, SHOWN_INPUT_CHARACTERS)[1:-1], gives.show(result, top), total)
    return table


def verification_table(verification: Verification) -> Table:
    """One row per stage; of a layer its distance, as a fraction, stands for the largest difference."""
    table = Table("stage", "max |Δ|", "tolerance", "cosine", "", title=f"executed by {verification.executed_by}")
    for stage in verification.stages:
        bounded = stage.distance if isinstance(stage, LayerStage) else stage.max_abs
        table.add_row(
            stage.name,
            _figure(bounded, ".2e"),
            f"{stage.tolerance:.2e}",
            _figure(stage.cosine, ".6f"),
            "ok" if stage.ok else "DIVERGES",
        )
    return table


def bundle_table(bundle: Bundle) -> Table:
    """What the manifest says, key by key."""
    manifest = bundle.manifest
    table = Table(show_header=False)
    for key, value in _facts(manifest).items():
        table.add_row(key, value)
    table.add_row("size", f"{bundle.size_bytes / 1e6:.2f} MB in {len(manifest.files)} files")
    table.add_row("signature", _signature(bundle.signature))
    if bundle.refused:
        table.add_row("refused", f"by the gates of its conversion: {'; '.join(refusals(bundle))}")
    return table


def refusals(bundle: Bundle) -> list[str]:
    """Why the gates refused a bundle, as far as its own file says so; none of one that they did not refuse."""
    if not bundle.refused:
        return []
    # A stranger's file may say anything.
    try:
        stored = json.loads(bundle.read_bytes(REFUSED_FILE))
        problems = stored["problems"]
        return [_one_line(problem) for problem in problems if isinstance(problem, str)]
    except (BundleError, ValueError, RecursionError, LookupError, TypeError):
        return [f"{REFUSED_FILE} does not say why"]


def _one_line(problem: str) -> str:
    text = printable(" ".join(problem.split()))
    return text if len(text) <= LONGEST_REFUSAL else text[: LONGEST_REFUSAL - 3] + "..."


def _signature(state: SignatureState) -> str:
    if state.checked_by is not None:
        return f"valid, by the key {state.checked_by[:16]}"
    return "there is one, not checked: name its key with --require-signature" if state.signed else "none"


def _facts(manifest: Manifest) -> dict[str, str]:
    requires, task = manifest.requires, TASKS[manifest.task]
    systems = {"iOS": requires.ios, "macOS": requires.macos, "Android API": requires.android_api}
    oldest = [f"edgeformer-runtime {requires.runtime}"]
    oldest += [f"{system} {version}" for system, version in systems.items() if version is not None]
    facts = {
        "name": manifest.name,
        "task": manifest.task,
        "family": manifest.family,
        "target": manifest.target,
        "precision": f"{manifest.precision} ({manifest.recipe.name})",
        "source": f"{manifest.source.id}, weights sha256 {manifest.source.weights_sha256[:12]}",
        "license": manifest.license or "not stated",
        "requires": ", ".join(oldest),
        "made with": ", ".join(f"{name} {version}" for name, version in sorted(manifest.toolchain.items())),
        "attention": manifest.attention,
        "input": task.takes.describe(manifest.preprocessing),
        "answer": task.gives.describe(manifest.postprocessing),
    }
    facts |= (task.gives.describe_programs or _programs)(manifest)
    most = sorted(manifest.operators.items(), key=lambda item: (-item[1], item[0]))[:8]
    facts["operators"] = ", ".join(f"{name} {count}" for name, count in most) + (
        ", ..." if len(manifest.operators) > len(most) else ""
    )
    return facts


def _programs(manifest: Manifest) -> dict[str, str]:
    """What can be called: the tensors of each program."""
    return {
        f"program {program.name}": f"{_tensors(program.inputs)} -> {_tensors(program.outputs)}"
        for program in manifest.programs
    }


def _tensors(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {'x'.join(map(str, spec.shape))}" for spec in specs)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
