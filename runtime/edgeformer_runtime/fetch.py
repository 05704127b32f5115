"""Brings published bundles onto this machine, and keeps the last one that worked here: docs/delivery.md.

A bundle is built beside its place, checked whole, put there in one step, and tried with its own vectors. Only then
NAME.json names it, which is replaced in one step, too: `bundle/unpacked.py` has the store. So a process may be killed
at any moment: what was in use is in use, and what was downloaded need not be downloaded again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer_runtime import delivery
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.delta import apply_delta
from edgeformer_runtime.bundle.manifest import CASES_FILE, MANIFEST_NAME
from edgeformer_runtime.bundle.signature import Required, Requirement, requirement_of
from edgeformer_runtime.bundle.site import (
    INDEX_NAME,
    MAX_INDEX_BYTES,
    Delta,
    PublishedBundle,
    PublishedFile,
    Signed,
    Unreachable,
    Web,
    check_newer,
    file_address,
    read_index,
    split_address,
)
from edgeformer_runtime.bundle.unpacked import Store, write_whole
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.interface import Progress, Shown

if TYPE_CHECKING:
    from edgeformer_runtime.engines import Engine

MAX_TRIALS = 3
"""How often a release may end the process that tries it before it counts as one that fails."""
ATTEMPTS = 5
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, repr=False)
class Fetched(Shown):
    """What `fetch` found.

    Attributes:
        folder: of the bundle that is in use now.
        number: of the index that it came by.
        changed: it is another one than before.
        received_bytes: what was downloaded, the index included.
        problem: why it is not the newest one, in a line; None: it is, as far as the site says.
        refused: the problem is what the site holds, and not that it could not be reached.
    """

    folder: Path
    number: int
    changed: bool
    received_bytes: int
    problem: str | None = None
    refused: bool = False

    def tables(self) -> list[str]:
        """The folder alone, for other commands to take."""
        return [str(self.folder)]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "folder": str(self.folder)}


def fetch(
    url: str,
    require_signature: Required | None,
    *,
    require_name: str | None = None,
    require_version: int | None = None,
    isolated: bool = False,
    progress: Progress | None = None,
) -> Fetched:
    """Bring the newest release of a published bundle here, or say why the last good one stays.

    An exception that `progress` raises pauses the download: the next call goes on where it was.

    Args:
        url: the bundle's address, `https://HOST/FOLDER/NAME`; http only of this machine itself.
        require_signature: the public key that must have signed the index, or several of which one must.
        require_name: the name that the bundle's manifest must have; None: any.
        require_version: the lowest release that is taken; None: any, or none at all.
        isolated: try the bundle's vectors in a process of its own.
        progress: called with the step, the bytes that are there, and all that are needed; or with a line to read.

    Raises:
        InputError: the address or the key cannot be used, or the site cannot be reached and nothing was fetched before.
        BundleError: what the site holds is refused, and nothing was fetched before.
        EngineError: the bundle's engine is not here, and nothing was fetched before.
    """
    required = requirement_of(require_signature, require_name, require_version)
    bundle, fetched = open_published(url, required, isolated=isolated, progress=progress)
    bundle.close()
    return fetched


def open_published(
    url: str,
    required: Requirement,
    *,
    isolated: bool = False,
    recheck: bool = False,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> tuple[Bundle, Fetched]:
    """`fetch`, with the bundle open; nobody evicts it while it is in use.

    Args:
        url, isolated, progress: as of `fetch`.
        required: with a key at least.
        recheck: hash every file, even of a bundle that this user has loaded before.
        engine: what a new release is tried with, in place of its target's own.
    """
    base, name = split_address(url)
    keys = required.key_bytes()
    if not keys:
        raise InputError(f"{url}: expected the publisher's public key (--require-signature, require_signature=)")
    named = Requirement((), required.name, required.version)  # the key is the index's
    store = Store(base)
    with store.locked():
        return _Update(Web(base), name, keys, named, isolated, recheck, engine, progress or _warn, store).run()


def _warn(line: str, _: int, total: int) -> None:
    """Tell who asked for no progress what must not be missed."""
    if not total:
        warnings.warn(line, RuntimeWarning, stacklevel=2)


@dataclass
class _Update:
    """One look at a site, with what came of it; its fields are what `open_published` was asked."""

    web: Web
    name: str
    keys: tuple[bytes, ...]
    required: Requirement
    isolated: bool
    recheck: bool
    engine: Engine | None
    report: Progress
    store: Store

    def __post_init__(self) -> None:
        self.state = self.store.state(self.name)

    def run(self) -> tuple[Bundle, Fetched]:
        """The newest bundle, or else the last good one and why."""
        before = self.state.current
        try:
            bundle, number = self._newest()
            problem, refused = None, False
        except (InputError, BundleError, EngineError) as error:
            last = self._last_good()
            if last is None:
                raise
            bundle, number = last
            problem, refused = self._words(error, number), isinstance(error, BundleError)
            self.report(problem, 0, 0)
        changed = bundle.folder.name != before
        return bundle, Fetched(bundle.folder, number, changed, self.web.received_bytes, problem, refused)

    def _words(self, error: Exception, number: int) -> str:
        offline, refused = isinstance(error, Unreachable), isinstance(error, BundleError)
        kind = "offline" if offline else "refused" if refused else "not updated"
        return f"{kind}: {error}; the last good {self.name} is used, of index {number}"

    def _newest(self) -> tuple[Bundle, int]:
        signed = self._index()
        wanted = signed.bundle(self.name)
        if self.state.current == wanted.id:
            self.store.came(wanted.id, signed)
            opened = self._open(wanted.id)
            if opened is not None:
                return opened
        if self.state.trials.get(wanted.id, 0) >= MAX_TRIALS:
            raise BundleError(f"{self.name} of index {signed.index.number}: it was tried here before, and failed")
        built = self._open_checked(wanted.id, wanted)
        if built is None:
            self._build(wanted, signed)
        else:
            built.close()
        self._try(wanted, signed)
        self._switch(wanted)
        opened = self._open(wanted.id)
        if opened is None:
            raise BundleError(f"{self.name}: it was corrupted as soon as it was kept: check the disk")
        return opened

    def _switch(self, wanted: PublishedBundle) -> None:
        """From now on this bundle is the one in use; what only the update needed goes."""
        state = self.state
        if state.current != wanted.id:
            state.current, state.previous = wanted.id, state.current
        state.trials.pop(wanted.id, None)
        self.store.save(self.name, state)
        shutil.rmtree(self.store.parts(self.name), ignore_errors=True)
        self.store.evict(wanted.id)

    def _index(self) -> Signed:
        """The newest index, if it may be believed."""
        signed = read_index(self.web.read(INDEX_NAME, MAX_INDEX_BYTES), self.keys)
        known = self.store.accepted(signed.signer, self.keys)
        check_newer(signed, known, datetime.now(timezone.utc))  # noqa: UP017 - Python 3.10
        if known is None or known.index.number != signed.index.number:
            self.store.accept(signed)
        return signed

    def _last_good(self) -> tuple[Bundle, int] | None:
        for each in (self.state.current, self.state.previous):
            opened = None if each is None else self._open(each)
            if opened is not None:
                return opened
        return None

    def _open(self, bundle_id: str) -> tuple[Bundle, int] | None:
        """A kept bundle, in use until it is let go of, and the number of its index; None: it cannot be used."""
        signed = self.store.came_by(bundle_id, self.keys)
        published = None if signed is None else signed.index.bundles.get(self.name)
        if signed is None or published is None or published.id != bundle_id:
            return None
        place = self.store.bundles / bundle_id
        lock = delivery.join(place.with_name(bundle_id + ".lock")) if delivery.available() else None
        bundle = self._open_checked(bundle_id, published)
        if bundle is None:
            if lock is not None:
                lock.close()
            return None
        if lock is not None:
            weakref.finalize(bundle, lock.close)
        os.utime(place)
        return bundle, signed.index.number

    def _open_checked(self, bundle_id: str, published: PublishedBundle) -> Bundle | None:
        place = self.store.bundles / bundle_id
        try:
            return _open_as_published(place, published, self.required, not (self.recheck or self.isolated))
        except BundleError:
            return None

    def _build(self, wanted: PublishedBundle, signed: Signed) -> None:
        """Make the bundle beside its place, check it whole, and put it there."""
        parts = self.store.parts(self.name)
        parts.mkdir(parents=True, exist_ok=True)
        files = _Files(self.web, parts, self.store.kept(self.keys), self.report)
        files.plan(wanted.files.values())
        with delivery.work_folder(self.store.bundles) as work:
            folder = work / wanted.id
            for name, file in sorted(wanted.files.items(), key=lambda item: item[1].size):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(files.obtain(file), target)
            _open_as_published(folder, wanted, self.required, known=False).close()
            _sync(*folder.rglob("*"), folder)
            self.store.came(wanted.id, signed)
            delivery.put(folder, self.store.bundles / wanted.id)
        _sync(self.store.bundles)

    def _try(self, wanted: PublishedBundle, signed: Signed) -> None:
        """Replay the bundle's own vectors on this device.

        Raises:
            BundleError: they fail.
            EngineError: there is no engine for them.
        """
        trials, state = self.state.trials, self.state
        trials[wanted.id] = trials.get(wanted.id, 0) + 1
        self.store.save(self.name, state)  # an engine may end this process
        try:
            bundle = _open_as_published(self.store.bundles / wanted.id, wanted, self.required, known=True)
            with bundle:
                problem = self._problem(bundle)
        except BaseException:
            trials[wanted.id] -= 1
            self.store.save(self.name, state)
            raise
        if problem is not None:
            trials[wanted.id] = MAX_TRIALS
            self.store.save(self.name, state)
            raise BundleError(f"{self.name} of index {signed.index.number}: its own vectors fail here: {problem}")

    def _problem(self, bundle: Bundle) -> str | None:
        if CASES_FILE not in bundle.manifest.files:
            return None
        if self.isolated:
            from edgeformer_runtime.isolation.pipeline import verify_isolated

            found: Any = verify_isolated(bundle, 1)
        else:
            from edgeformer_runtime.verify.verify import verify

            found = verify(bundle, self.engine)
        return None if found.ok else f"first at the stage {found.first_diverging}, with {found.executed_by}"


def _open_as_published(folder: Path, published: PublishedBundle, required: Requirement, known: bool) -> Bundle:
    """Open a bundle that must be the very one that an index lists.

    Raises:
        BundleError: it is another one, or none.
    """
    bundle = Bundle.open(folder, required, remembered=known)
    listed = {name: file.sha256 for name, file in published.files.items()}
    members = bundle.members()
    unlisted = {name: _digest(path.read_bytes()) for name, path in members.items() if name not in bundle.manifest.files}
    found = {name: entry.sha256 for name, entry in bundle.manifest.files.items()} | unlisted
    if found != listed:
        bundle.close()
        raise BundleError(f"{MANIFEST_NAME}: it lists other files than the index: publish the bundle again")
    return bundle


class _Files:
    """Brings files of known hashes into a folder, from what is here already, by deltas, or whole."""

    def __init__(self, web: Web, parts: Path, kept: Mapping[str, Path], report: Progress) -> None:
        self._web, self._parts, self._kept, self._report = web, parts, kept, report
        self._finished = self._total = 0

    def plan(self, files: Iterable[PublishedFile]) -> None:
        """Count what is to be downloaded, make room for it, and forget parts that nothing needs."""
        needed = {file.sha256: file for file in files}
        missing = [file for file in needed.values() if file.sha256 not in self._kept]
        useful = {*needed, *(delta.sha256 for file in missing for delta in file.deltas)}
        for part in self._parts.iterdir():
            if part.name in useful:
                self._finished += part.stat().st_size
            else:
                part.unlink()
        self._total = sum(file.cost_bytes(self._kept) for file in missing)
        free = shutil.disk_usage(self._parts).free
        space = 2 * sum(file.size for file in missing)
        if space > free:
            raise InputError(f"{self._parts}: {space >> 20} MiB are needed, {free >> 20} MiB are free: make room")

    def obtain(self, file: PublishedFile) -> Path:
        """Where a file lies whose hash is as it should be.

        Raises:
            Unreachable: it could not be downloaded.
            BundleError: the site has other bytes.
        """
        kept = self._kept.get(file.sha256)
        part = self._parts / file.sha256
        for place in (kept, part):
            if place is not None and _has(place, file.sha256, file.size):
                return place
        here = part.stat().st_size if part.exists() else 0
        for delta in file.usable(self._kept):
            if delta.size < file.size - here and self._patched(file, delta):
                return part
        self._download(file.sha256, file.size)
        return part

    def _patched(self, file: PublishedFile, delta: Delta) -> bool:
        """Whether a delta gave the file; where it did not, the whole file is downloaded."""
        try:
            old = self._kept[delta.base].read_bytes()
            if _digest(old) != delta.base:
                return False
            patch = self._download(delta.sha256, delta.size)
            new = apply_delta(old, patch.read_bytes(), file.size)
        except (BundleError, OSError):
            return False
        if _digest(new) != file.sha256:
            return False
        write_whole(self._parts / file.sha256, new)
        patch.unlink()
        return True

    def _download(self, sha256: str, size: int) -> Path:
        """The file of a hash from the site; what is there of it already is not asked for again."""
        part = self._parts / sha256
        for attempt in range(ATTEMPTS):
            begin = part.stat().st_size if part.exists() else 0
            try:
                if begin < size or begin == 0:
                    with part.open("ab") as out:
                        self._web.append(file_address(sha256), out, size, self._step)
                if _has(part, sha256, size):
                    _sync(part)
                    return part
            except Unreachable:
                if attempt + 1 == ATTEMPTS or (part.stat().st_size == begin and attempt):
                    raise
                time.sleep(0.1 * 2**attempt)
                continue
            part.unlink()  # what an earlier run left may have been torn; a whole download is judged
            if begin == 0:
                break
        raise BundleError(f"{file_address(sha256)}: the site has other bytes than its index says: {size} were expected")

    def _step(self, count: int) -> None:
        self._finished += count
        self._total = max(self._total, self._finished)
        self._report("fetching", self._finished, self._total)


def _has(place: Path, sha256: str, size: int) -> bool:
    """Whether a file is there, and is the one that is meant."""
    with suppress(OSError), place.open("rb") as file:
        if os.fstat(file.fileno()).st_size == size:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest() == sha256
    return False


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where a file system has no such links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _sync(*paths: Path) -> None:
    """Have files and folders on the disk before anything refers to them."""
    for path in paths:
        with suppress(OSError):  # Windows opens no folders
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
