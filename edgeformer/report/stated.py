"""What a bundle's report.json says: any file may stand there, so nothing of it is believed before it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import REPORT_FILE
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

MAX_BYTES = 4 << 20
MOST_PROBLEMS = 8
LONGEST_PROBLEM = 400


@dataclass(frozen=True)
class Stated:
    """What was found.

    Attributes:
        agreement: share of the inputs of the conversion that got the source's answer.
        n: how many these were.
        problems: of the gates, or what is wrong with the file.
    """

    agreement: float | None = None
    n: int | None = None
    problems: tuple[str, ...] = ()


def stated(bundle: Bundle) -> Stated:
    """What a bundle's conversion found, as far as the file says it in the right types."""
    entry = bundle.manifest.files.get(REPORT_FILE)
    if entry is None:
        return Stated()
    if entry.size > MAX_BYTES:
        return Stated(problems=(f"{REPORT_FILE} has {entry.size} bytes and was not read",))
    try:
        document: Any = strict_json.loads(bundle.read_bytes(REPORT_FILE), REPORT_FILE, MAX_BYTES)
    except BundleError as error:
        return Stated(problems=(f"{REPORT_FILE} was not read: {error}",))
    if not isinstance(document, dict):
        return Stated(problems=(f"{REPORT_FILE} was not read: expected an object",))
    agreement, problems = document.get("agreement"), document.get("problems")
    found = agreement if isinstance(agreement, dict) else {}
    told = [shorten(each, LONGEST_PROBLEM)[1:-1] for each in _list(problems)[:MOST_PROBLEMS] if isinstance(each, str)]
    share, n = _number(found.get("top1")), _number(found.get("n"))
    if share is not None and share <= 1 and n is not None and n >= 1 and n == int(n):
        return Stated(share, int(n), tuple(told))
    return Stated(problems=tuple(told))


def _number(value: Any) -> float | None:
    """A number from 0 to what a float holds exactly."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1 << 53 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
