"""A bundle in a process of its own: the same answers, and whatever kills that process is one error here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.isolation.messages import read_answers
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline, verify_isolated
from edgeformer_runtime.isolation.process import Frame, FrameError, Limits, read_frame, write_frame
from edgeformer_runtime.verify.verify import verify

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
TEXTS = ["turn the lights off!", "", ("hello", "turn the lights on"), "hello " * 40, [2, 9, 3]]


@pytest.fixture(scope="module")
def isolated(tiny_onnx: Path) -> IsolatedPipeline:
    pipeline = load(tiny_onnx, isolated=True)
    assert isinstance(pipeline, IsolatedPipeline)
    yield pipeline
    pipeline.close()


def test_the_same_answers(isolated: IsolatedPipeline, tiny_onnx: Path) -> None:
    with load(tiny_onnx) as plain:
        for raw in TEXTS:
            expected, found = plain.run(raw), isolated.run(raw)
            assert (found.labels, found.scores, found.truncated) == (
                expected.labels, expected.scores, expected.truncated
            )  # fmt: skip
            assert found.statistics.peak_rss_bytes > 0
        assert [each.label for each in isolated(["hello", "turn"])] == [plain(each).label for each in ("hello", "turn")]


def test_what_is_sent_together_is_answered_in_its_order(isolated: IsolatedPipeline) -> None:
    found = list(isolated._answer_some([TEXTS[0], 7, [2, 99], *TEXTS[1:]], None))
    assert [type(each) for each in found[1:3]] == [InputError, InputError]
    assert "found int" in str(found[1]) and "token id 99 is out of range" in str(found[2])
    assert [each.scores for each in (found[0], *found[3:])] == [isolated.run(raw).scores for raw in TEXTS]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"answers": 3},
        {"answers": []},
        {"answers": [{"answer": {}, "bytes": 9}]},
        {"answers": [{"answer": {}, "bytes": -1}]},
        {"answers": [{"answer": [], "bytes": 0}]},
        {"answers": [{"answer": {"result": {}}, "bytes": 0}]},
        {"answers": ["x"]},
    ],
)
def test_answers_that_are_none_are_refused(isolated: IsolatedPipeline, header: dict) -> None:
    with pytest.raises(EngineError, match="sent no valid answer"):
        read_answers(Frame(header, b"12345678"), 1, isolated.bundle.manifest)


def test_images_by_path_bytes_array_and_pillow_image(tiny_image_onnx: Path) -> None:
    from PIL import Image

    path = tiny_image_onnx / "vectors" / "noise.png"
    with load(tiny_image_onnx) as plain, load(tiny_image_onnx, isolated=True) as isolated:
        expected = plain(path).scores
        image = Image.open(path)
        for raw in (path, str(path), path.read_bytes(), np.asarray(image), image):
            assert isolated(raw).scores == expected
        with pytest.raises(InputError, match="cannot be read: No such file"):
            isolated("no_such.png")
        with pytest.raises(InputError, match="image"):
            isolated(b"no image")


@pytest.mark.executorch
@pytest.mark.slow
def test_both_runtimes_of_executorch(
    tiny_executorch: Path, executorch_shim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch, which the Python binding brings, looks for libraries with a compiler when it is imported."""
    for chosen, name in (("python", "(python)"), (str(executorch_shim), "(shim)")):
        monkeypatch.setenv("EDGEFORMER_EXECUTORCH", chosen)
        with load(tiny_executorch) as plain, load(tiny_executorch, isolated=True) as isolated:
            assert isolated("turn the lights off").scores == plain("turn the lights off").scores
            assert isolated.engine.executed_by.endswith(name)


def test_a_zip_and_a_second_close(tiny_onnx: Path, tmp_path: Path) -> None:
    pack(tiny_onnx, tmp_path / "tiny.zip")
    pipeline = load(tmp_path / "tiny.zip", isolated=True)
    assert pipeline("hello").labels
    pipeline.close()
    pipeline.close()
    with pytest.raises(EngineError, match="is closed"):
        pipeline("hello")


def test_errors_of_inputs_are_the_same(isolated: IsolatedPipeline) -> None:
    for raw in ("\ud800", 3.5, [10**6], None):
        with pytest.raises(InputError):
            isolated.run(raw)
    assert isolated.run("hello").labels


