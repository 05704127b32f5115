"""Clients that write what they like into a socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

HOST = b"Host: 127.0.0.1\r\n"
POST_JSON = b"POST /v1/answer HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\n"
    + HOST
    + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    + b"Sec-WebSocket-Version: 13\r\n"
)


@dataclass(frozen=True)
class Answer:
    """One answer of the service; status 0: there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def connect(port: int) -> socket.socket:
    """A connection on which nothing takes longer than half a minute."""
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def received(connection: socket.socket) -> bytes:
    """All that comes until the service ends the connection."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def answers(data: bytes) -> Iterator[Answer]:
    """Answers one behind the other, each of a stated length."""
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        assert len(rest) >= length, "half an answer"
        yield Answer(int(first.split()[1]), headers, rest[:length])
        data = rest[length:]


def exchange(port: int, *parts: bytes) -> Answer:
    """Send bytes, as long as the service takes them, and give its only answer."""
    with connect(port) as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        found = list(answers(received(connection)))
    assert len(found) <= 1, found
    return found[0] if found else Answer(0, {}, b"")


def text_request(text: str, last: bool = True) -> bytes:
    """A request that asks about a text."""
    body = json.dumps({"text": text}).encode()
    end = b"Connection: close\r\n" if last else b""
    return POST_JSON + end + b"Content-Length: %d\r\n\r\n" % len(body) + body


def ask(port: int, text: str) -> Answer:
    """The answer about a text."""
    return exchange(port, text_request(text))


def get(port: int, path: str) -> Answer:
    """What lies at a path."""
    return exchange(port, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n\r\n")


def metric(port: int, name: str) -> float:
    """The value of a metric, named with its labels; 0 where it has none yet."""
    lines = get(port, "/metrics").body.decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds, half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.01)
