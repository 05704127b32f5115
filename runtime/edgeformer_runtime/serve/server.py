"""Runs the service: a socket, uvicorn, and an end that lets answers finish."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import logging.config
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn

from edgeformer_runtime.bundle.signature import Requirement
from edgeformer_runtime.cli.console import err, out
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import (
    ACCEPTED_AT_ONCE,
    LOOPBACK_NAMES,
    ConnectionLimits,
    Connections,
    ServeOptions,
    most_connections,
)
from edgeformer_runtime.serve.protocol import BoundedHttp, BoundedWebSocket
from edgeformer_runtime.serve.service import Service, open_service
from edgeformer_runtime.serve.streams import MAX_MESSAGE_BYTES
from edgeformer_runtime.serve.wyoming import WyomingServer

BACKLOG = 512
KEEP_ALIVE_S = 75
"""Seconds that an idle connection is kept: longer than clients keep theirs, so that the service is rarely the one to
close it, just when the next request is on its way."""
ANSWER_SHARE, REFUSE_SHARE = 0.8, 0.1
"""Of the time to finish: what answers in progress have, and then their refusals to be written."""
SWEEP_S = 0.5

_logger = logging.getLogger("edgeformer_runtime.serve")


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens: a client may connect from here on, and is answered once the server runs.

    Raises:
        InputError: no such address here, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"cannot listen at {host} port {port}: {reason}: give another --host or --port") from None
    # Connections inherit it. Without, an answer's body waits 40 ms for the client to acknowledge its head (Nagle).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def is_local(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def address(listening: socket.socket) -> str:
    """Where a browser finds the service."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """uvicorn's, which sweeps its connections, reloads at SIGHUP, and refuses what it cannot finish."""

    def __init__(
        self, config: uvicorn.Config, service: Service, connections: Connections, wyoming: WyomingServer | None
    ) -> None:
        super().__init__(config)
        self._wyoming = wyoming
        self._service = service
        self._all = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._is_reload_due = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_in_a_line)
        self._sweeping = asyncio.ensure_future(self._sweep())
        await super().startup(sockets)
        if self._wyoming is not None:
            await self._wyoming.start(self.server_state.tasks)
        if self._is_reload_due:
            self._begin_reload()
        for listening in sockets or ():
            listening.listen(BACKLOG)  # uvicorn's backlog is also how many connections are taken at once

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._all.sweep(asyncio.get_running_loop().time())
            self._service.metrics.connections.set(len(self.server_state.connections))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what has begun, refuse what takes too long, and end."""
        self._service.begin_to_end()
        if self._wyoming is not None:
            self._wyoming.stop()
        late = threading.Timer(self._service.options.finish_s, self._end_now)
        late.daemon = True
        late.start()
        refusing = asyncio.get_running_loop().call_later(
            ANSWER_SHARE * self._service.options.finish_s, self._service.refuse_rest
        )
        await super().shutdown(sockets)
        refusing.cancel()
        for task in (self._sweeping, self._reloading):
            if task is not None:
                task.cancel()

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """End in order; at the second signal at once."""
        if self.should_exit:
            self._service.leave_nothing()
            os._exit(128 + sig)
        self.should_exit = True

    def _end_now(self) -> None:
        """In a thread: the time to end in order is over, whatever still waits for whom."""
        self._service.leave_nothing()
        os._exit(1)

    def handle_reload(self, _sig: int, _frame: FrameType | None) -> None:
        """Reload the bundle, once the server runs."""
        if self._loop is None:
            self._is_reload_due = True
        else:
            self._loop.call_soon_threadsafe(self._begin_reload)

    def _begin_reload(self) -> None:
        previous = self._reloading

        async def reload() -> None:
            if previous is not None:
                await previous
            await self._service.reload()

        self._reloading = asyncio.ensure_future(reload())


def run_server(
    service: Service,
    listening: socket.socket,
    when_ready: Callable[[], None],
    wyoming: WyomingServer | None = None,
) -> None:
    """Answer until SIGINT or SIGTERM; then no connection is taken, and the process ends within the options' `finish_s`.

    Args:
        service: what answers; closed at the end.
        listening: see `open_socket`; closed at the end.
        when_ready: called before the first answer.
        wyoming: answers beside HTTP.

    Raises:
        InputError: the process may open too few files.
    """
    set_up_logs()
    options = service.options
    limits = ConnectionLimits(
        most=most_connections(options.max_connections),
        head_bytes=options.max_head_bytes,
        head_s=options.head_s,
        body_s=options.upload_s + 5,  # who reads the body is to say first that it is slow
    )
    connections = Connections(limits, lambda reason: service.metrics.closed.labels(reason).inc())
    config = uvicorn.Config(
        make_app(service),
        http=cast(Any, partial(BoundedHttp, connections)),
        ws=cast(Any, partial(BoundedWebSocket, connections)),
        loop="asyncio",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # audio in samples gets no smaller
        timeout_graceful_shutdown=cast(Any, (ANSWER_SHARE + REFUSE_SHARE) * options.finish_s),
    )
    server = _Server(config, service, connections, wyoming)
    # Before uvicorn sets its own, so that no signal in between ends the process out of order.
    handlers: dict[signal.Signals, Any] = {signal.SIGINT: server.handle_exit, signal.SIGTERM: server.handle_exit}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = server.handle_reload
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        when_ready()
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()


def _log_in_a_line(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the event loop would write a traceback for, a line of which there is one a second."""
    error = context.get("exception")
    with suppress(Exception):
        _logger.error("%s: %s: %s", context.get("message"), type(error).__name__, error, exc_info=_unexpected(error))


def _unexpected(error: Any) -> Any:
    """The error, if a traceback says more than its line does."""
    return None if error is None or isinstance(error, OSError) else error


# The service's log: one line a second of each kind at most, whatever clients do, with how many more there were.


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


# What the command `serve` does.


def serve_bundle(
    path: Path,
    host: str,
    port: int,
    options: ServeOptions,
    threads: int,
    required: Requirement,
    isolated: bool | None = None,
    wyoming_port: int | None = None,
) -> None:
    """Serve a bundle until the process is told to end.

    Raises:
        InputError: no such address, a port that is taken, a fallback for a task that has none, or `wyoming_port` for
            another task than speech.
        BundleError: the bundle does not follow BUNDLE.md, or is not what is required.
        EngineError: its engine does not run here.
    """
    with ExitStack() as undo:
        listening = undo.enter_context(open_socket(host, port))
        wyoming_socket = None if wyoming_port is None else undo.enter_context(open_socket(host, wyoming_port))
        service = open_service(path, options, threads, required, isolated)
        undo.callback(service.leave_nothing)
        wyoming = None if wyoming_socket is None else WyomingServer(service, wyoming_socket)
        undo.pop_all()
    if not is_local(host):
        err.print("note: who reaches this address can use the service: it asks for no password and encrypts nothing")

    def tell() -> None:
        out.print(f"{service.manifest.name} answers at {address(listening)}  (Ctrl-C ends it)")
        if wyoming_socket is not None:
            out.print(f"Wyoming at {address(wyoming_socket).replace('http', 'tcp').rstrip('/')}")

    run_server(service, listening, tell, wyoming)
