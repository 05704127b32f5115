"""Check: every value that a program reads is made somewhere, and the file has the operators that the manifest lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine
from edgeformer.doctor.model_view import Program

CHECK = "structure"
AGAIN = "convert the checkpoint again, or fetch the bundle from where it was published"


def check_structure(examination: Examination) -> Iterable[Finding]:
    """Operators that were dropped or added after conversion."""
    found = [*_missing(examination), *_counts(examination)]
    if found:
        return found
    operators = sum(examination.bundle.manifest.operators.values())
    return [fine(CHECK, f"{operators} operators, as many of each as the manifest lists, and every value has a source")]


def _missing(examination: Examination) -> Iterator[Finding]:
    for program in examination.view.programs:
        for reader, label in _unmade(program):
            yield error(
                CHECK,
                f"{program.name}: {reader} reads {label}, which no operator before it makes",
                "the file lacks an operator: no runtime opens it, or it answers with what its memory happens to hold",
                AGAIN,
            )


def _unmade(program: Program) -> Iterator[tuple[str, str]]:
    """Who reads what nobody makes; each value once."""
    made = {*program.inputs, *(key for key, value in program.values.items() if value.constant is not None)}
    reported: set[str] = set()
    readers = [(node.label, node.inputs, node.outputs) for node in program.nodes]
    for label, inputs, outputs in [*readers, ("the caller", program.outputs, ())]:
        for key in inputs:
            if key not in made and key not in reported:
                reported.add(key)
                yield label, program.values[key].label if key in program.values else key
        made.update(outputs)


def _counts(examination: Examination) -> Iterator[Finding]:
    listed = Counter(examination.bundle.manifest.operators)
    present: Counter[str] = Counter()
    for operator in examination.view.operators:
        present[operator.name] += operator.count
    for name in sorted(listed | present):
        if listed[name] != present[name]:
            yield error(
                CHECK,
                f"the manifest lists {name} {listed[name]} times, the model's files have it {present[name]} times",
                "the model is not the one that was converted and verified: an operator was dropped or added since",
                AGAIN,
            )
