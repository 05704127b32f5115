"""Lengths for a user's own texts: no others cost less, and what is shown is what was counted."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.convert.lengths import Budget, ChosenLengths, choose, lengths_for, padding_of
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import LengthCost
from edgeformer.report.page import _lengths
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import tokenizer

QUADRATIC = 1 / (6 * 384)


def drawn(seed: int) -> dict[int, int]:
    """A histogram of a few lengths."""
    generator = random.Random(seed)
    return {length: generator.randint(1, 50) for length in generator.sample(range(3, 40), 9)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_no_other_lengths_cost_less(seed: int, most: int) -> None:
    counts = drawn(seed)
    found = choose(counts, longest=48, most=most, quadratic=QUADRATIC, least_gain=0.0)
    every = (
        (*ends, 48) for number in range(most) for ends in itertools.combinations(sorted(counts), number)
    )  # a length between two texts' only pads more
    assert len(found) <= most and found[-1] == 48
    assert padding_of(counts, found, QUADRATIC) == pytest.approx(
        min(padding_of(counts, each, QUADRATIC) for each in every)
    )


def test_a_length_that_saves_next_to_nothing_is_left_out() -> None:
    counts = {10: 1000, 11: 1, 128: 1000}
    assert choose(counts, 128, 3, QUADRATIC, least_gain=0.0) == (10, 11, 128)
    assert choose(counts, 128, 3, QUADRATIC) == (10, 128)


def checkpoint(positions: int = 64, with_tokenizer: bool = True) -> Checkpoint:
    """One with the tests' tokenizer."""
    config = SimpleNamespace(max_position_embeddings=positions, hidden_size=32)
    text = tokenizer().to_str() if with_tokenizer else None
    return cast(Checkpoint, SimpleNamespace(longest=None, config=config, tokenizer_json=text))


def written(tmp_path: Path, *texts: str) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text("id,said\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(texts)))
    return path


def test_tokens_of_a_column_are_counted(tmp_path: Path) -> None:
    data = written(tmp_path, *["lights"] * 8, "turn the lights off", "the " * 90)
    found = lengths_for(checkpoint(), "onnx", (8, 16, 64), data, "said")
    assert found.histogram == ((3, 8), (6, 1), (64, 1))  # with two special tokens, and cut
    assert (found.cut, sum(found.counts)) == (1, 10)
    assert found.seq_lens == (3, 6, 64) and found.counts == [8, 1, 1]
    assert found.padding == 0 < found.default_padding
    assert ChosenLengths.from_json(json.loads(json.dumps(found.to_json())), "onnx") == found
    assert "chosen for 10 texts" in (shown := _lengths("a <bundle>", found)) and "a &lt;bundle&gt;" in shown


def test_a_budget_says_how_many_lengths_there_are(tmp_path: Path) -> None:
    cost = LengthCost(bytes_per_layer=1000, seconds_per_layer=0.1)
    for text, most in (("30KB", 4), ("30KB,2.5s", 3), ("2.5s", 3), ("0B", 1), ("0.5 MB, 1000s", 51), ("9GB", 64)):
        assert Budget.parse(text).most(cost, layers=10) == most, text
    data = written(tmp_path, "lights", "turn the lights off", "turn the lights off the lights", "the " * 90)
    for most, chosen in ((1, (64,)), (2, (8, 64)), (4, (3, 6, 8, 64))):
        assert lengths_for(checkpoint(), "onnx", (8, 64), data, "said", most).seq_lens == chosen


@pytest.mark.parametrize("text", ["", "30", "KB", "30KB,20KB", "30KB;20s", "-1s", "1e3s", "nan s", "30kb"])
def test_budgets_that_say_something_else(text: str) -> None:
    with pytest.raises(InputError, match="--lengths-budget: expected bytes, seconds or both"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "changed",
    [{"seq_lens": [64, 8]}, {"seq_lens": []}, {"histogram": [[70, 1]]}, {"histogram": [[3, -1]]}, {"histogram": 7},
     {"histogram": []}, {"padding": float("nan")}, {"padding": "x"}, {"cut": True}, {"cut": None}],
)  # fmt: skip
def test_what_a_file_states_otherwise_is_not_shown(changed: dict[str, Any]) -> None:
    sound = {
        "seq_lens": [8, 64],
        "histogram": [[3, 4]],
        "cut": 0,
        "quadratic": 0.1,
        "padding": 0.1,
        "default_padding": 0,
    }
    assert ChosenLengths.from_json(sound, "onnx") is not None
    assert ChosenLengths.from_json({**sound, **changed}, "onnx") is None
    assert ChosenLengths.from_json(None, "onnx") is None


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path, "lights")
    for asked, reason in (
        ((checkpoint(with_tokenizer=False), data, "said"), "this model has no tokenizer"),
        ((checkpoint(), data, "sad"), "sad"),
        ((checkpoint(), written(tmp_path), "said"), "no texts in"),
    ):
        source, file, column = asked
        with pytest.raises(InputError, match=reason):
            lengths_for(source, "onnx", (8, 64), file, column)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"lengths_from": "x.csv", "seq_lens": (8,)}, "--lengths-from chooses the lengths: leave --seq-len out"),
        ({"lengths_column": "text"}, "--column names the texts of --lengths-from"),
        ({"lengths_budget": "3s"}, "--lengths-budget limits the lengths of --lengths-from"),
        ({"lengths_from": "x.csv", "lengths_budget": "3"}, "--lengths-budget: expected bytes, seconds or both"),
        ({"lengths_from": "x.csv", "lengths_budget": "3s", "targets": ("onnx",)}, "in onnx is not known: leave it out"),
    ],
)
def test_options_that_contradict_each_other(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ConvertOptions("source", Path("out"), **wrong)


def test_images_have_no_lengths() -> None:
    options = ConvertOptions("source", Path("out"), lengths_from="x.csv")
    with pytest.raises(InputError, match="--lengths-from is for texts"):
        options.check_for("image-classification")
