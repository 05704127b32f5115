"""Bodies of requests, read with a limit on each, on all of them together, and on the time that they take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.refusals import Refusal, busy


class Bodies:
    """Reads bodies, and remembers how many bytes of them are held."""

    def __init__(self, options: ServeOptions) -> None:
        """Read within the limits of a service."""
        self._options = options
        self.held_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body. Its bytes count as held until the block ends.

        Raises:
            Refusal: 400 it broke off, 408 it is too slow, 413 it is too large, 415 it is compressed, 503 no room.
        """
        # The parser takes "gzip, chunked" and leaves the bytes compressed; whoever stands before the service may not.
        if request.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
            raise Refusal(415, "expected no Transfer-Encoding but chunked: send the body as it is")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "expected a body as it is, found a compressed one: send it without Content-Encoding")
        declared = request.headers.get("content-length", "0")  # the server has refused what is no number
        self._check_size(int(declared))
        chunks: list[bytes] = []
        try:
            try:
                await asyncio.wait_for(self._receive(request, chunks), self._options.upload_s)
            except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
                raise Refusal(408, f"expected the body within {self._options.upload_s:g} s") from None
            except ClientDisconnect:
                raise Refusal(400, "the body broke off") from None
            chunks[:] = [b"".join(chunks)]
            yield chunks[0]
        finally:
            self.held_bytes -= sum(map(len, chunks))

    async def _receive(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            self._check_size(size)
            if self.held_bytes + len(chunk) > self._options.max_waiting_bytes:
                raise busy("the requests that are being answered fill the memory for them")
            self.held_bytes += len(chunk)
            chunks.append(chunk)

    def _check_size(self, size: int) -> None:
        if size > self._options.max_body_bytes:
            raise Refusal(413, f"expected at most {self._options.max_body_bytes} bytes, found more")
