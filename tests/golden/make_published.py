"""Writes published.json: indexes of published bundles that a reader takes or refuses (docs/delivery.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle.site import read_index
from tests.golden.golden_files import document

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
NOW = "2027-01-10T00:00:00Z"
FILE = {"sha256": "a" * 64, "size": 9}
DELTA = {"base": "b" * 64, "sha256": "c" * 64, "size": 3}
INDEX: dict[str, Any] = {
    "format_version": 1,
    "number": 3,
    "published": "2027-01-01T00:00:00Z",
    "expires": "2027-01-31T00:00:00Z",
    "bundles": {"tiny": {"files": {"manifest.json": FILE, "vectors/cases.json": {**FILE, "deltas": [DELTA]}}}},
}


def files() -> dict[str, bytes]:
    """The golden file by its name."""
    return {
        "published.json": document(
            f"edgeformer-runtime {__version__}",
            [_case(*case) for case in (*_read(), *_seen())],
            key=KEY.public_key().public_bytes_raw().hex(),
            now=NOW,
        )
    }


def _signed(values: Any, key: Ed25519PrivateKey = KEY, domain: bytes = b"edgeformer-index-1\n") -> str:
    content = values if isinstance(values, str) else json.dumps(values)
    return f"edgeformer-index-1 {key.sign(domain + content.encode()).hex()}\n{content}"


def _case(name: str, text: str, known: str | None, error: str | None) -> dict[str, Any]:
    """A case; `id` is what names the content of the bundle `tiny`."""
    found = read_index(text.encode(), [KEY.public_key().public_bytes_raw()]) if error is None else None
    facts = None if found is None else {"number": found.index.number, "id": found.bundle("tiny").id}
    return {"name": name, "text": text, "known": known, "error": error, "facts": facts}


_Case = tuple[str, str, str | None, str | None]


def _changed(**values: Any) -> dict[str, Any]:
    return {**INDEX, **values}


def _bundle(name: str = "tiny", file: str = "manifest.json", **values: Any) -> dict[str, Any]:
    return _changed(bundles={name: {"files": {file: {**FILE, **values}}}})


def _read() -> Iterator[_Case]:
    """Without an index that was seen before."""
    good = _signed(INDEX)
    yield "an index", good, None, None
    yield "keys that are not known", _signed(_changed(later={"deep": [1]})), None, None
    yield "keys of a file that are not known", _signed(_bundle(later=1)), None, None
    for name, text in {
        "another key's": _signed(INDEX, OTHER),
        "another domain": _signed(INDEX, domain=b"edgeformer-bundle-manifest-1\n"),
        "a changed number": good.replace('"number": 3', '"number": 4'),
        "a changed signature": good[:19] + ("1" if good[19] == "0" else "0") + good[20:],
        "capital digits": good[:19] + good[19:147].upper() + good[147:],
        "no signature": json.dumps(INDEX),
        "another version of the line": good.replace("index-1 ", "index-2 ", 1),
        "nothing": "",
        "no newline": good.replace("\n", "", 1),
    }.items():
        yield name, text, None, "BundleError"
    for name, values in {
        "a newer version": _changed(format_version=2),
        "version 0": _changed(format_version=0),
        "number 0": _changed(number=0),
        "a number that is written as a float": _signed(INDEX),
        "a number beyond 2^53": _changed(number=1 << 53),
        "no number": {key: value for key, value in INDEX.items() if key != "number"},
        "a date alone": _changed(expires="2027-01-31"),
        "a month 13": _changed(expires="2027-13-01T00:00:00Z"),
        "a 30 February": _changed(expires="2027-02-30T00:00:00Z"),
        "an hour 24": _changed(expires="2027-01-30T24:00:00Z"),
        "a second 60": _changed(expires="2027-01-30T23:59:60Z"),
        "a newline behind a time": _changed(expires="2027-01-31T00:00:00Z\n"),
        "another zone": _changed(expires="2027-01-31T00:00:00+01:00"),
        "no bundles": _changed(bundles={}),
        "a bundle without files": _changed(bundles={"tiny": {"files": {}}}),
        "a bundle in a folder": _bundle("a/b"),
        "a bundle above": _bundle(".."),
        "a hidden bundle": _bundle(".tiny"),
        "two bundles of one name to some": _changed(bundles=dict.fromkeys(("tiny", "Tiny"), INDEX["bundles"]["tiny"])),
        "a file above": _bundle(file="../x"),
        "an absolute file": _bundle(file="/x"),
        "a file and its folder": _changed(bundles={"tiny": {"files": {"a": FILE, "a/b": FILE}}}),
        "a hash in capitals": _bundle(sha256="A" * 64),
        "a hash that is a path": _bundle(sha256="../" * 21 + "x"),
        "a hash with a newline": _bundle(sha256="a" * 64 + "\n"),
        "a size below 0": _bundle(size=-1),
        "a size that is a text": _bundle(size="9"),
        "a size beyond 2^40": _bundle(size=(1 << 40) + 1),
        "a list": [],
        "a key twice": '{"number": 1, "number": 2}',
        "no JSON": "{",
    }.items():
        text = values if isinstance(values, str) and values.startswith("edgeformer") else _signed(values)
        if name == "a number that is written as a float":
            text = _signed(json.dumps(INDEX).replace('"number": 3', '"number": 3.0'))
        yield name, text, None, "BundleError"


def _seen() -> Iterator[_Case]:
    """Beside the newest index that was seen before, and at a time."""
    seen = _signed(INDEX)
    yield "the same again", seen, seen, None
    yield "a newer one", _signed(_changed(number=4)), seen, None
    yield "an older one", _signed(_changed(number=2)), seen, "BundleError"
    yield "another one of the same number", _signed(_changed(expires="2027-02-01T00:00:00Z")), seen, "BundleError"
    yield "expired", _signed(_changed(expires="2027-01-09T23:59:59Z")), None, "BundleError"
    yield "expires now", _signed(_changed(expires=NOW)), None, None
    yield "published in a day", _signed(_changed(published="2027-01-11T00:00:00Z")), None, None
    yield "published in two days", _signed(_changed(published="2027-01-12T00:00:00Z")), None, "BundleError"
    later = _signed(_changed(published="2027-01-20T00:00:00Z"))
    older = _changed(number=4, expires="2027-01-15T00:00:00Z")
    yield "expired when a seen one was published", _signed(older), later, "BundleError"


if __name__ == "__main__":
    print(len(files()["published.json"]))
