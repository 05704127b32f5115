"""Check: the runtime on the device has every operator, at its version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.examiner import Support
from edgeformer.doctor.finding import Finding, error, fine, warning

CHECK = "operators"


def check_operators(examination: Examination) -> Iterable[Finding]:
    """Operators that the stated runtime lacks, or of which that is not known."""
    runtime = f"{examination.examiner.runtime_name} {examination.runtime}"
    lacking = [each for each in examination.support if each.supported is False]
    unknown = [each for each in examination.support if each.supported is None]
    if lacking:
        yield error(
            CHECK,
            f"{runtime} lacks {_names(lacking)}",
            "the runtime refuses the whole model when the app opens it",
            "ship a newer runtime with the app, or convert again for the one that it has",
        )
    if unknown:
        yield warning(
            CHECK,
            f"whether {runtime} has {_names(unknown)} is not known",
            "the runtime refuses the whole model if it lacks one of them",
            "open the bundle with that runtime before you ship it",
        )
    if not lacking and not unknown:
        yield fine(CHECK, f"{runtime} has all {len(examination.support)} of them")


def _names(support: Sequence[Support]) -> str:
    """Operators with their versions and what has them."""
    return ", ".join(
        each.operator.name
        + ("" if each.operator.version is None else f" version {each.operator.version}")
        + (f" (since {each.needs})" if each.needs and each.supported is False else "")
        for each in support
    )
