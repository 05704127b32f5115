"""What making the root asks of the machine, without making one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ios_demo.tools import swift_root
from ios_demo.tools.swift_root import SetupError, cache_folder, debian_mirror, open_root


def test_without_root_rights_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="expected to run as root"):
        open_root(tmp_path)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path.resolve()


def test_a_stated_mirror_wins_and_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFORMER_DEBIAN_MIRROR", "http://example.org/debian")
    assert debian_mirror() == "http://example.org/debian"
    monkeypatch.delenv("EDGEFORMER_DEBIAN_MIRROR")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="set EDGEFORMER_DEBIAN_MIRROR"):
        debian_mirror()


def test_a_root_of_other_packages_is_not_current(tmp_path: Path) -> None:
    assert not swift_root._is_current(tmp_path)
    (tmp_path / swift_root.STAMP).write_text('{"suite": "old", "packages": []}', encoding="utf-8")
    assert not swift_root._is_current(tmp_path)
