"""What a machine is asked to measure, and what a machine is for whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.report import Report
from edgeformer_runtime.bundle.requirement import NO_REQUIREMENT, Requirement

Tell = Callable[[str], None]
"""Called with a line before each step that takes its time."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        bundles: folders or zips; the first is what ratios refer to.
        sweep: under which conditions.
        rounds: how many turns each gets.
        required: what each bundle must be.
        isolated: measure each bundle in a process without network and other files.
    """

    bundles: tuple[Path, ...]
    sweep: Sweep
    rounds: int
    required: Requirement = NO_REQUIREMENT
    isolated: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "bundles", tuple(Path(bundle) for bundle in self.bundles))


class Host(Protocol):
    """A machine that measures bundles."""

    name: str
    """As its user named it: "ssh://pi@raspberrypi"."""

    def measure(self, request: Request, tell: Tell) -> Report:
        """Bring the bundles there, measure them, bring the result back, and leave nothing behind.

        Raises:
            BundleError: one of them is no bundle, or what comes back is no report.
            InputError: the machine cannot be reached, lacks something, or cannot do what is asked.
            EngineError: a bundle failed there.
        """
