"""What tests of the Swift libraries share: the root in which Debian's Swift runs, and a folder in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ios_demo.tools.check import REPOSITORY
from ios_demo.tools.swift_root import SwiftRoot, open_root
from tools.debian import SetupError


@pytest.fixture(scope="session")
def swift_root() -> SwiftRoot:
    """The root; a machine that cannot have one skips the test, but for CI."""
    try:
        return open_root(REPOSITORY)
    except SetupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def scratch(swift_root: SwiftRoot) -> Iterator[Path]:
    """A folder in the root's /tmp."""
    folder = swift_root.folder / "tmp" / f"tests-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
