"""Bundles of a site: what reaches a device is what its publisher signed last, whatever happens on the way."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import TinyEngine, manifest, seal

from edgeformer_runtime import delivery, load
from edgeformer_runtime import fetch as fetching
from edgeformer_runtime.bundle import unpacked
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.delta import make_delta
from edgeformer_runtime.bundle.site import LEAST_BYTES_S, Unreachable
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.fetch import Fetched, fetch
from edgeformer_runtime.interface import silent
from edgeformer_runtime.verify import verify as verifying

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ed25519
from published import NOW, PUBLIC, Handler, Site, files_of, index, served, sha256, text_of

posix = pytest.mark.skipif(not delivery.available(), reason="this system has no locks that end with their process")
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, a cache of the test's own, and an engine that gives what the vectors say."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verifying, "open_engine", lambda _: TinyEngine())
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)
    with served() as site:
        yield site


@pytest.fixture
def releases(tiny: Path) -> list[Path]:
    """Three releases, whose models are 40,000 bytes that differ."""
    made = []
    for number in range(3):
        folder = Path(shutil.copytree(tiny, tiny.with_name(f"release_{number}")))
        (folder / "model.bin").write_bytes(random.Random(number).randbytes(40_000))
        seal(folder, manifest())
        made.append(folder)
    return made


def same(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    return {name: path.read_bytes() for name, path in files_of(folder).items()} == {
        name: path.read_bytes() for name, path in files_of(other).items()
    }


def fetched(site: Site, **options: Any) -> Fetched:
    return fetch(site.url, PUBLIC, progress=silent, **options)


def store(site: Site) -> unpacked.Store:
    return unpacked.Store(site.url.removesuffix("tiny"))


def test_first_then_nothing_then_what_changed(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    first = fetched(site)
    assert same(first.folder, releases[0])
    assert (first.number, first.changed, first.problem) == (1, True, None)
    assert first.received_bytes == sum(map(len, site.contents.values()))

    site.asked.clear()
    again = fetched(site)
    assert (again.folder, again.changed) == (first.folder, False)
    assert [path for path, _ in site.asked] == ["index.signed"]

    site.publish(2, releases[1])
    site.asked.clear()
    second = fetched(site)
    assert same(second.folder, releases[1])
    changed = {name for name in files_of(releases[1]) if not equal(name, releases)}
    assert changed == {"manifest.json", "model.bin"}
    assert len(site.asked) == 1 + len(changed)  # what is here already is not asked for


def equal(name: str, releases: list[Path]) -> bool:
    return (releases[0] / name).read_bytes() == (releases[1] / name).read_bytes()


def test_load_opens_an_address_and_the_last_good_when_offline(
    site: Site, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real engine
    monkeypatch.setenv("XDG_CACHE_HOME", str(site_cache(site, tiny_onnx)))
    site.publish(1, tiny_onnx)
    with load(site.url, require_signature=PUBLIC) as pipeline:
        answer = pipeline("turn the lights off")
    with load(str(tiny_onnx)) as pipeline:
        assert pipeline("turn the lights off").scores == answer.scores
    site.answer = lambda *_: True  # the connection ends without a word
    with (
        pytest.warns(RuntimeWarning, match="^offline: .*; the last good tiny is used, of index 1$"),
        load(site.url, require_signature=PUBLIC) as pipeline,
    ):
        assert pipeline("turn the lights off").scores == answer.scores
    lines: list[str] = []
    load(site.url, require_signature=PUBLIC, progress=lambda line, *_: lines.append(line)).close()
    assert [line[:8] for line in lines] == ["offline:"]


def site_cache(site: Site, beside: Path) -> Path:
    return beside.parent / f"cache-{site.url.rpartition(':')[2].partition('/')[0]}"


def test_without_anything_kept_problems_are_errors(site: Site) -> None:
    with pytest.raises(Unreachable, match="Not Found"):
        fetched(site)
    for url in ("http://example.org/tiny", "ftp://example.org/tiny", "file:///tiny", "https:///tiny"):
        with pytest.raises(InputError, match="expected an address that begins with https://"):
            fetch(url, PUBLIC)
    for url in ("https://example.org/a/../tiny", "https://example.org/tiny?key=1", "https://me@example.org/tiny"):
        with pytest.raises(InputError, match="and nothing behind it"):
            fetch(url, PUBLIC)
    with pytest.raises(InputError, match="a bundle's name at the end"):
        fetch("https://example.org/a/", PUBLIC)
    with pytest.raises(InputError, match="the publisher's public key"):
        fetch(site.url, None)


# TUF's list of attacks (docs/delivery.md has it): each is refused, and the last good release stays in use.


def refused(site: Site, releases: list[Path], message: str) -> None:
    """What the site shows now is refused for a reason, by a device that has the first release, and by a new one."""
    found = fetched(site)
    assert found.refused
    assert found.problem is not None
    assert message in found.problem
    assert same(found.folder, releases[0])
    assert not list(store(site).folder.glob("parts/*/*.new"))


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
        (lambda data: data[:30] + b"f" + data[31:], "not signed by a required key"),
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


def of_content(site: Site, content: bytes) -> str:
    """Where the site has some bytes."""
    return next(path for path, data in site.contents.items() if data == content)


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


# Downloads that end early.


def test_a_torn_download_goes_on_where_it_was(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    whole = len((releases[0] / "model.bin").read_bytes())
    model = next(path for path, data in site.contents.items() if len(data) == whole)

    def torn(handler: Handler, path: str, data: bytes) -> bool:
        """10,000 bytes a connection."""
        if path != model:
            return False
        begin = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(data) - begin))
        handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[begin : begin + 10_000])
        return True

    site.answer = torn
    assert same(fetched(site).folder, releases[0])
    assert [asked for path, asked in site.asked if path == model] == [None, *(f"bytes={n}0000-" for n in (1, 2, 3))]


@pytest.mark.parametrize("ranges", [True, False])
def test_pause_and_resume(site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch, ranges: bool) -> None:
    monkeypatch.setattr("edgeformer_runtime.bundle.site._CHUNK_BYTES", 4096)
    site.publish(1, releases[0])

    class Pause(Exception):
        """Of an app."""

    def pause(_: str, finished: int, total: int) -> None:
        if finished > total // 2:
            raise Pause

    with pytest.raises(Pause):
        fetch(site.url, PUBLIC, progress=pause)
    parts = {path.name: path.stat().st_size for path in store(site).parts("tiny").iterdir()}
    assert parts
    if not ranges:  # the server sends all of it again

        def whole(handler: Handler, _: str, data: bytes) -> bool:
            handler.reply(200 if data else 404, data)
            return True

        site.answer = whole
    site.asked.clear()
    counts: list[tuple[int, int]] = []
    found = fetch(site.url, PUBLIC, progress=lambda _, *count: counts.append(count))
    assert same(found.folder, releases[0])
    assert counts[-1][0] == counts[-1][1]
    (model,) = (name for name in parts if sha256((releases[0] / "model.bin").read_bytes()) == name)
    assert 0 < parts[model] < 40_000
    begin = counts[0][1] - counts[0][0]
    assert begin < 40_000 - parts[model] + 4096
    assert [wanted for path, wanted in site.asked if model in path] == [f"bytes={parts[model]}-"]
    assert len(site.asked) == 2  # the index, and the file that was not finished


def test_a_part_that_is_corrupted_is_downloaded_again(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    model = (releases[0] / "model.bin").read_bytes()
    parts = store(site).parts("tiny")
    parts.mkdir(parents=True)
    for content in (bytes(30_000), bytes(40_000), bytes(50_000)):
        (parts / sha256(model)).write_bytes(content)
        shutil.rmtree(store(site).bundles, ignore_errors=True)
        assert same(fetched(site).folder, releases[0])
        parts.mkdir(exist_ok=True)


# Releases that do not work here.


def test_a_release_whose_vectors_fail_is_not_used(
    site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1])
    monkeypatch.setattr(verifying, "open_engine", lambda _: TinyEngine(offset=1.0))
    refused(site, releases, "its own vectors fail here: first at the stage seq_8")
    site.asked.clear()
    refused(site, releases, "it was tried here before, and failed")
    assert [path for path, _ in site.asked] == ["index.signed"]
    site.publish(3, releases[2])
    monkeypatch.setattr(verifying, "open_engine", lambda _: TinyEngine())
    assert same(fetched(site).folder, releases[2])
    monkeypatch.setattr(unpacked, "__version__", "0.1.1")  # another runtime may run it
    site.publish(4, releases[1])
    assert same(fetched(site).folder, releases[1])


def test_an_engine_that_is_missing(site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1])

    def missing(_: Bundle) -> TinyEngine:
        raise EngineError("no engine")

    monkeypatch.setattr(verifying, "open_engine", missing)
    found = fetched(site)
    assert found.problem == "not updated: no engine; the last good tiny is used, of index 1"
    monkeypatch.setattr(verifying, "open_engine", lambda _: TinyEngine())
    site.asked.clear()
    assert same(fetched(site).folder, releases[1])
    assert [path for path, _ in site.asked] == ["index.signed"]  # it was here, but for its trial


@posix
def test_a_release_that_kills_its_process_is_given_up(
    site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1])
    monkeypatch.setattr(verifying, "open_engine", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    for _ in range(3):
        assert in_child(lambda: fetched(site)) == signal.SIGKILL
    refused(site, releases, "it was tried here before, and failed")


def test_a_kept_bundle_that_is_corrupted(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    fetched(site)
    site.publish(2, releases[1])
    second = fetched(site)
    (second.folder / "model.bin").write_bytes(b"torn")
    site.answer = lambda *_: True
    found = fetched(site)
    assert found.number == 1  # offline the one before is used
    assert same(found.folder, releases[0])
    site.answer = None
    assert same(fetched(site).folder, releases[1])


# What is kept.


def kept(site: Site) -> set[str]:
    return {path.name for path in store(site).bundles.iterdir() if path.is_dir()}


@posix
def test_old_releases_are_evicted_unless_in_use(site: Site, releases: list[Path]) -> None:
    site.publish(1, releases[0])
    required = fetching.requirement_of(PUBLIC)
    bundle, first = fetching.open_published(site.url, required, progress=silent)
    site.publish(2, releases[1])
    second = fetched(site)
    site.publish(3, releases[2])
    third = fetched(site)
    assert kept(site) == {first.folder.name, second.folder.name, third.folder.name}  # the first is in use
    del bundle
    site.publish(4, releases[0])
    fetched(site)
    assert kept(site) == {first.folder.name, third.folder.name}


def test_the_least_used_goes_beyond_the_limit(
    site: Site, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish(1, releases[0])
    fetched(site)
    monkeypatch.setattr(unpacked, "MAX_KEPT_BYTES", 60_000)
    site.publish(2, releases[1])
    second = fetched(site)
    assert kept(site) == {second.folder.name}


def test_what_is_noted_may_be_lost(site: Site, releases: list[Path]) -> None:
    """Files of the cache that are no files of ours count as missing, and are made again."""
    site.publish(1, releases[0])
    fetched(site)
    for file in [*store(site).folder.glob("*.json"), *store(site).folder.rglob("*.signed")]:
        for content in (b"", b"null", b'{"current": 1}', b"[" * 100):
            file.write_bytes(content)
            assert same(fetched(site).folder, releases[0])


# Processes that are killed.


def in_child(act: Any) -> int:
    """The signal that ended a child which does something, or 0."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


