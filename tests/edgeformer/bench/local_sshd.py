"""A real OpenSSH server on this machine, with keys, a home folder and a known_hosts of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from android_demo.tools import fetch

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv {environment}
"""
CLIENT = """
Host *
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""
# As root a server wants an account and a folder of its own, which it gets in a mount namespace that ends with it.
PRIVATE = """
set -e
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
mount --bind "$1" /etc/passwd
exec "$2" -D -e -f "$3"
"""
ACCOUNT = "sshd:x:74:65534::/run/sshd:/usr/sbin/nologin\n"
START_SECONDS = 20.0


class NoServer(Exception):
    """Why there is no server to test with."""


class NotInstalled(NoServer):
    """There is none on this machine, and none can be brought here."""


class LocalSshd:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        home: the home folder of its sessions.
        folder: of its keys and files.
        bin: holds an `ssh` that knows the keys, for PATH.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.home, self.bin = folder / "home", folder / "bin"
        self.url = f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{port}"


@contextmanager
def local_sshd(folder: Path, path: str | None = None) -> Iterator[LocalSshd]:
    """A server for as long as the block runs.

    Args:
        folder: an empty one, for its files.
        path: PATH in its sessions; None: this Python's folder and the system's.

    Raises:
        NotInstalled: there is none.
        NoServer: it does not start, as where no namespace may be made.
    """
    program, libraries = _program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = LocalSshd(folder, port)
    for each in (server.home, server.bin):
        each.mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    python = Path(sys.base_prefix) / "bin"
    session = {key: value for key, value in os.environ.items() if key.startswith("PIP_") and " " not in value}
    session |= {"HOME": str(server.home), "PATH": path or f"{python}:/usr/local/bin:/usr/bin:/bin"}
    environment = " ".join(f"{key}={value}" for key, value in session.items())
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(port=port, folder=folder, environment=environment))
    _write_client(server)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            _command(program, config, folder), env=os.environ | libraries, stdin=subprocess.DEVNULL, stderr=log
        )
        try:
            _wait(process, server)
            yield server
        finally:
            process.terminate()
            process.wait()


def _write_client(server: LocalSshd) -> None:
    folder = server.folder
    host = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {host}")
    (folder / "ssh_config").write_text(CLIENT.format(folder=folder))
    wrapper = server.bin / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    wrapper.chmod(0o755)


def _command(program: Path, config: Path, folder: Path) -> list[str]:
    if os.getuid():
        return [str(program), "-D", "-e", "-f", str(config)]
    accounts = Path("/etc/passwd").read_text()
    passwd = folder / "passwd"
    passwd.write_text(accounts if "\nsshd:" in accounts else accounts + ACCOUNT)
    return ["unshare", "--mount", "--", "sh", "-c", PRIVATE, "sh", str(passwd), str(program), str(config)]


def _program() -> tuple[Path, Mapping[str, str]]:
    """The program and what its environment needs: the machine's own, or Debian's, unpacked into the cache."""
    if shutil.which("ssh") is None:
        raise NotInstalled("no ssh here: apt install openssh-client")
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
    if found is not None:
        return Path(found), {}
    root = fetch.cache_folder() / "openssh-server"
    try:
        if not root.is_dir():
            _unpack_debian(root)
    except fetch.BuildError as error:
        raise NotInstalled(f"no sshd here, and none to be had: {error}") from None
    (libraries,) = (file.parent for file in root.glob("usr/lib/*/libwrap.so.0"))
    return root / "usr/sbin/sshd", {"LD_LIBRARY_PATH": str(libraries)}


def _unpack_debian(root: Path) -> None:
    fetch.cache_folder().mkdir(parents=True, exist_ok=True)
    work = root.with_name(f".{root.name}-{os.getpid()}")
    work.mkdir()
    try:
        for package in ("openssh-server", "libwrap0"):
            fetch.apt_download("bookworm", package, work)
        for archive in work.glob("*.deb"):
            fetch.run(["dpkg-deb", "-x", str(archive), str(work / "root")], work)
        (work / "root").rename(root)
    finally:
        shutil.rmtree(work)


def _wait(process: subprocess.Popen[bytes], server: LocalSshd) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return
        time.sleep(0.05)
    raise NoServer(f"sshd did not start: {(server.folder / 'log').read_text().strip()[-500:]}")
