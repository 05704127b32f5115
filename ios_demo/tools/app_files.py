"""Checks what Xcode alone reads: the project, the property list and the string catalogs of ios_demo/App."""

from __future__ import annotations

import json
import plistlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pbxproj import XcodeProject  # type: ignore[import-untyped]

LANGUAGES = ("en", "fr")
OBJECT_VERSION = "77"
"""The project format of Xcode 16, the first with synchronised groups: files join a target by lying in its folder."""

# What a program that uses an Apple class has to explain to its user.
USAGE = {
    "AVCaptureDevice": "NSCameraUsageDescription",
    "AVAudioEngine": "NSMicrophoneUsageDescription",
}

_OBJECT_ID = re.compile(r"[0-9A-F]{24}")
# A key of the catalog with the values that stand in it: "bench.latency \(a) \(b)".
_KEY = re.compile(r'(?<!systemImage: )"([a-z]+(?:\.[a-z]+)+)((?: \\\((?:[^()"]|\([^()]*\))*\))*)"')
_PLACEHOLDER = re.compile(r"%(?:\d+\$)?[\d.]*(lld|lf|f|@)")


def check_app(folder: Path) -> list[str]:
    """What is wrong with the app's files, one sentence each.

    Args:
        folder: ios_demo/App.
    """
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((folder / "EdgeDemo").rglob("*.swift")))
    return [
        *_project_problems(folder),
        *_plist_problems(folder / "EdgeDemo", sources),
        *_catalog_problems(folder / "EdgeDemo" / "Localizable.xcstrings"),
        *_catalog_problems(folder / "EdgeDemo" / "InfoPlist.xcstrings"),
        *_key_problems(folder / "EdgeDemo" / "Localizable.xcstrings", sources),
    ]


def _project_problems(folder: Path) -> Iterator[str]:
    path = folder / "EdgeDemo.xcodeproj" / "project.pbxproj"
    project = XcodeProject.load(str(path))
    if project.objectVersion != OBJECT_VERSION:
        yield f"project: expected objectVersion {OBJECT_VERSION}, found {project.objectVersion}"
    known = {entry.get_id() for entry in project.objects.get_objects_in_section(*project.objects.get_sections())}
    unknown = set(_OBJECT_ID.findall(path.read_text(encoding="utf-8"))) - known
    yield from (f"project: the object {name} is mentioned and not defined" for name in sorted(unknown))
    targets = project.objects.get_targets()
    if [target.productType for target in targets] != ["com.apple.product-type.application"]:
        yield f"project: expected one target, an application, found {len(targets)}"
    for group in project.objects.get_objects_in_section("PBXFileSystemSynchronizedRootGroup"):
        if not (folder / group.path).is_dir():
            yield f"project: the synchronised group {group.path} is no folder"
    for file in project.objects.get_objects_in_section("PBXFileReference"):
        if file.sourceTree == "<group>" and not (folder / file.path).exists():
            yield f"project: {file.path} does not exist"
    for settings in project.objects.get_configurations_on_targets():
        if not (folder / settings.buildSettings.INFOPLIST_FILE).is_file():
            yield f"project: {settings.buildSettings.INFOPLIST_FILE} does not exist"
    yield from _package_problems(folder, project)


def _package_problems(folder: Path, project: Any) -> Iterator[str]:
    """The packages are there and have the products that the app links."""
    (reference,) = project.objects.get_objects_in_section("XCLocalSwiftPackageReference")
    manifest = folder / reference.relativePath / "Package.swift"
    if not manifest.is_file():
        yield f"project: no package at {reference.relativePath}"
        return
    products = set(re.findall(r'\.library\(name: "(\w+)"', manifest.read_text(encoding="utf-8")))
    for dependency in project.objects.get_objects_in_section("XCSwiftPackageProductDependency"):
        if dependency.productName not in products:
            yield f"project: the package has no product {dependency.productName}, only {', '.join(sorted(products))}"


def _plist_problems(folder: Path, sources: str) -> Iterator[str]:
    with (folder / "Info.plist").open("rb") as file:
        plist = plistlib.load(file)
    localized = _strings(folder / "InfoPlist.xcstrings")
    for name, key in USAGE.items():
        if name not in sources:
            continue
        if not plist.get(key):
            yield f"Info.plist: the app uses {name} and has no {key}"
        if key not in localized:
            yield f"InfoPlist.xcstrings: {key} is not translated"
    for key in localized.keys() - plist.keys():
        yield f"InfoPlist.xcstrings: {key} is not in Info.plist"


def _catalog_problems(path: Path) -> Iterator[str]:
    """Every key has a text in every language, with the same values in it."""
    for key, entry in _strings(path).items():
        texts = {
            language: unit["stringUnit"]["value"]
            for language, unit in entry["localizations"].items()
            if unit["stringUnit"]["state"] == "translated" and unit["stringUnit"]["value"].strip()
        }
        if set(texts) != set(LANGUAGES):
            yield f"{path.name}: {key}: expected {', '.join(LANGUAGES)}, found {', '.join(sorted(texts)) or 'none'}"
        expected = [kind.replace("lf", "f") for kind in _PLACEHOLDER.findall(key)]
        for language, text in texts.items():
            found = [kind.replace("lf", "f") for kind in _PLACEHOLDER.findall(text)]
            if found != expected:
                yield f"{path.name}: {key}: the {language} text has the values {found}, its key {expected}"


def _key_problems(path: Path, sources: str) -> Iterator[str]:
    """What the screens ask for is in the catalog, with as many values, and nothing else is."""
    used = {(key, values.count(r"\(")) for key, values in _KEY.findall(sources)}
    known = {(key.split(" ")[0], len(_PLACEHOLDER.findall(key))) for key in _strings(path)}
    yield from (f"{path.name}: {key} with {count} values is missing" for key, count in sorted(used - known))
    yield from (f"{path.name}: {key} with {count} values is not used" for key, count in sorted(known - used))


def _strings(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["strings"]
    return found
