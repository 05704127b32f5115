"""What the two processes say to each other: frames of a JSON object and raw bytes, of bounded length. No pickles."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import IO, Any

from edgeformer_runtime.bundle.strict_json import loads
from edgeformer_runtime.errors import BundleError

MAX_HEADER_BYTES = 32 << 20
MAX_BODY_BYTES = 256 << 20
"""Of a sound's or image's file, and of a tensor."""

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
