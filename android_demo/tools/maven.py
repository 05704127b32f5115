"""Publishes both libraries in Maven's layout: artifact, POM, sources, API documents, checksums.

The layout is a folder of static files: a project takes the libraries from it by its `file://` address, or from any
server that gives it. `resolve` reads it as Maven does, as far as these POMs go.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import shutil
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from android_demo.tools import toolchain
from android_demo.tools.fetch import BuildError

GROUP = "org.edgeformer"
NAMESPACE = "http://maven.apache.org/POM/4.0.0"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_DECLARATION = re.compile(
    r"(?:(?:data|sealed|abstract|open|enum|fun|override|suspend|inline|const|lateinit|operator) )*"
    r"(?:class|interface|object|fun|val|var) "
)
_COMMENT = re.compile(r"/\*\*(.*?)\*/\s*\n\s*(?:@\w+\s+)*", re.S)


@dataclass(frozen=True)
class Dependency:
    """An artifact that another one needs.

    Attributes:
        group: its group.
        name: its name in the group.
        version: its version.
        scope: "compile" where it is seen in the interface, else "runtime".
        optional: an app that needs it names it itself.
    """

    group: str
    name: str
    version: str
    scope: str = "compile"
    optional: bool = False


@dataclass(frozen=True)
class Library:
    """A library as it is published.

    Attributes:
        name: in the group `GROUP`.
        packaging: "jar" or "aar".
        description: a sentence.
        classes: the folder of its compiled classes.
        sources: the folder of its Kotlin sources.
        dependencies: what it needs.
        manifest: of an AAR, the text of its AndroidManifest.xml.
        shrinker_rules: of an AAR, what an app's shrinker must keep.
    """

    name: str
    packaging: str
    description: str
    classes: Path
    sources: Path
    dependencies: tuple[Dependency, ...]
    manifest: str = ""
    shrinker_rules: str = ""


def publish(library: Library, repository: Path, version: str = toolchain.VERSION) -> Path:
    """Write a library into a repository, in place of the same version of before; the folder of the version.

    The same classes and sources give the same bytes.
    """
    folder = repository / GROUP.replace(".", "/") / library.name / version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    jar = _zip(_files(library.classes))
    stem = f"{library.name}-{version}"
    artifacts = {
        f"{stem}.pom": _pom(library, version),
        f"{stem}.{library.packaging}": jar if library.packaging == "jar" else _aar(library, jar),
        f"{stem}-sources.jar": _zip(_files(library.sources)),
        f"{stem}-javadoc.jar": _zip({"index.html": api_page(library, version).encode()}),
    }
    for name, data in artifacts.items():
        _write(folder / name, data)
    versions = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
    _write(folder.parent / "maven-metadata.xml", _metadata(library.name, versions))
    return folder


def add_jar(repository: Path, dependency: Dependency, jar: Path, needs: tuple[Dependency, ...] = ()) -> None:
    """Put a jar of others into a repository, where no network has it: in place of what Maven Central gives."""
    library = Library(dependency.name, "jar", dependency.name, jar, jar, needs)
    folder = repository / dependency.group.replace(".", "/") / dependency.name / dependency.version
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{dependency.name}-{dependency.version}"
    _write(folder / f"{stem}.pom", _pom(library, dependency.version, dependency.group))
    _write(folder / f"{stem}.jar", jar.read_bytes())


def resolve(repositories: Iterable[Path], group: str, name: str, version: str, scope: str = "compile") -> list[Path]:
    """The artifact of a POM and, breadth first, those that it needs in a scope, each in the nearest version.

    Raises:
        BuildError: an artifact or a POM is in none of the repositories.
    """
    scopes = {"compile"} if scope == "compile" else {"compile", "runtime"}
    found: dict[tuple[str, str], Path] = {}
    waiting = [Dependency(group, name, version)]
    while waiting:
        wanted = waiting.pop(0)
        if (wanted.group, wanted.name) in found:
            continue
        place = Path(wanted.group.replace(".", "/")) / wanted.name / wanted.version / f"{wanted.name}-{wanted.version}"
        poms = [path for root in repositories if (path := root / f"{place}.pom").is_file()]
        if not poms:
            raise BuildError(f"{wanted.group}:{wanted.name}:{wanted.version} is in no repository")
        packaging, needed = _read_pom(poms[0])
        found[wanted.group, wanted.name] = poms[0].with_suffix(f".{packaging}")
        waiting += [each for each in needed if each.scope in scopes and not each.optional]
    return list(found.values())


def _read_pom(path: Path) -> tuple[str, list[Dependency]]:
    """Packaging and dependencies of a POM."""

    def text(element: ET.Element, name: str, default: str = "") -> str:
        return element.findtext(f"{{{NAMESPACE}}}{name}", default)

    root = ET.parse(path).getroot()
    dependencies = [
        Dependency(
            text(entry, "groupId"),
            text(entry, "artifactId"),
            text(entry, "version"),
            text(entry, "scope", "compile"),
            text(entry, "optional") == "true",
        )
        for entry in root.iter(f"{{{NAMESPACE}}}dependency")
    ]
    return text(root, "packaging", "jar"), dependencies


def _pom(library: Library, version: str, group: str = GROUP) -> bytes:
    entries = "".join(
        f"\n    <dependency>\n      <groupId>{each.group}</groupId>\n      <artifactId>{each.name}</artifactId>"
        f"\n      <version>{each.version}</version>\n      <scope>{each.scope}</scope>"
        f"{chr(10) + '      <optional>true</optional>' if each.optional else ''}\n    </dependency>"
        for each in library.dependencies
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="{NAMESPACE}">
  <modelVersion>4.0.0</modelVersion>
  <groupId>{group}</groupId>
  <artifactId>{library.name}</artifactId>
  <version>{version}</version>
  <packaging>{library.packaging}</packaging>
  <name>{library.name}</name>
  <description>{html.escape(library.description)}</description>
  <licenses>
    <license>
      <name>Apache-2.0</name>
    </license>
  </licenses>
  <dependencies>{entries}
  </dependencies>
</project>
""".encode()


