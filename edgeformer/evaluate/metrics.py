"""What answers are worth: to labelled data, by class and over sets of labels; and how well generators predict a text.

Of labels the definitions are scikit-learn's; where a quotient has nothing to divide by it is 0, as there by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeformer.evaluate.evaluate import Asker, EvaluationResult
from edgeformer_runtime.cli.tables import refusals
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScore:
    """One label's quality; `support`: how many examples have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int

    def to_json(self) -> dict[str, Any]:
        """The entry of `eval --json`."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class ClassReport:
    """Precision, recall and F1 by class, and who was taken for whom.

    Attributes:
        scores: of the labels that occur in the data or in the answers, in the order of the labels.
        confusion: (K, K) int64: how many examples of the row's label got the column's, in the order of `scores`.
    """

    scores: tuple[ClassScore, ...]
    confusion: Counts

    @property
    def macro_f1(self) -> float:
        """The mean over the classes."""
        return float(np.mean([score.f1 for score in self.scores]))

    @property
    def weighted_f1(self) -> float:
        """The mean over the examples."""
        return float(np.average([each.f1 for each in self.scores], weights=[each.support for each in self.scores]))

    def most_confused(self, count: int) -> list[tuple[str, str, int]]:
        """The `count` most frequent mistakes: the label, what it was taken for, how often."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, wrong.shape)
        names = [score.label for score in self.scores]
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(names[row], names[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]

    def to_json(self) -> dict[str, Any]:
        """The entries of `eval --json`."""
        return {
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "classes": [score.to_json() for score in self.scores],
            "confusion": {"labels": [score.label for score in self.scores], "counts": self.confusion.tolist()},
        }


def class_report(truth: Sequence[int], given: Sequence[int], labels: Sequence[str]) -> ClassReport:
    """Compare answers with the truth, both as indices of the labels, at least one of each."""
    present = sorted({*truth, *given})
    place = {index: number for number, index in enumerate(present)}
    confusion = np.zeros((len(present), len(present)), np.int64)
    np.add.at(confusion, ([place[index] for index in truth], [place[index] for index in given]), 1)
    hits, answered, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    return ClassReport(_scores([labels[index] for index in present], hits, answered, support), confusion)


@dataclass(frozen=True)
class LabelSetReport:
    """Quality of answers that are sets of labels.

    Attributes:
        subset_accuracy: the fraction of examples whose set is right as a whole.
        micro_f1: over all decisions on all labels.
        macro_f1: the mean over the labels.
        samples_f1: the mean over the examples.
        scores: of every label.
    """

    subset_accuracy: float
    micro_f1: float
    macro_f1: float
    samples_f1: float
    scores: tuple[ClassScore, ...]

    def to_json(self) -> dict[str, Any]:
        """The entries of `eval --json`."""
        return {
            "subset_accuracy": self.subset_accuracy,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "samples_f1": self.samples_f1,
            "classes": [score.to_json() for score in self.scores],
        }


def label_set_report(truth: NDArray[np.bool_], given: NDArray[np.bool_], labels: Sequence[str]) -> LabelSetReport:
    """Compare sets of labels (N, C), N and C at least 1."""
    both = truth & given
    hits, answered, support = (each.sum(axis=0) for each in (both, given, truth))
    scores = _scores(labels, hits, answered, support)
    return LabelSetReport(
        subset_accuracy=float((truth == given).all(axis=1).mean()),
        micro_f1=float(_f1(hits.sum(), answered.sum(), support.sum())),
        macro_f1=float(np.mean([score.f1 for score in scores])),
        samples_f1=float(_f1(both.sum(axis=1), given.sum(axis=1), truth.sum(axis=1)).mean()),
        scores=scores,
    )


def _scores(labels: Sequence[str], hits: Counts, answered: Counts, support: Counts) -> tuple[ClassScore, ...]:
    columns = (_quotient(hits, answered), _quotient(hits, support), _f1(hits, answered, support))
    rows = zip(labels, *(column.tolist() for column in columns), support.tolist(), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def _f1(hits: Any, answered: Any, support: Any) -> NDArray[np.float64]:
    """2 P R / (P + R), as 2 hits / (answered + support)."""
    return _quotient(2 * hits, answered + support)


def _quotient(above: Any, below: Any) -> NDArray[np.float64]:
    safe: NDArray[np.float64] = np.divide(above, np.maximum(below, 1), dtype=np.float64)
    return safe


# Generated text: how surprising it is to a bundle and to its source, and how often both would go on alike.


MAX_TEXT_BYTES = 4 << 20


@dataclass(frozen=True)
class _Window:
    """What was found in a part of the text that fills a cache, token by token but for the first.

    Attributes:
        surprises: minus the log probability of each token.
        choices: the likeliest token in its place.
    """

    surprises: NDArray[np.float64]
    choices: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, repr=False)
class GenerationEvaluation(EvaluationResult):
    """What was found.

    Attributes:
        executed_by: what ran the bundle's programs.
        n: the tokens that were predicted.
        windows: the parts that the text was divided into, each of which fills the bundle's longest cache.
        perplexity: of the bundle: e to the power of the mean surprise of a token.
        source_perplexity: of the source model in fp32 over the same parts, None where it was not at hand.
        agreement: the share of tokens in whose place both have the same likeliest one; None without a source.
    """

    executed_by: str
    n: int
    windows: int
    perplexity: float
    source_perplexity: float | None
    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            "metric": "perplexity",
            "value": self.perplexity,
            "n": self.n,
            "source_value": self.source_perplexity,
            "agreement": self.agreement,
            "windows": self.windows,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        table = Table("model", "executed by", "perplexity", "same next token", "tokens")
        same = "-" if self.agreement is None else f"{self.agreement:.2%}"
        table.add_row(self.model, self.executed_by, f"{self.perplexity:.4f}", same, str(self.n))
        if self.source_perplexity is not None:
            table.add_row(self.source_model, "torch, fp32", f"{self.source_perplexity:.4f}", "", str(self.n))
        return [table]


def evaluate_generation(asker: Asker, data: str, limit: int | None) -> GenerationEvaluation:
    """The perplexity of a text file, in parts that fill the bundle's longest cache.

    Args:
        asker: whom.
        data: a .txt file, which is one text.
        limit: of so many parts at most, spread evenly; None: of all.

    Raises:
        InputError: the file cannot be read, or has fewer than two tokens.
    """
    from edgeformer.data.labelled import spread
    from edgeformer.models.config import read_text
    from edgeformer_runtime.pipelines.generation import PromptCache, TextGenerator

    path = Path(data)
    if path.suffix.lower() != ".txt":
        raise InputError(f"expected a .txt file, which is one text, found {path.name}")
    text = read_text(path, MAX_TEXT_BYTES, path.name)
    if asker.isolated:
        raise InputError("--isolated: the decoder of generated text runs in this process: leave it out")
    notes = [f"its conversion's gates refused this bundle: {why}" for why in refusals(asker.bundle)]
    checkpoint = asker.open_source(notes)
    engine = asker.open_engine()
    own: list[_Window] = []
    try:
        generator = TextGenerator(asker.bundle, engine)
        bucket = generator.head.buckets[-1]
        tokens = generator.prompt_tokens(text)
        parts = [tokens[at : at + bucket.rows] for at in range(0, len(tokens), bucket.rows)]
        parts = [part for part in parts if len(part) > 1]
        parts = parts if limit is None else list(spread(parts, limit))
        if not parts:
            raise InputError(f"{path.name}: expected a text of two tokens or more")
        for part in parts:
            cache = PromptCache(engine.open_decoder(bucket, generator.head))
            own.append(_window([cache.logits_after(part[:count]).copy() for count in range(1, len(part))], part))
            cache.decoder.close()
            if asker.progress is not None:
                asker.progress(len(own), len(parts))
        executed_by, not_covered = engine.executed_by, engine.not_covered
    finally:
        engine.close()
    theirs = None if checkpoint is None else _source_windows(checkpoint, parts)
    return GenerationEvaluation(
        executed_by=executed_by,
        n=sum(len(each.surprises) for each in own),
        windows=len(parts),
        perplexity=_perplexity(own),
        source_perplexity=None if theirs is None else _perplexity(theirs),
        agreement=None if theirs is None else float(_choices(own, theirs).mean()),
        notes=tuple(notes if not_covered is None else [*notes, not_covered]),
    )


def _source_windows(checkpoint: Checkpoint, parts: Sequence[Sequence[int]]) -> list[_Window]:
    """What the source model says of the same parts, each in one run without a cache."""
    import torch

    from edgeformer.attention import KERNELS
    from edgeformer.checkpoints.checkpoint import load_module
    from edgeformer.checkpoints.source_index import SOURCE_ATTENTION

    module, _ = load_module(checkpoint, KERNELS[SOURCE_ATTENTION])
    with torch.inference_mode():
        return [_window(list(module(torch.tensor([part], dtype=torch.int32))[0].numpy()), part) for part in parts]


def _window(logits: Sequence[Any], part: Sequence[int]) -> _Window:
    """From the logits (V,) behind each token but perhaps the last."""
    from edgeformer_runtime.verify.decoder_replay import log_probability

    pairs = list(zip(logits, part[1:], strict=False))
    surprises = np.array([-log_probability(row, token) for row, token in pairs])
    return _Window(surprises, np.array([int(row.argmax()) for row, _ in pairs], np.intp))


def _perplexity(windows: Sequence[_Window]) -> float:
    return float(np.exp(np.concatenate([each.surprises for each in windows]).mean()))


def _choices(own: Sequence[_Window], theirs: Sequence[_Window]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = np.concatenate([each.choices for each in own]) == np.concatenate(
        [each.choices for each in theirs]
    )
    return same
