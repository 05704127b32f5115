"""docs/tutorial.md, run line by line: each block of sh and python in order, and each output that it shows.

The checkpoint is a tiny one, so numbers and labels differ from those of the page; every other word is compared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoint_factory import WORDS, save_mobilebert
from tests.docs.documents import REPOSITORY, Block, blocks

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
ZOO_CONFIG = REPOSITORY / "edgeformer" / "zoo" / "clinc150-mobilebert" / "config.json"
LABELS = ("smart_home", "change_volume", "whisper_mode")
EXAMPLES = 100

_BORDER = re.compile(r"[━┏┓┳┡╇┩└┴┘─]+")
_NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]\d+)?%?")
_FINGERPRINT = re.compile(r"\b[0-9a-f]{16}\b")


def tutorial() -> list[Block]:
    return list(blocks(TUTORIAL.read_text(encoding="utf-8")))


def every_label() -> re.Pattern[str]:
    names = json.loads(ZOO_CONFIG.read_text(encoding="utf-8"))["id2label"].values()
    return re.compile(rf"\b(?:{'|'.join(sorted(names, key=len, reverse=True))})\b")


LABEL = every_label()


def comparable(line: str) -> str:
    """A line without what another model, machine or terminal changes: numbers, labels, widths."""
    line = _BORDER.sub(" ", line).replace("┃", " ").replace("│", " ")
    line = _FINGERPRINT.sub("N", LABEL.sub("LABEL", line))
    return " ".join(_NUMBER.sub("N", line).split())


def assert_shown(shown: str, printed: str) -> None:
    """Every shown line was printed, in this order; ... stands for anything, and … for a word."""
    lines = iter(filter(None, map(comparable, printed.splitlines())))
    for line in filter(None, map(comparable, shown.splitlines())):
        if line == "...":
            continue
        pattern = " ".join(map(_pattern_of, line.split()))
        assert any(re.fullmatch(pattern, found) for found in lines), f"not printed: {line}\n{printed}"


def _pattern_of(word: str) -> str:
    return ".*" if word == "..." else r"\S+" if "…" in word else re.escape(word)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the reader of the tutorial has: a checkpoint with its labels, and a table of texts and labels."""
    names = dict(enumerate(LABELS))
    ids = {name: key for key, name in names.items()}
    save_mobilebert(tmp_path / "my-model", num_hidden_layers=1, id2label=names, label2id=ids)
    random = np.random.default_rng(0)
    rows = [f"{' '.join(random.choice(WORDS.split(), 6))},{random.choice(LABELS)}" for _ in range(EXAMPLES)]
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return tmp_path


@pytest.mark.litert
@pytest.mark.slow
def test_every_block_runs_and_prints_what_is_shown(folder: Path) -> None:
    environment = dict(os.environ) | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    printed, ran = "", 0
    for block in tutorial():
        if block.language == "text":
            assert_shown(block.text, printed)
        if block.language not in ("sh", "python") or block.not_run:
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
        done = subprocess.run([*program, block.text], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"tutorial.md:{block.line}: {done.stderr}"
        printed, ran = done.stdout, ran + 1
    assert ran >= 11


def test_what_does_not_run_here_is_known() -> None:
    """Blocks that need another machine or install packages, and no others, are left out."""
    left_out = [(block.text.split()[0], block.not_run) for block in tutorial() if block.not_run]
    assert left_out == [
        ("make", "it installs packages, and the tests run where they are installed"),
        ("pip", "it needs a Raspberry Pi"),
        ("python3", "it needs a Raspberry Pi and installs packages"),
    ]


def test_a_wrong_output_is_found() -> None:
    assert_shown("a wor… 3\n...\n│ smart_home 0.5 ...", "first\na word 7.25\nmore\n│ alarm 12 ms │ b")
    with pytest.raises(AssertionError, match="not printed"):
        assert_shown("accuracy 91%", "F1 score 91%")
    with pytest.raises(AssertionError, match="not printed"):
        assert_shown("second\nfirst", "first\nsecond")
