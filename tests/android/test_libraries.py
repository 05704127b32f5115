"""The published libraries, taken as an app takes them: resolved by their POMs, compiled against, and run on the JVM."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from android_demo.tools import maven, steps, toolchain
from android_demo.tools.fetch import BuildError, debian_mirror, run
from android_demo.tools.packages import KOTLIN
from tests.docs.documents import snippet

pytestmark = [pytest.mark.android, pytest.mark.slow]

CONSUMER = Path(__file__).resolve().parent / "consumer"
LAYOUT = steps.Layout(steps.PROJECT, steps.PROJECT / "build")
VERSION = toolchain.VERSION
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.5.0:build-classpath"
DEBIAN = Path("/usr/share/maven-repo")

# Where names of the platform stand beside ours in an app's file: imports of both would need an alias.
PLATFORM = re.compile(r"(android/(\w+/)?|java/(io|util|nio)/|kotlin/(\w+/)?)([A-Z]\w*)\.class")
PUBLIC = re.compile(r"^(?:(?!private|internal)\w+ )*(?:class|interface|object) (\w+)", re.M)
ELSEWHERE = {"Entity", "State", "Target"}
"""Android's Entity is that of sync adapters, kotlin's State is internal, and its Target an annotation."""


@pytest.fixture(scope="module")
def repository() -> Path:
    """The libraries, from the classes that `make android` has made."""
    try:
        debian_mirror()
    except BuildError as error:
        pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))
    if not (LAYOUT.classes("engine") / "META-INF").is_dir():
        reason = "needs the compiled libraries: make android"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    steps.publish(LAYOUT)
    return LAYOUT.maven


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kotlin's libraries as Maven Central has them, out of the compiler's package."""
    folder = tmp_path_factory.mktemp("third-party")
    core, _ = steps.libraries(LAYOUT)
    kotlin, coroutines = core.dependencies
    maven.add_jar(folder, kotlin, toolchain.kotlin_library("kotlin-stdlib"))
    maven.add_jar(folder, coroutines, toolchain.coroutines(), (kotlin,))
    return folder