def _metadata(name: str, versions: list[str]) -> bytes:
    listed = "".join(f"\n      <version>{version}</version>" for version in versions)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<metadata>
  <groupId>{GROUP}</groupId>
  <artifactId>{name}</artifactId>
  <versioning>
    <release>{versions[-1]}</release>
    <versions>{listed}
    </versions>
  </versioning>
</metadata>
""".encode()


def _aar(library: Library, jar: bytes) -> bytes:
    """An Android archive. R.txt is empty, as the library has no resources of its own."""
    return _zip(
        {
            "AndroidManifest.xml": library.manifest.encode(),
            "R.txt": b"",
            "classes.jar": jar,
            "proguard.txt": library.shrinker_rules.encode(),
        }
    )


def _files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    """A file with the checksums that Maven and Gradle look for beside it."""
    path.write_bytes(data)
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
        path.with_name(f"{path.name}.{algorithm}").write_text(digest)


def api_page(library: Library, version: str) -> str:
    """What is public in a library's Kotlin sources, with its comments: one page of HTML."""
    title = f"{library.name} {version}"
    parts = [f"<!DOCTYPE html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>"]
    parts.append(f"<p>{html.escape(library.description)}</p>")
    for package, entries in _packages(library.sources).items():
        parts.append(f"<h2>{package}</h2>")
        for declaration, comment in entries:
            parts.append(f"<h3><code>{html.escape(declaration)}</code></h3><pre>{html.escape(comment)}</pre>")
    return "\n".join(parts) + "\n"


def _packages(sources: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(sources.rglob("*.kt")):
        text = path.read_text(encoding="utf-8")
        package = re.search(r"^package (\S+)", text, re.M)
        entries = list(_documented(text))
        if package and entries:
            found.setdefault(package[1], []).extend(entries)
    return dict(sorted(found.items()))


def _documented(text: str) -> Iterator[tuple[str, str]]:
    """The declarations of a file that are public and have a comment, in a line each, with it."""
    for match in _COMMENT.finditer(text):
        if not _DECLARATION.match(text, match.end()):  # private, internal, protected, or no declaration
            continue
        lines = (re.sub(r"^\s*\*? ?", "", line) for line in match[1].strip().splitlines())
        yield _signature(text, match.end()), "\n".join(lines).strip()


def _signature(text: str, start: int) -> str:
    """A declaration without its body or value, in one line."""
    depth, end = 0, start
    while end < len(text):
        character = text[end]
        depth += (character in "([") - (character in ")]")
        ended = character == "{" or text.startswith((" = ", " =\n", " get()", " by "), end) or character == "\n"
        if depth == 0 and ended and not (character == "\n" and text[start:end].rstrip()[-1:] in ":,"):
            break
        end += 1
    return " ".join(text[start:end].split()).replace("( ", "(").replace(", )", ")")
