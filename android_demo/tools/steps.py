"""The steps of the build, in order: core and its tests, engines, app, resources, dex, APK."""

from __future__ import annotations

import shutil
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from android_demo.tools import maven, packages, toolchain
from android_demo.tools.apk import ASSET_ALIGNMENT, BUNDLES, LIBRARY_ALIGNMENT, RESOURCE_ALIGNMENT, Member, write_apk
from android_demo.tools.fetch import BuildError, fetch, kept_file

ABIS = ("arm64-v8a", "x86_64")
"""Phones, and the emulator. 32-bit phones are too old for min SDK 26 to matter."""

PROJECT = Path(__file__).resolve().parents[1]
GOLDEN = PROJECT.parent / "tests" / "golden"


@dataclass(frozen=True)
class Layout:
    """Where the sources are and where the build's outputs go.

    Attributes:
        project: the folder with `core`, `engine`, `app` and `stubs`.
        output: the folder of everything that the build makes.
    """

    project: Path
    output: Path

    def kotlin(self, module: str, part: str = "main") -> Path:
        """The Kotlin sources of a module, of its part "main" or "test"."""
        return self.project / module / "src" / part / "kotlin"

    def classes(self, name: str) -> Path:
        """The folder of compiled classes of that name."""
        return self.output / "classes" / name

    @property
    def main(self) -> Path:
        """The app's manifest, resources and assets."""
        return self.project / "app" / "src" / "main"

    @property
    def assets(self) -> Path:
        """The generated assets: bundles and the licence. Gradle takes them from here, too."""
        return self.output / "assets"

    @property
    def maven(self) -> Path:
        """The repository of the published libraries."""
        return self.output / "maven"

    @property
    def apk(self) -> Path:
        """The signed APK."""
        return self.output / "edgeformer-demo.apk"


def fetch_all() -> None:
    """Bring every package into the cache."""
    for package in toolchain.all_packages():
        fetch(package)


def compile_core(layout: Layout) -> None:
    """Compile core against Android's classes, which is what it meets on a phone."""
    output = _emptied(layout.classes("core"))
    name = ["-module-name", "edgeformer-core"]
    toolchain.kotlinc([layout.kotlin("core")], [toolchain.coroutines()], output, android=True, options=name)


def run_tests(layout: Layout, modules: Sequence[str]) -> str:
    """Run the JUnit tests of modules, of which core's read the golden files; the report."""
    compiled = [*(layout.classes(module) for module in modules), toolchain.coroutines()]
    tests = _emptied(layout.classes("tests"))
    libraries = [toolchain.kotlin_library("kotlin-test"), toolchain.kotlin_library("kotlin-test-junit5")]
    # Tests see what is internal to the module that they test.
    friends = f"-Xfriend-paths={','.join(map(str, compiled))}"
    sources = [layout.kotlin(module, "test") for module in modules]
    toolchain.kotlinc(
        sources, [*compiled, *libraries, *toolchain.junit_jars()], tests, android=False, options=[friends]
    )
    return toolchain.junit(compiled, tests, {"edgeformer.golden": str(GOLDEN)})


def compile_engines(layout: Layout) -> None:
    """Compile the engines against the runtimes' own Java APIs, and LiteRT's stubs."""
    stubs = _emptied(layout.classes("litert-stubs"))
    toolchain.kotlinc([layout.project / "stubs" / "litert"], [], stubs, android=True)
    runtimes = [stubs, onnx_runtime_classes(layout), kept_file(packages.EXECUTORCH)]
    classpath = [layout.classes("core"), toolchain.coroutines(), *runtimes]
    output = _emptied(layout.classes("engine"))
    name = ["-module-name", "edgeformer-android"]
    toolchain.kotlinc([layout.kotlin("engine")], classpath, output, android=True, options=name)


def libraries(layout: Layout) -> tuple[maven.Library, maven.Library]:
    """What is published: core, and the Android library over it. Versions of runtimes are those of Gradle's catalog."""
    catalog = tomllib.loads((layout.project / "gradle" / "libs.versions.toml").read_text())

    def taken(name: str, scope: str, optional: bool = False) -> maven.Dependency:
        entry = catalog["libraries"][name]
        version = catalog["versions"][entry["version"]["ref"]]
        group, _, artifact = entry["module"].partition(":")
        return maven.Dependency(group, artifact, version, scope, optional)

    kotlin = maven.Dependency("org.jetbrains.kotlin", "kotlin-stdlib", packages.KOTLIN.version)
    core = maven.Library(
        name="edgeformer-core",
        packaging="jar",
        description="EdgeFormer bundles on the JVM: manifest, hashes, tokenizers, images, audio, decoding, self-test",
        classes=layout.classes("core"),
        sources=layout.kotlin("core"),
        dependencies=(kotlin, taken("coroutines", "compile")),
    )
    # The engine of the first choice comes along; an app that has bundles for another one names its runtime.
    runtimes = (
        taken("litert", "runtime"),
        taken("onnxruntime", "runtime", optional=True),
        taken("executorch", "runtime", optional=True),
    )
    engine = layout.project / "engine" / "src" / "main"
    android = maven.Library(
        name="edgeformer-android",
        packaging="aar",
        description="EdgeFormer bundles on Android: engines, assets, photos, recordings, microphone",
        classes=layout.classes("engine"),
        sources=layout.kotlin("engine"),
        dependencies=(maven.Dependency(maven.GROUP, core.name, toolchain.VERSION), *runtimes),
        manifest=_library_manifest(engine / "AndroidManifest.xml"),
        shrinker_rules=(engine.parents[1] / "consumer-rules.pro").read_text(),
    )
    return core, android


