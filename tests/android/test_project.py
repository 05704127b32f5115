"""What can be read of the Android project without its tools: layouts, strings, manifest, Gradle files."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from android_demo.tools import toolchain
from android_demo.tools.steps import PROJECT

MAIN = PROJECT / "app" / "src" / "main"
LAYOUTS = sorted((MAIN / "res" / "layout").glob("*.xml"))
ANDROID = "{http://schemas.android.com/apk/res/android}"

# What a screen reader must be able to name, and the attributes that name it.
NAMED_BY = {
    "Button": ("text", "contentDescription"),
    "CheckBox": ("text", "contentDescription"),
    "Switch": ("text", "contentDescription"),
    "EditText": ("hint", "labelled"),
    "ImageButton": ("contentDescription",),
    "ImageView": ("contentDescription",),
    "ProgressBar": ("contentDescription",),
    "Spinner": ("contentDescription", "labelled"),
    "TextureView": ("contentDescription",),
}
SHOWN = ("text", "hint", "contentDescription", "label", "title", "summary")


def elements(path: Path) -> Iterator[ET.Element]:
    return ET.parse(path).getroot().iter()


def strings(folder: str) -> dict[str, str]:
    root = ET.parse(MAIN / "res" / folder / "strings.xml").getroot()
    return {entry.attrib["name"]: entry.text or "" for entry in root}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda path: path.stem)
def test_screen_readers_can_name_every_control(layout: Path) -> None:
    labelled = {view.get(f"{ANDROID}labelFor", "").removeprefix("@+id/") for view in elements(layout)}
    for view in elements(layout):
        if view.tag not in NAMED_BY:
            assert view.tag in {"FrameLayout", "LinearLayout", "ScrollView", "TextView", "include"}, view.tag
            continue
        identity = view.get(f"{ANDROID}id", "").rpartition("/")[2]
        names = [view.get(ANDROID + attribute) for attribute in NAMED_BY[view.tag] if attribute != "labelled"]
        assert any(names) or ("labelled" in NAMED_BY[view.tag] and identity in labelled), f"{layout.name}: {identity}"


@pytest.mark.parametrize("file", [*LAYOUTS, MAIN / "AndroidManifest.xml"], ids=lambda path: path.stem)
def test_nothing_shown_is_written_in_a_layout(file: Path) -> None:
    for view in elements(file):
        for attribute in SHOWN:
            text = view.get(ANDROID + attribute)
            assert text is None or text.startswith("@string/"), f"{file.name}: {attribute}={text!r}"


def test_both_languages_have_the_same_strings_with_the_same_arguments() -> None:
    english, french = strings("values"), strings("values-fr")
    assert english.keys() == french.keys()
    for name, text in english.items():
        placeholders = [sorted(re.findall(r"%\d\$[\d.]*\w", version)) for version in (text, french[name])]
        assert placeholders[0] == placeholders[1], name


def test_every_string_is_used_and_every_used_string_exists() -> None:
    sources = [*(MAIN / "kotlin").rglob("*.kt"), *LAYOUTS, MAIN / "AndroidManifest.xml"]
    used = set(re.findall(r"(?:R\.string\.|@string/)(\w+)", "".join(path.read_text() for path in sources)))
    assert used == strings("values").keys()


def test_activities_exist() -> None:
    names = [
        element.attrib[f"{ANDROID}name"]
        for element in elements(MAIN / "AndroidManifest.xml")
        if element.tag == "activity"
    ]
    assert len(names) == 6
    for name in names:
        source = MAIN / "kotlin" / Path(*name.split(".")).with_suffix(".kt")
        assert f"class {source.stem}" in source.read_text()


def test_the_app_asks_for_nothing_but_camera_and_microphone() -> None:
    permissions = {
        element.attrib[f"{ANDROID}name"]
        for element in elements(MAIN / "AndroidManifest.xml")
        if element.tag == "uses-permission"
    }
    assert permissions == {"android.permission.CAMERA", "android.permission.RECORD_AUDIO"}


def test_only_home_and_what_adb_starts_are_open_to_others() -> None:
    open_to = {
        element.attrib[f"{ANDROID}name"]: element.get(f"{ANDROID}permission")
        for element in elements(MAIN / "AndroidManifest.xml")
        if element.tag == "activity" and element.get(f"{ANDROID}exported") == "true"
    }
    assert open_to == {
        "org.edgeformer.demo.HomeActivity": None,
        "org.edgeformer.demo.BenchActivity": "android.permission.DUMP",
    }


def test_gradle_builds_what_the_build_without_gradle_builds() -> None:
    catalog = tomllib.loads((PROJECT / "gradle" / "libs.versions.toml").read_text())
    versions = catalog["versions"]
    assert int(versions["minSdk"]) == toolchain.MIN_SDK
    assert int(versions["targetSdk"]) == toolchain.TARGET_SDK
    app = (PROJECT / "app" / "build.gradle.kts").read_text()
    assert f'applicationId = "{toolchain.NAMESPACE}"' in app
    assert f'versionName = "{toolchain.VERSION}"' in app
    for entry in [*catalog["libraries"].values(), *catalog["plugins"].values()]:
        reference = entry.get("version", {}).get("ref")
        assert reference is None or reference in versions


def test_gradle_names_only_what_its_catalog_has() -> None:
    catalog = tomllib.loads((PROJECT / "gradle" / "libs.versions.toml").read_text())
    known = {f"libs.{name.replace('-', '.')}" for name in catalog["libraries"]}
    known |= {f"libs.plugins.{name.replace('-', '.')}" for name in catalog["plugins"]}
    known |= {f"libs.versions.{name}" for name in catalog["versions"]}
    modules = re.findall(r'":(\w+)"', (PROJECT / "settings.gradle.kts").read_text())
    assert modules == ["core", "engine", "app"]
    for file in [PROJECT / "build.gradle.kts", *(PROJECT / module / "build.gradle.kts" for module in modules)]:
        for name in re.findall(r"\blibs\.[\w.]+", file.read_text()):
            assert name.removesuffix(".get") in known, f"{file}: {name}"
