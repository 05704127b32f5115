"""Private copies of bundles: temporary ones, and below those that were fetched.

There is one temporary copy for all who have the same bundle open, gone when the last of them closes it. It lies in a
folder of the user's own in the folder for temporary files, by the hash of the manifest and its signature. A lock tells
who still uses one, so what a killed process left goes when the next bundle is opened. Systems without such locks
(Windows) have a copy for each.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer_runtime import __version__, delivery
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.delivery import remove
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.site import Signed

_LOCK_SUFFIX = ".lock"
_UNFINISHED_SUFFIX = ".unfinished"


class Copy:
    """A private folder that holds a bundle's files until `close`."""

    def __init__(self, folder: Path, lock: delivery.Lock | None) -> None:
        """Use `open_copy`."""
        self.folder = folder
        self._lock = lock
        self._process = os.getpid()

    def close(self) -> None:
        """Remove the folder, unless somebody else uses it. A process that was forked off has nothing to close."""
        if self._process != os.getpid():
            return
        if self._lock is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self._lock.alone():
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.remove()
            _remove_empty(self.folder.parent)
        else:
            self._lock.close()


def open_copy(key: str, needed_bytes: int, fill: Callable[[Path], None], check: Callable[[], None]) -> Copy:
    """The copy of that key, made if nobody has it open.

    Args:
        key: the same for the same files only.
        needed_bytes: what a new copy takes.
        fill: writes a new copy into an empty folder, and checks what it writes.
        check: called in place of `fill` where the copy is there: the source must hold what it says all the same.

    Raises:
        BundleError: no space, or the folder for copies is not this user's alone; or what `fill` and `check` raise.
    """
    if not delivery.available():
        return Copy(_filled(Path(tempfile.mkdtemp(prefix="edgeformer-")), needed_bytes, fill), None)
    while True:
        home = _home()
        _clear_dead(home)
        try:
            copy = _first(home / key, needed_bytes, fill) or _joined(home / key, check)
        except FileNotFoundError:  # the last user of another copy has removed the folder of copies meanwhile
            continue
        if copy is not None:
            return copy


def _first(folder: Path, needed_bytes: int, fill: Callable[[Path], None]) -> Copy | None:
    """A new copy; None: others have one, or make it."""
    lock = delivery.take(_lock_of(folder))
    if lock is None:
        return None
    try:
        _make(folder, needed_bytes, fill)
    except BaseException:
        lock.remove()
        _remove_empty(folder.parent)
        raise
    if lock.share() and folder.is_dir():
        return Copy(folder, lock)
    lock.close()  # in the moment between both locks somebody took it for a dead one's
    return None


def _joined(folder: Path, check: Callable[[], None]) -> Copy | None:
    """The copy that others have open, when it is complete; None: they have not got that far."""
    lock = delivery.join(_lock_of(folder))
    copy = Copy(folder, lock)
    try:
        if folder.is_dir():
            check()
            return copy
    except BaseException:
        copy.close()
        raise
    copy.close()
    return None


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK_SUFFIX)


def _make(folder: Path, needed_bytes: int, fill: Callable[[Path], None]) -> None:
    """A folder appears under its name when it is complete."""
    unfinished = folder.with_name(folder.name + _UNFINISHED_SUFFIX)
    for left in (folder, unfinished):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _filled(unfinished, needed_bytes, fill).rename(folder)


