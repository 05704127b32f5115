"""What making the root asks of the machine, without making one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ios_demo.tools.swift_root import open_root
from tools.debian import SetupError


def test_without_root_rights_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="expected to run as root"):
        open_root(tmp_path)
