"""What Debian is asked for, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import debian
from tools.debian import RootRecipe, SetupError

RECIPE = RootRecipe("bookworm", ("python3",), "arm64", "extract")


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path))
    assert debian.cache_folder() == tmp_path.resolve()


def test_a_stated_mirror_wins_and_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFORMER_DEBIAN_MIRROR", "http://example.org/debian/")
    assert debian.mirror() == "http://example.org/debian"
    monkeypatch.delenv("EDGEFORMER_DEBIAN_MIRROR")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="set EDGEFORMER_DEBIAN_MIRROR"):
        debian.mirror()


def test_without_apt_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="mmdebstrap: not installed, and there is no apt-get"):
        debian.install({"mmdebstrap": "mmdebstrap"})


def test_a_root_is_made_once_for_each_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[list[str]] = []

    def call(command: list[str]) -> None:
        made.append(command)
        Path(command[-2]).mkdir()

    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path))
    monkeypatch.setenv("EDGEFORMER_DEBIAN_MIRROR", "http://example.org/debian")
    monkeypatch.setattr(debian, "call", call)
    monkeypatch.setattr(debian, "install", lambda _: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def finish(root: Path) -> None:
        (root / "added").touch()

    for _ in range(2):
        root = debian.open_root("root", RECIPE, finish)
        assert (root / "added").is_file()
        assert debian.is_current(root, RECIPE)
    assert len(made) == 1
    assert {"--architectures=arm64", "--variant=extract", "--include=python3", "bookworm"} <= set(made[0])
    assert not debian.is_current(root, RootRecipe("trixie", ("python3",), "arm64", "extract"))
