"""What the service refuses, with which status, and that refusing costs it nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from served import Connect, open_noise
from starlette.websockets import WebSocketDisconnect
from tiny_bundle import TinyEngine

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.serve.inputs import read_texts
from edgeformer_runtime.serve.options import FallbackOptions, ServeOptions

STREAM = "ws://127.0.0.1/v1/stream"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "problem"),
    [
        (b"{", JSON, 400, "expected JSON: EOF while parsing"),
        (b'{"text": "\xff"}', JSON, 400, "expected JSON"),
        (b'{"text": "\\ud800"}', JSON, 400, "expected JSON"),
        (b"[" * 5000, JSON, 400, "expected JSON: recursion limit exceeded"),
        (b"[]", JSON, 422, "valid dictionary"),
        (b"{}", JSON, 422, 'expected {"text"}, {"text", "pair"} or {"token_ids"}'),
        (b'{"text": 1}', JSON, 422, "text: Input should be a valid string"),
        (b'{"text": "a", "txt": "b"}', JSON, 422, "txt: expected none but text, pair, token_ids"),
        (b'{"pair": "a", "token_ids": [1]}', JSON, 422, "expected"),
        (b'{"token_ids": [1, 99]}', JSON, 422, "token id 99 is out of range"),
        (b'{"inputs": [{"txt": "a"}]}', JSON, 422, "txt: expected none but text, pair, token_ids"),
        (b'{"inputs": [{"text": "a"}], "text": "a"}', JSON, 422, "text: expected none but inputs"),
        (b'{"inputs": []}', JSON, 422, "inputs: List should have at least 1 item"),
        (b'{"inputs": [{"text": "a"}, {"token_ids": [-1]}]}', JSON, 422, "inputs.1: token id -1"),
        (b'{"inputs": [{"text": "a"}, {"text": "a"}, {"text": "a"}]}', JSON, 413, "at most 2 inputs"),
        (b'{"text": "' + b"a" * 2000 + b'"}', JSON, 413, "at most 1000 bytes"),
        (b'{"text": "a"}', {}, 415, "expected Content-Type: application/json, found none"),
        (b'{"text": "a"}', {"Content-Type": "text/plain"}, 415, "found text/plain"),
        (b'{"text": "a"}', JSON | {"Content-Encoding": "gzip"}, 415, "compressed"),
        (b'{"text": "a"}', JSON | {"Transfer-Encoding": "gzip, chunked"}, 415, "no Transfer-Encoding but chunked"),
        (b'{"text": "a"}', JSON | {"Host": "example.com"}, 421, "expected Host to be one of"),
        (b'{"text": "a"}', JSON | {"Host": ""}, 421, "found ''"),
        (b'{"text": "a"}', JSON | {"Origin": "http://example.com"}, 403, "another site"),
    ],
)
def test_texts_that_are_refused(
    connect: Connect, tiny_onnx: Path, body: bytes, headers: dict[str, str], status: int, problem: str
) -> None:
    client = connect(tiny_onnx, max_body_bytes=1000 if status == 413 else 10000, max_inputs=2)
    refused = client.post("/v1/answer", content=body, headers=headers)
    assert refused.status_code == status
    assert list(refused.json()) == ["error"]
    assert problem in refused.json()["error"]
    assert client.post("/v1/answer", json={"text": "hello"}).status_code == 200
    assert client.get("/health").json() == {"status": "ready", "unanswered": 0}
    assert "edgeformer_held_bytes 0.0" in client.get("/metrics").text


JSON_BYTES = 8 << 20


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" + b"[]," * (JSON_BYTES // 3) + b"1]", 413),
        (b'{"token_ids": [' + b"1," * (JSON_BYTES // 2) + b"1]}", 413),
        (b'{"inputs": [' + b'{"text":""},' * (JSON_BYTES // 12) + b'{"text":""}]}', 413),
        (b"{" + b",".join(b'"%d":1' % number for number in range(1 << 19)) + b"}", 413),
        (b"{" + b",".join(b'"%d":1' % number for number in range(1 << 17)) + b"}", 422),
        (b'{"token_ids": [' + b'"a",' * (1 << 17) + b"1]}", 422),
        (b'"' * JSON_BYTES + b"," * (1 << 19), 413),
    ],
    ids=["lists", "ids", "inputs", "keys", "fewer keys", "wrong ids", "quotes"],
)
def test_documents_that_would_take_seconds(connect: Connect, tiny_onnx: Path, body: bytes, status: int) -> None:
    before = psutil.Process().memory_info().rss
    answer = connect(tiny_onnx).post("/v1/answer", content=body, headers=JSON)
    assert answer.status_code == status, answer.text[:200]
    assert psutil.Process().memory_info().rss - before < 200 << 20


@pytest.mark.parametrize("text", ['",' * (1 << 18), "[{," * (1 << 18), "\\\\," * (1 << 18)])
def test_texts_with_any_number_of_commas_are_one_value(text: str) -> None:
    assert read_texts(json.dumps({"text": text}).encode(), JSON["Content-Type"], 1).raws == (text,)


def test_body_without_a_length_is_cut_off_at_the_limit(connect: Connect, tiny_onnx: Path) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b" " * 100

    refused = connect(tiny_onnx, max_body_bytes=1000).post("/v1/answer", content=endless(), headers=JSON)
    assert refused.status_code == 413


def test_files_that_are_refused(connect: Connect, tiny_image_onnx: Path, tiny_speech: Path) -> None:
    image, audio = connect(tiny_image_onnx), connect([open_noise(tiny_speech)])
    for client, content_type, body, status, problem in (
        (image, "image/png", b"no image", 422, "is not an image"),
        (image, "image/png", b"", 422, "found nothing"),
        (image, "audio/wav", b"x", 415, "Content-Type: image/..."),
        (image, "application/json", b"{}", 415, "Content-Type: image/..."),
        (audio, "audio/wav", b"no audio", 422, "is not an audio file"),
        (audio, "image/png", b"x", 415, "Content-Type: audio/..."),
    ):
        refused = client.post("/v1/answer", content=body, headers={"Content-Type": content_type})
        assert (refused.status_code, problem in refused.json()["error"]) == (status, True), refused.text


@pytest.mark.parametrize(
    ("query", "problem"), [("top=0", "query.top: "), ("top=x", "query.top: "), ("tops=1", "query.tops: ")]
)
def test_options_that_are_refused(connect: Connect, tiny_onnx: Path, query: str, problem: str) -> None:
    refused = connect(tiny_onnx).post(f"/v1/answer?{query}", json={"text": "a"})
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(problem)


def test_addresses_that_are_refused(connect: Connect, tiny_onnx: Path) -> None:
    client = connect(tiny_onnx)
    assert (client.get("/nowhere").status_code, client.get("/nowhere").json()) == (404, {"error": "Not Found"})
    assert client.get("/v1/answer").status_code == 405


class SlowEngine(TinyEngine):
    """Answers when it is told to, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go, self.runs = threading.Semaphore(0), threading.Event(), 0
        self.error: Exception | None = None

    def run(self, program: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self.started.release()
        assert self.go.wait(20)
        self.runs += 1
        if self.error is not None:
            raise self.error
        return super().run(program, inputs)


def test_too_many_requests_are_told_to_come_again(connect: Connect, tiny: Path) -> None:
    engine = SlowEngine()
    client = connect([open_pipeline(Bundle.open(tiny), engine, owned=True)], max_waiting=2)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.post, "/v1/answer", json={"text": "hello"}) for _ in range(3)]
        assert engine.started.acquire(timeout=20)
        while client.get("/health").json()["unanswered"] < 3:
            pass
        refused = client.post("/v1/answer", json={"text": "hello"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"error": "busy: 3 requests are waiting: try again later"}
        engine.go.set()
        answers = [future.result() for future in asked]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert engine.runs == 3


def test_memory_for_bodies_is_bounded(connect: Connect, tiny: Path) -> None:
    engine = SlowEngine()
    limits = {"max_body_bytes": 1000, "max_waiting_bytes": 1000}
    client = connect([open_pipeline(Bundle.open(tiny), engine, owned=True)], **limits)
    body = b'{"text": "' + b"a" * 700 + b'"}'
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/v1/answer", content=body, headers=JSON)
        assert engine.started.acquire(timeout=20)
        refused = client.post("/v1/answer", content=body, headers=JSON)
        assert (refused.status_code, "fill the memory" in refused.json()["error"]) == (503, True)
        engine.go.set()
        assert asked.result().status_code == 200
    assert client.post("/v1/answer", content=body, headers=JSON).status_code == 200


def test_a_model_that_fails(connect: Connect, tiny: Path) -> None:
    engine = SlowEngine()
    engine.go.set()
    client = connect([open_pipeline(Bundle.open(tiny), engine, owned=True)])
    for error, message in (
        (EngineError("the model gave NaN"), "the model gave NaN"),
        (ZeroDivisionError("a secret"), "unexpected ZeroDivisionError: the service's log has more"),
    ):
        engine.error = error
        failed = client.post("/v1/answer", json={"text": "hello"})
        assert (failed.status_code, failed.json()) == (500, {"error": message})
    engine.error = None
    assert client.post("/v1/answer", json={"text": "hello"}).status_code == 200


def test_streams_that_are_refused(connect: Connect, tiny_speech: Path) -> None:
    client = connect([open_noise(tiny_speech)], max_streams=1, stream_idle_s=0.2)
    for message, code, problem in (
        ({"bytes": b"odd"}, 1008, "expected messages of 16 bit samples, or the text 'end', found 3 bytes"),
        ({"text": "stop"}, 1008, "found the text 'stop'"),
        (None, 1008, "nothing came for 0.2 s"),
    ):
        with client.websocket_connect(STREAM) as socket:
            if message is not None:
                socket.send({"type": "websocket.receive"} | message)
            assert problem in socket.receive_json()["error"]
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert closed.value.code == code
    with client.websocket_connect(STREAM), client.websocket_connect(STREAM) as second:
        assert second.receive_json() == {"error": "busy: 1 streams are open: try again later"}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM, headers={"Origin": "http://x.org"}):
        pass


def test_a_stream_ends_at_its_longest(connect: Connect, tiny_speech: Path) -> None:
    client = connect([open_noise(tiny_speech)], stream_s=1.0)
    with client.websocket_connect(STREAM) as socket:
        for _ in range(5):
            socket.send_bytes(bytes(4000))
        while "done" not in (message := socket.receive_json()):
            pass
    assert message["duration"] == 1.0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: FallbackOptions("ftp://x"), "expected an http or https address"),
        (lambda: FallbackOptions("http://x", below=0), "above 0 and at most 1"),
        (lambda: FallbackOptions("http://x", timeout_s=float("inf")), "expected seconds above 0"),
        (lambda: ServeOptions(workers=0), "workers: expected a number above 0"),
        (lambda: ServeOptions(max_body_bytes=1 << 40), "max_waiting_bytes: expected at least max_body_bytes"),
    ],
)
def test_limits_that_are_refused(make: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make()  # type: ignore[operator]
