"""All connections of a service: how many may be open, and which one goes first where there are too many."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from edgeformer_runtime.errors import InputError

RESERVE = 32
"""Connections beyond the most, which are told so; only health and metrics are answered on them."""
ACCEPTED_AT_ONCE = 64
"""Connections that the event loop takes before it looks at the first of them."""
OTHER_FILES = 64
"""What the service opens beside connections: the bundle's files while it is reloaded, connections to the fallback."""
FEWEST = 16
LINGER_S = 5.0
"""A client that is told why its request is refused has so long to read it, while the rest of what it sends is dropped:
a connection that is closed over unread bytes loses the answer."""
WRITE_S = 30.0
"""A client that reads nothing for so long has gone."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Of each connection, and of all.

    Attributes:
        most: connections at a time.
        head_bytes: of a head, and of what a body has around its bytes.
        head_s: for a head to arrive.
        body_s: for a body to arrive, if nobody reads it.
    """

    most: int
    head_bytes: int
    head_s: float
    body_s: float


class Connection(Protocol):
    """What is known of one connection."""

    def waits_since(self) -> tuple[int, float] | None:
        """Since when the service waits for the client, behind how likely it is to come to nothing: 0 a head, 1 a body,
        2 another request. None: the client waits for the service.
        """

    def give_way(self) -> None:
        """Close the connection for another one."""

    def sweep(self, now: float) -> None:
        """Close it if it has kept the service waiting for too long."""


class Connections:
    """The connections of one service. Used from one event loop."""

    def __init__(self, limits: ConnectionLimits, on_closed: Callable[[str], None]) -> None:
        """Have none.

        Args:
            limits: of each, and of all.
            on_closed: told why a connection is closed that its client did not end.
        """
        self.limits = limits
        self.on_closed = on_closed
        self.open: set[Connection] = set()
        self.sockets: set[object] = set()
        """WebSockets, which give way to nobody: how many may be streams is bounded, and others are closed at once."""

    def make_room(self) -> bool:
        """Whether one more connection may ask: for that, another one may have to go."""
        if len(self.open) + len(self.sockets) < self.limits.most:
            return True
        waiting = [(since, connection) for connection in self.open if (since := connection.waits_since()) is not None]
        if not waiting:
            return False
        min(waiting, key=lambda pair: pair[0])[1].give_way()
        return True

    def sweep(self, now: float) -> None:
        """Close the connections that have kept the service waiting for too long."""
        for connection in tuple(self.open):
            connection.sweep(now)


def most_connections(wanted: int) -> int:
    """As many connections as are wanted, or as this process may have open files.

    Raises:
        InputError: the process may open too few files to serve anybody.
    """
    free = _free_files()
    most = wanted if free is None else min(wanted, free - RESERVE - ACCEPTED_AT_ONCE - OTHER_FILES)
    if most < min(wanted, FEWEST):
        needed = FEWEST - most
        raise InputError(f"this process may open {free} more files, expected {needed} more than that: raise ulimit -n")
    return most


def _free_files() -> int | None:
    """How many more files the process may open, None where that is unknown."""
    with suppress(ImportError, OSError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return soft - len(os.listdir("/dev/fd"))  # noqa: PTH208  (a Path for each is not needed)
    return None
