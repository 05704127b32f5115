"""TUF's list of attacks (docs/delivery.md has it): each is refused, and the last good release stays in use."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeformer_runtime import delivery
from edgeformer_runtime import fetch as fetching
from edgeformer_runtime.bundle.site import LEAST_BYTES_S
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.fetch import fetch
from edgeformer_runtime.interface import silent

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ed25519
from published import (
    NOW,
    PUBLIC,
    Handler,
    Site,
    fetched,
    index,
    of_content,
    refused,
    same,
    text_of,
)

posix = pytest.mark.skipif(not delivery.available(), reason="this system has no locks that end with their process")
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def test_rollback(site: Site, releases: list[Path]) -> None:
    site.publish(7, releases[0])
    fetched(site)
    site.publish(6, releases[1])
    refused(site, releases, "its number is 6, and 7 was seen before")
    site.publish(7, releases[1])
    refused(site, releases, "another index of the number 7 was seen before")
    site.publish(8, releases[1])
    assert same(fetched(site).folder, releases[1])


def test_a_new_key_begins_a_new_count(site: Site, releases: list[Path]) -> None:
    """Whoever had the key may have used up all numbers: fast-forward."""
    keys = [PUBLIC, OTHER.public_key().public_bytes_raw()]
    site.publish((1 << 53) - 1, releases[0])
    assert same(fetch(site.url, keys, progress=silent).folder, releases[0])
    site.show(index(1, {"tiny": site.add(releases[1])}), OTHER)
    refused(site, releases, "not signed by a required key")
    assert same(fetch(site.url, keys, progress=silent).folder, releases[1])


def test_freeze(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1], days=-1)
    refused(site, releases, "expired")
    site.publish(2, releases[1], published=text_of(NOW + timedelta(days=3)))
    refused(site, releases, "published after this device's time")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-2] + b" }", "not signed by a required key"),
        (lambda data: data[:30] + (b"0" if data[30:31] == b"f" else b"f") + data[31:], "not signed by a required key"),
        (lambda data: data[19:], "expected the line of a signature"),
        (lambda data: data + b" " * (4 << 20), "found more"),
        (lambda _: b"", "expected the line of a signature"),
    ],
)
def test_a_changed_index(site: Site, releases: list[Path], damage: Any, message: str) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1])
    site.contents["index.signed"] = damage(site.contents["index.signed"])
    refused(site, releases, message)


def test_mix_and_match(site: Site, releases: list[Path]) -> None:
    """Files of two releases never make one bundle, not even where the publisher himself signs that."""
    site.publish(1, releases[0])
    fetched(site)
    old, new = site.add(releases[0]), site.add(releases[1])
    mixed = {"files": {**new["files"], "model.bin": old["files"]["model.bin"]}}
    site.show(index(2, {"tiny": mixed}))
    refused(site, releases, "model.bin: its SHA-256 differs from the manifest's")
    less = {"files": {name: file for name, file in new["files"].items() if name != "tokenizer.json"}}
    site.show(index(3, {"tiny": less}))
    refused(site, releases, "file 'tokenizer.json' is missing")


def test_other_bytes_wrong_sizes_and_endless_data(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1])
    model = of_content(site, (releases[1] / "model.bin").read_bytes())
    right = site.contents[model]
    site.contents[model] = bytes([right[0] ^ 1]) + right[1:]
    refused(site, releases, "the site has other bytes than its index says")
    site.contents[model] = right + b"more"
    refused(site, releases, "found more")

    def endless(handler: Handler, path: str, _: bytes) -> bool:
        if path != model:
            return False
        handler.send_response(200)
        handler.end_headers()
        while True:  # until the device hangs up
            handler.wfile.write(bytes(1 << 16))

    site.answer = endless
    refused(site, releases, "found more")
    site.answer, site.contents[model] = None, right
    assert same(fetched(site).folder, releases[1])


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://example.org/x", "//example.org"])
def test_redirects_out_of_https(site: Site, releases: list[Path], target: str) -> None:
    site.publish(1, releases[0])
    fetched(site)

    def redirect(handler: Handler, *_: Any) -> bool:
        handler.reply(302, b"", Location=target)
        return True

    site.answer = redirect
    refused(site, releases, "expected an address of https")


def test_a_redirect_to_another_place(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    site.contents["moved"] = site.contents.pop("index.signed")

    def redirect(handler: Handler, path: str, _: bytes) -> bool:
        if path == "index.signed":
            handler.reply(302, b"", Location="/moved")
        return path == "index.signed"

    site.answer = redirect
    assert same(fetched(site).folder, releases[0])


def test_encoded_answers(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    fetched(site)

    def encoded(handler: Handler, _: str, data: bytes) -> bool:
        handler.reply(200, data, Content_Encoding="gzip")
        return True

    site.answer = encoded
    refused(site, releases, "expected plain bytes, found them encoded")


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/../../b", "C:x", "a\\b", "CON", "x/"])
def test_path_traversal(site: Site, releases: list[Path], name: str) -> None:
    site.publish(1, releases[0])
    fetched(site)
    record = site.add(releases[1])
    record["files"][name] = site.add_file(b"evil")
    site.show(index(2, {"tiny": record}))
    refused(site, releases, "file name")


@pytest.mark.parametrize("digest", ["../../../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_hashes_that_are_none(site: Site, releases: list[Path], digest: str) -> None:
    site.publish(1, releases[0])
    fetched(site)
    record = site.add(releases[1])
    record["files"]["model.bin"]["sha256"] = digest
    site.show(index(2, {"tiny": record}))
    refused(site, releases, "index.signed: bundles.tiny.files.model.bin.sha256: ")


def test_another_bundle_in_its_place(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.show(index(2, {"other": site.add(releases[1])}))
    refused(site, releases, "no bundle 'tiny': expected one of other")
    site.publish(3, releases[1])
    with pytest.raises(BundleError, match="expected 'another', found 'tiny'"):
        fetched(site, require_name="another")


def test_slow_retrieval(site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish(1, releases[0])
    fetched(site)
    times = iter(range(0, 10**6, 40))  # every look at the clock is 40 s later
    monkeypatch.setattr("edgeformer_runtime.bundle.site.time.monotonic", lambda: float(next(times)))
    found = fetched(site)
    assert not found.refused
    assert "too slow" in str(found.problem)
    assert len(site.contents["index.signed"]) < 40 * LEAST_BYTES_S


def test_a_device_whose_clock_is_set_back(site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that has expired stays expired beside a newer one that was seen."""
    site.publish(1, releases[0])
    fetched(site)

    class Earlier(fetching.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) - timedelta(days=0.5)

    monkeypatch.setattr(fetching, "datetime", Earlier)
    site.publish(2, releases[1], published=text_of(NOW - timedelta(days=9)), expires=text_of(NOW - timedelta(days=0.2)))
    refused(site, releases, "expired")
