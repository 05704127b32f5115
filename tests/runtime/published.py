"""A site made by hand, with nothing but docs/delivery.md to go by, and a server that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

SECRET = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC: bytes = SECRET.public_key().public_bytes_raw()
NOW = datetime.now(timezone.utc)  # noqa: UP017


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def text_of(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def sign(content: bytes, secret: ed25519.Ed25519PrivateKey = SECRET) -> bytes:
    return b"edgeformer-index-1 %s\n" % secret.sign(b"edgeformer-index-1\n" + content).hex().encode() + content


def index(number: int, bundles: dict[str, Any], days: float = 30, **more: Any) -> dict[str, Any]:
    """The index's JSON values."""
    times = {"published": text_of(NOW), "expires": text_of(NOW + timedelta(days=days))}
    return {"format_version": 1, "number": number, "bundles": bundles, **times, **more}


class Site:
    """Contents by their paths, and what the server is to do wrong."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        """The path and the Range of each request."""
        self.answer: Callable[[Handler, str, bytes], bool] | None = None
        """Answers in the server's place where it returns True."""
        self.url = ""

    def add(self, folder: Path) -> dict[str, Any]:
        """A bundle's record, with its files on the site."""
        return {"files": {name: self.add_file(path.read_bytes()) for name, path in files_of(folder).items()}}

    def add_file(self, data: bytes) -> dict[str, Any]:
        digest = sha256(data)
        self.contents[f"files/{digest[:2]}/{digest}"] = data
        return {"sha256": digest, "size": len(data)}

    def show(self, values: dict[str, Any], secret: ed25519.Ed25519PrivateKey = SECRET) -> None:
        self.contents["index.signed"] = sign(json.dumps(values).encode(), secret)

    def publish(self, number: int, folder: Path, **more: Any) -> None:
        self.show(index(number, {"tiny": self.add(folder)}, **more))


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        path, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.site.asked.append((path, wanted))
        data = self.site.contents.get(path)
        if self.site.answer is not None and self.site.answer(self, path, data or b""):
            return
        if data is None:
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.reply(206 if begin else 200, data[begin:], f"bytes {begin}-{len(data) - 1}/{len(data)}" if begin else None)

    def reply(self, status: int, data: bytes, content_range: str | None = None, **headers: str) -> None:
        self.send_response(status)
        lines = {"Content-Length": str(len(data)), **({"Content-Range": content_range} if content_range else {})}
        for key, value in (lines | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served() -> Iterator[Site]:
    """A site at an address of this machine; `site.url` is the bundle's `tiny`."""
    site = Site()
    handler = type("Bound", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/tiny"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