STEPS = ("open", "os.", "shutil.", "socket.connect", "fcntl.flock", "tempfile.")
"""What Python tells an audit hook before it does it: all that changes files, and more."""


def fetch_until(site: Site, step: int) -> None:
    """Fetch, and be killed before the step of that number, or when as many chunks were written."""
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda event, _: count() if event.startswith(STEPS) else None)
    fetch(site.url, PUBLIC, progress=count)


@posix
@pytest.mark.slow
def test_a_process_may_be_killed_at_every_step(
    site: Site, releases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it dies the old release is in use, or the new one, whole; and the next run finishes what it began.

    The model comes by a delta, and the other files whole, in several chunks.
    """
    monkeypatch.setattr("edgeformer_runtime.bundle.site._CHUNK_BYTES", 1024)
    site.publish(1, releases[0])
    fetched(site)
    old = (releases[0] / "model.bin").read_bytes()
    new = old[:9_000] + random.Random(9).randbytes(3_000) + old[12_000:]
    (releases[1] / "model.bin").write_bytes(new)
    seal(releases[1], manifest())
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "cache", before, copy_function=os.link)
    record = site.add(releases[1])
    record["files"]["model.bin"]["deltas"] = [{"base": sha256(old), **site.add_file(make_delta(old, new))}]
    site.show(index(2, {"tiny": record}))
    outcomes, step = [], 0
    while True:
        step += 1
        shutil.rmtree(tmp_path / "cache")
        shutil.copytree(before, tmp_path / "cache", copy_function=shutil.copy2)
        ended = in_child(partial(fetch_until, site, step))
        site.answer = lambda *_: True
        found = fetched(site)  # offline
        outcomes.append(found.number)
        assert same(found.folder, releases[found.number - 1])
        site.answer = None
        if not ended:
            break
        if step % 8 == 0:
            assert same(fetched(site).folder, releases[1])
    assert step > 100
    model = of_content(site, new)
    assert model not in [path for path, _ in site.asked]
    assert outcomes == sorted(outcomes)  # in one step
    assert set(outcomes) == {1, 2}
