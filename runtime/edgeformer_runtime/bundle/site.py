"""A publisher's site: what it holds, a signed index of bundles and their files by hash, and how that is read.

docs/delivery.md is normative. The site is static: `index.signed` is one line with a signature and then the JSON that it
is of, and `files/ab/abcdef...` has the bytes whose hash is abcdef... A file may have deltas: what makes it from a file
that the reader has already.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.request
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import IO, Any, NoReturn
from urllib.parse import urljoin, urlsplit

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.signature import signer_of
from edgeformer_runtime.bundle.strict_json import check_distinct, check_name, shorten
from edgeformer_runtime.errors import BundleError, InputError

INDEX_NAME = "index.signed"
FORMAT_VERSION = 1
MAX_INDEX_BYTES = 4 << 20
DOMAIN = b"edgeformer-index-1\n"
"""What stands before the JSON in what is signed, so that no signature made for anything else fits."""

_SCHEMA = "index.schema.json"
LINE_BYTES = len("edgeformer-index-1 ") + 128 + 1
"""Of the signature's line, behind which the JSON begins."""
_LINE = re.compile(rb"edgeformer-index-1 ([0-9a-f]{128})\n")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Delta:
    """What makes a file from another one: `base` is that one's SHA-256; hash and size are the delta's own."""

    base: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PublishedFile:
    """A file of a published bundle, with the deltas that make it, in the publisher's order."""

    sha256: str
    size: int
    deltas: tuple[Delta, ...] = ()

    def usable(self, have: Container[str]) -> list[Delta]:
        """The deltas whose base is among some hashes, the smallest first."""
        found = (each for each in self.deltas if each.base in have and self.size <= MAX_DELTA_BYTES)
        return sorted(found, key=lambda each: each.size)

    def cost_bytes(self, have: Container[str]) -> int:
        """What is to be downloaded of it by whoever has the files of some hashes."""
        return 0 if self.sha256 in have else min([self.size, *(each.size for each in self.usable(have))])


