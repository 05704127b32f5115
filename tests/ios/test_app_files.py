"""The checks of what only Xcode reads pass on the app, and name what is wrong with corrupted copies of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ios_demo.tools.app_files import check_app

PACKAGE = Path(__file__).resolve().parents[2] / "ios_demo"
PROJECT = "EdgeDemo.xcodeproj/project.pbxproj"
STRINGS = "EdgeDemo/Localizable.xcstrings"
TEXT = "EdgeDemo/Screens/TextScreen.swift"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    app = tmp_path / "ios_demo" / "App"
    shutil.copytree(PACKAGE / "App", app)
    shutil.copy(PACKAGE.parent / "Package.swift", tmp_path)
    return app


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def corrupt(app: Path) -> None:
        text = (app / name).read_text(encoding="utf-8")
        assert old in text
        (app / name).write_text(text.replace(old, new), encoding="utf-8")

    return corrupt


def without_french(app: Path) -> None:
    catalog = json.loads((app / STRINGS).read_text(encoding="utf-8"))
    del catalog["strings"]["speech.record"]["localizations"]["fr"]
    (app / STRINGS).write_text(json.dumps(catalog), encoding="utf-8")


def test_the_app_is_whole(app: Path) -> None:
    assert check_app(app) == []


@pytest.mark.parametrize(
    ("corrupt", "problem"),
    [
        (replaced(PROJECT, "objectVersion = 77", "objectVersion = 56"), "expected objectVersion 77, found 56"),
        (replaced(PROJECT, "productName = EdgeFormerCoreML", "productName = EdgeML"), "no product EdgeML"),
        (replaced(PROJECT, "relativePath = ../..", "relativePath = nowhere"), "no package at nowhere"),
        (replaced(PROJECT, "path = EdgeDemo;", "path = Elsewhere;"), "the synchronised group Elsewhere is no folder"),
        (replaced(PROJECT, "path = Bundles;", "path = Models;"), "Models does not exist"),
        (replaced(PROJECT, "EdgeDemo/Info.plist", "Info.plist"), "Info.plist does not exist"),
        (
            replaced(PROJECT, "target = ED0000000000000000000021", "target = ED00000000000000000000FF"),
            "ED00000000000000000000FF is mentioned and not defined",
        ),
        (replaced("EdgeDemo/Info.plist", "NSCameraUsageDescription", "NSCamera"), "has no NSCameraUsageDescription"),
        (without_french, "speech.record: expected en, fr, found en"),
        (replaced(STRINGS, "Load %.0f ms", "Load"), "bench.load %lf: the en text has the values []"),
        (replaced(TEXT, '"text.run"', '"text.answer"'), "text.answer with 0 values"),
        (
            replaced(TEXT, '"text.run"', '"text.input"'),
            "text.run with 0 values is not used",
        ),
    ],
)
def test_what_is_wrong_is_named(app: Path, corrupt: Callable[[Path], None], problem: str) -> None:
    corrupt(app)
    assert any(problem in found for found in check_app(app)), check_app(app)
