"""The gates after lowering: what must hold for a bundle to be delivered, and what is only worth a warning."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from edgeformer.targets import Lowered
from edgeformer_runtime.verify import Verification

WARM_UP = 3
ROUNDS = 15
# Two runs of one model differ by a few per cent on a busy machine; less than this is no finding.
LATENCY_SLACK = 1.05


def divergence(verification: Verification) -> str:
    """What a failed verification found, in a sentence."""
    stage = next(stage for stage in verification.stages if not stage.ok)
    found = "gives no comparable result" if stage.max_abs is None else f"is off by up to {stage.max_abs:.2e}"
    reason = "" if stage.reason is None else f": {stage.reason}"
    return f"parity: the stage {stage.name!r} {found} (tolerance {stage.tolerance:.2e}){reason}"


def partition_problem(fp32: Lowered, lowered: Lowered) -> str | None:
    """Why the delegate's partitioning is worse than fp32's, or None.

    Each further partition copies tensors between the delegate and the rest, and shows an operator that it lacks.
    """
    if fp32.partitions is None or lowered.partitions is None or lowered.partitions <= fp32.partitions:
        return None
    return f"the delegate's partitions rose from {fp32.partitions} at fp32 to {lowered.partitions}"


def latency_warning(precision: str, latency_ms: float, fp32_latency_ms: float) -> str | None:
    """A warning that names the better choice when a precision is slower than fp32 here, or None."""
    if latency_ms <= fp32_latency_ms * LATENCY_SLACK:
        return None
    return (
        f"{precision} is {latency_ms / fp32_latency_ms:.2f} times as slow as fp32 on this machine "
        f"({latency_ms:.1f} against {fp32_latency_ms:.1f} ms): prefer fp32 where size does not decide"
    )


def median_latencies_ms(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Median wall time in ms of each call, interleaved so that noise meets all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for round_number in range(WARM_UP + ROUNDS):
        for call, samples in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if round_number >= WARM_UP:
                samples.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(samples) for samples in times]
