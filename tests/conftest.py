"""What every test may use: the reference assets and a place for conversions that are made once per session."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.debian import locked

REPOSITORY = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("EDGEFORMER_ASSETS", REPOSITORY.parent / "shared" / "assets")).resolve()

# The export tools keep hundreds of thousands of objects alive and make as many with each conversion: full collections
# at their usual rate take an eighth of its CPU time.
gc.set_threshold(700, 10, 100)

# Tests choose ExecuTorch's runtime themselves: what this user's cache holds changes none of them.
os.environ["EDGEFORMER_EXECUTORCH"] = "python"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests start first: no worker is left alone with one while the others have nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of reference weights, golden tensors and data sets (EDGEFORMER_ASSETS). CI must have it."""
    if not ASSETS.is_dir():
        absent = f"no reference assets at {ASSETS}: set EDGEFORMER_ASSETS"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return ASSETS


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Has a function fill an empty folder of a name; the first of this run's workers that asks makes it for all."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / f"once-{name}", shared / f"once-{name}.done"
        with locked(shared / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def executorch_shim(make_once: MakeOnce) -> Path:
    """A build of the ExecuTorch shim from the installed package."""
    pytest.importorskip("executorch")
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler: apt-get install g++")
    from edgeformer_runtime.engines.executorch_shim.build import build_shim

    return make_once("shim", lambda folder: build_shim(out=folder / "build")) / "build"
