"""In doubt a bigger model is asked, over real sockets. Whatever it does, there is an answer that says whose it is."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from served import Connect, open_noise

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.serve.options import FallbackOptions

OTHER = "its answer is another than expected: "
GOOD = {"labels": ["weather", "lights"], "scores": [0.9, 0.1]}


class Elsewhere(BaseHTTPRequestHandler):
    """A bigger model that answers as it is told."""

    answer: ClassVar[Callable[[], tuple[int, bytes]]]
    headers_of_answer: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append({"path": self.path, "headers": dict(self.headers), "body": body})
        status, document = type(self).answer()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | self.headers_of_answer).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(document)))
        self.end_headers()
        self.wfile.write(document)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, type[Elsewhere]]]:
    class Handler(Elsewhere):
        asked: ClassVar[list[dict[str, Any]]] = []
        answer = staticmethod(lambda: (200, json.dumps(GOOD).encode()))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/answer", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_doubtful_answers_come_from_elsewhere(
    connect: Connect, tiny_onnx: Path, elsewhere: tuple[str, type[Elsewhere]]
) -> None:
    url, handler = elsewhere
    plain = connect(tiny_onnx).post("/v1/answer", json={"text": "hello"}).json()
    client = connect(tiny_onnx, fallback=FallbackOptions(url, below=1.0))
    answer = client.post("/v1/answer?top=2", json={"text": "hello"}).json()
    assert (answer["labels"], answer["scores"]) == (GOOD["labels"], GOOD["scores"])
    assert (answer["answered_by"], answer["confidence"]) == ("fallback", plain["confidence"])
    (asked,) = handler.asked
    assert asked["path"] == "/v1/answer?top=2"
    assert json.loads(asked["body"]) == {"text": "hello"}
    assert asked["headers"]["Content-Type"] == "application/json"
    assert 'edgeformer_fallbacks_total{answered_by="fallback"} 1.0' in client.get("/metrics").text

    sure = connect(tiny_onnx, fallback=FallbackOptions(url, below=plain["confidence"]))
    assert sure.post("/v1/answer", json={"text": "hello"}).json()["answered_by"] == "device"
    # Who is asked by a device in doubt asks nobody else.
    from_device = client.post("/v1/answer", json={"text": "hello"}, headers={"X-EdgeFormer-Fallback": "1"})
    assert from_device.json()["scores"] == plain["scores"]
    assert len(handler.asked) == 1


def test_only_the_doubtful_inputs_leave(
    connect: Connect, tiny_onnx: Path, elsewhere: tuple[str, type[Elsewhere]]
) -> None:
    url, handler = elsewhere
    inputs = [{"text": "hello"}, {"text": "turn the lights off"}, {"token_ids": [2, 9, 3]}]
    plain = connect(tiny_onnx).post("/v1/answer", json={"inputs": inputs}).json()["answers"]
    limit = sorted(answer["confidence"] for answer in plain)[-1]
    expected = ["device" if answer["confidence"] >= limit else "fallback" for answer in plain]
    assert set(expected) == {"device", "fallback"}
    client = connect(tiny_onnx, fallback=FallbackOptions(url, below=limit))
    answers = client.post("/v1/answer", json={"inputs": inputs}).json()["answers"]
    assert [answer["answered_by"] for answer in answers] == expected
    left = [json.loads(asked["body"]) for asked in handler.asked]
    assert sorted(map(str, left)) == sorted(
        str(given) for given, who in zip(inputs, expected, strict=True) if who == "fallback"
    )


def scores(labels: list[str], values: str) -> Callable[[], tuple[int, bytes]]:
    return lambda: (200, f'{{"labels": {json.dumps(labels)}, "scores": {values}}}'.encode())


def slow() -> tuple[int, bytes]:
    time.sleep(1)
    return 200, b"{}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (slow, "no answer within 0.3 s"),
        (lambda: (503, b"busy"), "it answered with the status 503"),
        (lambda: (302, b""), "it answered with the status 302"),
        (lambda: (200, b"no json"), OTHER + "Invalid JSON"),
        (lambda: (200, b'{"text": "x"}'), OTHER + "labels: Field required"),
        (lambda: (200, b" " * (5 << 20)), "its answer has more than"),
        (
            scores(["weather", "lights"], "[7, 0.1]"),
            OTHER + "scores.0: Input should be less",
        ),
        (
            scores(["weather", "lights"], "[0.9, -0.1]"),
            OTHER + "scores.1: Input should be",
        ),
        (scores(["weather", "lights"], "[NaN, 0.1]"), OTHER + "scores.0: Input should be"),
        (scores(["weather", "lights"], "[Infinity, 0]"), OTHER + "scores.0: Input should"),
        (
            scores(["weather", "lights"], '["0.9", 0.1]'),
            OTHER + "scores.0: Input should be",
        ),
        (scores(["weather", "lights"], "[0.1, 0.9]"), OTHER + "scores: expected the best"),
        (
            scores(["weather", "lights"], "[0.9, 0.8]"),
            OTHER + "scores: expected a sum of 1",
        ),
        (
            scores(["weather", "lights", "greeting"], "[0.3, 0.1, 0.1]"),
            OTHER + "scores: exp",
        ),
        (scores(["weather"], "[0.9, 0.1]"), OTHER + "scores: expected one for each of 1"),
        (scores([], "[]"), OTHER + "labels: List should have at least 1 item"),
        (
            scores(["weather", "sell all"], "[0.9, 0.1]"),
            OTHER + "labels: expected each of",
        ),
        (scores(["weather", "weather"], "[0.5, 0.5]"), OTHER + "labels: expected each of"),
    ],
)
def test_no_use_of_the_fallback(
    connect: Connect,
    tiny_onnx: Path,
    elsewhere: tuple[str, type[Elsewhere]],
    answer: Callable[[], tuple[int, bytes]],
    reason: str,
) -> None:
    url, handler = elsewhere
    handler.answer = staticmethod(answer)
    client = connect(tiny_onnx, fallback=FallbackOptions(url, below=1.0, timeout_s=0.3 if answer is slow else 20))
    given = client.post("/v1/answer", json={"text": "hello"})
    assert given.status_code == 200
    assert given.json()["answered_by"] == "device"
    assert given.json()["fallback_error"].startswith(reason)
    assert sum(given.json()["scores"]) == pytest.approx(1)
    assert 'edgeformer_fallbacks_total{answered_by="device"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a" * (1 << 16)),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
    ],
    ids=["silent", "slow head", "slow body", "giant head", "no HTTP"],
)
def test_an_answer_that_never_ends(connect: Connect, tiny_onnx: Path, begin: bytes, part: bytes) -> None:
    is_over = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(begin)
            while not is_over.wait(0.02):
                connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/answer"
        client = connect(tiny_onnx, fallback=FallbackOptions(url, below=1.0, timeout_s=0.5))
        answer = client.post("/v1/answer", json={"text": "hello"}).json()
        is_over.set()
        thread.join()
    assert answer["answered_by"] == "device"
    assert answer["fallback_error"].startswith(("no answer within 0.5 s", "RemoteProtocolError"))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Content-Type": "text/html"}, "its answer has the content type 'text/html', expected application/json"),
        ({"Content-Encoding": "gzip"}, "its answer is compressed"),
    ],
)
def test_documents_of_another_kind(
    connect: Connect,
    tiny_onnx: Path,
    elsewhere: tuple[str, type[Elsewhere]],
    headers: dict[str, str],
    reason: str,
) -> None:
    url, handler = elsewhere
    handler.headers_of_answer = headers
    client = connect(tiny_onnx, fallback=FallbackOptions(url, below=1.0))
    answer = client.post("/v1/answer", json={"text": "hello"}).json()
    assert (answer["answered_by"], answer["fallback_error"][: len(reason)]) == ("device", reason)


SEGMENT = {"start": 0.0, "end": 0.5, "text": "what was said"}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"text": 1}, "text: Input should be a valid string"),
        ({"text": "a", "language": "English!"}, "language: String should match"),
        ({"text": "a", "duration": 7200.0}, "duration: expected 1 s, found 7200"),
        ({"text": "a", "segments": [SEGMENT | {"end": 90.0}]}, "segments: expected rising times of at most 2 s"),
        ({"text": "a", "segments": [SEGMENT | {"start": 0.6}]}, "segments: expected rising times"),
        ({"text": "a", "segments": [SEGMENT | {"start": -1.0}]}, "segments.0.start: Input should be greater"),
        ({"text": "a", "segments": [SEGMENT | {"no_speech_probability": 1.5}]}, "segments.0.no_speech_probability: "),
        ({"text": "a", "segments": [SEGMENT, SEGMENT | {"words": [SEGMENT]}]}, "segments.1.words.0.probability: "),
    ],
)
def test_transcripts_that_are_not_believed(
    connect: Connect, tiny_speech: Path, elsewhere: tuple[str, type[Elsewhere]], found: dict[str, Any], reason: str
) -> None:
    url, handler = elsewhere
    handler.answer = staticmethod(lambda: (200, json.dumps(found).encode()))
    audio = (tiny_speech / "vectors" / "audio.wav").read_bytes()
    client = connect([open_noise(tiny_speech)], fallback=FallbackOptions(url, below=1.0))
    answer = client.post("/v1/answer", content=audio, headers={"Content-Type": "audio/wav"}).json()
    assert answer["answered_by"] == "device"
    assert answer["fallback_error"].startswith(OTHER + reason)


def test_nobody_there(connect: Connect, tiny_onnx: Path) -> None:
    client = connect(tiny_onnx, fallback=FallbackOptions("http://127.0.0.1:1/v1/answer", below=1.0))
    answer = client.post("/v1/answer", json={"text": "hello"}).json()
    assert (answer["answered_by"], answer["fallback_error"].split(":")[0]) == ("device", "ConnectError")


def test_audio_goes_with_its_options(
    connect: Connect, tiny_speech: Path, elsewhere: tuple[str, type[Elsewhere]]
) -> None:
    url, handler = elsewhere
    said = {
        "text": "what was said",
        "language": "en",
        "duration": 1.0,
        "segments": [SEGMENT | {"doubtful": True}],
        "unknown": 1,
    }
    handler.answer = staticmethod(lambda: (200, json.dumps(said).encode()))
    audio = (tiny_speech / "vectors" / "audio.wav").read_bytes()
    client = connect([open_noise(tiny_speech)], fallback=FallbackOptions(url, below=1.0))
    answer = client.post("/v1/answer?language=en", content=audio, headers={"Content-Type": "audio/wav"}).json()
    assert (answer["answered_by"], answer["text"]) == ("fallback", "what was said")
    assert (answer["segments"], "unknown" in answer) == ([SEGMENT | {"doubtful": True}], False)
    assert (handler.asked[0]["body"], handler.asked[0]["path"]) == (audio, "/v1/answer?language=en")
    assert handler.asked[0]["headers"]["Content-Type"] == "audio/wav"


def test_embeddings_have_no_doubt(connect: Connect, tiny_embedder: Path) -> None:
    from tiny_bundle import TinyEngine

    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.pipelines import open_pipeline

    pipeline = open_pipeline(Bundle.open(tiny_embedder), TinyEngine(embeds=True), owned=True)
    with pytest.raises(InputError, match="embeddings have no confidence"):
        connect([pipeline], fallback=FallbackOptions("http://127.0.0.1/"))
