"""The addresses of audio: a file's transcript, text while somebody speaks, on a WebSocket, and a recording's labels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import numpy as np
from fastapi import FastAPI, Query, Request, Response, WebSocket
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.websockets import WebSocketDisconnect

from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten, to_data
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.pipelines import Pipeline
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.pipelines.speech import Transcriber, Transcription
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.serve.app import documents, file_body, respond
from edgeformer_runtime.serve.fallback import Foreign, ForeignAnswerError, Probability
from edgeformer_runtime.serve.inputs import Answer, Inputs, Refusal, cost_of, read_file
from edgeformer_runtime.serve.metrics import ANSWER_PATH
from edgeformer_runtime.serve.options import WRITE_S
from edgeformer_runtime.serve.routes import add_image_classification
from edgeformer_runtime.serve.service import RequestPlan, Service
from edgeformer_runtime.serve.workers import Workers

STREAM_PATH = "/v1/stream"
END = "end"
"""The text message after which nothing more is said."""

SAMPLE = np.dtype("<i2")
MAX_MESSAGE_BYTES = 256 << 10
LAST_WORDS_S = 2.0
"""For a client to take the reason why its stream ends."""

Outcome = TypeVar("Outcome")

DURATION_TOLERANCE_S = 1.0
"""How far two decoders may disagree about how long a recording is, of which formats with frames state an estimate."""
_Seconds = Annotated[float, Field(ge=0)]

NORMAL, GONE, REFUSED, RESTART, TRY_AGAIN = 1000, 1006, 1008, 1012, 1013
"""Why a socket is closed (RFC 6455, section 7.4.1, and IANA's registry for 1012 and 1013)."""


# Files of audio.


class SpeechQuery(BaseModel):
    """Options in the address of a transcription."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    language: str | None = Field(None, description="As en; default: found out.")
    task: str = Field("transcribe", description="transcribe, or translate into English.")
    beam_size: int = Field(1, ge=1, le=8, description="Hypotheses to follow.")
    timestamps: bool = Field(True, description="The model's times of segments; false: a segment per window.")
    words: bool = Field(False, description="The times of words.")
    vad: bool = Field(False, description="Transcribe only where a detector hears a voice.")
    prompt: str | None = Field(None, description="Text before it, for names and style.")

    def options(self) -> TranscribeOptions:
        """What a transcriber takes.

        Raises:
            InputError: an option has a value that no transcriber takes.
        """
        return TranscribeOptions(
            language=self.language,
            task=self.task,
            beam_size=self.beam_size,
            timestamps=self.timestamps,
            word_timestamps=self.words,
            initial_prompt=self.prompt,
            vad_filter=self.vad,
        )


class TranscriptAnswer(Answer):
    """A transcript: its text, language, length in seconds, and segments as `edgeformer-runtime run --json` has them."""

    text: str
    language: str | None = None
    duration: float | None = None
    segments: list[dict[str, Any]] = Field([])


def _transcript(result: Transcript) -> TranscriptAnswer:
    return TranscriptAnswer(confidence=_confidence(result), statistics=cost_of(result), **result.to_json())


def _confidence(transcript: Transcript) -> float:
    """The least sure segment's: the geometric mean of its tokens' probabilities. Silence is certain."""
    return min((math.exp(segment.mean_log_probability) for segment in transcript.segments), default=1.0)


class _Word(Foreign):
    start: _Seconds
    end: _Seconds
    text: str
    probability: Probability


class _Segment(Foreign):
    start: _Seconds
    end: _Seconds
    text: str
    words: list[_Word] = Field([])
    mean_log_probability: Annotated[float, Field(le=0)] | None = None
    no_speech_probability: Probability | None = None
    compression_ratio: _Seconds | None = None
    temperature: _Seconds | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=1 << 31)]] = Field([])
    doubtful: bool = False


class _Transcript(Foreign):
    text: str
    language: Annotated[str, Field(pattern="^[a-z]{2,8}$")] | None = None
    duration: _Seconds | None = None
    segments: list[_Segment] = Field([])


def _read_transcript(document: bytes, device: TranscriptAnswer, _: Manifest) -> dict[str, Any]:
    found = _Transcript.model_validate_json(document)
    length = device.duration if device.duration is not None else found.duration
    latest = float("inf") if length is None else length + DURATION_TOLERANCE_S
    if found.duration is not None and length is not None and abs(found.duration - length) > DURATION_TOLERANCE_S:
        raise ForeignAnswerError(f"duration: expected {length:g} s, found {found.duration:g}")
    _check_times("segments", found.segments, latest)
    for segment in found.segments:
        _check_times("words", segment.words, latest)
    return found.model_dump(exclude={"segments"}) | {
        "segments": [segment.model_dump(exclude_unset=True) for segment in found.segments]
    }


def _check_times(what: str, timed: Sequence[_Word | _Segment], latest: float) -> None:
    before = 0.0
    for item in timed:
        if not before <= item.start <= item.end <= latest:
            raise ForeignAnswerError(f"{what}: expected rising times of at most {latest:g} s")
        before = item.start


async def transcribe(workers: Workers, inputs: Inputs[bytes], options: TranscribeOptions) -> list[Result]:
    """Transcribe a recording window by window. What is shorter than this goes first, from the third turn on."""
    (raw,) = inputs.raws
    is_over = False
    begun: Transcription | None = None

    def is_cancelled() -> bool:
        return is_over

    def begin(pipeline: Pipeline[Any, Any]) -> tuple[Transcription, bool]:
        nonlocal begun
        begun = cast(Transcriber, pipeline).begin(raw, options, is_cancelled)
        if is_over:
            begun.close()
        return begun, begun.advance()

    with workers.place(), workers.lease() as pipeline:
        try:
            transcription, is_more = await workers.step(lambda *_: begin(pipeline))
            turns = 1
            while is_more:  # the second turn of a short audio finds that nothing is left
                is_more = await workers.step(lambda *_: transcription.advance(), is_rest=turns > 1)
                turns += 1
            return [transcription.transcript()]
        finally:
            is_over = True  # a thread that is still at a window stops at its next token
            if begun is not None:
                workers.aside(begun.close)


def add_audio_classification(app: FastAPI, service: Service) -> None:
    """Let an application classify recordings."""
    add_image_classification(app, service, kind="audio")


def add_speech_recognition(app: FastAPI, service: Service) -> None:
    """Let an application transcribe files of audio, and streams."""

    @app.post(ANSWER_PATH, summary="Transcribe a recording", **documents(TranscriptAnswer, file_body("audio")))
    async def answer(request: Request, query: Annotated[SpeechQuery, Query()]) -> Response:
        work = partial(transcribe, options=query.options())
        plan = RequestPlan(partial(read_file, kind="audio"), work, _transcript, _read_transcript)
        return await respond(service, request, plan)

    add_streams(app, service)


# Streams of audio.


def add_streams(app: FastAPI, service: Service) -> None:
    """Let an application take streams of audio.

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
    """Transcribe what a socket sends until its end.

    Raises:
        WebSocketDisconnect: the client has gone.
        Refusal, EdgeFormerError: see `hear`; or nothing came for too long.
    """
    transcript = await hear(
        service, query.options(), StreamOptions(), partial(_next_block, socket, service), partial(_send, socket)
    )
    await socket.send_json(
        {"done": True, "text": transcript.text, "language": transcript.language, "duration": transcript.duration}
    )


async def hear(
    service: Service,
    options: TranscribeOptions,
    stream_options: StreamOptions,
    next_block: Callable[[], Awaitable[NDArray[Any] | None]],
    tell: Callable[[Sequence[StreamUpdate]], Awaitable[None]],
) -> Transcript:
    """Transcribe one stream until its end; see `Service.stream_slot` for its place.

    Args:
        service: whose workers transcribe.
        options: of the transcript.
        stream_options: when text is given.
        next_block: the next samples (n,) at the bundle's rate, or None at the end, which is also the service's.
        tell: sends what is new, which may be nothing.

    Raises:
        Refusal: no text within the time for an answer, or the service ends.
        EdgeFormerError: what came is no audio, or the model failed.
    """
    rate = cast(AudioPreprocessing, service.manifest.preprocessing).sample_rate
    workers = service.workers
    limit_s = service.answer_limit_s
    is_over = False

    async def call(work: Callable[[], Outcome]) -> Outcome:
        try:
            return await asyncio.wait_for(workers.run(lambda *_: work()), limit_s)
        except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
            raise Refusal(504, f"no text within {limit_s:g} s") from None

    with workers.lease() as pipeline:
        try:
            stream = cast(Transcriber, pipeline).open_stream(options, stream_options, is_cancelled=lambda: is_over)
            left = round(service.options.stream_s * rate)
            while left > 0 and (block := await next_block()) is not None:
                left -= len(block)
                await tell(await call(partial(stream.feed, block)))
            await tell(await call(stream.finish))
        finally:
            is_over = True  # a thread that is still at a window stops at its next token
    if service.is_ending and left > 0:
        raise Refusal(503, "the service ends: open another stream")
    return stream.transcript()


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
            raise Refusal(408, f"expected audio, nothing came for {idle_s:g} s")
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