def _filled(folder: Path, needed_bytes: int, fill: Callable[[Path], None]) -> Path:
    try:
        free = shutil.disk_usage(folder).free
        if needed_bytes > free:
            raise BundleError(
                f"not enough space in {folder.parent}: {needed_bytes >> 20} MiB are needed, {free >> 20} MiB are free: "
                "make room, or set TMPDIR"
            )
        fill(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _home() -> Path:
    """This user's folder for copies, which nobody else may look into.

    Raises:
        BundleError: somebody else has taken its name.
    """
    home = Path(tempfile.gettempdir()) / f"edgeformer-{os.getuid()}"
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BundleError(
            f"{home}: expected a folder of this user alone, for copies of bundles: remove it, or set TMPDIR"
        )
    return home


def _clear_dead(home: Path) -> None:
    """Remove the copies that nobody uses: their processes were killed."""
    for file in home.glob(f"*{_LOCK_SUFFIX}"):
        with suppress(OSError):
            lock = delivery.take(file)
            if lock is None:
                continue
            copy = file.with_suffix("")
            for folder in (copy, copy.with_name(copy.name + _UNFINISHED_SUFFIX)):
                if folder.is_dir():
                    remove(folder)
            lock.remove()


def _remove_empty(home: Path) -> None:
    with suppress(OSError):
        home.rmdir()


# Bundles that were fetched from a site and stay: `fetch.py` brings them. A folder of the user's cache for each site has
#
#     lock                    one process at a time changes what follows
#     accepted-KEY.signed     the newest index that each key signed
#     parts/NAME/             files that are being downloaded, by their hash
#     bundles/ID/             whole bundles, checked; ID.signed is the index that each came by, ID.lock says who uses it
#     NAME.json               which of them is in use, which was before, and which failed here


MAX_KEPT_BYTES = 4 << 30
"""Of all bundles that were fetched. Beyond it those that were not used for longest go."""
_MAX_STATE_BYTES = 1 << 20


@dataclass
class State:
    """What NAME.json holds: ids of bundles, and how often each died while it was tried."""

    current: str | None = None
    previous: str | None = None
    trials: dict[str, int] = field(default_factory=dict)
    runtime: str = __version__


class Store:
    """The folder of one site in this user's cache. All of it can be fetched again: what cannot be read is missing."""

    def __init__(self, base: str) -> None:
        """`base`: the site's address."""
        folder = delivery.cache_folder() / "fetched" / hashlib.sha256(base.encode()).hexdigest()[:32]
        self.folder = folder
        self.bundles = folder / "bundles"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that changes it.

        Raises:
            InputError: the folder cannot be used, or others could write to it.
        """
        try:
            delivery.make_private(self.bundles)
            why = delivery.who_can_replace(self.bundles)
            lock = delivery.take(self.folder / "lock", wait=True) if delivery.available() else None
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be used: {error.strerror}: set XDG_CACHE_HOME") from None
        try:
            if why is not None:
                raise InputError(f"{self.bundles}: {why}: expected a cache of this user alone")
            yield
        finally:
            if lock is not None:
                lock.close()

    def parts(self, name: str) -> Path:
        """Where the files of a bundle lie while they are downloaded."""
        return self.folder / "parts" / name

    def accepted(self, signer: str, keys: Sequence[bytes]) -> Signed | None:
        """The newest index of a key that was accepted."""
        return self._index(self.folder / f"accepted-{signer[:32]}.signed", keys)

    def accept(self, signed: Signed) -> None:
        """Take no older index of that key from now on."""
        write_whole(self.folder / f"accepted-{signed.signer[:32]}.signed", signed.data)

    def came_by(self, bundle_id: str, keys: Sequence[bytes]) -> Signed | None:
        """The index by which a kept bundle came, if one of the keys signed it."""
        return self._index(self.bundles / f"{bundle_id}.signed", keys)

    def came(self, bundle_id: str, signed: Signed) -> None:
        """Note the index that lists a kept bundle, or one that is to be kept."""
        write_whole(self.bundles / f"{bundle_id}.signed", signed.data)

    def state(self, name: str) -> State:
        """Which bundles are kept of a name."""
        try:
            value = strict_json.load_file(self.folder / f"{name}.json", f"{name}.json", _MAX_STATE_BYTES)
            state = strict_json.from_data(State, value, f"{name}.json")
        except (EdgeFormerError, AttributeError, KeyError, TypeError):
            return State()
        if state.runtime != __version__:  # another version may run what failed
            state.trials, state.runtime = {}, __version__
        return state

    def save(self, name: str, state: State) -> None:
        """Replace what is noted of a name, in one step."""
        write_whole(self.folder / f"{name}.json", strict_json.dumps(strict_json.to_data(state)).encode())

    def kept(self, keys: Sequence[bytes]) -> dict[str, Path]:
        """The files of all kept bundles by the hash that they should have."""
        from edgeformer_runtime.bundle.site import EMPTY

        files: dict[str, Path] = {EMPTY: Path(os.devnull)}
        for folder in _bundles(self.bundles):
            signed = self.came_by(folder.name, keys)
            for bundle in signed.index.bundles.values() if signed is not None else ():
                if bundle.id == folder.name:
                    files |= {file.sha256: folder / name for name, file in bundle.files.items()}
        return files

    def evict(self, used: str) -> None:
        """Remove bundles that no name of the site refers to, then the least used of all sites beyond the limit."""
        states = [self.state(file.stem) for file in self.folder.glob("*.json")]
        wanted = {used, *(each.current for each in states), *(each.previous for each in states)}
        for folder in _bundles(self.bundles):
            if folder.name not in wanted:
                _remove(folder)
        everything = sorted(
            (folder for site in self.folder.parent.iterdir() for folder in _bundles(site / "bundles")),
            key=lambda folder: folder.stat().st_mtime,
        )
        sizes = {folder: sum(file.stat().st_size for file in folder.rglob("*")) for folder in everything}
        for folder in everything:
            if sum(sizes.values()) > MAX_KEPT_BYTES and folder.name != used and _remove(folder):
                del sizes[folder]

    def _index(self, file: Path, keys: Sequence[bytes]) -> Signed | None:
        from edgeformer_runtime.bundle.site import read_index  # who opens a zip needs neither HTTP nor this

        try:
            return read_index(file.read_bytes(), keys)
        except (OSError, BundleError):
            return None


def _bundles(folder: Path) -> list[Path]:
    return [each for each in folder.glob("?" * 64) if each.is_dir()] if folder.is_dir() else []


def _remove(folder: Path) -> bool:
    """Remove a kept bundle in one step, unless somebody uses it."""
    file = folder.with_name(folder.name + ".lock")
    lock = delivery.take(file) if delivery.available() else None
    if lock is None and delivery.available():
        return False
    with suppress(OSError, InputError), delivery.work_folder(folder.parent) as work:
        folder.rename(work / folder.name)
        folder.with_name(folder.name + ".signed").unlink(missing_ok=True)
    if lock is not None:
        lock.remove()
    return not folder.exists()


def write_whole(file: Path, data: bytes) -> None:
    """Write a file of the store, which is its old or its new self whenever this process or the machine dies."""
    fresh = file.with_name(file.name + ".new")
    with fresh.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
