"""Check: the delegate gets the model in few pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.examiner import Partitioning
from edgeformer.doctor.finding import Finding, fine, info, warning

CHECK = "partitions"
# Plain conversions of transformers with a delegate that lacks an operator of theirs come out at 49 and more.
MANY_PIECES = 30
NAMED_OPERATORS = 4


def check_partitions(examination: Examination) -> Iterable[Finding]:
    """Programs that are cut into many pieces, and what is predicted to fall back."""
    if not examination.partitions:
        return [fine(CHECK, "the CPU runs every operator: there is no delegate to divide the programs for")]
    worst = max(examination.partitions, key=lambda found: found.pieces)
    if not worst.measured:
        return [_predicted(max(examination.partitions, key=lambda found: sum(found.outside.values())))]
    if worst.pieces > MANY_PIECES:
        return [
            warning(
                CHECK,
                f"{worst.program}: {worst.delegate} gets {worst.pieces} pieces, outside are {_most(worst.outside)}",
                "at each border tensors are copied and threads wait",
                "use another attention kernel (--attention) or precision: see the operators that are outside",
            )
        ]
    if worst.pieces > 1:
        return [
            info(
                CHECK,
                f"{worst.delegate} gets {worst.pieces} pieces of {worst.program}, outside are {_most(worst.outside)}",
            )
        ]
    left_out = [found.program for found in examination.partitions if not found.pieces]
    if left_out:
        return [
            info(CHECK, f"{worst.delegate} takes nothing of {', '.join(left_out)}: its operators are too few or others")
        ]
    rest = f", but for {_most(worst.outside)}" if worst.outside else ""
    return [fine(CHECK, f"{worst.delegate} gets each program in one piece{rest}")]


def _predicted(found: Partitioning) -> Finding:
    if not found.outside:
        return fine(CHECK, f"nothing keeps the {found.delegate} from all of it (predicted)")
    if not found.pieces:
        return info(
            CHECK,
            f"predicted: the {found.delegate} takes nothing of {found.program}, CPU or GPU run it",
            "it computes in float16, and this bundle in float32",
            "convert to fp16 or less for it",
        )
    return info(
        CHECK,
        f"predicted: the {found.delegate} leaves {sum(found.outside.values())} operators of {found.program} to CPU or"
        f" GPU: {_most(found.outside)}",
        "it computes in float16 on tensors of up to four axes; Apple does not publish what else decides",
    )


def _most(outside: Counter[str]) -> str:
    named = ", ".join(f"{name} {count}" for name, count in outside.most_common(NAMED_OPERATORS))
    return named + (", ..." if len(outside) > NAMED_OPERATORS else "")
