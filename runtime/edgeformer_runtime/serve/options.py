"""What a service is allowed to take, and whom it may ask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.serve.hosts import check_host_name

ANSWER_S = {"text": 60.0, "image": 60.0, "audio": 600.0}
"""How long an answer may take where the options do not say: sound may be long."""


@dataclass(frozen=True)
class FallbackOptions:
    """A bigger model to ask where the device is not sure.

    Attributes:
        url: an http or https address that takes the same requests as `/v1/answer` and gives the same answers: another
            `serve`, or whatever speaks like it.
        below: answers of the device with a confidence below this are doubtful, 0 to 1.
        timeout_s: for the whole exchange; after it the device's own answer counts.
    """

    url: str
    below: float = 0.5
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"fallback: expected an http or https address, found {self.url!r}")
        if not 0 < self.below <= 1:
            raise InputError(f"fallback below: expected a confidence above 0 and at most 1, found {self.below!r}")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise InputError(f"fallback timeout: expected seconds above 0, found {self.timeout_s!r}")


@dataclass(frozen=True)
class ServeOptions:
    """The limits of a service. What goes beyond them is refused with a status that says so.

    Attributes:
        workers: copies of the model, each with a thread of its own.
        max_connections: open at a time; beyond it the one that has kept the service waiting longest is closed. The
            process's limit of open files may make it fewer.
        max_head_bytes: of a request's head, and of what its body has around its bytes; more is 431.
        head_s: for a request's head to arrive; 408 after it.
        max_body_bytes: of one request; more is 413.
        max_waiting: requests that wait for a worker; the next one gets 503.
        max_waiting_bytes: of the bodies of all requests that are being read or answered; the next one gets 503.
        max_inputs: texts in one request; more is 413.
        upload_s: for a request's body to arrive; 408 after it.
        answer_s: from a request's body to its answer, 504 after it; None: `ANSWER_S`.
        max_streams: streams of sound at a time.
        stream_idle_s: a stream that sends nothing for so long is ended.
        stream_s: of sound in one stream; more ends it.
        finish_s: within which the process ends when it is told to.
        allow_hosts: names, beside this machine's own, that requests may name as the service's host.
        fallback: whom to ask in doubt, None: nobody.
    """

    workers: int = 1
    max_connections: int = 512
    max_head_bytes: int = 16 << 10
    head_s: float = 10.0
    max_body_bytes: int = 16 << 20
    max_waiting: int = 256
    max_waiting_bytes: int = 256 << 20
    max_inputs: int = 256
    upload_s: float = 30.0
    answer_s: float | None = None
    max_streams: int = 4
    stream_idle_s: float = 60.0
    stream_s: float = 3600.0
    finish_s: float = 30.0
    allow_hosts: tuple[str, ...] = ()
    fallback: FallbackOptions | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not 0 < value < math.inf:
                raise InputError(f"{name}: expected a number above 0, found {value!r}")
        if self.max_waiting_bytes < self.max_body_bytes:
            raise InputError(
                f"max_waiting_bytes: expected at least max_body_bytes, {self.max_body_bytes}, "
                f"found {self.max_waiting_bytes}"
            )
        for host in self.allow_hosts:
            check_host_name(host)

    def answer_limit_s(self, kind: str) -> float:
        """How long the answer to an input of a kind (text, image or audio) may take."""
        return ANSWER_S[kind] if self.answer_s is None else self.answer_s
