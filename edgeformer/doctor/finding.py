"""What a check says: how bad it is, what was found, why it matters and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; an error is what makes `doctor` exit with 1."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say.

    Attributes:
        check: the name of the check, as in `CHECKS`.
        severity: see `Severity`.
        what: what was found, in a sentence without a full stop.
        why: what it leads to on a device; empty where all is fine.
        do: what to do about it; empty where there is nothing to do.
    """

    check: str
    severity: Severity
    what: str
    why: str = ""
    do: str = ""

    def to_json(self) -> dict[str, str]:
        """As `doctor --json` prints it."""
        return asdict(self)


def error(check: str, what: str, why: str, do: str) -> Finding:
    """A finding that must be repaired."""
    return Finding(check, Severity.ERROR, what, why, do)


def warning(check: str, what: str, why: str, do: str) -> Finding:
    """A finding that may hurt."""
    return Finding(check, Severity.WARNING, what, why, do)


def info(check: str, what: str, why: str = "", do: str = "") -> Finding:
    """Something worth knowing."""
    return Finding(check, Severity.INFO, what, why, do)


def fine(check: str, what: str) -> Finding:
    """What was checked and is in order."""
    return Finding(check, Severity.FINE, what)
