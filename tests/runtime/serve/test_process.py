"""The service as a process: it ends in order, comes back after a crash, and says what keeps it from starting."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from process import SERVE, Served, serving

from edgeformer_runtime import load

pytestmark = pytest.mark.slow


def ask(served: Served, text: str) -> dict[str, object]:
    request = urllib.request.Request(
        f"{served.url}/v1/answer", json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order(tiny_onnx: Path, number: int) -> None:
    with serving(tiny_onnx) as served:
        assert ask(served, "hello")["answered_by"] == "device"
        assert served.end(number) == 0
        assert served.process.stderr is not None
        assert served.process.stderr.read() == ""


def test_what_has_begun_is_answered(tiny_onnx: Path) -> None:
    with serving(tiny_onnx) as served:
        host, port = served.url.removeprefix("http://").split(":")
        body = json.dumps({"inputs": [{"text": "turn the lights off"}] * 256}).encode()
        head = f"POST /v1/answer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
            ask(served, "hello")  # the other request is being read by now
            served.process.send_signal(signal.SIGTERM)
            while True:  # until no connection is taken any more
                try:
                    socket.create_connection((host, int(port)), timeout=30).close()
                except ConnectionError:
                    break
            connection.sendall(body[-1:])
            received = b""
            while part := connection.recv(1 << 16):
                received += part
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert len(json.loads(received.partition(b"\r\n\r\n")[2])["answers"]) == 256
        assert served.process.wait(30) == 0


def test_killed_and_started_again_it_loses_no_answer(tiny_onnx: Path) -> None:
    """Each client gets a whole right answer or an error, and a new process answers on the same port at once."""
    with load(tiny_onnx) as pipeline:
        expected = {text: list(pipeline.run(text).scores) for text in ("hello", "turn the lights off", "on")}
    texts = list(expected) * 40

    def try_to_ask(text: str) -> dict[str, object] | None:
        try:
            return ask(served, text)
        except (urllib.error.URLError, ConnectionError, HTTPException):
            return None

    with serving(tiny_onnx) as served, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(try_to_ask, text) for text in texts]
        asked[20].result()
        served.process.kill()
        answers = [future.result() for future in asked]
        port = served.url.rpartition(":")[2]
    answered = [(text, answer) for text, answer in zip(texts, answers, strict=True) if answer is not None]
    assert 20 <= len(answered) < len(texts)
    for text, answer in answered:
        assert answer["scores"] == expected[text]
    with serving(tiny_onnx, "--port", port) as served:
        assert [ask(served, text)["scores"] for text in expected] == list(expected.values())


def test_loopback_unless_told_otherwise(tiny_onnx: Path) -> None:
    with serving(tiny_onnx) as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert served.end() == 0
    with serving(tiny_onnx, "--host", "0.0.0.0", "--allow-host", "pi.local") as served:
        port = int(served.url.rpartition(":")[2])
        for host, status in (
            ("pi.local", 200),
            (f"PI.local.:{port}", 200),
            (f"127.0.0.1:{port}", 200),
            (f"localhost:{port}", 200),
            ("rebound.example", 421),
            ("192.0.2.7", 421),
            ("pi.local.rebound.example", 421),
            ("[", 421),
            ("", 421),
        ):
            for path in ("/health", "/openapi.json", "/nowhere"):
                connection = HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", path, headers={"Host": host})
                found = connection.getresponse()
                assert found.status == (404 if status == 200 and path == "/nowhere" else status), host
                assert "error" in json.loads(found.read()) or found.status == 200
                connection.close()
        assert served.end() == 0
        assert served.process.stderr is not None
        assert "it asks for no password" in served.process.stderr.read()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--fallback", "nowhere"], "expected an http or https address, found 'nowhere'"),
        (["--fallback", "http://x", "--fallback-below", "2"], "at most 1, found 2.0"),
        (["--host", "192.0.2.1"], "cannot listen at 192.0.2.1 port"),
        (["--allow-host", "http://pi.local"], "expected a host's name or address without port"),
        (["--allow-host", "*"], "expected a host's name or address without port"),
        (["--port", "TAKEN"], "Address already in use: give another --host or --port"),
        (["--require-signature", "nothing.pem"], "nothing.pem"),
    ],
)
def test_what_keeps_it_from_starting(tiny_onnx: Path, options: list[str], problem: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [str(taken.getsockname()[1]) if option == "TAKEN" else option for option in options]
        failed = subprocess.run(
            [*SERVE, str(tiny_onnx), *given],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
    assert problem in failed.stderr


def test_without_its_packages(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError('no', name='fastapi')\n")
    failed = subprocess.run(
        [*SERVE, str(tiny_onnx)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        timeout=60,
    )
    assert failed.returncode == 2
    assert failed.stderr == "error: serve needs the package fastapi: pip install 'edgeformer-runtime[serve]'\n"
