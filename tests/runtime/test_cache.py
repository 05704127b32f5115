"""Where the cache lies, and who can change what lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeformer_runtime.delivery import cache_folder, make_private, who_can_replace
from edgeformer_runtime.engines.executorch_shim import build as building
from edgeformer_runtime.engines.executorch_shim.build import LIBRARY_NAME, Build, Record, check_private
from edgeformer_runtime.errors import EngineError, InputError


@pytest.mark.parametrize("stated", ["", ".", "cache", "./cache", "../cache"])
def test_a_relative_cache_is_not_honoured(stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", stated)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edgeformer"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "edgeformer"


def test_a_relative_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "here")
    with pytest.raises(InputError, match="no absolute path"):
        cache_folder()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    folder = tmp_path / "cache" / "edgeformer" / "executorch" / "1"
    make_private(folder)
    (folder / LIBRARY_NAME).write_bytes(b"")
    (folder / LIBRARY_NAME).chmod(0o755)
    return Build(folder, Record("1", "c", "m", building.source_sha256()))


def test_what_is_made_for_one_user_is_that_users(build: Build) -> None:
    assert build.folder.stat().st_mode & 0o777 == 0o700
    assert build.folder.parent.stat().st_mode & 0o777 == 0o700
    check_private(build)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o775, 0o777, 0o772, 0o1777])
@pytest.mark.parametrize("where", ["library", "folder", "builds", "edgeformer", "cache"])
def test_a_build_that_others_can_replace_is_not_loaded(build: Build, where: str, mode: int) -> None:
    paths = {"library": build.library, "folder": build.folder}
    paths |= dict(zip(("builds", "edgeformer", "cache"), build.folder.parents, strict=False))
    paths[where].chmod(mode)
    if mode == 0o1777 and where in ("builds", "edgeformer", "cache"):
        check_private(build)  # sticky, as /tmp is: others can add files there, and cannot replace these
        return
    with pytest.raises(EngineError, match="the shim is not loaded: others can write to"):
        check_private(build)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("where", ["library", "folder", "builds"])
def test_a_build_of_another_user_is_not_loaded(build: Build, where: str) -> None:
    os.chown({"library": build.library, "folder": build.folder, "builds": build.folder.parent}[where], 12345, 12345)
    with pytest.raises(EngineError, match="belongs to another user"):
        check_private(build)


def test_a_link_to_what_others_can_write_is_seen_through(build: Build, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    build.folder.rename(shared)
    shared.chmod(0o777)
    build.folder.symlink_to(shared)
    assert who_can_replace(build.folder) == f"others can write to {shared}"
