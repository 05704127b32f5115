"""Text while somebody speaks: sound arrives on a WebSocket, guesses and final segments go back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, cast

import numpy as np
from fastapi import FastAPI, Query, WebSocket
from numpy.typing import NDArray
from starlette.websockets import WebSocketDisconnect, WebSocketState

from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.speech_stream import StreamUpdate
from edgeformer_runtime.preprocess.audio_spec import AudioPreprocessing
from edgeformer_runtime.records import to_data
from edgeformer_runtime.serve.inputs import SpeechQuery
from edgeformer_runtime.serve.refusals import Refusal
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.strict_json import shorten

STREAM_PATH = "/v1/stream"
END = "end"
"""The text message after which nothing more is said."""

SAMPLE = np.dtype("<i2")
MAX_MESSAGE_BYTES = 256 << 10

NORMAL, REFUSED, TRY_AGAIN = 1000, 1008, 1013
"""Why a socket is closed (RFC 6455, section 7.4.1, and IANA's registry for 1013)."""


def add_streams(app: FastAPI, service: Service) -> None:
    """Let an application take streams of sound.

    A client sends binary messages of 16 bit little-endian mono samples at the bundle's rate, then the text "end". The
    service sends {"final": segments, "partial": text, "seconds"} as it goes, and last {"done": true, "text",
    "language", "duration"}. What it cannot go on with is {"error"} before it closes.
    """

    @app.websocket(STREAM_PATH)
    async def stream(socket: WebSocket, query: Annotated[SpeechQuery, Query()]) -> None:
        await socket.accept()
        try:
            with service.stream_slot():
                await _hear(socket, service, query)
            await socket.close(NORMAL)
        except WebSocketDisconnect:
            return  # who spoke has gone
        except (Refusal, EdgeFormerError) as error:
            if socket.application_state is WebSocketState.CONNECTED:
                await socket.send_json({"error": str(error)})
                await socket.close(TRY_AGAIN if isinstance(error, Refusal) and error.status == 503 else REFUSED)


async def _hear(socket: WebSocket, service: Service, query: SpeechQuery) -> None:
    """Transcribe one stream until its end.

    Raises:
        WebSocketDisconnect: the client has gone.
        Refusal: too many streams, or nothing came for too long.
        EdgeFormerError: what came is no sound, or the model failed.
    """
    rate = cast(AudioPreprocessing, service.manifest.preprocessing).sample_rate
    call = service.workers.call
    stream = cast(Transcriber, service.workers.next_pipeline()).open_stream(query.options())
    left = round(service.options.stream_s * rate)
    while left > 0 and (block := await _next_block(socket, service.options.stream_idle_s)) is not None:
        left -= len(block)
        await _send(socket, await call(partial(stream.feed, block)))
    await _send(socket, await call(stream.finish))
    transcript = stream.transcript()
    await socket.send_json(
        {"done": True, "text": transcript.text, "language": transcript.language, "duration": transcript.duration}
    )


async def _next_block(socket: WebSocket, idle_s: float) -> NDArray[np.int16] | None:
    """The next samples (n,), or None at the end."""
    try:
        message = await asyncio.wait_for(socket.receive(), idle_s)
    except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
        raise Refusal(408, f"expected sound, nothing came for {idle_s:g} s") from None
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
    for update in updates:
        await socket.send_json(to_data(update))
