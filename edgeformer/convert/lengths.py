"""Sequence lengths for a user's own texts: the few that leave the least to padding."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from edgeformer_runtime.bundle.specs import SHORTEST_TEXT
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.convert.target import LengthCost

MAX_TEXTS = 100_000
"""Read of the data, from its start: what more of them say, these have said."""
LEAST_GAIN = 0.01
"""A further length has to save this share of what all texts cost, as each takes bytes and seconds of conversion."""
MAX_ROWS = 4096
"""Of a histogram, or lengths, that somebody's file states."""
_BAR = 24
MAX_LENGTHS = 64
"""That a budget lets be chosen."""
_UNITS = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "s": 1.0}


@dataclass(frozen=True)
class ChosenLengths:
    """Lengths chosen for some texts.

    Costs are of a model: a text in S positions costs S + `quadratic` * S * S, in units of what a position costs in the
    linear layers.

    Attributes:
        target: that they were chosen for.
        seq_lens: the lengths, rising.
        histogram: how many texts have so many tokens, special ones included, by rising tokens; those that are cut have
            the largest length.
        cut: how many texts are longer than that.
        quadratic: see above.
        padding: what padding costs with these lengths, as a share of what the texts cost without any.
        default_padding: the same with the target's own lengths.
    """

    target: str
    seq_lens: tuple[int, ...]
    histogram: tuple[tuple[int, int], ...]
    cut: int
    quadratic: float
    padding: float
    default_padding: float

    @property
    def counts(self) -> list[int]:
        """How many texts run at each length."""
        found = [0] * len(self.seq_lens)
        for tokens, count in self.histogram:
            found[next(place for place, length in enumerate(self.seq_lens) if length >= tokens)] += count
        return found

    def to_json(self) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "seq_lens": list(self.seq_lens),
            "histogram": [list(each) for each in self.histogram],
            "cut": self.cut,
            "quadratic": self.quadratic,
            "padding": self.padding,
            "default_padding": self.default_padding,
        }

    @staticmethod
    def from_json(value: Any, target: str) -> ChosenLengths | None:
        """What `to_json` gave, of a file that may hold anything; None: it holds something else."""
        try:
            histogram = tuple((_whole(tokens), _whole(count)) for tokens, count in value["histogram"][:MAX_ROWS])
            seq_lens = tuple(_whole(length) for length in value["seq_lens"][:MAX_ROWS])
            shares = [float(value[name]) for name in ("quadratic", "padding", "default_padding")]
            found = ChosenLengths(target, seq_lens, histogram, _whole(value["cut"]), *shares)
            rising = list(seq_lens) == sorted(set(seq_lens))
            return found if rising and all(map(math.isfinite, shares)) and any(found.counts) else None
        except (KeyError, TypeError, ValueError, StopIteration):
            return None

    def table(self) -> Table:
        """A row for each length: how many texts run at it."""
        counts = self.counts
        title = (
            f"{self.target}: padding costs {self.padding:.1%} of what the texts cost, {self.default_padding:.1%} with "
            "its default lengths"
        )
        table = Table("tokens", "texts", "", title=title, title_justify="left")
        for length, count in zip(self.seq_lens, counts, strict=True):
            table.add_row(str(length), str(count), "█" * round(_BAR * count / max(counts)))
        return table


@dataclass(frozen=True)
class Budget:
    """What all lengths after the first may add to a bundle in bytes, and to its conversion in seconds of one core."""

    size_bytes: float = math.inf
    seconds: float = math.inf

    @staticmethod
    def parse(text: str) -> Budget:
        """Read "300KB", "20s" or both, with a comma between.

        Raises:
            InputError: it says something else.

        Example:
            >>> Budget.parse("1.5MB,20s")
            Budget(size_bytes=1500000.0, seconds=20.0)
        """
        limits: dict[str, float] = {}
        for part in text.split(","):
            found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(B|KB|MB|GB|s)\s*", part)
            key = "seconds" if found is not None and found[2] == "s" else "size_bytes"
            if found is None or key in limits:
                raise InputError(f"--lengths-budget: expected bytes, seconds or both, as 300KB,20s, found {text!r}")
            limits[key] = float(found[1]) * _UNITS[found[2]]
        return Budget(**limits)

    def most(self, cost: LengthCost, layers: int) -> int:
        """How many lengths a model with so many linear layers may have: at least one, `MAX_LENGTHS` at most."""
        shares = (self.size_bytes, cost.bytes_per_layer * layers), (self.seconds, cost.seconds_per_layer * layers)
        return 1 + int(min([MAX_LENGTHS - 1, *(limit / each for limit, each in shares if each)]))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(value)
    return value