@dataclass(frozen=True)
class PublishedBundle:
    """All files of a bundle by their names, the manifest and its signature included."""

    files: dict[str, PublishedFile]

    @property
    def id(self) -> str:
        """A name of this content: the SHA-256 of all names and hashes, in hexadecimal."""
        lines = "".join(f"{file.sha256} {name}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256(lines.encode("ascii")).hexdigest()


@dataclass(frozen=True)
class Index:
    """A whole index.

    Attributes:
        number: higher than that of every index published before.
        published: when that was, in UTC.
        expires: when a reader that is shown this index no longer believes that it is the newest.
        bundles: by name; the last part of a bundle's address.
    """

    number: int
    published: datetime
    expires: datetime
    bundles: dict[str, PublishedBundle]


@dataclass(frozen=True)
class Signed:
    """An index whose signature fits.

    Attributes:
        index: what it says.
        signer: the fingerprint of the key that signed it.
        data: the bytes of the file.
    """

    index: Index
    signer: str
    data: bytes

    def bundle(self, name: str) -> PublishedBundle:
        """A bundle of it.

        Raises:
            BundleError: the index has none of that name.
        """
        if name not in self.index.bundles:
            names = ", ".join(sorted(self.index.bundles))
            raise BundleError(f"{INDEX_NAME}: no bundle {shorten(name)}: expected one of {shorten(names, 400)[1:-1]}")
        return self.index.bundles[name]


def file_address(sha256: str) -> str:
    """Where a site has the file of a hash, relative to its index."""
    return f"files/{sha256[:2]}/{sha256}"


def read_index(data: bytes, keys: Sequence[bytes]) -> Signed:
    """Read an index from an untrusted place; nothing in it is looked at before its signature fits.

    Args:
        data: the bytes of `index.signed`.
        keys: the 32 bytes of each public key that may have signed it.

    Raises:
        BundleError: too large, not signed by one of the keys, or not as docs/delivery.md says.
        InputError: `cryptography` is not installed.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise BundleError(f"{INDEX_NAME}: expected at most {MAX_INDEX_BYTES} bytes, found {len(data)}")
    line = _LINE.match(data)
    if line is None:
        raise BundleError(f"{INDEX_NAME}: expected the line of a signature, found {shorten(data[:LINE_BYTES])}")
    content = data[LINE_BYTES:]
    signer = signer_of(DOMAIN + content, bytes.fromhex(line[1].decode("ascii")), keys)
    if signer is None:
        raise BundleError(
            f"{INDEX_NAME}: not signed by a required key: it was changed after it was signed, or signed with another"
        )
    return Signed(parse_index(content), signer, data)


def parse_index(content: bytes) -> Index:
    """The index that was signed.

    Args:
        content: what stands behind the signature's line.

    Raises:
        BundleError: it is not as docs/delivery.md says.
    """
    value = strict_json.loads(content, INDEX_NAME, MAX_INDEX_BYTES)
    version = value.get("format_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"{INDEX_NAME}: made by a newer version ({shorten(version)}), this runtime reads {FORMAT_VERSION}:"
            " upgrade edgeformer-runtime"
        )
    strict_json.check(value, _SCHEMA, INDEX_NAME)
    bundles = {}
    for name, bundle in value["bundles"].items():
        check_bundle_name(name)
        for file_name in bundle["files"]:
            check_name(file_name)
        check_distinct(bundle["files"])
        bundles[name] = PublishedBundle({key: _file(file) for key, file in bundle["files"].items()})
    check_distinct(bundles)
    return Index(_whole(value["number"]), _time(value["published"]), _time(value["expires"]), bundles)


def check_bundle_name(name: str) -> None:
    """Refuse a bundle's name that cannot be the last part of an address and the name of a folder.

    Raises:
        BundleError: it cannot.
    """
    check_name(name)
    if "/" in name or name.startswith("."):
        raise BundleError(f"{INDEX_NAME}: {shorten(name)}: expected a bundle's name without / or a dot before it")


def _file(value: dict[str, Any]) -> PublishedFile:
    """The record of a file; what else stands there is for newer readers."""
    deltas = (Delta(each["base"], each["sha256"], _whole(each["size"])) for each in value.get("deltas", ()))
    return PublishedFile(value["sha256"], _whole(value["size"]), tuple(deltas))


def _whole(number: object) -> int:
    if type(number) is not int:  # 1.0 is an integer to JSON Schema
        raise BundleError(f"{INDEX_NAME}: expected an integer, found {shorten(number)}")
    return number


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=timezone.utc)  # noqa: UP017 - Python 3.10
    except ValueError:
        raise BundleError(f"{INDEX_NAME}: expected a time like 2027-01-31T12:00:00Z, found {shorten(text)}") from None


EMPTY = hashlib.sha256(b"").hexdigest()
"""The base of a delta that makes a file from nothing: the file, compressed."""
MAX_DELTAS = 16
MAX_DELTA_BYTES = 1 << 29
"""The largest file that is made by a delta; its making takes several times that memory."""
CLOCK_SLACK = timedelta(days=1)
"""How far a reader's clock may be behind the publisher's."""


def check_newer(found: Signed, known: Signed | None, now: datetime) -> None:
    """Refuse an index that is older than one seen before, or that has expired.

    Numbers are compared only where one key signed both: so a publisher whose key, or whose count, was lost begins anew
    with another key.

    Args:
        found: what the site shows.
        known: the newest index of that signer that was accepted before; None: there is none.
        now: the device's time in UTC. A clock that was set back does not make an old index young: it is at least the
            time at which `known` was published.

    Raises:
        BundleError: older (a rollback), another one of the same number, or expired (a freeze), or the clock is wrong.
    """
    index = found.index
    now = now if known is None else max(now, known.index.published)
    if known is not None and index.number < known.index.number:
        raise BundleError(
            f"{INDEX_NAME}: its number is {index.number}, and {known.index.number} was seen before: an older index is"
            " refused"
        )
    if known is not None and index.number == known.index.number and found.data != known.data:
        raise BundleError(
            f"{INDEX_NAME}: another index of the number {index.number} was seen before: publish a new one"
        )
    if now + CLOCK_SLACK < index.published:
        raise BundleError(f"{INDEX_NAME}: published after this device's time, {now:{TIME_FORMAT}}: set its clock")
    if now > index.expires:
        raise BundleError(
            f"{INDEX_NAME}: expired {index.expires:{TIME_FORMAT}}: the site shows an old index, or must publish"
        )


# HTTP, by the standard library.


CONNECT_S = 20.0
"""How long a server may keep silent."""
LEAST_BYTES_S = 1024
SLOW_AFTER_S = 30.0
"""After these seconds a download that has brought fewer bytes a second has failed."""
MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 18
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class Unreachable(InputError):
    """A site that does not answer, or not to the end: what was fetched before may still be used."""


def check_address(url: str) -> None:
    """Refuse an address that is not https, or http of this very machine.

    Raises:
        InputError: it is another one.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _THIS_MACHINE)):
        raise InputError(f"{shorten(url)}: expected an address that begins with https://")


