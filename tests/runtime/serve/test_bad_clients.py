"""A real service under clients that mean it no good: it stays small, says why it refuses, and answers the others."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from process import Served, odd
from raw_client import (
    HOST,
    POST_JSON,
    UPGRADE,
    answers,
    ask,
    connect,
    exchange,
    get,
    metric,
    received,
    text_request,
    wait_for,
)

pytestmark = pytest.mark.slow

CHUNKED = POST_JSON + b"Transfer-Encoding: chunked\r\n\r\n"
MEGABYTE = b"a" * (1 << 20)


@pytest.fixture(scope="module")
def service(tiny_onnx: Path) -> Iterator[Served]:
    """With little patience; at the end it still answers, and its log has no traceback."""
    with odd(tiny_onnx, max_connections=48, head_s=1.0, upload_s=1.0, answer_s=5.0, finish_s=5.0) as served:
        yield served
        assert ask(served.port, "hello").status == 200
        assert metric(served.port, "edgeformer_unanswered_requests") == 0
        assert metric(served.port, "edgeformer_held_bytes") == 0
        assert served.end() == 0
        log = served.log()
    assert "Traceback" not in log
    assert len(log.splitlines()) < 50


def resident_mb(served: Served) -> float:
    return psutil.Process(served.process.pid).memory_info().rss / 1e6


@pytest.mark.parametrize(
    "head",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: ",
        b"GET / HTTP/1.1\r\n" + HOST,
        UPGRADE + b"X: ",
        CHUNKED + b"1;",
        CHUNKED + b"1\r\n{\r\n0\r\nX: ",
    ],
    ids=["address", "header", "name", "upgrade", "chunk extension", "trailer"],
)
def test_a_giant_head_is_refused_before_memory_grows(service: Served, head: bytes) -> None:
    before = resident_mb(service)
    refused = exchange(service.port, head, *[MEGABYTE] * 100)
    assert refused.status == 431
    assert refused.json() == {"error": "expected a head of at most 16384 bytes, found more"}
    assert resident_mb(service) < before + 10


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
    ],
)
def test_where_a_request_ends_is_never_in_doubt(service: Served, framing: bytes) -> None:
    """What two readers could end at different places is refused, and nothing behind it is taken for a request."""
    smuggled = b"0\r\n\r\n" + text_request("hello")
    refused = exchange(service.port, POST_JSON + b"Connection: close\r\n" + framing + b"\r\n" + smuggled)
    assert refused.status in (400, 415)
    assert list(refused.json()) == ["error"]


@pytest.mark.parametrize("upgrade", [b"GET / HTTP/1.1\r\n" + HOST, UPGRADE], ids=["get", "upgrade"])
def test_many_headers_are_refused(service: Served, upgrade: bytes) -> None:
    assert exchange(service.port, upgrade + b"a:b\r\n" * 5000 + b"\r\n").status == 431


def test_what_a_websocket_cannot_have_is_refused(service: Served) -> None:
    assert exchange(service.port, UPGRADE + b"a:b\r\n" * 120 + b"\r\n").status == 431
    assert exchange(service.port, UPGRADE + b"a: " + b"b" * 8190 + b"\r\n\r\n").status == 431


def test_a_head_of_some_kilobytes_is_taken(service: Served) -> None:
    head = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\nCookie: " + b"a" * 12000 + b"\r\n\r\n"
    assert exchange(service.port, head).status == 200


def test_requests_one_behind_the_other_are_answered_in_order(service: Served) -> None:
    texts = ["hello", "turn the lights off", "on"] * 100
    alone = {text: ask(service.port, text).json()["scores"] for text in set(texts)}
    with connect(service.port) as connection:
        requests = b"".join(text_request(text, index == 299) for index, text in enumerate(texts))
        sending = threading.Thread(target=connection.sendall, args=(requests,))
        sending.start()
        found = list(answers(received(connection)))
        sending.join()
    assert [answer.json()["scores"] for answer in found] == [alone[text] for text in texts]


def test_an_answer_before_the_body_is_complete_ends_the_connection(service: Served) -> None:
    """And says so: a client that keeps connections would send its next request into a closed one, and lose it."""
    head = POST_JSON + b"Content-Length: %d\r\n\r\n" % (1 << 30)
    for part in (b"{", b""):
        refused = exchange(service.port, head + part)
        assert (refused.status, refused.headers["connection"]) == (413, "close")
    with connect(service.port) as connection:
        connection.sendall(text_request("hello", last=False))
        first = connection.recv(1 << 16)
        assert b"connection" not in first.lower().partition(b"\r\n\r\n")[0]
        connection.sendall(text_request("hello"))
        assert b"200 OK" in received(connection)


def test_silent_connections_end_and_keep_nobody_out(service: Served) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(service.port)) for _ in range(300)]
        assert get(service.port, "/health").status == 200
        assert ask(service.port, "hello").status == 200
        wait_for(lambda: metric(service.port, "edgeformer_connections") <= 60)
        ends = [next(answers(received(connection))) for connection in silent[-40:]]
        assert {answer.status for answer in ends} <= {408, 503}
        assert all(answer.json()["error"] for answer in ends)
    assert get(service.port, "/health/ready").status == 200


def test_slow_clients_are_told_so(service: Served) -> None:
    def slowly(begin: bytes) -> int:
        with connect(service.port) as connection:
            with suppress(ConnectionError):
                connection.sendall(begin)
                for _ in range(30):
                    connection.sendall(b"a")
                    time.sleep(0.1)
            return next(answers(received(connection))).status

    with ThreadPoolExecutor() as pool:
        head = pool.submit(slowly, b"GET / HTTP/1.1\r\nX: ")
        body = pool.submit(slowly, POST_JSON + b"Content-Length: 100\r\n\r\n")
        unread = pool.submit(slowly, b"GET /health HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n")
        assert (head.result(), body.result(), unread.result()) == (408, 408, 200)


def test_when_all_are_busy_health_is_told(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, max_connections=4, max_waiting=100) as served, ThreadPoolExecutor() as pool:
        busy = [pool.submit(ask, served.port, "hang 0.5") for _ in range(4)]
        time.sleep(0.3)  # a connection without a request would go first
        wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") >= 4)
        assert get(served.port, "/health/live").json() == {"status": "alive"}
        refused = ask(served.port, "hello")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "too many connections" in refused.json()["error"]
        assert [future.result().status for future in busy] == [200] * 4
        assert ask(served.port, "hello").status == 200


def test_few_descriptors_are_enough(tiny_onnx: Path) -> None:
    """The connections stay below the process's limit, so that `accept` never fails and the log stays empty of it."""
    with odd(tiny_onnx, most_files=256, head_s=2.0, finish_s=3.0) as served, ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connect(served.port))
        assert get(served.port, "/health").status == 200
        assert ask(served.port, "hello").status == 200
        assert served.end() == 0
        assert len(served.log()) < 2000


