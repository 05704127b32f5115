"""How much a bundle agrees with its source model at fp32, over more inputs than its vectors hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeformer.programs import Program
from edgeformer.torch_engine import TorchEngine
from edgeformer_runtime.comparison import compare
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.vectors import Case


@dataclass(frozen=True)
class Agreement:
    """What was found over `n` inputs.

    Attributes:
        n: the number of inputs: the recorded samples, and the calibration inputs where there are some.
        top1: the fraction of them that get the source's best label; None for what is no classifier.
        cosine: the smallest cosine of an output and the source's; None where one of them is not comparable.
    """

    n: int
    top1: float | None
    cosine: float | None

    def to_json(self) -> dict[str, Any]:
        """The object in `convert --json` and in report.json."""
        return {"n": self.n, "top1": self.top1, "cosine": self.cosine}


@dataclass(frozen=True)
class Reference:
    """One input of a program and what the source model gives for it, both by name."""

    program: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def calibration_references(programs: Sequence[Program]) -> tuple[Reference, ...]:
    """The programs' calibration inputs with the source's outputs in torch; empty where none were given."""
    source = TorchEngine(programs)
    found = []
    for program in programs:
        for values in program.calibration:
            inputs = {spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)}
            found.append(Reference(program.name, inputs, source.run(program.name, inputs)))
    return tuple(found)


def agreement(engine: Engine, references: Iterable[Reference | Case], classifies: bool) -> Agreement:
    """Run each reference's inputs in the bundle's engine and compare; `classifies`: the outputs are logits of labels.

    Raises:
        EngineError: the engine failed.
    """
    same: list[bool] = []
    cosines: list[float | None] = []
    for reference in references:
        outputs = engine.run(reference.program, reference.inputs)
        for name, expected in reference.outputs.items():
            same.append(bool(outputs[name].argmax() == expected.argmax()))
            cosines.append(compare(outputs[name], expected, tolerance=1.0).cosine)
    comparable = [cosine for cosine in cosines if cosine is not None]
    return Agreement(
        n=len(same),
        top1=sum(same) / len(same) if classifies else None,
        cosine=min(comparable) if len(comparable) == len(cosines) else None,
    )
