"""Check: weights lie in their files where memory-mapped reading wants them."""

from __future__ import annotations

from collections.abc import Iterable

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, fine, warning

CHECK = "alignment"


def check_placement(examination: Examination) -> Iterable[Finding]:
    """Offsets that are no multiple of what the format asks for."""
    placements = examination.view.placements
    wrong = [each for each in placements if each.offset % each.alignment]
    if wrong:
        first = wrong[0]
        return [
            warning(
                CHECK,
                f"{len(wrong)} of {len(placements)} weights are not aligned: {first.file}: {first.what} at byte"
                f" {first.offset}, no multiple of {first.alignment}",
                "a runtime that maps the file into memory copies such weights, or reads them slowly or not at all",
                "convert the checkpoint again; tools that rewrite model files often lose the alignment",
            )
        ]
    if not placements:
        return [fine(CHECK, "the weights are inside the graph: a runtime copies them and asks for no alignment")]
    return [fine(CHECK, f"{len(placements)} places of weights, all aligned for memory mapping")]
