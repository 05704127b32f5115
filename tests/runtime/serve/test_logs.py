"""The log says a thing once a second, with how often it happened."""

from __future__ import annotations

import logging

from edgeformer_runtime.serve.server import OncePerSecond


def test_one_line_a_second_with_a_count() -> None:
    now = 0.0
    once = OncePerSecond(lambda: now)

    def say(message: str, *arguments: object) -> str | None:
        record = logging.LogRecord("x", logging.WARNING, __file__, 1, message, arguments, None)
        return record.getMessage() if once.filter(record) else None

    assert say("%d are open", 1) == "1 are open"
    assert [say("%d are open", number) for number in (2, 3, 4)] == [None] * 3
    assert say("another thing") == "another thing"
    now = 1.5
    assert say("%d are open", 5) == "5 are open (and 3 more like it)"
    now = 3.0
    assert say("%d are open", 6) == "6 are open"
