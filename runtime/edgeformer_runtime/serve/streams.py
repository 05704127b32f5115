"""Text while somebody speaks: sound arrives on a WebSocket, guesses and final segments go back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, TypeVar, cast

import numpy as np
from fastapi import FastAPI, Query, WebSocket
from numpy.typing import NDArray
from starlette.websockets import WebSocketDisconnect

from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten, to_data
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.speech_stream import StreamUpdate
from edgeformer_runtime.serve.connections import WRITE_S
from edgeformer_runtime.serve.inputs import SpeechQuery
from edgeformer_runtime.serve.refusals import Refusal
from edgeformer_runtime.serve.service import Service

STREAM_PATH = "/v1/stream"
END = "end"
"""The text message after which nothing more is said."""

SAMPLE = np.dtype("<i2")
MAX_MESSAGE_BYTES = 256 << 10
LAST_WORDS_S = 2.0
"""For a client to take the reason why its stream ends."""

Outcome = TypeVar("Outcome")

NORMAL, GONE, REFUSED, RESTART, TRY_AGAIN = 1000, 1006, 1008, 1012, 1013
"""Why a socket is closed (RFC 6455, section 7.4.1, and IANA's registry for 1012 and 1013)."""


def add_streams(app: FastAPI, service: Service) -> None:
    """Let an application take streams of sound.

    A client sends binary messages of 16 bit little-endian mono samples at the bundle's rate, then the text "end". The
    service sends {"final": segments, "partial": text, "seconds"} as it goes, and last {"done": true, "text",
    "language", "duration"}. What it cannot go on with is {"error"} before it closes.
    """

    @app.websocket(STREAM_PATH)
    async def stream(socket: WebSocket, query: Annotated[SpeechQuery, Query()]) -> None:
        with suppress(WebSocketDisconnect):  # who spoke has gone
            await socket.accept()
            try:
                with service.stream_slot():
                    await service.unless_ended(_hear(socket, service, query))
                await socket.close(NORMAL)
            except (Refusal, EdgeFormerError) as error:
                await _say_why(socket, error)
                await socket.close(_close_code(service, error))


async def _say_why(socket: WebSocket, error: Exception) -> None:
    """Tell a client that reads why its stream ends."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(socket.send_json({"error": str(error)}), LAST_WORDS_S)


def _close_code(service: Service, error: Exception) -> int:
    if service.is_ending:
        return RESTART
    return TRY_AGAIN if isinstance(error, Refusal) and error.status == 503 else REFUSED


async def _hear(socket: WebSocket, service: Service, query: SpeechQuery) -> None:
    """Transcribe one stream until its end.

    Raises:
        WebSocketDisconnect: the client has gone.
        Refusal: too many streams, nothing came for too long, or the service ends.
        EdgeFormerError: what came is no sound, or the model failed.
    """
    rate = cast(AudioPreprocessing, service.manifest.preprocessing).sample_rate
    workers = service.workers
    limit_s = service.options.answer_limit_s("audio")
    is_over = False

    async def call(work: Callable[[], Outcome]) -> Outcome:
        try:
            return await asyncio.wait_for(workers.run(lambda *_: work()), limit_s)
        except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
            raise Refusal(504, f"no text within {limit_s:g} s") from None

    with workers.lease() as pipeline:
        try:
            stream = cast(Transcriber, pipeline).open_stream(query.options(), is_cancelled=lambda: is_over)
            left = round(service.options.stream_s * rate)
            while left > 0 and (block := await _next_block(socket, service)) is not None:
                left -= len(block)
                await _send(socket, await call(partial(stream.feed, block)))
            await _send(socket, await call(stream.finish))
        finally:
            is_over = True  # a thread that is still at a window stops at its next token
    if service.is_ending and left > 0:
        raise Refusal(503, "the service ends: open another stream")
    transcript = stream.transcript()
    await socket.send_json(
        {"done": True, "text": transcript.text, "language": transcript.language, "duration": transcript.duration}
    )


async def _next_block(socket: WebSocket, service: Service) -> NDArray[np.int16] | None:
    """The next samples (n,), or None at the end, which is also the service's."""
    idle_s = service.options.stream_idle_s
    receiving = asyncio.ensure_future(socket.receive())
    ending = asyncio.ensure_future(service.ending.wait())
    try:
        await asyncio.wait((receiving, ending), timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            if ending.done():
                return None
            raise Refusal(408, f"expected sound, nothing came for {idle_s:g} s")
        message = receiving.result()
    finally:
        receiving.cancel()
        ending.cancel()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text, data = message.get("text"), message.get("bytes")
    if text == END:
        return None
    if data is None or len(data) % SAMPLE.itemsize:
        found = f"the text {shorten(str(text))}" if data is None else f"{len(data)} bytes"
        raise InputError(f"expected messages of 16 bit samples, or the text {END!r}, found {found}")
    return np.frombuffer(data, SAMPLE)


async def _send(socket: WebSocket, updates: Sequence[StreamUpdate]) -> None:
    """Send what is new to a client that reads.

    Raises:
        WebSocketDisconnect: it reads nothing.
    """
    for update in updates:
        try:
            await asyncio.wait_for(socket.send_json(to_data(update)), WRITE_S)
        except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
            raise WebSocketDisconnect(GONE) from None