def split_address(url: str) -> tuple[str, str]:
    """A site's address, with a slash at its end, and a bundle's name.

    Raises:
        InputError: no such address.
    """
    check_address(url)
    parts = urlsplit(url)
    base, _, name = url.rpartition("/")
    if parts.query or parts.fragment or "@" in parts.netloc or {".", ".."} & set(parts.path.split("/")):
        raise InputError(f"{shorten(url)}: expected an address like https://HOST/FOLDER/BUNDLE and nothing behind it")
    try:
        check_bundle_name(name)
    except BundleError:
        raise InputError(f"{shorten(url)}: expected a bundle's name at the end of its address") from None
    return base + "/", name


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a site to another place, but never out of https."""

    max_redirections = MAX_REDIRECTS

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Look where it goes before anything is asked there."""
        target = urljoin(req.full_url, headers.get("Location") or "")
        try:
            check_address(target)
        except InputError:
            target = shorten(target)
            raise BundleError(f"{req.full_url}: redirects to {target}: expected an address of https") from None
        if urlsplit(target).scheme != urlsplit(req.full_url).scheme:
            raise BundleError(f"{req.full_url}: redirects to another scheme, {shorten(target)}")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class Web:
    """One site. What it sends is untrusted: lengths are bounded, and nothing is decoded."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.received_bytes = 0
        self._opener = urllib.request.OpenerDirector()  # build_opener's would read files and FTP, too
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            _Redirects(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def read(self, address: str, max_bytes: int) -> bytes:
        """A small file.

        Raises:
            Unreachable: it could not be had.
            BundleError: it is larger, or a redirection leads out of https.
        """
        data = b""
        with self._asked(address, 0) as response:
            for chunk in self._chunks(address, response):
                data += chunk
                if len(data) > max_bytes:
                    raise BundleError(f"{self._base}{address}: expected at most {max_bytes} bytes, found more")
        return data

    def append(self, address: str, out: IO[bytes], size: int, step: Callable[[int], None]) -> None:
        """Download what is missing of a file to its end.

        Args:
            address: relative to the site.
            out: the file, open to append; what it holds is not asked for again, if the server can do that.
            size: of the whole file.
            step: called with the bytes that came, after they were written.

        Raises:
            Unreachable: not all came.
            BundleError: the server has more, or sends another part than it was asked for.
        """
        begin = out.tell()
        with self._asked(address, begin) as response:
            if begin and response.status == http.client.PARTIAL_CONTENT:
                expected = f"bytes {begin}-{size - 1}/{size}"
                if response.headers.get("Content-Range") != expected:
                    found = shorten(response.headers.get("Content-Range"))
                    raise BundleError(f"{self._base}{address}: expected {expected}, found {found}")
            elif begin:  # the server sends all of it
                out.truncate(0)
                begin = 0
            for chunk in self._chunks(address, response):
                begin += len(chunk)
                if begin > size:
                    raise BundleError(f"{self._base}{address}: expected {size} bytes, found more")
                out.write(chunk)
                out.flush()
                step(len(chunk))
        if begin < size:
            raise Unreachable(f"{self._base}{address}: the connection ended after {begin} of {size} bytes")

    @contextmanager
    def _asked(self, address: str, begin: int) -> Iterator[http.client.HTTPResponse]:
        headers = {"User-Agent": f"edgeformer-runtime/{__version__}", "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        request = urllib.request.Request(self._base + address, headers=headers)
        try:
            opened = self._opener.open(request, timeout=CONNECT_S)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._unreachable(address, error)
        with opened as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise BundleError(f"{self._base}{address}: expected plain bytes, found them encoded")
            yield response

    def _chunks(self, address: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
        begin_s, count = time.monotonic(), 0
        while True:
            try:
                chunk = response.read1(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._unreachable(address, error)
            if not chunk:
                return
            count += len(chunk)
            self.received_bytes += len(chunk)
            yield chunk
            elapsed_s = time.monotonic() - begin_s
            if elapsed_s > SLOW_AFTER_S and count < LEAST_BYTES_S * elapsed_s:
                raise Unreachable(f"{self._base}{address}: {count} bytes in {elapsed_s:.0f} s: too slow")

    def _unreachable(self, address: str, error: Exception) -> NoReturn:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error or type(error).__name__
        raise Unreachable(f"{self._base}{address}: {shorten(str(reason), 200)[1:-1]}") from None