def test_too_few_descriptors_are_said(tiny_onnx: Path) -> None:
    with pytest.raises(AssertionError, match="raise ulimit -n"), odd(tiny_onnx, most_files=64):
        pass


def test_sockets_count_as_connections(tiny_speech: Path) -> None:
    with odd(tiny_speech, max_connections=20, head_s=2.0, finish_s=3.0) as served, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(served.port)).sendall(UPGRADE + b"\r\n")
        assert get(served.port, "/health").status == 200
        assert psutil.Process(served.process.pid).num_fds() < 20 + 32 + 40
        wait_for(lambda: metric(served.port, "edgeformer_connections") <= 20 + 32)


SEEDS = (
    text_request("hello"),
    CHUNKED + b'5\r\n{"tex\r\nc;a=b\r\nt": "hello"}\r\n0\r\nTrailer: x\r\n\r\n',
    b"GET /health HTTP/1.1\r\n" + HOST + b"\r\nGET /metrics HTTP/1.0\r\n\r\n",
    UPGRADE + b"\r\n\x82\x84abcd\x00\x01\x02\x03\x81\x83abcdend",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //[::1 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /%ff%00 HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [\r\nOrigin: \xff\r\n\r\n",
)
PIECES = (b"\r\n", b"\r\n\r\n", b": ", b"\0", b"%", b"HTTP/1.1", b"Expect: 100-continue\r\n", b"Content-Length: 5\r\n")


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[place : place + 1] = chance.randbytes(1)
            case 1:
                changed[place:place] = chance.randbytes(chance.choice((1, 10, 100)))
            case 2:
                del changed[place : place + chance.choice((1, 2, 10))]
            case _:
                changed[place:place] = chance.choice(PIECES)
    return bytes(changed)


@pytest.mark.parametrize("bundle", ["tiny_onnx", "tiny_speech"])
def test_corrupted_requests(bundle: str, request: pytest.FixtureRequest) -> None:
    """Mutated requests, random bytes, and random frames behind a good handshake: no traceback, and it still answers."""
    chance = random.Random(0)
    cases = [mutated(chance.choice(SEEDS), chance) for _ in range(600)]
    cases += [chance.randbytes(chance.choice((1, 10, 5000))) for _ in range(50)]
    cases += [UPGRADE + b"\r\n" + chance.randbytes(chance.choice((2, 6, 20, 200))) for _ in range(150)]

    def send(port: int, data: bytes) -> None:
        with connect(port) as connection, suppress(ConnectionError, TimeoutError):
            connection.settimeout(0.1)
            connection.sendall(data)
            connection.recv(1 << 16)

    options = {"head_s": 1.0, "upload_s": 1.0, "stream_idle_s": 1.0, "finish_s": 5.0}
    with odd(request.getfixturevalue(bundle), **options) as served, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda data: send(served.port, data), cases))
        assert get(served.port, "/health/ready").status == 200
        assert metric(served.port, 'edgeformer_replaced_workers_total{reason="died"}') == 0
        assert served.end() == 0
        assert served.log() == ""
