"""Workers that die or hang are seen, replaced and counted, and the service says how it is."""

from __future__ import annotations

import io
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from process import odd
from raw_client import HOST, Answer, answers, ask, connect, get, metric, received, text_request, wait_for
from tiny_speech_bundle import RATE

pytestmark = pytest.mark.slow


def test_a_panic_costs_one_answer(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, finish_s=3.0) as served:
        expected = ask(served.port, "hello").json()["scores"]
        for count in (1, 2, 3):
            failed = ask(served.port, "panic")
            assert failed.status == 500
            assert "the input made the model's code fail: Panic: called" in failed.json()["error"]
            assert ask(served.port, "hello").json()["scores"] == expected
            assert metric(served.port, 'edgeformer_replaced_workers_total{reason="died"}') == count
        assert get(served.port, "/health/ready").status == 200
        assert metric(served.port, "edgeformer_workers") == 1
        assert served.end() == 0
        assert "a worker died and is replaced: Panic" in served.log()


def test_without_a_worker_it_is_alive_and_not_ready(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, opens=1, finish_s=3.0) as served:
        assert get(served.port, "/health/ready").status == 200
        assert ask(served.port, "panic").status == 500
        wait_for(lambda: ask(served.port, "hello").status == 503)
        assert get(served.port, "/health/live").status == 200
        for path in ("/health/ready", "/health"):
            found = get(served.port, path)
            assert found.status == 503
            assert found.json()["status"] == "not ready"
            assert "no worker is alive" in found.json()["error"]
        refused = ask(served.port, "hello")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert served.end() == 0
        assert "a worker cannot be replaced yet: OSError: no more" in served.log()


def test_a_hanging_worker_is_replaced_at_the_deadline(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, answer_s=0.5, finish_s=3.0) as served:
        late = ask(served.port, "hang 60")
        assert late.status == 504
        assert "no answer within 0.5 s" in late.json()["error"]
        wait_for(lambda: ask(served.port, "hello").status == 200)
        assert metric(served.port, 'edgeformer_replaced_workers_total{reason="stuck"}') == 1
        assert metric(served.port, "edgeformer_workers") == 1
        assert served.end() == 0  # what hangs does not keep the process from its end


def test_a_hanging_worker_is_replaced_when_its_client_goes(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, answer_s=60.0, finish_s=3.0) as served:
        with connect(served.port) as connection:
            connection.sendall(text_request("hang 60"))
            wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") >= 1)
        assert ask(served.port, "hello").status == 200
        assert metric(served.port, 'edgeformer_replaced_workers_total{reason="stuck"}') == 1


def send_audio(port: int, seconds: float) -> socket.socket:
    file = io.BytesIO()
    tone = (np.sin(np.arange(round(seconds * RATE)) * 0.3) * 8000).astype("<i2")
    soundfile.write(file, tone, RATE, format="WAV", subtype="PCM_16")
    body = file.getvalue()
    head = b"POST /v1/answer HTTP/1.1\r\n" + HOST + b"Content-Type: audio/wav\r\nConnection: close\r\n"
    connection = connect(port)
    connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def audio_answer(connection: socket.socket) -> Answer:
    with connection:
        return next(answers(received(connection)))


def test_long_audio_lets_others_have_the_worker(tiny_speech: Path) -> None:
    """An hour of audio, which takes the tiny bundle minutes, holds nobody up, and its work ends with its client."""
    with odd(tiny_speech, answer_s=60.0, finish_s=3.0) as served:
        alone = audio_answer(send_audio(served.port, 1.0)).json()
        with send_audio(served.port, 1800.0):
            wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") >= 1)
            for _ in range(3):
                beside = audio_answer(send_audio(served.port, 1.0)).json()
                assert (beside["text"], beside["segments"]) == (alone["text"], alone["segments"])
            assert metric(served.port, "edgeformer_unanswered_requests") == 1
        wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") == 0)
        assert metric(served.port, "edgeformer_held_bytes") == 0
        assert metric(served.port, 'edgeformer_replaced_workers_total{reason="stuck"}') == 0


def test_long_audio_ends_at_its_deadline(tiny_speech: Path) -> None:
    with odd(tiny_speech, answer_s=1.0, finish_s=3.0) as served:
        assert audio_answer(send_audio(served.port, 1800.0)).status == 504
        assert audio_answer(send_audio(served.port, 1.0)).status == 200
        assert metric(served.port, 'edgeformer_replaced_workers_total{reason="stuck"}') == 0


def test_a_full_line_says_when_to_come_again(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, max_waiting=2, finish_s=3.0) as served, ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, served.port, "hang 0.5") for _ in range(12)]
        statuses = sorted(future.result().status for future in asked)
        assert set(statuses) == {200, 503}
        refused = next(future.result() for future in asked if future.result().status == 503)
        assert refused.headers["retry-after"] == "1"


def test_clients_that_go_leave_nothing(tiny_onnx: Path) -> None:
    with odd(tiny_onnx, finish_s=3.0) as served:

        def leave() -> None:
            for _ in range(50):
                with connect(served.port) as connection:
                    connection.sendall(text_request("hello", last=False))

        leaving = [threading.Thread(target=leave) for _ in range(8)]
        for thread in leaving:
            thread.start()
        assert all(ask(served.port, "hello").status == 200 for _ in range(50))
        for thread in leaving:
            thread.join()
        wait_for(lambda: metric(served.port, "edgeformer_unanswered_requests") == 0)
        assert metric(served.port, "edgeformer_held_bytes") == 0
        assert served.end() == 0
        assert served.log() == ""
