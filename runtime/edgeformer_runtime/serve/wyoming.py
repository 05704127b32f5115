"""Wyoming, the protocol of Home Assistant's voice services: transcripts of audio that arrives over TCP.

An event is a line of JSON, {"type", "data", "data_length", "payload_length"}, then so many bytes of JSON that belong to
its data, then so many of payload (https://github.com/OHF-Voice/wyoming). Events are read here and not by the package
`wyoming`, which takes whatever length a stranger states.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.specs import AudioPreprocessing, Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.tokenizer import join_texts
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate
from edgeformer_runtime.preprocess.audio import PcmStream
from edgeformer_runtime.serve.inputs import Refusal
from edgeformer_runtime.serve.options import WRITE_S
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.serve.streams import LAST_WORDS_S, MAX_MESSAGE_BYTES, hear
from edgeformer_runtime.tasks.task import TASKS

MAX_LINE_BYTES = MAX_DATA_BYTES = 64 << 10
"""Of an event's line and of the data behind it: a request may name some thousand things of a home."""
MAX_NAMES = 4096
MOST_CONVERSATIONS = 32
"""Connections at a time; a voice assistant opens one for each utterance."""

_ATTRIBUTION = {"name": "EdgeFormer", "url": ""}

_logger = logging.getLogger("edgeformer_runtime.serve")


