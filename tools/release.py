"""Makes a release: the wheels of both packages, a list of what they bring, and the licences of that.

    python -m tools.release DIST

The same commit gives the same bytes: SOURCE_DATE_EPOCH is the commit's time where it is not set.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tools.components import Component, components
from tools.debian import SetupError
from tools.licences import licences_text
from tools.sbom import sbom_text

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("runtime", ".")
OLDEST_SETUPTOOLS = 77
"""As both pyproject.toml ask for: the builder writes its version into a wheel, so it is the locked one that builds."""
_EARLIEST = 315532800  # 1980, where the dates of zips begin


def make_release(folder: Path) -> list[Path]:
    """Write wheels, SBOM and licences.

    Args:
        folder: where to; files of these names are replaced.

    Returns:
        The files.

    Raises:
        SetupError: no git repository, or a build that failed.
    """
    epoch = source_date()
    if int(metadata.version("setuptools").partition(".")[0]) < OLDEST_SETUPTOOLS:
        raise SetupError(f"expected setuptools {OLDEST_SETUPTOOLS} or newer, as requirements.lock has it: make setup")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        sources = Path(work, "sources")
        _export(sources)
        made = [_wheel(sources / package, Path(work, "wheels"), epoch) for package in PACKAGES]
        files = [folder / wheel.name for wheel in made]
        for wheel, file in zip(made, files, strict=True):
            file.write_bytes(normalised(wheel, epoch))
    found = components()
    return [*files, *_lists(folder, found, epoch)]


def source_date() -> int:
    """SOURCE_DATE_EPOCH, or else when the commit was made.

    Raises:
        SetupError: neither is known.
    """
    stated = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct").decode().strip()
    if not stated.isdecimal():
        raise SetupError(f"expected SOURCE_DATE_EPOCH as seconds since 1970, found {stated!r}")
    return max(int(stated), _EARLIEST)


def normalised(wheel: Path, epoch: int) -> bytes:
    """A wheel's bytes with one date, and modes that do not depend on the umask of whoever checked the sources out."""
    date = datetime.fromtimestamp(epoch, UTC).timetuple()[:6]
    out = io.BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            info = zipfile.ZipInfo(member.filename, date)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix
            info.external_attr = 0o100644 << 16
            target.writestr(info, source.read(member))
    return out.getvalue()


def _lists(folder: Path, found: list[Component], epoch: int) -> list[Path]:
    sbom, licences = folder / "edgeformer.cdx.json", folder / "LICENCES.md"
    sbom.write_text(sbom_text(found, epoch), encoding="utf-8")
    licences.write_text(licences_text(found), encoding="utf-8")
    return [sbom, licences]


def _export(folder: Path) -> None:
    """The committed files alone: leftovers of other builds would end in the wheels."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as archive:
        archive.extractall(folder, filter="data")


def _wheel(source: Path, folder: Path, epoch: int) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    before = set(folder.glob("*.whl"))
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)],
        env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise SetupError(f"the wheel of {source.name} could not be built: {' '.join(built.stderr.split())[-500:]}")
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise SetupError(f"a release is made from a commit: git {arguments[0]} failed in {ROOT}") from None


if __name__ == "__main__":
    try:
        for file in make_release(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")):
            print(f"{file}: {file.stat().st_size:,} bytes")
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
