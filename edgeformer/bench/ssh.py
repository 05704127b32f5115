"""A machine behind ssh: the runtime is installed there for the measurement, and everything is removed afterwards.

All goes through the user's own ssh client, which checks the machine's key and knows the user's. Files are streamed
through it, so the other side needs Python and a shell but neither scp nor sftp.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgeformer_runtime
from edgeformer_runtime.bench.report import MAX_BYTES, Report, from_json
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.signature import public_pem
from edgeformer_runtime.bundle.strict_json import loads
from edgeformer_runtime.errors import BundleError, EngineError, InputError

if TYPE_CHECKING:
    from edgeformer.bench.command import Request, Tell

CONNECT_SECONDS = 15
OLDEST_PYTHON = (3, 10)
INSTALL_BYTES = 400 << 20
"""What the runtime, LiteRT and numpy take with their downloads; other engines take more."""

_SSH_FAILED = 255
_NOT_FOUND = 127
_OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "ClearAllForwardings=yes"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)

# In the home folder, as /tmp may be in memory, whose use would be measured, or without leave to execute.
_PROBE = """
import importlib.util, json, pathlib, shutil, sys, tempfile
folder = tempfile.mkdtemp(prefix=".bench-edgeformer-", dir=pathlib.Path.home())
venv = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
free = shutil.disk_usage(folder).free
print(json.dumps({"folder": folder, "python": sys.version_info[:2], "venv": venv, "free": free}))
"""

# Why ssh itself failed, by what it says, and what to do.
_REASONS = (
    ("Host key verification failed", "its host key is not known here: connect once by hand with `ssh` and check it"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed: find out why before you go on"),
    ("Permission denied", "it takes none of your keys: try `ssh-copy-id`, as no password is asked for here"),
)


@dataclass(frozen=True)
class Place:
    """A private folder on the other machine."""

    folder: str
    python: tuple[int, ...]
    venv: bool
    free: int

    def path(self, *parts: str) -> str:
        """A path in it."""
        return "/".join((self.folder, *parts))


class SshHost:
    """See `Host`."""

    def __init__(self, name: str, address: str, port: int | None, remote_runtime: str | None) -> None:
        """`address`: "user@host"; `remote_runtime`: the command there, or None to install it."""
        self.name = name
        port_option = () if port is None else ("-p", str(port))
        self._command = ("ssh", *_OPTIONS, *port_option, "--", address)
        self._remote_runtime = remote_runtime

    def measure(self, request: Request, tell: Tell) -> Report:
        """See `Host`."""
        if shutil.which("ssh") is None:
            raise InputError(f"{self.name}: there is no ssh here: install OpenSSH's client")
        targets = _targets(request)
        with tempfile.TemporaryDirectory() as work, self._place(tell) as place:
            zips = _zips(request, Path(work))
            self._check_space(place, sum(file.stat().st_size for file in zips))
            runtime = self._remote_runtime or self._install(place, targets, request, Path(work), tell)
            tell(f"{self.name}: sending bundles")
            sent = [place.path("bundles", str(index), file.name) for index, file in enumerate(zips)]
            for file, target in zip(zips, sent, strict=True):
                self._send(file, target)
            keys = []
            for index, key in enumerate(request.required.key_bytes()):
                file = Path(work, f"key-{index}.pub")
                file.write_bytes(public_pem(key))
                keys.append(place.path(file.name))
                self._send(file, keys[-1])
            tell(f"{self.name}: measuring")
            return self._run(place, runtime, _arguments(request, sent, keys), request)

    def _run(self, place: Place, runtime: str, arguments: list[str], request: Request) -> Report:
        # Engines keep files of their own in the user's cache.
        cache = f"XDG_CACHE_HOME={shlex.quote(place.path('cache'))}"
        done = self._call(f"env {cache} {shlex.quote(runtime)} {shlex.join(arguments)}")
        if done.returncode == _NOT_FOUND:
            raise InputError(f"{self.name}: no command {runtime} there")
        if done.returncode:
            raise EngineError(f"{self.name}: {_last_line(done.stderr).removeprefix('error: ')}")
        where = f"what {self.name} sent"
        reports = from_json(_answer(done.stdout, where), where)
        if len(reports) != 1 or len(reports[0].rows) < len(request.bundles):
            raise BundleError(f"{where}: expected one report with a row for each bundle")
        return reports[0].named(self.name)

    @contextmanager
    def _place(self, tell: Tell) -> Iterator[Place]:
        """A private folder there, for as long as the block runs."""
        tell(f"{self.name}: connecting")
        done = self._call(f"python3 -c {shlex.quote(_PROBE)}")
        if done.returncode == _NOT_FOUND:
            raise InputError(f"{self.name}: no python3 there: install Python {_version(OLDEST_PYTHON)} or newer")
        if done.returncode:
            raise InputError(f"{self.name}: no folder could be made in the home folder: {_last_line(done.stderr)}")
        found = _answer(done.stdout, f"what {self.name} says")
        place = Place(found["folder"], tuple(found["python"]), found["venv"], found["free"])
        try:
            yield place
        except BaseException:
            self._remove(place, strict=False)
            raise
        self._remove(place, strict=True)

    def _remove(self, place: Place, strict: bool) -> None:
        """Remove the folder; not `strict`: another error is on its way, which matters more."""
        try:
            done = self._call(f"rm -rf -- {shlex.quote(place.folder)}")
        except InputError:
            if strict:
                raise
            return
        if strict and done.returncode:
            raise InputError(f"{self.name}: {place.folder} could not be removed: {_last_line(done.stderr)}")

    def _check_space(self, place: Place, bundle_bytes: int) -> None:
        # A zip is unpacked where it is used.
        needed = 2 * bundle_bytes + (0 if self._remote_runtime else INSTALL_BYTES)
        if place.free < needed:
            raise InputError(
                f"{self.name}: {needed >> 20} MiB are needed in the home folder, {place.free >> 20} MiB are free"
            )

    def _install(self, place: Place, targets: set[str], request: Request, work: Path, tell: Tell) -> str:
        """Install the runtime of this process, with the engines that the targets need; the command's path."""
        if place.python < OLDEST_PYTHON:
            expected, found = _version(OLDEST_PYTHON), _version(place.python)
            raise InputError(f"{self.name}: expected Python {expected} or newer there, found {found}")
        if not place.venv:
            raise InputError(f"{self.name}: its python3 has no module venv: on Debian, apt install python3-venv")
        wheel = write_runtime_wheel(work)
        extras = sorted((targets - {"litert"}) | {"full"} | ({"trust"} if request.required.keys else set()))
        tell(f"{self.name}: installing the runtime")
        self._send(wheel, place.path(wheel.name))
        what = f"{place.path(wheel.name)}[{','.join(extras)}]"
        environment = place.path("venv")
        pip = [f"{environment}/bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-input", what]
        done = self._call(f"python3 -m venv {shlex.quote(environment)} && {shlex.join(pip)}")
        if done.returncode:
            raise InputError(f"{self.name}: the runtime could not be installed there: {_last_line(done.stderr)}")
        return f"{environment}/bin/edgeformer-runtime"

    def _send(self, file: Path, target: str) -> None:
        """Write a file there."""
        folder = target.rpartition("/")[0]
        with file.open("rb") as stream:
            done = self._call(f"mkdir -p {shlex.quote(folder)} && cat > {shlex.quote(target)}", stream)
        if done.returncode:
            raise InputError(f"{self.name}: {file.name} could not be written there: {_last_line(done.stderr)}")

    def _call(self, command: str, stdin: Any = subprocess.DEVNULL) -> subprocess.CompletedProcess[bytes]:
        """Run a command of the other machine's shell.

        Raises:
            InputError: there is no connection to it.
        """
        done = subprocess.run([*self._command, command], stdin=stdin, capture_output=True)
        if done.returncode == _SSH_FAILED:
            said = done.stderr.decode(errors="replace")
            reason = next((advice for words, advice in _REASONS if words in said), _last_line(done.stderr))
            raise InputError(f"{self.name} cannot be reached: {reason}")
        return done