def publish(layout: Layout) -> None:
    """Write both libraries, compiled before, into the repository of the build."""
    for library in libraries(layout):
        maven.publish(library, layout.maven)


def compile_app(layout: Layout) -> None:
    """Compile and link the resources, then the app's Kotlin, which names them."""
    resources = _emptied(layout.output / "resources")
    manifest = resources / "AndroidManifest.xml"
    manifest.write_text(_named_manifest(layout.main / "AndroidManifest.xml"))
    compiled = resources / "compiled.zip"
    toolchain.compile_resources(layout.main / "res", compiled)
    java = _emptied(resources / "java")
    toolchain.link_resources(manifest, compiled, java, resources / "linked.apk")
    names = _emptied(layout.classes("resource-names"))
    toolchain.javac(java.rglob("*.java"), [], names)
    classpath = [layout.classes("core"), layout.classes("engine"), toolchain.coroutines(), names]
    toolchain.kotlinc([layout.kotlin("app")], classpath, _emptied(layout.classes("app")), android=True)


def make_dex(layout: Layout) -> None:
    """Turn all classes that the APK holds into one dex file. The stubs stay out: the real classes are not here."""
    classes = [layout.classes(name) for name in ("core", "engine", "app", "resource-names")]
    libraries = [toolchain.kotlin_library("kotlin-stdlib"), toolchain.coroutines(), onnx_runtime_classes(layout)]
    absent = [layout.classes("litert-stubs"), kept_file(packages.EXECUTORCH)]
    toolchain.d8([*classes, *libraries], absent, _emptied(layout.output / "dex"))


def package_apk(layout: Layout) -> None:
    """Write and sign the APK."""
    unsigned = layout.output / "unsigned.apk"
    write_apk(unsigned, _members(layout))
    toolchain.sign(unsigned, layout.apk)
    unsigned.unlink()


def _named_manifest(path: Path, package: str = toolchain.NAMESPACE) -> str:
    """The manifest with its package's name, which Gradle adds from the build file."""
    text = path.read_text()
    marker = "<manifest "
    if text.count(marker) != 1:
        raise BuildError(f"{path} has no element manifest")
    return text.replace(marker, f'{marker}package="{package}" ')


def _library_manifest(path: Path) -> str:
    """A library's manifest as an AAR has it: with the least version of Android, too."""
    least = f'    <uses-sdk android:minSdkVersion="{toolchain.MIN_SDK}" />\n</manifest>'
    return _named_manifest(path, "org.edgeformer.engine").replace("</manifest>", least)


def onnx_runtime_classes(layout: Layout) -> Path:
    """ONNX Runtime's Java classes, out of its Android archive."""
    jar = layout.output / "onnxruntime.jar"
    if not jar.is_file():
        jar.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(kept_file(packages.ONNX_RUNTIME)) as archive:
            jar.write_bytes(archive.read("classes.jar"))
    return jar


def _members(layout: Layout) -> Iterator[Member]:
    """The files of the APK: what aapt2 linked, dex, native libraries, assets."""
    with zipfile.ZipFile(layout.output / "resources" / "linked.apk") as linked:
        for info in linked.infolist():
            stored = info.compress_type == zipfile.ZIP_STORED
            yield Member(info.filename, linked.read(info), RESOURCE_ALIGNMENT if stored else None)
    for dex in sorted((layout.output / "dex").glob("classes*.dex")):
        yield Member(dex.name, dex.read_bytes(), None)
    with zipfile.ZipFile(kept_file(packages.ONNX_RUNTIME)) as archive:
        for abi in ABIS:
            for name in ("libonnxruntime.so", "libonnxruntime4j_jni.so"):
                yield Member(f"lib/{abi}/{name}", archive.read(f"jni/{abi}/{name}"), LIBRARY_ALIGNMENT)
    for assets in (layout.main / "assets", layout.assets):
        for file in sorted(path for path in assets.rglob("*") if path.is_file()):
            name = f"assets/{file.relative_to(assets).as_posix()}"
            yield Member(name, file.read_bytes(), ASSET_ALIGNMENT if name.startswith(BUNDLES) else None)


def _emptied(folder: Path) -> Path:
    """The folder, new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
