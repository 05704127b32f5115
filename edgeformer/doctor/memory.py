"""Check: what the programs take of a device's memory."""

from __future__ import annotations

from collections.abc import Iterable

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, info, warning

CHECK = "memory"
# A phone of 4 GB gives an app in the foreground about a third of it before the system ends it.
LARGE_BYTES = 1_200_000_000


def check_memory(examination: Examination) -> Iterable[Finding]:
    """The program whose activations take the most, and the size of the weights."""
    name, peak = max(examination.peaks.items(), key=lambda item: item[1].size_bytes)
    planned = max((program.planned_bytes or 0 for program in examination.view.programs), default=0)
    weights = examination.bundle.model_size_bytes
    plan = f", of which the file plans {planned / 1e6:.1f} MB" if planned else ""
    what = (
        f"activations take up to {peak.size_bytes / 1e6:.1f} MB ({name}, at {peak.operator}){plan};"
        f" the model's files have {weights / 1e6:.1f} MB"
    )
    if peak.size_bytes + weights > LARGE_BYTES:
        return [
            warning(
                CHECK,
                what,
                "a phone with 4 GB of memory ends apps that take a third of it",
                "convert for shorter inputs, to int8, or with --attention chunked",
            )
        ]
    return [info(CHECK, what, "a runtime that packs weights for its kernels holds them a second time")]
