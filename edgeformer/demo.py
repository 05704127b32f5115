"""`demo`: the built-in classifiers, converted, verified, and asked about three sentences and two drawings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from edgeformer.convert.convert import Converted, ConvertOptions, convert, steps_of
from edgeformer.convert.tables import print_converted
from edgeformer.convert.target import TARGETS
from edgeformer.progress import Steps
from edgeformer.zoo import PICTURES
from edgeformer_runtime import load
from edgeformer_runtime.cli.console import out

SEQ_LEN = 32
"""Longer than any sentence that the classifier was trained on; each further bucket adds a minute of lowering."""

PRECISION = "dynamic-int8"


@dataclass(frozen=True)
class Show:
    """One model of the demo.

    Attributes:
        source: a name in the zoo.
        name: of the bundles.
        targets: what it is converted to.
        inputs: what it is asked about, with what is printed for it.
        next_input: for the command that is proposed at the end.
    """

    source: str
    name: str
    targets: tuple[str, ...]
    inputs: Mapping[str, str | Path]
    next_input: str


SENTENCES = (
    "turn the lights off in the kitchen",
    "how much money is in my savings account",
    "set a timer for ten minutes",
)
SHOWS = (
    Show(
        "clinc150-mobilebert",
        "intents",
        tuple(TARGETS),
        {repr(sentence): sentence for sentence in SENTENCES},
        '"what will the weather be like tomorrow"',
    ),
    Show("cifar10-tinyvit", "things", ("litert", "onnx"), {path.name: path for path in PICTURES}, str(PICTURES[0])),
)


def run_demo(folder: Path) -> None:
    """Convert, verify and run; exits with 1 when a gate failed.

    Args:
        folder: where the bundles go.
    """
    converted = [(show, _convert(show, folder)) for show in SHOWS]
    for show, rows in converted:
        for row in rows:
            if row.ok and TARGETS[row.target].format.reference_engine is None:
                _answer(show, row)
    everything = [row for _, rows in converted for row in rows]
    print_converted(everything)
    if not all(row.ok for row in everything):
        raise typer.Exit(1)
    for show, rows in converted:
        litert = next(row for row in rows if row.target == "litert")
        out.print(f"Next: edgeformer run {litert.path} {show.next_input}")


def _convert(show: Show, folder: Path) -> list[Converted]:
    options = ConvertOptions(
        source=show.source,
        out=folder,
        targets=show.targets,
        precisions=(PRECISION,),
        seq_lens=(SEQ_LEN,),
        name=show.name,
    )
    with Steps(steps_of(options)) as steps:
        return convert(options, steps)


def _answer(show: Show, row: Converted) -> None:
    """Print the bundle's answers, from its own engine."""
    with load(row.path) as pipeline:
        out.print(f"{show.name}, {row.target}, run by {pipeline.engine.executed_by}:")
        for shown, raw in show.inputs.items():
            answer = pipeline(raw)
            out.print(f"  {shown} → {answer.label} ({answer.score:.2f})")
