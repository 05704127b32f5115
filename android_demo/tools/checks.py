"""Checks a finished APK by reading it: what a phone would refuse, or would fail on later, is found here."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from android_demo.tools import toolchain
from android_demo.tools.apk import ASSET_ALIGNMENT, BUNDLES, data_offset
from android_demo.tools.dex import DexClass, read_classes
from android_demo.tools.elf import NativeLibrary, read_library
from android_demo.tools.fetch import BuildError
from edgeformer.doctor.check_bundle import examine_libraries
from edgeformer.doctor.examiner import Severity
from edgeformer_runtime.bundle.bundle import Bundle

PUBLIC_LIBRARIES = frozenset(
    f"lib{name}.so"
    for name in (
        *(
            "EGL",
            "GLESv1_CM",
            "GLESv2",
            "GLESv3",
            "OpenMAXAL",
            "OpenSLES",
            "aaudio",
            "android",
            "c",
            "camera2ndk",
            "dl",
        ),
        *("jnigraphics", "log", "m", "mediandk", "nativewindow", "stdc++", "sync", "vulkan", "z"),
    )
)
"""Libraries that apps may link to on every phone from API 26 on (Android NDK, "Stable APIs")."""


def check_apk(apk: Path, abis: Iterable[str]) -> list[str]:
    """Check an APK; one line for each thing that was found in order.

    Args:
        apk: a signed APK.
        abis: the processors that it must run on.

    Raises:
        BuildError: the first thing that is not in order.
    """
    with zipfile.ZipFile(apk) as archive:
        classes = {
            defined.name: defined for name in _dex_names(archive) for defined in read_classes(archive.read(name))
        }
        return [
            _check_manifest(apk, classes),
            check_bundles(apk, archive),
            *_check_libraries(apk, archive, tuple(abis), classes),
            _check_signature(apk),
        ]


def _check_manifest(apk: Path, classes: dict[str, DexClass]) -> str:
    badging = toolchain.aapt2(["dump", "badging", str(apk)])
    tree = toolchain.aapt2(["dump", "xmltree", "--file", "AndroidManifest.xml", str(apk)])
    expected = (
        f"package: name='{toolchain.NAMESPACE}'",
        f"sdkVersion:'{toolchain.MIN_SDK}'",
        f"targetSdkVersion:'{toolchain.TARGET_SDK}'",
        "launchable-activity:",
    )
    for line in expected:
        if line not in badging:
            raise BuildError(f"the manifest does not say {line}")
    if "android.permission.INTERNET" in badging or "E: provider" in tree:
        raise BuildError("the manifest asks for the network, or names a content provider: the app promises neither")
    if not re.search(r"extractNativeLibs\([^)]*\)=false", tree):
        raise BuildError("the manifest must not have its native libraries extracted: they are mapped from the APK")
    activities = re.findall(r'E: activity.*?A: [^\n]*:name\([^)]*\)="([^"]+)"', tree, re.DOTALL)
    absent = [name for name in activities if name.replace(".", "/") not in classes]
    if not activities or absent:
        raise BuildError(f"the dex lacks classes that the manifest names: {', '.join(absent) or 'there are none'}")
    return f"manifest: {len(activities)} activities, all of them among the {len(classes)} classes of the dex"


def check_bundles(apk: Path, archive: zipfile.ZipFile) -> str:
    """The bundles can be mapped out of the APK, are whole, and run on Android; a line that names them.

    Raises:
        BuildError: a file is compressed or not aligned, a bundle is for other systems, or there is none.
        BundleError: a bundle is corrupted.
    """
    members = [info for info in archive.infolist() if info.filename.startswith(BUNDLES)]
    for info in members:
        if info.compress_type != zipfile.ZIP_STORED or data_offset(apk, info) % ASSET_ALIGNMENT:
            raise BuildError(f"{info.filename} is compressed, or not aligned to {ASSET_ALIGNMENT} bytes")
    names = sorted({info.filename.removeprefix(BUNDLES).split("/")[0] for info in members})
    with tempfile.TemporaryDirectory() as scratch:
        for info in members:
            archive.extract(info, scratch)
        for name in names:
            with Bundle.open(Path(scratch) / BUNDLES / name) as bundle:  # every file's hash
                if bundle.manifest.requires.android_api is None:
                    raise BuildError(f"{name} does not run on Android")
    if not names:
        raise BuildError(f"the APK holds no bundle in {BUNDLES}")
    return f"bundles: {', '.join(names)}, stored and aligned, as their manifests say"


def _check_libraries(
    apk: Path, archive: zipfile.ZipFile, abis: tuple[str, ...], classes: dict[str, DexClass]
) -> Iterator[str]:
    for finding in examine_libraries(apk):
        if finding.severity == Severity.ERROR:
            raise BuildError(f"{finding.what}: {finding.why}")
    for abi in abis:
        prefix = f"lib/{abi}/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        found = {name.removeprefix(prefix): read_library(archive.read(name)) for name in names}
        if not found:
            raise BuildError(f"the APK has no native library for {abi}")
        for name, library in found.items():
            check_library(f"{abi}/{name}", library, found)
        check_jni(abi, found.values(), classes)
        yield f"{abi}: {', '.join(sorted(found))}: 16 KB pages, all that they need and look up is there"


def check_library(name: str, library: NativeLibrary, beside: Iterable[str]) -> None:
    """Raises BuildError: the loader of a phone cannot find what the library needs."""
    absent = set(library.needed) - PUBLIC_LIBRARIES - set(beside)
    if absent:
        raise BuildError(f"{name} needs {', '.join(sorted(absent))}, which neither the APK nor Android has")


def check_jni(abi: str, libraries: Iterable[NativeLibrary], classes: dict[str, DexClass]) -> None:
    """Native methods have their functions, and the classes that libraries look up exist.

    Of names in a library's constants, those in a package of the dex are looked at; others are Android's or no classes.
    A function that no method calls does no harm.

    Raises:
        BuildError: a call between Java and a library would fail.
    """
    exports = {name for library in libraries for name in library.exports if name.startswith("Java_")}
    methods = {_jni_function(defined.name, method) for defined in classes.values() for method in defined.native_methods}
    # An overloaded native method's function carries its arguments' types behind two underscores.
    unbound = sorted(methods - {name.split("__")[0] for name in exports})
    packages = {name.rpartition("/")[0] for name in classes}
    looked_up = {name for library in libraries for name in library.classes if name.rpartition("/")[0] in packages}
    absent = sorted(looked_up - classes.keys())
    if unbound or absent:
        raise BuildError(
            f"{abi}: native methods without a function: {', '.join(unbound) or 'none'};"
            f" classes looked up and not there: {', '.join(absent) or 'none'}"
        )


def _jni_function(class_name: str, method: str) -> str:
    """The name of a native method's function (Java Native Interface specification, "Resolving Native Method Names")."""

    def mangled(name: str) -> str:
        return "".join(
            "_1" if letter == "_" else letter if letter.isascii() and letter.isalnum() else f"_0{ord(letter):04x}"
            for letter in name
        )

    return "Java_" + "_".join(map(mangled, [*class_name.split("/"), method]))


def _check_signature(apk: Path) -> str:
    said = toolchain.verify_signature(apk)
    for scheme in ("v2", "v3"):
        if not re.search(rf"Verified using {scheme} scheme[^\n]*: true", said):
            raise BuildError(f"the APK has no valid signature of scheme {scheme}")
    return "signature: schemes v2 and v3 verified"


def _dex_names(archive: zipfile.ZipFile) -> list[str]:
    names = [name for name in archive.namelist() if re.fullmatch(r"classes\d*\.dex", name)]
    if not names:
        raise BuildError("the APK has no dex file")
    return names