@pytest.fixture(scope="module")
def compiled(repository: Path, third_party: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The consumer and the README's lines, compiled against what the POMs say and nothing else."""
    folder = tmp_path_factory.mktemp("consumer")
    imports, lines = [], []
    for line in snippet("kotlin").splitlines():
        (imports if line.startswith("import ") else lines).append(line)
    body = "\n".join(f"    {line}" for line in lines)
    (folder / "Readme.kt").write_text(
        "\n".join(
            ["package org.example", *imports, f"suspend fun answer(context: android.content.Context) {{\n{body}\n}}"]
        )
    )
    # Scope compile: what an app's own code sees. The library's runtimes are in it for nobody.
    artifacts = maven.resolve([repository, third_party], maven.GROUP, "edgeformer-android", VERSION)
    classpath = []
    for artifact in artifacts:
        if artifact.suffix == ".aar":
            with zipfile.ZipFile(artifact) as archive:
                classpath.append(Path(archive.extract("classes.jar", folder)))
        else:
            classpath.append(artifact)
    classes = folder / "classes"
    toolchain.kotlinc([CONSUMER / "Consumer.kt", folder / "Readme.kt"], classpath, classes, android=True)
    return classes


def recorded_text() -> tuple[str, dict[str, float]]:
    """The first recorded text of the golden bundle, and the scores of its labels."""
    with zipfile.ZipFile(steps.GOLDEN / "tiny-text.zip") as archive:
        case = json.loads(archive.read("vectors/cases.json"))["cases"][0]
    return case["input"]["text"], case["expected"]


def answer(classes: Path, classpath: list[Path]) -> None:
    """The consumer's answer on the JVM is the recorded one."""
    text, expected = recorded_text()
    program = ["-cp", toolchain.join_path([classes, *classpath]), "org.example.ConsumerKt"]
    said = toolchain.java([*program, str(steps.GOLDEN / "tiny-text.zip"), text])
    label, score, verified = said.split()
    assert label == expected["labels"][0]
    assert float(score) == pytest.approx(expected["scores"][0], abs=1e-4)
    assert verified == "true"


def test_a_consumer_answers(repository: Path, third_party: Path, compiled: Path) -> None:
    classpath = maven.resolve([repository, third_party], maven.GROUP, "edgeformer-core", VERSION, "runtime")
    assert [path.name for path in classpath] == [
        f"edgeformer-core-{VERSION}.jar",
        f"kotlin-stdlib-{KOTLIN.version}.jar",
        "kotlinx-coroutines-core-1.8.0.jar",
    ]
    answer(compiled, classpath)


@pytest.mark.skipif(not (DEBIAN / "org/apache/maven/plugins/maven-dependency-plugin").is_dir(), reason="no Maven")
def test_maven_resolves_what_the_consumer_needs(
    repository: Path, third_party: Path, compiled: Path, tmp_path: Path
) -> None:
    shutil.copy(CONSUMER / "pom.xml", tmp_path)
    mirror = f"<mirror><id>debian</id><mirrorOf>central</mirrorOf><url>{DEBIAN.as_uri()}</url></mirror>"
    (tmp_path / "settings.xml").write_text(f"<settings><mirrors>{mirror}</mirrors></settings>")
    places = [f"-Dedgeformer={repository.as_uri()}", f"-Dthird-party={third_party.as_uri()}"]
    local = f"-Dmaven.repo.local={tmp_path / 'local'}"
    options = ["-q", "-B", "-s", "settings.xml", local, *places, "-Dmdep.outputFile=classpath.txt"]
    run(["mvn", *options, PLUGIN], tmp_path)
    classpath = [Path(entry) for entry in (tmp_path / "classpath.txt").read_text().split(os.pathsep)]
    assert [path.is_relative_to(tmp_path / "local") for path in classpath] == [True] * 3
    answer(compiled, classpath)


def test_what_is_published(repository: Path) -> None:
    core, android = (
        repository / "org/edgeformer" / name / VERSION for name in ("edgeformer-core", "edgeformer-android")
    )
    for folder, packaging in ((core, "jar"), (android, "aar")):
        stem = f"{folder.parent.name}-{VERSION}"
        names = [f"{stem}.{packaging}", f"{stem}.pom", f"{stem}-sources.jar", f"{stem}-javadoc.jar"]
        assert {path.name for path in folder.iterdir() if path.suffix in {".jar", ".aar", ".pom"}} == set(names)
        assert all((folder / f"{name}.sha256").is_file() for name in names)
    with zipfile.ZipFile(android / f"edgeformer-android-{VERSION}.aar") as archive:
        assert set(archive.namelist()) == {"AndroidManifest.xml", "R.txt", "classes.jar", "proguard.txt"}
        manifest = archive.read("AndroidManifest.xml").decode()
    assert 'package="org.edgeformer.engine"' in manifest
    assert f'android:minSdkVersion="{toolchain.MIN_SDK}"' in manifest
    with zipfile.ZipFile(core / f"edgeformer-core-{VERSION}-javadoc.jar") as archive:
        page = archive.read("index.html").decode()
    assert "<h3><code>suspend fun classify(text: String): ClassificationResult</code></h3>" in page
    assert "private" not in re.sub(r"private constructor|\(.*?\)|<pre>.*?</pre>", "", page, flags=re.S)


def test_the_same_classes_give_the_same_bytes(repository: Path, tmp_path: Path) -> None:
    for library in steps.libraries(LAYOUT):
        for path in maven.publish(library, tmp_path).iterdir():
            assert path.read_bytes() == (repository / path.relative_to(tmp_path)).read_bytes(), path.name


def test_no_public_class_has_a_name_of_the_platform() -> None:
    ours = set()
    for module in ("core", "engine"):
        for path in LAYOUT.kotlin(module).rglob("*.kt"):
            ours |= set(PUBLIC.findall(path.read_text()))
    platform = set()
    for jar in (toolchain.android_jar(), toolchain.kotlin_library("kotlin-stdlib")):
        with zipfile.ZipFile(jar) as archive:
            platform |= {found[5] for name in archive.namelist() if (found := PLATFORM.fullmatch(name))}
    assert {"Bundle", "Manifest", "List"} <= platform
    assert ours & platform <= ELSEWHERE
