"""Writes signatures.json and releases.json: whose bundle, and which, a reader may be asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography import __version__ as cryptography_version
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle.signature import signed_message
from tests.golden.golden_files import document

MANIFEST = b'{"the bytes that are signed": "whatever they are"}\n'
NAME = "intents"
LAST_VERSION = (1 << 53) - 1

FIELD = (1 << 255) - 19
ORDER = (1 << 252) + 27742317777372353535851937790883648493
HIGHEST_BIT = 1 << 255

# The y of points of small order (RFC 8032's curve); two of them are roots of -d y^4 - 2 y^2 + 1.
_EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = (0, 1, _EIGHTH, FIELD - _EIGHTH, FIELD - 1)


def files() -> dict[str, bytes]:
    """The golden files by name."""
    signatures = [_signature_case(*case) for case in (*_keys(), *_signatures())]
    releases = [{"name": name, "text": text, "version": version} for name, text, version in _releases()]
    required = [
        {"name": name, "bundle": NAME, "found": found, "required": {"name": wanted, "version": least}, "error": error}
        for name, found, wanted, least, error in _required()
    ]
    return {
        "signatures.json": document(f"cryptography {cryptography_version}", signatures, manifest=MANIFEST.decode()),
        "releases.json": document(f"edgeformer-runtime {__version__}", releases, bundle=NAME, required=required),
    }


def _private(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def _public(seed: int) -> bytes:
    return _private(seed).public_key().public_bytes_raw()


def _little(number: int) -> bytes:
    return number.to_bytes(32, "little")


def _signature_case(name: str, keys: list[bytes] | None, signature: bytes | None, error: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "keys": None if keys is None else [key.hex() for key in keys],
        "signature": None if signature is None else signature.hex(),
        "error": error,
    }


_Case = tuple[str, list[bytes] | None, bytes | None, str | None]


def _keys() -> Iterator[_Case]:
    """Lists of keys that no reader takes, whatever the bundle is."""
    signature = _private(1).sign(signed_message(MANIFEST))
    yield "no keys", [], signature, "InputError"
    yield "a key of 31 bytes", [_public(1)[:31]], signature, "InputError"
    yield "a key of 33 bytes", [_public(1) + b"\0"], signature, "InputError"
    for y in SMALL_ORDER:
        for bit in (0, HIGHEST_BIT):
            # Under a key of small order R = S B fits, in one of eight messages or in all of them: here S is 0.
            forged = _little(1) + bytes(32)
            yield f"a key of small order: {_little(y | bit).hex()}", [_little(y | bit)], forged, "InputError"
    for y in (FIELD, FIELD + 1, FIELD + 3, FIELD + 18):
        yield f"a key that is not canonical: {_little(y).hex()}", [_little(y)], signature, "InputError"
    yield "a key of small order behind a good one", [_public(1), _little(1)], signature, "InputError"


def _signatures() -> Iterator[_Case]:
    key, other = _public(1), _public(2)
    signature = _private(1).sign(signed_message(MANIFEST))
    point, scalar = signature[:32], signature[32:]
    yield "none required, none there", None, None, None
    yield "none required, any there", None, bytes(64), None
    yield "none required, 63 bytes", None, bytes(63), "BundleError"
    yield "none required, 65 bytes", None, bytes(65), "BundleError"
    yield "the required key's", [key], signature, None
    yield "the second key's", [other, key], signature, None
    yield "the first key's", [key, other], signature, None
    yield "another key's", [other], signature, "BundleError"
    yield "neither key's", [other, _public(3)], signature, "BundleError"
    yield "none", [key], None, "BundleError"
    yield "empty", [key], b"", "BundleError"
    yield "of another message", [key], _private(1).sign(MANIFEST), "BundleError"
    yield "a bit of R", [key], bytes([point[0] ^ 1]) + point[1:] + scalar, "BundleError"
    yield "a bit of S", [key], point + bytes([scalar[0] ^ 1]) + scalar[1:], "BundleError"
    greater = int.from_bytes(scalar, "little") + ORDER
    yield "S and the order", [key], point + _little(greater), "BundleError"
    yield "S as the order", [key], point + _little(ORDER), "BundleError"
    for y in SMALL_ORDER:
        yield f"R of small order: {_little(y).hex()}", [key], _little(y) + scalar, "BundleError"
    yield "R that is not canonical", [key], _little(FIELD + 1) + scalar, "BundleError"


def _text(version: object, name: str = NAME) -> str:
    return f'{{\n  "name": "{name}",\n  "version": {version}\n}}\n'


def _releases() -> Iterator[tuple[str, str, int | None]]:
    """Texts of release.json with the version that they state; None: they are refused."""
    for version in (1, 3, 10, 4294967296, LAST_VERSION):
        yield f"version {version}", _text(version), version
    for bad in (
        0,
        -1,
        "+1",
        "01",
        "1.0",
        "1e3",
        '"3"',
        "true",
        "null",
        LAST_VERSION + 1,
        1 << 63,
        1 << 64,
        "9" * 16,
        "",
    ):
        yield f"version {bad}", _text(bad), None
    good = _text(3)
    yield "another name", _text(3, "intent"), None
    yield "a name in other letters", _text(3, "Intents"), None
    yield "an escaped name", _text(3, "\\u0069ntents"), None
    yield "no text", "", None
    yield "no newline at the end", good[:-1], None
    yield "two newlines at the end", good + "\n", None
    yield "a space at the end", good + " ", None
    yield "a byte order mark", "\ufeff" + good, None
    yield "returns", good.replace("\n", "\r\n"), None
    yield "minified", '{"name":"intents","version":3}', None
    yield "in another order", '{\n  "version": 3,\n  "name": "intents"\n}\n', None
    yield "a key more", good.replace("3\n", '3,\n  "more": 1\n'), None
    yield "no version", '{\n  "name": "intents"\n}\n', None
    yield "version twice", good.replace("3\n", '3,\n  "version": 4\n'), None
    yield "other digits", _text("\u0663"), None
    yield "long", good + " " * 5000, None


_Required = tuple[str, int | None, str | None, int | None, str | None]


def _required() -> Iterator[_Required]:
    """What is found, what is asked for, and whether that is refused."""
    yield "nothing is asked", None, None, None, None
    yield "its name", None, NAME, None, None
    yield "another name", 3, "things", None, "BundleError"
    yield "a part of its name", 3, "intent", None, "BundleError"
    yield "its version", 3, None, 3, None
    yield "a lower version", 3, NAME, 2, None
    yield "a higher version", 3, NAME, 4, "BundleError"
    yield "another name of a lower version", 3, "things", 2, "BundleError"
    yield "a version of no release", None, NAME, 1, "BundleError"
    yield "version 0", 3, None, 0, "InputError"
    yield "a version that no release has", 3, None, LAST_VERSION + 1, "InputError"
