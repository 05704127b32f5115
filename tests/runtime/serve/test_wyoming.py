"""The Wyoming protocol, spoken by the client that Home Assistant uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding.scripted import MULTILINGUAL, RATE, tone_transcriber, tones
from process import NOISE, running
from tiny_speech_bundle import RATE as TINY_RATE

pytest.importorskip("wyoming")

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.serve import wyoming
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.server import open_socket
from edgeformer_runtime.serve.service import Service, open_service
from edgeformer_runtime.serve.wyoming import WyomingServer, options_of

Talk = Callable[[AsyncTcpClient, Service, int], Awaitable[None]]


def tone_service(**changed: Any) -> Service:
    """A service whose model hears tones as letters."""

    def open_tones() -> Any:
        pipeline = tone_transcriber(**changed)
        vars(pipeline.bundle)["manifest_sha256"] = "0"
        vars(pipeline.bundle.manifest).update(target="none", precision="fp32")
        return pipeline

    return Service(open_tones, ServeOptions(stream_idle_s=5))


def converse(talk: Talk, **changed: Any) -> Service:
    """Let a client talk to a server in this process, and end both."""

    async def both() -> Service:
        service = tone_service(**changed)
        conversations: set[asyncio.Task[Any]] = set()
        with closing(open_socket("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            server = WyomingServer(service, listening)
            await server.start(conversations)
            async with AsyncTcpClient("127.0.0.1", port, read_timeout=20) as client:
                await talk(client, service, port)
            server.stop()
            service.begin_to_end()
            if conversations:
                await asyncio.wait_for(asyncio.gather(*conversations), 10)
        await service.close()
        return service

    return asyncio.run(both())


def chunks(samples: np.ndarray, rate: int = RATE, width: int = 2, channels: int = 1, size: int = 1600) -> list[Event]:
    """Audio as the client sends it: signed samples, or unsigned bytes, of as many equal channels."""
    scaled = samples * (2 ** (8 * width - 1) - 1) + (128 if width == 1 else 0)
    pcm = np.repeat(scaled[:, None], channels, axis=1).astype({1: "u1", 2: "<i2", 4: "<i4"}[width])
    return [
        AudioChunk(rate, width, channels, pcm[start : start + size].tobytes()).event()
        for start in range(0, len(pcm), size)
    ]


async def ask(client: AsyncTcpClient, audio: list[Event], transcribe: Transcribe | None = None) -> list[Event]:
    """What the service says to one utterance, up to its end or its error."""
    rate, width, channels = (audio[0].data[key] for key in ("rate", "width", "channels"))
    start = AudioStart(rate, width, channels).event()
    for event in ((transcribe or Transcribe()).event(), start, *audio, AudioStop().event()):
        await client.write_event(event)
    answers: list[Event] = []
    while (event := await client.read_event()) is not None:
        answers.append(event)
        if TranscriptStop.is_type(event.type) or Error.is_type(event.type):
            break
    return answers


def test_describe_and_ping() -> None:
    async def talk(client: AsyncTcpClient, _service: Service, _port: int) -> None:
        await client.write_event(Describe().event())
        answer = await client.read_event()
        assert answer is not None
        (program,) = Info.from_event(answer).asr
        (model,) = program.models
        assert (model.name, model.languages, model.installed) == ("tones", ["de", "en"], True)
        assert program.supports_transcript_streaming and program.requires_external_vad
        await client.write_event(Event("of-a-later-version"))
        await client.write_event(Ping("are you there").event())
        answer = await client.read_event()
        assert answer is not None
        assert Pong.from_event(answer).text == "are you there"

    converse(talk, tokens=MULTILINGUAL)


@pytest.mark.parametrize(("rate", "width", "channels"), [(16000, 2, 1), (16000, 4, 2), (48000, 2, 2), (8000, 1, 1)])
def test_utterances_in_every_format(rate: int, width: int, channels: int) -> None:
    samples = tones("ab")
    places = np.arange(len(samples) * rate // RATE) * (RATE / rate)
    resampled = np.interp(places, np.arange(len(samples)), samples)

    async def talk(client: AsyncTcpClient, service: Service, _port: int) -> None:
        for _ in range(2):  # a connection may be kept
            answers = await ask(client, chunks(resampled, rate, width, channels))
            assert [event.type for event in answers][-2:] == ["transcript", "transcript-stop"]
            assert TranscriptStart.is_type(answers[0].type)
            assert Transcript.from_event(answers[-2]) == Transcript("a b", language="en")
            parts = [TranscriptChunk.from_event(event).text for event in answers[1:-2]]
            assert "".join(parts) == "a b"
        assert "edgeformer_streams 0.0" in service.metrics.text().decode()

    converse(talk)


def test_text_arrives_while_somebody_speaks() -> None:
    """A sentence that has ended is told before the audio has."""

    async def talk(client: AsyncTcpClient, _service: Service, _port: int) -> None:
        first, second = tones("ab" + " " * 8), tones("c")
        await client.write_event(AudioStart(RATE, 2, 1).event())
        for event in chunks(first):
            await client.write_event(event)
        told = [await client.read_event() for _ in range(3)]
        assert [event.data.get("text") for event in told if event is not None] == [None, "a", " b"]
        for event in (*chunks(second), AudioStop().event()):
            await client.write_event(event)
        rest = [await client.read_event() for _ in range(3)]
        assert [event.data.get("text") for event in rest if event is not None] == [" c", "a b c", None]

    converse(talk)


def test_silence_and_nothing() -> None:
    async def talk(client: AsyncTcpClient, _service: Service, _port: int) -> None:
        silence = await ask(client, chunks(np.zeros(RATE)))
        assert [event.type for event in silence] == ["transcript-start", "transcript", "transcript-stop"]
        assert silence[1].data["text"] == ""
        await client.write_event(AudioStart(RATE, 2, 1).event())
        await client.write_event(AudioStop().event())
        assert [await client.read_event() for _ in range(3)][1].data["text"] == ""  # type: ignore[union-attr]

    converse(talk)


def test_what_a_request_asks_for() -> None:
    service = tone_service(tokens=MULTILINGUAL)
    asked = Transcribe("tones", "de-AT", transcript_names=["Küche", "Flur"], transcript_terms=["Licht"]).event()
    options = options_of(asked.data, service)
    assert (options.language, options.initial_prompt) == ("de", "Licht, Küche, Flur")
    assert options_of({}, service).initial_prompt is None
    for wrong, why in (
        ({"name": "large"}, "unknown model 'large': expected tones"),
        ({"language": 1}, "language: expected a code as en, found '1'"),
        ({"transcript_names": "Flur"}, "transcript_names: expected at most 4096 texts"),
        ({"transcript_names": ["a"] * 5000}, "transcript_names: expected at most 4096 texts"),
    ):
        with pytest.raises(InputError) as caught:
            options_of(wrong, service)
        assert str(caught.value) == why
    asyncio.run(service.close())


def test_errors_end_the_conversation_and_no_other() -> None:
    async def talk(client: AsyncTcpClient, service: Service, port: int) -> None:
        (error,) = await ask(client, chunks(tones("a")), Transcribe(language="fr"))
        assert "this model knows English only" in Error.from_event(error).text
        assert await client.read_event() is None
        mixed = [*chunks(tones("a"))[:1], *chunks(tones("a"), rate=8000)]
        for audio in (mixed, chunks(np.zeros(1000), rate=10), [AudioChunk(RATE, 3, 1, b"abc").event()]):
            async with AsyncTcpClient("127.0.0.1", port, read_timeout=20) as other:
                assert [event.type for event in await ask(other, audio)] == ["error"]
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=20) as other:
            assert (await ask(other, chunks(tones("a"))))[-2].data["text"] == "a"
        assert "edgeformer_streams 0.0" in service.metrics.text().decode()

    converse(talk)


HUGE = 1 << 40


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "expected an event's line as a JSON object, found 'GET / HTTP/1.1"),
        (b"[" * 60000 + b"\n", "expected an event's line as a JSON object"),
        (b"x" * (1 << 18), "expected an event's line of at most 65536 bytes"),
        (b"{}\n", "expected an event with a type and an object as its data"),
        (b'{"type": "describe", "data": 3}\n', "expected an event with a type and an object as its data"),
        (b'{"type": "describe", "data_length": %d}\n' % HUGE, f"data_length: expected 0 to 65536, found '{HUGE}'"),
        (b'{"type": "audio-chunk", "payload_length": -1}\n', "payload_length: expected 0 to 262144, found '-1'"),
        (b'{"type": "audio-chunk", "data_length": 2}\n[]', "expected an event's data as a JSON object"),
        (b'{"type": "ping", "data": {"text": "\\ud800"}}\n', "expected an event's line as a JSON object"),
    ],
)
def test_hostile_events(sent: bytes, why: str) -> None:
    async def talk(_client: AsyncTcpClient, _service: Service, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 10)
        head, _, data = answer.partition(b"\n")
        assert json.loads(head)["type"] == "error"
        assert json.loads(data)["text"].startswith(why)
        writer.close()

    converse(talk)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wyoming, "MOST_CONVERSATIONS", 2)

    async def talk(client: AsyncTcpClient, service: Service, port: int) -> None:
        await client.write_event(Ping().event())
        assert await client.read_event() is not None
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=20) as second:
            object.__setattr__(service.options, "max_streams", 1)
            with service.stream_slot():
                (error,) = await ask(second, chunks(tones("a")))
            assert Error.from_event(error).text == "busy: 1 streams are open: try again later"
        object.__setattr__(service.options, "stream_idle_s", 0.1)
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=20) as silent:
            answer = await silent.read_event()
            assert answer is not None
            assert Error.from_event(answer).text == "expected an event, nothing came for 0.1 s"

    converse(talk)


def test_other_bundles_are_refused(tiny_onnx: Path) -> None:
    service = open_service(tiny_onnx, ServeOptions())
    with (
        closing(open_socket("127.0.0.1", 0)) as listening,
        pytest.raises(InputError, match="--wyoming: expected a bundle for speech-recognition, found one for text-cla"),
    ):
        WyomingServer(service, listening)
    asyncio.run(service.close())


@pytest.mark.slow
def test_as_a_process(tiny_speech: Path) -> None:
    """Beside HTTP; whoever speaks when the service ends is told so."""

    async def talk(port: int, served: Any) -> None:
        samples = np.sin(np.arange(TINY_RATE) * 0.3) / 4
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=20) as client:
            answers = await ask(client, chunks(samples, TINY_RATE))
            assert [event.type for event in answers][-2:] == ["transcript", "transcript-stop"]
            assert answers[-2].data["text"]
            await client.write_event(AudioStart(TINY_RATE, 2, 1).event())
            for event in chunks(samples, TINY_RATE):
                await client.write_event(event)
            await asyncio.sleep(0.5)
            served.process.terminate()
            answer = await client.read_event()
            while answer is not None and not Error.is_type(answer.type):
                answer = await client.read_event()
            assert answer is not None
            assert Error.from_event(answer).text == "the service ends: open another stream"

    with running([*NOISE, str(tiny_speech), "--wyoming"]) as served:
        assert served.process.stdout is not None
        port = int(served.process.stdout.readline().rpartition(":")[2])
        asyncio.run(talk(port, served))
        assert served.process.wait(30) == 0
