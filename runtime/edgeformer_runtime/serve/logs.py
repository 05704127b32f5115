"""The service's log: one line a second of each kind at most, whatever clients do, with how many more there were."""

from __future__ import annotations

import logging
import logging.config
import time
from collections import Counter
from collections.abc import Callable

_EVERY_S = 1.0
_MOST_KINDS = 256


class OncePerSecond(logging.Filter):
    """Lets one record of a kind through in a second; its kind is its message before its arguments are filled in."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; it then says how many were not."""
        kind, now = str(record.msg), self._clock()
        if now < self._next.get(kind, now):
            self._held[kind] += 1
            return False
        if len(self._next) >= _MOST_KINDS:
            self._next.clear()
            self._held.clear()
        self._next[kind] = now + _EVERY_S
        held = self._held.pop(kind, 0)
        if held:
            record.msg = f"{kind} (and {held} more like it)"
        return True


def set_up_logs() -> None:
    """Write warnings of the service, its server and its event loop to stderr."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"once": {"()": OncePerSecond}},
            "formatters": {"plain": {"format": "%(levelname)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["once"]}},
            "loggers": {
                name: {"handlers": ["stderr"], "level": "WARNING", "propagate": False}
                for name in ("uvicorn", "asyncio", "edgeformer_runtime.serve")
            },
        }
    )
