"""Runs the service: a socket, uvicorn, and an end that lets answers finish."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable

import uvicorn

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.serve.app import LOOPBACK_NAMES, make_app
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.serve.streams import MAX_MESSAGE_BYTES

BACKLOG = 512
KEEP_ALIVE_S = 75
"""Seconds that an idle connection is kept: longer than clients keep theirs, so that the service is rarely the one to
close it, just when the next request is on its way."""
FINISH_S = 30
"""Seconds that answers in progress have when the service is told to end."""


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


def run_server(service: Service, listening: socket.socket, when_ready: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM; then no connection is taken, and what has begun has `FINISH_S` to finish.

    Args:
        service: what answers; closed at the end.
        listening: see `open_socket`; closed at the end.
        when_ready: called before the first answer.
    """
    config = uvicorn.Config(
        make_app(service, is_local(listening.getsockname()[0])),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_max_size=MAX_MESSAGE_BYTES,
        timeout_graceful_shutdown=FINISH_S,
    )
    server = uvicorn.Server(config)
    # uvicorn ends in order, and then raises the signals that it got again, for which its own handler does nothing more.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        when_ready()
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()
