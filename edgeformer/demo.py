"""`demo`: the built-in intent classifier, converted to every target, verified, and asked three questions."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeformer.convert import Converted, ConvertOptions, convert, steps_of
from edgeformer.progress import Steps
from edgeformer.tables import print_converted
from edgeformer.targets import REFERENCE_ENGINES, TARGETS
from edgeformer_runtime import load
from edgeformer_runtime.console import out

SEQ_LEN = 32
"""Longer than any sentence that the classifier was trained on; each further bucket adds a minute of lowering."""

MODEL = "clinc150-mobilebert"
SENTENCES = (
    "turn the lights off in the kitchen",
    "how much money is in my savings account",
    "set a timer for ten minutes",
)


def run_demo(folder: Path) -> None:
    """Convert, verify and run; exits with 1 when a gate failed.

    Args:
        folder: where the bundles go.
    """
    options = ConvertOptions(
        source=MODEL,
        out=folder,
        targets=tuple(TARGETS),
        precisions=("dynamic-int8",),
        seq_lens=(SEQ_LEN,),
        name="intents",
    )
    with Steps(steps_of(options)) as steps:
        rows = convert(options, steps)
    for row in rows:
        if row.ok and row.target not in REFERENCE_ENGINES:
            _answer(row)
    print_converted(rows)
    if not all(row.ok for row in rows):
        raise typer.Exit(1)
    litert = next(row for row in rows if row.target == "litert")
    out.print(f'Next: edgeformer run {litert.path} "what will the weather be like tomorrow"')


def _answer(row: Converted) -> None:
    """Print the bundle's answers to the sentences, from its own engine."""
    pipeline = load(row.path)
    out.print(f"{row.target}, run by {pipeline.engine.executed_by}:")
    for sentence, answer in zip(SENTENCES, pipeline(list(SENTENCES)), strict=True):
        out.print(f"  {sentence!r} → {answer.label} ({answer.score:.2f})")