def choose(
    counts: Mapping[int, int], longest: int, most: int, quadratic: float, least_gain: float = LEAST_GAIN
) -> tuple[int, ...]:
    """The lengths with the least expected cost, by dynamic programming over the histogram.

    Args:
        counts: how many texts have so many tokens, none above `longest`.
        longest: the largest length, which is always among them.
        most: lengths at most.
        quadratic: see `ChosenLengths`.
        least_gain: no further length is added that saves a smaller share than this of what all texts cost.

    Returns:
        1 to `most` lengths, rising.

    Example:
        >>> choose({5: 90, 20: 10}, longest=128, most=2, quadratic=0.0)
        (5, 128)
        >>> choose({5: 90, 20: 10}, longest=128, most=3, quadratic=0.0)
        (5, 20, 128)
    """
    ends = sorted({max(tokens, SHORTEST_TEXT) for tokens in counts} | {longest})
    texts = np.cumsum([sum(n for tokens, n in counts.items() if max(tokens, SHORTEST_TEXT) == end) for end in ends])
    costs = np.array([_cost(end, quadratic) for end in ends])
    whole = costs * texts  # all texts up to each end, at that end
    between = costs[:, None] * (texts[:, None] - texts[None, :])  # [last, first]: those above `first`, at `last`
    allowed = np.tril(np.ones_like(between), -1) > 0
    least, ways = [whole], [np.full(len(ends), -1)]
    for _ in range(1, min(most, len(ends))):
        tried = np.where(allowed, least[-1][None, :] + between, np.inf)
        ways.append(tried.argmin(axis=1))
        least.append(tried.min(axis=1))
    exact = float((costs * np.diff(texts, prepend=0)).sum())
    number = 0
    while number + 1 < len(least) and least[number][-1] - least[number + 1][-1] >= least_gain * exact:
        number += 1
    chosen, place = [ends[-1]], len(ends) - 1
    for step in range(number, 0, -1):
        place = int(ways[step][place])
        chosen.append(ends[place])
    return tuple(reversed(chosen))


def _cost(length: int, quadratic: float) -> float:
    return length + quadratic * length * length


def padding_of(counts: Mapping[int, int], seq_lens: Sequence[int], quadratic: float) -> float:
    """What padding costs with these lengths, as a share of what the texts cost without any."""
    exact = sum(n * _cost(max(tokens, SHORTEST_TEXT), quadratic) for tokens, n in counts.items())
    padded = sum(
        n * _cost(next(length for length in seq_lens if length >= tokens), quadratic) for tokens, n in counts.items()
    )
    return padded / exact - 1


def lengths_for(
    checkpoint: Checkpoint,
    target: str,
    default: Sequence[int],
    data: Path,
    column: str | None,
    most: int | None = None,
) -> ChosenLengths:
    """Choose lengths for the texts of a file.

    The largest is that of `default`, or where texts are longer, what the longest needs, as far as the checkpoint goes.
    As many are chosen as `default` has, at most, where nobody says how many may be.

    Args:
        checkpoint: of a text model with a tokenizer.
        target: its name.
        default: the target's own lengths for this checkpoint, rising.
        data: .csv, .tsv, .jsonl, or .txt with a text per line.
        column: of the texts; None: "text", "sentence" or the only one.
        most: lengths at most, as a `Budget` says; None: as many as `default` has.

    Raises:
        InputError: the model has no tokenizer, or the data hold no texts.
    """
    from edgeformer_runtime.preprocess.tokenizer import Tokenizer

    if checkpoint.tokenizer_json is None:
        raise InputError("--lengths-from counts tokens, and this model has no tokenizer: give --seq-len")
    tokenizer = Tokenizer(checkpoint.tokenizer_json, "tokenizer.json")
    tokens = Counter(len(tokenizer.encode(text).ids) for text in _texts(data, column))
    ends = (checkpoint.longest, checkpoint.config.max_position_embeddings)
    end = min(each for each in ends if each is not None)
    longest = min(max(*tokens, default[-1]), end)
    counts = Counter[int]()
    for length, n in tokens.items():
        counts[min(length, longest)] += n
    # A layer has 12 C * C weights, a multiplication of each position with each, and 2 C for each pair of positions.
    quadratic = 1 / (6 * checkpoint.config.hidden_size)
    chosen = choose(counts, longest, len(default) if most is None else most, quadratic)
    return ChosenLengths(
        target=target,
        seq_lens=chosen,
        histogram=tuple(sorted(counts.items())),
        cut=sum(n for length, n in tokens.items() if length > longest),
        quadratic=quadratic,
        padding=padding_of(counts, chosen, quadratic),
        default_padding=padding_of(counts, (*default[:-1], longest), quadratic),
    )


def _texts(data: Path, column: str | None) -> list[str]:
    from edgeformer_runtime.cli.text_files import Columns, read_texts

    found = []
    for row in read_texts(data, Columns(column)):
        if row.text is not None:
            found.append(row.text)
        if len(found) == MAX_TEXTS:
            break
    if not found:
        raise InputError(f"no texts in {shorten(str(data))}: expected a text in each row")
    return found