@pytest.mark.slow
def test_what_is_too_long_is_refused_and_the_process_goes_on(isolated: IsolatedPipeline, tiny_onnx: Path) -> None:
    restarts, process = isolated.engine.helper.restarts, isolated.engine.helper._process
    long = "\u0301" * (6 << 20)  # six bytes each as JSON: longer than a message may be
    with load(tiny_onnx) as plain:
        for raw in (long, (long, "a"), ("a", long)):
            with pytest.raises(InputError, match="expected at most 1000000") as expected:
                plain.run(raw)
            with pytest.raises(InputError) as found:
                isolated.run(raw)
            assert str(found.value) == str(expected.value)
    with pytest.raises(InputError, match="expected at most 32 MiB of JSON"):
        isolated.run([1] * (12 << 20))
    assert isolated.run("hello").labels
    assert (isolated.engine.helper.restarts, isolated.engine.helper._process) == (restarts, process)


def test_a_bundle_that_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_onnx, tmp_path / "corrupted"))
    (folder / "model_8.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match="expected"):
        load(folder, isolated=True)


def test_an_engine_of_this_process(tiny_onnx: Path) -> None:
    from tiny_bundle import TinyEngine

    with pytest.raises(InputError, match="isolated: an engine of this process"):
        load(tiny_onnx, engine=TinyEngine(), isolated=True)


def test_verification(tiny_onnx: Path) -> None:
    with Bundle.open(tiny_onnx) as bundle:
        seen: list[tuple[int, int]] = []
        found = verify_isolated(bundle, progress=lambda done, total: seen.append((done, total)))
        assert found == verify(bundle)
        assert seen[-1][0] == seen[-1][1] > 0


@LINUX
def test_everything_is_in_force(isolated: IsolatedPipeline) -> None:
    assert isolated.engine.confined[0] == "limits"
    assert "seccomp" in isolated.engine.confined


@LINUX
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_death_is_one_error_and_the_next_call_answers(isolated: IsolatedPipeline, number: int) -> None:
    restarts = isolated.engine.helper.restarts
    process = isolated.engine.helper._process
    process.send_signal(signal.SIGSTOP)  # so that it dies while it is asked
    timer = threading.Timer(0.3, process.send_signal, [number])
    timer.start()
    threading.Timer(0.4, process.send_signal, [signal.SIGCONT]).start()
    with pytest.raises(EngineError, match=rf"ended with {signal.Signals(number).name}; the next call") as caught:
        isolated.run("hello")
    assert "\n" not in str(caught.value)
    assert isolated.run("hello").labels
    assert isolated.engine.helper.restarts == restarts + 1


@LINUX
def test_a_hang_is_ended(tiny_onnx: Path) -> None:
    with Bundle.open(tiny_onnx) as bundle, IsolatedPipeline(bundle, limits=Limits(call_s=1.0)) as pipeline:
        pipeline.engine.helper._process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(EngineError, match="it gave no answer in 1 s and was ended; the next call starts it anew"):
            pipeline.run("hello")
        assert time.monotonic() - start < 10
        assert pipeline.run("hello").labels


@LINUX
def test_an_interrupt_from_another_thread(isolated: IsolatedPipeline) -> None:
    isolated.engine.helper._process.send_signal(signal.SIGSTOP)
    threading.Timer(0.3, isolated.interrupt).start()
    with pytest.raises(EngineError, match="it was interrupted"):
        isolated.run("hello")
    assert isolated.run("hello").labels


@LINUX
def test_memory_is_bounded(tiny_image_onnx: Path) -> None:
    """An image of 144 million bytes in a process that may have 200 MB."""
    picture = np.zeros((6000, 8000, 3), np.uint8)
    with (
        Bundle.open(tiny_image_onnx) as bundle,
        IsolatedPipeline(bundle, limits=Limits(memory_bytes=200 << 20)) as pipeline,
    ):
        with pytest.raises(EngineError, match="the isolated bundle failed"):
            pipeline.run(picture)
        assert pipeline.run(picture[:60, :80]).labels


CONFINED = """
import ctypes, json, os, socket, subprocess, sys, threading
from pathlib import Path
from edgeformer_runtime.isolation.confinement import confine
bundle, secret, parent = sys.argv[1], sys.argv[2], int(sys.argv[3])
in_force = confine(1 << 30, [bundle])
tries = {
    "read the bundle": lambda: Path(bundle, "manifest.json").read_bytes(),
    "a thread": lambda: threading.Thread(target=int).start(),
    "memory without a file": lambda: os.memfd_create("x"),
    "read a secret": lambda: Path(secret).read_bytes(),
    "read the system": lambda: Path("/etc/passwd").read_bytes(),
    "list a home": lambda: os.listdir(Path.home()),
    "read the parent": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
    "write the bundle": lambda: Path(bundle, "new").write_bytes(b""),
    "write elsewhere": lambda: Path(secret + "2").write_bytes(b""),
    "remove": lambda: os.unlink(secret),
    "rename": lambda: os.rename(secret, secret + "3"),
    "make a folder": lambda: os.mkdir(secret + "4"),
    "a socket": lambda: socket.socket(),
    "a socket of Unix": lambda: socket.socket(socket.AF_UNIX),
    "fork": lambda: os.fork(),
    "run": lambda: os.execv("/bin/true", ["true"]),
    "start": lambda: subprocess.run(["/bin/true"]),
    "end the parent": lambda: os.kill(parent, 0),
    "much memory": lambda: bytearray(2 << 30),
}
done = []
for name, attempt in tries.items():
    try:
        attempt()
        done.append(name)
    except (OSError, MemoryError):
        pass
print(json.dumps([in_force, done]))
"""


@LINUX
def test_what_a_confined_process_can_do(tiny_onnx: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tiny_onnx), str(secret), str(os.getpid())],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    in_force, possible = json.loads(done.stdout)
    if "landlock" not in in_force:  # an older kernel: files can be read, nothing else
        possible = [each for each in possible if not each.startswith(("read ", "list "))]
        assert possible == ["a thread", "memory without a file"]
    else:
        assert possible == ["read the bundle", "a thread", "memory without a file"]
    assert secret.read_text() == "secret"


