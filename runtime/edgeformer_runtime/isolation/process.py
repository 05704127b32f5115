"""The helper process as its parent sees it: what is said to it and by it, and its start, its limits and its end."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from edgeformer_runtime.bundle.strict_json import loads, shorten
from edgeformer_runtime.errors import BundleError, EdgeFormerError, EngineError, InputError
from edgeformer_runtime.interface import AudioProgress

MAX_HEADER_BYTES = 32 << 20
MAX_BODY_BYTES = 256 << 20
"""Of a recording's or image's file, and of a tensor."""

_PREFIX = struct.Struct("<4sIQ")
_MAGIC = b"EFI1"


class FrameError(Exception):
    """The other process is gone, or says what is no frame."""


class LongFrameError(FrameError):
    """A message that is too long to be sent: nothing of it has been, and the other process is as it was."""


@dataclass(frozen=True)
class Frame:
    """One message."""

    header: dict[str, Any]
    body: bytes = b""


def write_frame(stream: IO[bytes], frame: Frame) -> None:
    """Send a message.

    Raises:
        LongFrameError: the message has more than `MAX_HEADER_BYTES` or `MAX_BODY_BYTES`.
        FrameError: the other process is gone.
    """
    header = json.dumps(frame.header, allow_nan=False).encode()
    if len(header) > MAX_HEADER_BYTES or len(frame.body) > MAX_BODY_BYTES:
        raise LongFrameError(
            f"expected at most {MAX_HEADER_BYTES >> 20} MiB of JSON and {MAX_BODY_BYTES >> 20} MiB of bytes for an "
            f"isolated bundle, found {len(header)} and {len(frame.body)} bytes"
        )
    try:
        stream.write(_PREFIX.pack(_MAGIC, len(header), len(frame.body)))
        stream.write(header)
        stream.write(frame.body)
        stream.flush()
    except (OSError, ValueError):  # ValueError: the pipe is closed on this side
        raise FrameError("its process is gone") from None


def read_frame(stream: IO[bytes], trusted: bool = False) -> Frame:
    """Wait for a message.

    Args:
        stream: the other process's.
        trusted: it is the parent, whose texts may be ones that a pipeline refuses, such as half a surrogate pair.

    Raises:
        FrameError: the other process is gone, or sends something else.
    """
    magic, header_size, body_size = _PREFIX.unpack(_exactly(stream, _PREFIX.size))
    if magic != _MAGIC or header_size > MAX_HEADER_BYTES or body_size > MAX_BODY_BYTES:
        raise FrameError("its process sends what is no message")
    text = _exactly(stream, header_size)
    try:
        header = json.loads(text) if trusted else loads(text, "message", MAX_HEADER_BYTES)
    except BundleError as error:
        raise FrameError(f"its process sends what is no message: {error}") from None
    if not isinstance(header, dict):
        raise FrameError("its process sends what is no message")
    return Frame(header, _exactly(stream, body_size))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    try:
        data = stream.read(size)
    except (OSError, ValueError):
        data = b""
    if len(data) != size:
        raise FrameError("its process is gone")
    return data


# What a helper process gets of the environment: no tokens, no keys.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "XDG_CACHE_HOME")
KEPT_PREFIXES = ("EDGEFORMER_", "OMP_", "OPENBLAS_", "MKL_", "LC_", "PYTHON")

_ERRORS: dict[str, type[EdgeFormerError]] = {
    "InputError": InputError,
    "BundleError": BundleError,
    "EngineError": EngineError,
}
_MAX_MESSAGE = 1000
_INTERRUPTED = "it was interrupted"

Result = TypeVar("Result")


class HelperProcess:
    """Answers frames in a process of its own. Calls from several threads take turns."""

    def __init__(self, opening: Frame, open_s: float) -> None:
        """Start the process.

        Args:
            opening: what is sent first, to each process that is started.
            open_s: how long the answer to that may take.

        Raises:
            EdgeFormerError: what the process said, or that it died.
        """
        self._opening = opening
        self._open_s = open_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = ""
        self._closed = False
        self.restarts = 0
        with self._lock:
            self.opened = self._start()

    def ask(
        self,
        question: Frame,
        seconds: float,
        progress: AudioProgress | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Frame:
        """Send a question and wait for its answer.

        Args:
            question: see `child.py`.
            seconds: how long the answer may take, or what comes before it.
            progress: called with what comes before the answer.
            on_text: called with the text that comes with it.

        Raises:
            EdgeFormerError: what the process said; an InputError that the question is too long; or an EngineError that
                the process died, or was ended, in this question. The next one finds a new process.
        """
        with self._lock:
            if self._closed:
                raise EngineError("the isolated bundle is closed")
            if self._process is None or self._process.poll() is not None:
                self._forget()
                self.restarts += 1
                self._start()
            return self._exchange(question, seconds, progress, on_text)

    @property
    def was_interrupted(self) -> bool:
        """Whether the process of the last question was ended because nobody waits for its answer."""
        return self._stopped == _INTERRUPTED

    def interrupt(self) -> None:
        """End the process, from any thread; whoever waits for an answer gets an EngineError."""
        process = self._process
        if process is not None:
            self._stopped = _INTERRUPTED
            process.kill()

    def close(self) -> None:
        """End the process for good. A second call does nothing."""
        self._closed = True
        self.interrupt()
        with self._lock:
            self._forget()

    def _start(self) -> Frame:
        environment = {
            key: value for key, value in os.environ.items() if key in KEPT_VARIABLES or key.startswith(KEPT_PREFIXES)
        }
        # The process runs elsewhere, so that no module of the current folder is taken for Python's own.
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
        self._stopped = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from edgeformer_runtime.isolation.child import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=Path(os.sep).absolute(),
            close_fds=True,
        )
        try:
            return self._exchange(self._opening, self._open_s)
        except BaseException:
            self._forget()
            raise

    def _exchange(
        self,
        question: Frame,
        seconds: float,
        progress: AudioProgress | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Frame:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            self._with_limit(seconds, lambda: write_frame(_stream(process.stdin), question))
            while True:
                answer = self._with_limit(seconds, lambda: read_frame(_stream(process.stdout)))
                if "progress" not in answer.header:
                    break
                if progress is not None:
                    progress(*_numbers(answer.header["progress"]))
                if on_text is not None and answer.header.get("text"):
                    on_text(str(answer.header["text"]))
        except LongFrameError as error:
            raise InputError(str(error)) from None
        except FrameError as error:
            raise EngineError(f"the isolated bundle failed: {self._reason(error)}") from None
        except BaseException:  # of `progress`, or an interrupt: the answer to come would be taken for the next one's
            self._forget()
            raise
        if "error" in answer.header:
            if answer.header.get("ends"):
                self._forget()
            raise said_error(answer.header)
        return answer

    def _with_limit(self, seconds: float, work: Callable[[], Result]) -> Result:
        """Do something that ends when the process does, and end that when the time is over."""

        def expire() -> None:
            self._stopped = f"it gave no answer in {seconds:g} s and was ended"
            assert self._process is not None
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            return work()
        finally:
            timer.cancel()

    def _reason(self, error: FrameError) -> str:
        """Why there was no answer. The process is gone afterwards."""
        process = self._process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # the pipe closes a moment before
        if process.poll() is None:
            process.kill()
            reason = str(error)
        elif self._stopped:
            reason = self._stopped
        else:
            status = process.returncode
            name = f"exit code {status}" if status >= 0 else _signal_name(-status)
            reason = f"its process ended with {name}"
        self._forget()
        return f"{reason}; the next call starts it anew"

    def _forget(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                _stream(stream).close()
        process.wait()


def said_error(header: dict[str, Any]) -> EdgeFormerError:
    """The error that a process tells in the header of an answer."""
    kind = _ERRORS.get(str(header["error"]), EngineError)
    return kind(shorten(str(header.get("message")), _MAX_MESSAGE)[1:-1])


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _signal_name(number: int) -> str:
    """SIGSEGV and the like; the processor's time that was up says so."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, as its processor time was up" if name == "SIGXCPU" else name


