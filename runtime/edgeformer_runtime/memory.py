"""How much memory this process uses, and has used at most."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_rss_bytes() -> int:
    """The largest resident set of this process so far, in bytes.

    Linux's ru_maxrss would not do: a process inherits it from the one that started it, through fork and exec.
    """
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if _STATUS.exists():
        peak = _status_bytes("VmHWM")
        if peak is not None:
            return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def private_bytes() -> int | None:
    """The resident memory of this process that no file backs, in bytes: heap, packed weights, the arena of activations.

    Weights that are read from a mapped file are not in it. None where the system does not tell (all but Linux).
    """
    return _status_bytes("RssAnon") if _STATUS.exists() else None


def _status_bytes(key: str) -> int | None:
    """A figure that Linux gives of this process, or None where its kernel does not have it."""
    found = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(found[0].split()[1]) * 1024 if found else None