def _arguments(request: Request, bundles: list[str], keys: list[str]) -> list[str]:
    """The command line of the runtime's `bench`."""
    sweep = request.sweep
    arguments = ["bench", "--json", "--rounds", str(request.rounds)]
    arguments += ["--threads", ",".join(map(str, sweep.threads)), "--batch", ",".join(map(str, sweep.batches))]
    if sweep.programs:
        arguments += ["--program", ",".join(sweep.programs)]
    for key in keys:
        arguments += ["--require-signature", key]
    if request.required.name is not None:
        arguments += ["--require-name", request.required.name]
    if request.required.version is not None:
        arguments += ["--require-version", str(request.required.version)]
    if request.isolated:
        arguments.append("--isolated")
    return [*arguments, "--", *bundles]


def _targets(request: Request) -> set[str]:
    """Of all bundles, which are checked meanwhile."""
    found = set()
    for path in request.bundles:
        with Bundle.open(path, request.required, allow_refused=True) as bundle:
            found.add(bundle.manifest.target)
    return found


def _zips(request: Request, work: Path) -> list[Path]:
    """Each bundle as one file, under its name."""
    found = []
    for index, path in enumerate(request.bundles):
        if path.is_file():
            found.append(path)
            continue
        (work / str(index)).mkdir()
        found.append(work / str(index) / f"{path.resolve().name}.zip")
        pack(path, found[-1])
    return found


def _answer(said: bytes, where: str) -> Any:
    """The JSON in what a command printed, behind what the user's shell may greet with."""
    return loads(said[max(0, said.find(b"{")) :], where, MAX_BYTES)


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it does not say why"


def _version(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


# The installed runtime as a wheel again, to install it on another machine: no index has to know this version.


DISTRIBUTION = "edgeformer-runtime"
_MODULE = "edgeformer_runtime"
_WHEEL = "Wheel-Version: 1.0\nGenerator: edgeformer\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA_FILES = ("METADATA", "entry_points.txt")
_DATE = (1980, 1, 1, 0, 0, 0)


def write_runtime_wheel(folder: Path) -> Path:
    """Write the wheel of the runtime that this process uses, wherever it is installed from.

    The package is Python alone, so its files and the metadata of its installation are all that a wheel holds
    (https://packaging.python.org/specifications/binary-distribution-format/).

    Args:
        folder: where to.

    Returns:
        The wheel's file; equal sources give equal bytes.

    Raises:
        InputError: the runtime is not installed, only found on the path.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise InputError(f"{DISTRIBUTION} is not installed here: pip install it, then it can be sent") from None
    package = Path(edgeformer_runtime.__file__).parent
    files = {
        f"{_MODULE}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    information = f"{_MODULE}-{distribution.version}.dist-info"
    for name in _METADATA_FILES:
        files[f"{information}/{name}"] = (distribution.read_text(name) or "").encode()
    files[f"{information}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()
    wheel = folder / f"{_MODULE}-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(data: bytes) -> str:
    """As RECORD has it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