def _numbers(value: Any) -> tuple[float, float | None]:
    """The two numbers of a progress."""
    first, second = value if isinstance(value, list) and len(value) == 2 else (0.0, None)
    return (
        float(first) if isinstance(first, (int, float)) else 0.0,
        float(second) if isinstance(second, (int, float)) else None,
    )


# What a helper process may use.


BASE_MEMORY_BYTES = 1 << 30
"""For the interpreter, the engine's library and what preprocessing needs."""
COPIES = 8
"""Of the bundle: engines pack weights anew, some once for each program."""


@dataclass(frozen=True)
class Limits:
    """The limits of a helper process.

    Attributes:
        memory_bytes: of private memory; None: 1 GiB and eight times the bundle.
        open_s: for the bundle to open, or to be verified.
        call_s: for one answer; of speech for each window of audio.
    """

    memory_bytes: int | None = None
    open_s: float = 120.0
    call_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("open_s", "call_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}: expected seconds above 0, found {value!r}")
        if self.memory_bytes is not None and self.memory_bytes < 1 << 20:
            raise InputError(f"memory_bytes: expected at least 1 MiB, found {self.memory_bytes!r}")

    def memory_for(self, bundle_bytes: int) -> int:
        """The bytes that a bundle of this size gets."""
        return self.memory_bytes or BASE_MEMORY_BYTES + COPIES * bundle_bytes
