"""The tools of the build, run: what a wrong name does, what D8 and apksigner make of small inputs."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from android_demo.tools import steps, toolchain
from android_demo.tools.apk import LIBRARY_ALIGNMENT, Member, data_offset, write_apk
from android_demo.tools.dex import DexClass, read_classes
from android_demo.tools.fetch import BuildError, debian_mirror

pytestmark = [pytest.mark.android, pytest.mark.slow]

# In each file of an engine, a member of the runtime's library, and a name that the library does not have.
WRONG_NAMES = {
    "LiteRtBuffers.kt": ("model.createInputBuffer(", "createInputBufer"),
    "LiteRtEngine.kt": ("CompiledModel.create(", "compile"),
    "ExecuTorchEngine.kt": ("loaded.getValue(program.file).execute(", "call"),
    "OnnxEngine.kt": ("environment.createSession(", "openSession"),
}


def place_core(layout: steps.Layout) -> None:
    """The classes of core, whose sources are the repository's: those that `make android` has just made, or new ones."""
    built = steps.Layout(steps.PROJECT, steps.PROJECT / "build").classes("core")
    classes = [path.stat().st_mtime for path in built.rglob("*.class")]
    if classes and min(classes) > max(path.stat().st_mtime for path in steps.PROJECT.glob("core/src/main/**/*.kt")):
        shutil.copytree(built, layout.classes("core"))
    else:
        steps.compile_core(layout)


@pytest.fixture(autouse=True)
def debian() -> None:
    """The build takes packages of Debian. CI must have it."""
    try:
        debian_mirror()
    except BuildError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))


def test_a_wrong_member_name_in_any_engine_fails_the_build(tmp_path: Path) -> None:
    project = tmp_path / "android_demo"
    for part in ("core/src/main", "engine/src/main", "stubs"):
        shutil.copytree(steps.PROJECT / part, project / part)
    layout = steps.Layout(project, tmp_path / "build")
    engines = layout.kotlin("engine") / "org" / "edgeformer" / "engine"
    for name, (call, wrong) in WRONG_NAMES.items():
        source = (engines / name).read_text()
        assert call in source
        (engines / name).write_text(source.replace(call, f"{call.rpartition('.')[0]}.{wrong}("))
    place_core(layout)
    with pytest.raises(BuildError) as failure:
        steps.compile_engines(layout)
    for name, (_, wrong) in WRONG_NAMES.items():
        assert re.search(rf"{name}:\d+:\d+: error: unresolved reference '{wrong}'", str(failure.value)), name


def test_dex_files_tell_classes_and_native_methods(tmp_path: Path) -> None:
    source = tmp_path / "A.java"
    source.write_text(
        "package a.b; class A { int x; static long y; native int run(int z); void stop() {}"
        " static native void init(); interface I { void f(); } }"
    )
    classes, dex = tmp_path / "classes", tmp_path / "dex"
    classes.mkdir()
    dex.mkdir()
    toolchain.javac([source], [], classes)
    toolchain.d8([classes], [], dex)
    found = sorted(read_classes((dex / "classes.dex").read_bytes()), key=lambda defined: defined.name)
    assert found == [DexClass("a/b/A", ("init", "run")), DexClass("a/b/A$I", ())]


def test_signing_keeps_the_alignment_of_libraries(tmp_path: Path) -> None:
    manifest, linked = tmp_path / "AndroidManifest.xml", tmp_path / "linked.apk"
    manifest.write_text('<manifest package="a.b"><application/></manifest>')
    resources = tmp_path / "res"
    (resources / "values").mkdir(parents=True)
    toolchain.compile_resources(resources, tmp_path / "compiled.zip")
    toolchain.link_resources(manifest, tmp_path / "compiled.zip", tmp_path, linked)
    with zipfile.ZipFile(linked) as archive:
        members = [Member(name, archive.read(name), None) for name in archive.namelist()]
    library = Member("lib/arm64-v8a/liba.so", b"x" * 5000, LIBRARY_ALIGNMENT)
    write_apk(tmp_path / "unsigned.apk", iter([*members, library]))
    signed = tmp_path / "signed.apk"
    toolchain.sign(tmp_path / "unsigned.apk", signed)
    with zipfile.ZipFile(signed) as archive:
        assert data_offset(signed, archive.getinfo(library.name)) % LIBRARY_ALIGNMENT == 0
        assert archive.read(library.name) == library.data
    said = toolchain.verify_signature(signed)
    assert re.search(r"v2 scheme[^\n]*: true", said) and re.search(r"v3 scheme[^\n]*: true", said)
    corrupted = bytearray(signed.read_bytes())
    corrupted[corrupted.index(b"x" * 5000)] ^= 1
    signed.write_bytes(corrupted)
    with pytest.raises(BuildError, match="DOES NOT VERIFY"):
        toolchain.verify_signature(signed)
