"""The lengths that texts are converted for where nobody says any."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeformer.checkpoints.checkpoint import Checkpoint, capped
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import TARGETS
from edgeformer.models.family import DEFAULT_SEQ_LENS
from edgeformer.tasks.text import TEXTS, texts


def checkpoint(longest: int | None, positions: int) -> Checkpoint:
    """One that cuts texts at `longest` tokens and has so many positions."""
    config = SimpleNamespace(max_position_embeddings=positions)
    return cast(Checkpoint, SimpleNamespace(longest=longest, config=config))


@pytest.mark.parametrize(
    ("longest", "positions", "expected"),
    [
        (None, 512, (8, 16, 32, 64)),
        (256, 512, (8, 16, 32, 64)),
        (None, 40, (8, 16, 32, 40)),
        (20, 40, (8, 16, 20)),
        (5, 40, (5,)),
    ],
)
def test_they_end_where_the_checkpoint_does(longest: int | None, positions: int, expected: tuple[int, ...]) -> None:
    assert capped(checkpoint(longest, positions), (8, 16, 32, 64), asked=False) == (expected, ())


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_has_its_own(name: str) -> None:
    target = TARGETS[name]
    assert target.seq_lens == tuple(sorted(set(target.seq_lens))) and set(target.seq_lens) <= set(DEFAULT_SEQ_LENS)
    assert target.seq_lens[-1] == DEFAULT_SEQ_LENS[-1]
    asked: dict[str, Any] = {"source": "x", "out": Path("o"), "targets": (name,)}
    assert ConvertOptions(**asked).programs_for(target).seq_lens == target.seq_lens
    assert ConvertOptions(**asked, seq_lens=(7,)).programs_for(target).seq_lens == (7,)


def test_a_package_for_an_older_ios_has_one_program() -> None:
    coreml = TARGETS["coreml"]
    for release, programs in ((16, 1), (18, len(coreml.seq_lens))):
        options = ConvertOptions("x", Path("o"), ("coreml",), min_ios=release)
        assert options.programs_for(coreml).seq_lens == coreml.seq_lens[-programs:]


@pytest.mark.parametrize("tokens", [lambda text: 2 + len(text.split()), lambda text: 2 + len(text)])
def test_a_recorded_text_fills_each_bucket(tokens: Any) -> None:
    """Whether a token is a word or a letter."""
    lengths = (8, 12, 16, 128)
    filling = texts(lengths, tokens)[len(TEXTS) :]
    for each, length, below in zip(filling, lengths, (0, *lengths), strict=False):
        assert below < tokens(each["text"]) <= length
    assert tokens(filling[-1]["text"]) >= 127