@dataclass(frozen=True)
class Event:
    """One message, in either direction.

    Attributes:
        type: as "audio-chunk".
        data: its JSON object.
        payload: the samples of an audio chunk.
    """

    type: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """The event as it is sent; ours have no payload."""
        data = json.dumps(self.data, ensure_ascii=False).encode()
        head = {"type": self.type, "version": __version__, "data_length": len(data)}
        return json.dumps(head).encode() + b"\n" + data


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event, None where the connection ends between two.

    Raises:
        InputError: what came is no event, or is longer than one may be.
        IncompleteReadError: the connection ended within it.
    """
    try:
        line = await reader.readline()
    except ValueError:
        raise InputError(f"expected an event's line of at most {MAX_LINE_BYTES} bytes") from None
    if not line:
        return None
    head = _json_object(line, "an event's line")
    name, data = head.get("type"), head.get("data") or {}
    if not isinstance(name, str) or not isinstance(data, dict):
        raise InputError(f"expected an event with a type and an object as its data, found {shorten(str(head))}")
    length = _length(head, "data_length", MAX_DATA_BYTES)
    if length:
        data = data | _json_object(await reader.readexactly(length), "an event's data")
    return Event(name, data, await reader.readexactly(_length(head, "payload_length", MAX_MESSAGE_BYTES)))


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = strict_json.loads(text, what, MAX_LINE_BYTES)  # which refuses half characters, which could not be sent
    except BundleError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"expected {what} as a JSON object, found {shorten(text[:80].decode(errors='replace'))}")
    return found


def _length(head: dict[str, Any], key: str, most: int) -> int:
    length = head.get(key) or 0
    if not isinstance(length, int) or not 0 <= length <= most:
        raise InputError(f"{key}: expected 0 to {most}, found {shorten(str(length))}")
    return length


def info(service: Service) -> Event:
    """What the service is, as an answer to `describe`."""
    manifest = service.manifest
    languages = sorted(cast(Transcription, manifest.postprocessing).tokens.languages) or ["en"]
    about = {"attribution": _ATTRIBUTION, "installed": True, "version": __version__}
    model = {"name": manifest.name, "description": f"{manifest.name}, {manifest.precision}", "languages": languages}
    program = {
        "name": "edgeformer",
        "description": "EdgeFormer, speech recognition on this device",
        "models": [model | about],
        "supports_transcript_streaming": True,
        "requires_external_vad": True,
    }
    nothing: dict[str, Any] = {kind: [] for kind in ("tts", "handle", "intent", "wake", "mic", "snd")}
    return Event("info", {"asr": [program | about], **nothing})


def options_of(asked: dict[str, Any], service: Service) -> TranscribeOptions:
    """What a `transcribe` event asks for. Names that it hopes for are the prompt, the likelier ones last.

    Raises:
        InputError: another model than this one, or values of another kind.
    """
    manifest = service.manifest
    name, language = asked.get("name"), asked.get("language")
    if name not in (None, manifest.name):
        raise InputError(f"unknown model {shorten(str(name))}: expected {manifest.name}")
    if language is not None and not isinstance(language, str):
        raise InputError(f"language: expected a code as en, found {shorten(str(language))}")
    hopes: list[str] = []
    for key in ("transcript_terms", "transcript_names"):
        found = asked.get(key) or []
        if not isinstance(found, list) or len(found) > MAX_NAMES or not all(isinstance(each, str) for each in found):
            raise InputError(f"{key}: expected at most {MAX_NAMES} texts")
        hopes += found
    known = cast(Transcription, manifest.postprocessing).tokens.languages or {"en": 0}
    if language is not None and language not in known:
        language = language.replace("_", "-").partition("-")[0].lower()  # en-US
    return TranscribeOptions(language=language or None, initial_prompt=", ".join(hopes) or None)


class Conversation:
    """What one client says, and what it is told."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `WyomingServer`."""
        self._service = service
        self._reader = reader
        self._writer = writer
        self._asked: dict[str, Any] = {}
        self._text = ""
        self._pcm: PcmStream | None = None
        self._format: tuple[Any, ...] = ()
        self._is_told = False

    async def run(self) -> None:
        """Answer until the client goes, or says what cannot be answered, which it is told."""
        try:
            while (event := await self._next()) is not None:
                await self._answer(event)
        except (Refusal, EdgeFormerError) as error:
            with suppress(asyncio.TimeoutError, ConnectionError):
                await asyncio.wait_for(self._send(Event("error", {"text": str(error)})), LAST_WORDS_S)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # who spoke has gone
        finally:
            self._writer.close()

    async def _answer(self, event: Event) -> None:
        """Unknown events are dropped, as the protocol wants it."""
        if event.type == "describe":
            await self._send(info(self._service))
        elif event.type == "ping":
            await self._send(Event("pong", {"text": event.data.get("text")}))
        elif event.type == "transcribe":
            self._asked = event.data
        elif event.type in ("audio-start", "audio-chunk"):
            await self._transcribe(event)
            self._asked = {}

    async def _transcribe(self, first: Event) -> None:
        """One utterance, from its first event to its transcript."""
        self._text, self._pcm, self._is_told = "", None, False
        options = options_of(self._asked, self._service)
        # Text is sent once it stays, so that no guesses are made.
        stream_options = StreamOptions(partial_seconds=self._service.options.stream_s)
        next_block = partial(self._next_block, [first])
        with self._service.stream_slot():
            hearing = hear(self._service, options, stream_options, next_block, self._tell)
            transcript = await self._service.unless_ended(hearing)
        language = {} if transcript.language is None else {"language": transcript.language}
        if not self._is_told:
            await self._send(Event("transcript-start", language))
        await self._send(Event("transcript", {"text": transcript.text, **language}))
        await self._send(Event("transcript-stop"))

    async def _tell(self, updates: Sequence[StreamUpdate]) -> None:
        for segment in (segment for update in updates for segment in update.final):
            if not self._is_told:
                await self._send(Event("transcript-start"))
                self._is_told = True
            text = join_texts((self._text, segment.text))
            await self._send(Event("transcript-chunk", {"text": text[len(self._text) :]}))
            self._text = text

    async def _next_block(self, waiting: list[Event]) -> NDArray[np.float32] | None:
        """The samples of the next chunk; None at the end of the utterance, which the client's leaving is, too."""
        while (event := waiting.pop() if waiting else await self._next()) is not None:
            if event.type == "audio-chunk":
                return self._samples(event)
            if event.type == "audio-stop":
                pcm, self._pcm = self._pcm, None
                if pcm is None or not len(rest := pcm.finish()):
                    return None
                waiting.append(event)
                return rest
        if not self._service.is_ending:
            raise ConnectionResetError
        return None

    def _samples(self, chunk: Event) -> NDArray[np.float32]:
        """Samples at the model's rate. All chunks of an utterance have one format."""
        stated = tuple(chunk.data.get(key) for key in ("rate", "width", "channels"))
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in stated):
            raise InputError(
                f"audio-chunk: expected rate, width and channels as integers, found {shorten(str(stated))}"
            )
        if self._pcm is None:
            rate = cast(AudioPreprocessing, self._service.manifest.preprocessing).sample_rate
            self._pcm = PcmStream(*cast(tuple[int, int, int], stated), rate)
            self._format = stated
        if stated != self._format:
            raise InputError(f"audio-chunk: expected {self._format} as before, found {stated}")
        return self._pcm.feed(chunk.payload)

    async def _next(self) -> Event | None:
        """The next event; None where the client has gone, or the service ends.

        Raises:
            Refusal: nothing came for too long.
        """
        idle_s = self._service.options.stream_idle_s
        reading = asyncio.ensure_future(read_event(self._reader))
        ending = asyncio.ensure_future(self._service.ending.wait())
        try:
            await asyncio.wait((reading, ending), timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            if ending.done():
                return None
            raise Refusal(408, f"expected an event, nothing came for {idle_s:g} s")
        finally:
            reading.cancel()
            ending.cancel()

    async def _send(self, event: Event) -> None:
        """Send to a client that reads.

        Raises:
            ConnectionError: it reads nothing, or has gone.
        """
        self._writer.write(event.to_bytes())
        try:
            await asyncio.wait_for(self._writer.drain(), WRITE_S)
        except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
            self._writer.transport.abort()
            raise ConnectionResetError from None


class WyomingServer:
    """Takes connections at a socket while a service answers."""

    def __init__(self, service: Service, listening: socket.socket) -> None:
        """Take none yet.

        Raises:
            InputError: the bundle is none for speech.
        """
        manifest = service.manifest
        if not TASKS[manifest.task].gives.streams:
            raise InputError(f"--wyoming: expected a bundle for speech-recognition, found one for {manifest.task}")
        self._service = service
        self._listening = listening
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._waited_for: set[asyncio.Task[Any]] = set()

    async def start(self, waited_for: set[asyncio.Task[Any]]) -> None:
        """Take connections.

        Args:
            waited_for: the tasks that the end of the process waits for; each conversation is one.
        """
        self._waited_for = waited_for
        self._server = await asyncio.start_server(self._welcome, sock=self._listening, limit=MAX_LINE_BYTES)

    def stop(self) -> None:
        """Take none any more; conversations end with the service."""
        if self._server is not None:
            self._server.close()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONVERSATIONS:
            writer.transport.abort()
            self._service.metrics.closed.labels("too many conversations").inc()
            return
        task = asyncio.ensure_future(Conversation(self._service, reader, writer).run())
        for tasks in (self._open, self._waited_for):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _logger.error("a conversation failed: %s: %s", type(error).__name__, error, exc_info=error)