def through(data: bytes) -> Frame:
    import io

    return read_frame(io.BytesIO(data))


def test_frames() -> None:
    import io

    stream = io.BytesIO()
    write_frame(stream, Frame({"text": "\ud800 é"}, b"body"))
    with pytest.raises(FrameError, match="surrogate"):  # what a parent reads is valid Unicode
        through(stream.getvalue())
    assert read_frame(io.BytesIO(stream.getvalue()), trusted=True).header == {"text": "\ud800 é"}
    stream = io.BytesIO()
    write_frame(stream, Frame({"text": "é"}, b"body"))
    assert through(stream.getvalue()) == Frame({"text": "é"}, b"body")
    good = stream.getvalue()
    for corrupted in (b"", good[:3], good[:-1], b"X" + good[1:], good[:4] + b"\xff" * 12 + good[16:]):
        with pytest.raises(FrameError, match=r"gone|no message"):
            through(corrupted)


@pytest.mark.parametrize(
    "header",
    [{}, {"result": None}, {"result": {"labels": ["x"], "scores": [1.0], "truncated": False, "statistics": None}},
     {"result": {"labels": ["lights", "weather", "greeting"], "scores": [7.0, 0.0, 0.0], "truncated": False,
                 "statistics": None}},
     {"result": {"labels": ["lights", "weather", "greeting"], "scores": [1.0], "truncated": False, "statistics": None}},
     {"result": {"other": 1}}],
)  # fmt: skip
def test_what_is_no_answer(tiny_onnx: Path, header: dict[str, object]) -> None:
    from edgeformer_runtime.isolation.messages import read_answer

    with Bundle.open(tiny_onnx) as bundle, pytest.raises(EngineError, match="sent no valid answer"):
        read_answer(Frame(header), bundle.manifest)


def test_limits() -> None:
    assert Limits(memory_bytes=1 << 30).memory_for(5) == 1 << 30
    assert Limits().memory_for(10) == (1 << 30) + 80
    with pytest.raises(InputError, match="call_s: expected seconds above 0"):
        Limits(call_s=0)
    with pytest.raises(InputError, match="memory_bytes: expected at least 1 MiB"):
        Limits(memory_bytes=5)
