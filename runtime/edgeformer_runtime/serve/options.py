"""What a service is allowed to take, and whom it may ask; its connections."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError


@dataclass(frozen=True)
class FallbackOptions:
    """A bigger model to ask where the device is not sure.

    Attributes:
        url: an http or https address that takes the same requests as `/v1/answer` and gives the same answers: another
            `serve`, or whatever speaks like it.
        below: answers of the device with a confidence below this are doubtful, 0 to 1.
        timeout_s: for the whole exchange; after it the device's own answer counts.
    """

    url: str
    below: float = 0.5
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"fallback: expected an http or https address, found {self.url!r}")
        if not 0 < self.below <= 1:
            raise InputError(f"fallback below: expected a confidence above 0 and at most 1, found {self.below!r}")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise InputError(f"fallback timeout: expected seconds above 0, found {self.timeout_s!r}")


@dataclass(frozen=True)
class ServeOptions:
    """The limits of a service. What goes beyond them is refused with a status that says so.

    Attributes:
        workers: copies of the model, each with a thread of its own.
        max_connections: open at a time; beyond it the one that has kept the service waiting longest is closed. The
            process's limit of open files may make it fewer.
        max_head_bytes: of a request's head, and of what its body has around its bytes; more is 431.
        head_s: for a request's head to arrive; 408 after it.
        max_body_bytes: of one request; more is 413.
        max_waiting: requests that wait for a worker; the next one gets 503.
        max_waiting_bytes: of the bodies of all requests that are being read or answered; the next one gets 503.
        max_inputs: texts in one request; more is 413.
        upload_s: for a request's body to arrive; 408 after it.
        answer_s: from a request's body to its answer, 504 after it; None: as the task says.
        max_streams: streams of audio at a time.
        stream_idle_s: a stream that sends nothing for so long is ended.
        stream_s: of audio in one stream; more ends it.
        finish_s: within which the process ends when it is told to.
        allow_hosts: names, beside this machine's own, that requests may name as the service's host.
        fallback: whom to ask in doubt, None: nobody.
    """

    workers: int = 1
    max_connections: int = 512
    max_head_bytes: int = 16 << 10
    head_s: float = 10.0
    max_body_bytes: int = 16 << 20
    max_waiting: int = 256
    max_waiting_bytes: int = 256 << 20
    max_inputs: int = 256
    upload_s: float = 30.0
    answer_s: float | None = None
    max_streams: int = 4
    stream_idle_s: float = 60.0
    stream_s: float = 3600.0
    finish_s: float = 30.0
    allow_hosts: tuple[str, ...] = ()
    fallback: FallbackOptions | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not 0 < value < math.inf:
                raise InputError(f"{name}: expected a number above 0, found {value!r}")
        if self.max_waiting_bytes < self.max_body_bytes:
            raise InputError(
                f"max_waiting_bytes: expected at least max_body_bytes, {self.max_body_bytes}, "
                f"found {self.max_waiting_bytes}"
            )
        for host in self.allow_hosts:
            check_host_name(host)


# Who may ask: a request has to name this service as its host, and may not come from another site's page.
#
# A page of a stranger can make a browser on this machine, or in this network, send requests here. It gives itself away
# by its own name: in `Origin`, or, where its name was made to lead here (DNS rebinding), in `Host`. No such page has an
# IP address for a name but the one that it was loaded from.


LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
_HOST = re.compile(r"(\[(?P<literal>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9._-]{1,253}))(:[0-9]{1,5})?", re.ASCII)


def check_host_name(name: str) -> None:
    """Let a name be allowed as the service's host.

    Raises:
        InputError: it is no host's name or address, or it has more than that.
    """
    if not (_is_address(name) or _NAME.fullmatch(name.lower().removesuffix("."))):
        raise InputError(
            f"allow host: expected a host's name or address without port, as pi.local, found {shorten(name)}"
        )


class SameSite:
    """An application that is asked only by requests which name it as their host, and by no page of another site."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        """Guard an application.

        Args:
            app: what answers.
            allowed: names of this service beside loopback's, and beside the address that a connection came in at.
        """
        self._app = app
        self._allowed = LOOPBACK_NAMES | {_normal(name) for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it: 421 another host's name, 403 another site."""
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)) is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
                return
            status, message = refusal
            await JSONResponse({"error": message}, status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        found = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        name = _host_name(found)
        here = _normal(scope["server"][0]) if scope.get("server") else ""
        if name is None or (name not in self._allowed and name != here):
            names = ", ".join(sorted(self._allowed))
            what = shorten(found, 60) if len(hosts) == 1 else f"{len(hosts)} of them"
            return 421, f"expected Host to be one of {names} or the address here, found {what}: see --allow-host"
        origins = [value.decode("latin-1").lower() for key, value in scope["headers"] if key == b"origin"]
        if any(origin.partition("://")[2] != found for origin in origins):
            return 403, "expected a request of this service's own page, found one of another site"
        return None


def _host_name(host: str) -> str | None:
    """The name in a Host header, None: it has none."""
    found = _HOST.fullmatch(host)
    return None if found is None else _normal(found["literal"] or found["name"])


def _normal(name: str) -> str:
    """One spelling for a name or an address."""
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name.lower().removesuffix(".")
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# All connections of a service: how many may be open, and which one goes first where there are too many.


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
