"""HTTP as uvicorn speaks it, with bounds that it lacks: on a request's head and on the time that a client takes.

uvicorn's parser keeps what belongs to a head until the head is complete, so what is fed to it is counted, in small
pieces. The same count holds for the extensions of chunks and for trailers.
"""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from edgeformer_runtime.serve.app import HEALTH_PATHS
from edgeformer_runtime.serve.options import LINGER_S, RESERVE, WRITE_S, Connections

PIECE_BYTES = 4096
"""Fed at a time: the bounds are exact to this."""
MAX_REST_BYTES = 4 << 20
"""Behind requests that are not answered yet. Reading pauses there, so it takes many small ones to come to this."""
MAX_HEADERS = 100
"""Of a request for a WebSocket, whose own parser takes at most 128; and each shorter than 8192 bytes."""
MAX_HEADER_BYTES = 8000
LAST_REQUEST_S = 1.0
"""When the service ends, an idle connection is kept so long: its next request may be on its way."""
UNREAD_BYTES = 1 << 20
"""Of answers to pings that a client lets pile up before its WebSocket is closed."""
TOO_MANY = "busy: too many connections are open: try again later"

_logger = logging.getLogger("edgeformer_runtime.serve")


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes its own, with all connections of the service."""
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._limits = connections.limits
        self._framing_bytes = 0  # since the last byte of a body, or since the request before
        self._moved = False  # a head, a byte of a body or a request has just been completed
        self._rest = b""  # what has come behind a request that is not answered yet
        self._is_deaf = False  # nothing that comes now is read
        self._is_ending = False
        self._last_cycle: Any = None  # the one whose client has been told that the connection ends with it
        now = self.loop.time()
        self._head_since: float | None = now
        self._body_since = self._idle_since = now
        self._closing_since: float | None = None
        self._unsent = (0, now)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or say that there are too many."""
        super().connection_made(transport)
        has_room = self._all.make_room()
        self._all.open.add(self)
        if has_room:
            return
        if len(self._all.open) > self._limits.most + RESERVE:
            self._refuse(503, TOO_MANY)
        else:
            self.app = cast(Any, _OnlyHealth(self.config.loaded_app))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._all.open.discard(self)
        self._rest = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within the bounds."""
        if self._is_deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._head_since is None and (self.cycle is None or self.cycle.response_complete):
            self._head_since = self.loop.time()
        if not self._rest:
            self._feed(data)
            return
        self._rest += data
        self.flow.pause_reading()  # each answer lets the next bytes in
        if len(self._rest) > MAX_REST_BYTES:
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            if not self._feed_piece(data[start : start + PIECE_BYTES]):
                return
            if self.pipeline:  # answered one after the other: what follows waits until they are
                self._rest = data[start + PIECE_BYTES :]
                self.flow.pause_reading()
                return

    def _feed_piece(self, piece: bytes) -> bool:
        """Parse some bytes; whether there may be more."""
        self._moved = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return False
        except httptools.HttpParserError as error:
            self._refuse(400, f"expected a request in HTTP/1.1: {error}")
            return False
        self._framing_bytes = 0 if self._moved else self._framing_bytes + len(piece)
        if self._framing_bytes > self._limits.head_bytes:
            self._refuse(431, f"expected a head of at most {self._limits.head_bytes} bytes, found more")
            return False
        return True

    def on_headers_complete(self) -> None:
        """A head is complete: its request starts, or waits for those before it."""
        self._moved = True
        self._head_since = None
        self._body_since = self.loop.time()
        super().on_headers_complete()
        cycle: Any = self.cycle  # typed as having methods that nobody sets
        if cycle is None:
            return
        cycle.send = partial(self._send, cycle, cycle.send)
        if self._is_ending:
            cycle.keep_alive = False

    async def _send(self, cycle: Any, send: Send, message: Message) -> None:
        """Send for the application. An answer that comes before its request is complete says that it is the last."""
        if message["type"] != "http.response.start" or not cycle.more_body or not cycle.keep_alive:
            await send(message)
            return
        cycle.keep_alive = False
        await send(message)
        # uvicorn would close over what still comes, and the client would lose the answer: `_linger` closes.
        cycle.keep_alive = True
        self._last_cycle = cycle

    def on_body(self, body: bytes) -> None:
        """Some bytes of a body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete; what follows is the next one's head."""
        self._moved = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been handed over: go on with what came behind its request."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        is_last = self.cycle.response_complete
        if is_last:
            self._idle_since = self.loop.time()
        if is_last and (self.cycle.more_body or self.cycle is self._last_cycle):
            self._linger()  # it was refused before it was complete
        elif self._rest and not self.pipeline:
            self.loop.call_soon(self._feed_rest)
        elif is_last and self._is_deaf:
            self.transport.close()

    def _feed_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self.data_received(rest)

    def _upgrade(self) -> None:
        """Go on as a WebSocket, or answer as if the client had not asked for something else."""
        if not self._should_upgrade():
            self._is_deaf = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        headers = self.headers
        if len(headers) > MAX_HEADERS or any(len(name) + len(value) > MAX_HEADER_BYTES for name, value in headers):
            self._refuse(431, f"expected at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes, found more")
            return
        if isinstance(self.app, _OnlyHealth):
            self._refuse(503, TOO_MANY)
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse(400, "expected no WebSocket behind a request that is not answered yet")
            return
        self._all.open.discard(self)
        self._unset_keepalive_if_required()
        self.handle_websocket_upgrade()

    def _refuse(self, status: int, message: str) -> None:
        """Say why, and read no more; answers that are due come before."""
        self._is_deaf = True
        self._rest = b""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            self._break_off()
        self._all.on_closed(str(status))
        self.transport.write(_document(status, message))
        self._linger()

    def _break_off(self) -> None:
        """The request's body cannot be completed any more: whoever reads it is told so."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _linger(self) -> None:
        """Close once the client has had time to read what was written."""
        self._is_deaf = True
        self._unset_keepalive_if_required()
        self._closing_since = self.loop.time()
        self.flow.resume_reading()
        try:
            self.transport.write_eof()
        except OSError:  # the client has gone, which the event loop is about to find out
            self.transport.abort()

    def waits_since(self) -> tuple[int, float] | None:
        """See `Connection`."""
        if self._closing_since is not None:
            return 0, 0.0
        if self._head_since is not None:
            return 0, self._head_since
        if self.cycle is None or self.cycle.response_complete:
            return 2, self._idle_since
        return (1, self._body_since) if self.cycle.more_body and not self.pipeline else None

    def give_way(self) -> None:
        """See `Connection`: at once, as its descriptor is needed."""
        self._all.open.discard(self)
        self._all.on_closed("made room")
        _logger.warning("%d connections are open: those that kept the service waiting are closed", self._limits.most)
        if self._closing_since is not None or self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._break_off()
        self._is_deaf = True
        self.transport.write(_document(503, TOO_MANY))
        self.transport.close()

    def sweep(self, now: float) -> None:
        """See `Connection`."""
        if self._closing_since is None and self.transport.is_closing():
            self._closing_since = now
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent[0] or self._unsent[0] == 0:
            self._unsent = (unsent, now)
        if self._closing_since is not None:
            if now - self._closing_since > LINGER_S and now - self._unsent[1] > LINGER_S:
                self.transport.abort()
        elif now - self._unsent[1] > WRITE_S and unsent:
            self._all.on_closed("read nothing")
            self.transport.abort()
        else:
            self._sweep_waiting(now)

    def _sweep_waiting(self, now: float) -> None:
        waits = self.waits_since()
        if waits is None:
            return
        kind, since = waits
        if kind == 0 and now - since > self._limits.head_s:
            self._refuse(408, f"expected a head within {self._limits.head_s:g} s")
        elif kind == 1 and now - since > self._limits.body_s:
            self._all.on_closed("slow body")
            self.transport.abort()
        elif kind == 2 and self._is_ending:
            self.transport.close()

    def shutdown(self) -> None:
        """The service ends: answer what has come, or comes within a moment, and close."""
        self._is_ending = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(LAST_REQUEST_S, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket, which counts as a connection, and whose client has to read."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes its own, with all connections of the service."""
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._all.sockets.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._all.sockets.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data, unless answers to what came before pile up."""
        if self.transport.get_write_buffer_size() > UNREAD_BYTES:
            self.transport.abort()
            return
        super().data_received(data)

    async def send(self, message: Any) -> None:
        """Send for the application, which cannot know that the client's corrupted frames have closed the socket."""
        if self.close_sent and self.handshake_complete:
            raise ClientDisconnected
        await super().send(message)

    def shutdown(self) -> None:
        """The service ends: who listens knows it, says its last words and closes."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()


class _OnlyHealth:
    """The application for connections beyond the most: it says so, but tells how the service is."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        headers = {"Retry-After": "1", "Connection": "close"}
        await JSONResponse({"error": TOO_MANY}, 503, headers)(scope, receive, send)


def _document(status: int, message: str) -> bytes:
    """A whole refusal, for where there is no request to answer."""
    body = json.dumps({"error": " ".join(message.split())}).encode()
    retry = "Retry-After: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body
