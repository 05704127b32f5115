"""Work that ends when nobody wants its outcome any more: whoever does it asks now and then."""

from __future__ import annotations

from collections.abc import Callable

from edgeformer_runtime.errors import EdgeFormerError

IsCancelled = Callable[[], bool]
"""Whether nobody wants the outcome any more. Called often, from the thread that works."""


class Cancelled(EdgeFormerError):
    """The work was given up before it was done, because its caller said so."""


def never() -> bool:
    """For callers that wait whatever it takes."""
    return False


def check(is_cancelled: IsCancelled) -> None:
    """Go on, or give up.

    Raises:
        Cancelled: nobody wants the outcome any more.
    """
    if is_cancelled():
        raise Cancelled("the work was given up: its caller no longer waits for it")
