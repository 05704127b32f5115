"""A service that is told to end finishes what has begun, or says that it does not, and ends in time."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from process import odd
from raw_client import answers, ask, connect, get, metric, received, text_request, wait_for

pytestmark = pytest.mark.slow


def test_it_finishes_what_it_can_and_refuses_the_rest(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, finish_s=5.0) as served, ThreadPoolExecutor(8) as pool:
        quick = [pool.submit(ask, served.port, "hang 0.3") for _ in range(3)]
        wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") >= 3)
        slow = [pool.submit(ask, served.port, "hang 60") for _ in range(3)]
        wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") >= 5)
        with connect(served.port) as uploading:
            uploading.sendall(text_request("hello")[:-3])
            time.sleep(0.2)
            served.process.send_signal(signal.SIGTERM)
            assert [future.result().status for future in quick] == [200] * 3
            for answer in [future.result() for future in slow] + list(answers(received(uploading))):
                assert answer.status == 503
                assert answer.headers["retry-after"] == "5"
                assert answer.json() == {"error": "the service ends before this was answered: ask again"}
        assert served.process.wait(30) == 0  # long before what hangs


def test_a_connection_that_is_kept_gets_its_last_answer(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, finish_s=5.0) as served, connect(served.port) as kept:
        kept.sendall(text_request("hello", last=False))
        first = kept.recv(1 << 16)
        assert first.startswith(b"HTTP/1.1 200")
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        kept.sendall(text_request("hello", last=False))
        (last,) = answers(received(kept))
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert served.process.wait(30) == 0


def test_it_is_not_ready_while_it_ends(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, finish_s=5.0) as served, ThreadPoolExecutor() as pool, connect(served.port) as kept:
        slow = pool.submit(ask, served.port, "hang 0.8")
        kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200")
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        kept.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (found,) = answers(received(kept))
        assert (found.status, found.json()["error"]) == (503, "the service is ending")
        assert slow.result().status == 200


def test_the_second_signal_ends_it_at_once(tiny_onnx: Path) -> None:
    with odd(tiny_onnx) as served, ThreadPoolExecutor() as pool:
        hanging = pool.submit(ask, served.port, "hang 60")
        wait_for(lambda: get(served.port, "/health").json()["unanswered"] == 1)
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert served.process.poll() is None
        assert served.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert hanging.result().status == 0
