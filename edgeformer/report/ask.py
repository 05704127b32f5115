"""Asks all bundles of a folder about labelled data, and their checkpoints; times them beside one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgeformer.attention import APPROXIMATE_KERNELS
from edgeformer.checkpoints.source_index import known_source
from edgeformer.compress.answers import Answers, answers_of
from edgeformer.compress.budget.search import changes_between
from edgeformer.compress.budget.workbench import interleaved_ms
from edgeformer.convert.reference import TorchEngine, source_programs
from edgeformer.convert.target import verification_engine
from edgeformer.report.variant import Variant, share_interval, word_error_interval
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import EngineError, InputError

Progress = Callable[[int, int], None]
"""Called with the number of finished bundles and of all of them."""


def ask(
    variants: Sequence[Variant],
    bundles: Mapping[str, Bundle],
    data: str,
    limit: int | None,
    notes: list[str],
    progress: Progress | None,
) -> list[Variant]:
    """The variants of open bundles with their answers to the data and their latencies from one interleaved run.

    Changes are counted from the checkpoint's own answers in torch, as `eval` counts them; where it is not known here,
    from a bundle of it at fp32; without either they are left out. A bundle that cannot answer is noted and goes on as
    it is.

    Raises:
        InputError: no bundle can answer the data.
    """
    answered: dict[str, Answers] = {}
    refusals: list[str] = []
    for number, (name, bundle) in enumerate(bundles.items(), 1):
        try:
            answered[name] = answers_of(bundle, data, limit)
        except (InputError, EngineError) as error:
            refusals.append(f"{name} was not asked: {error}")
        if progress is not None:
            progress(number, len(bundles))
    if not answered:
        raise InputError(refusals[0])
    notes += refusals
    sources = _Sources(bundles, answered, data, limit, notes)
    runnable = [name for name in answered if verification_engine(bundles[name]) is None]
    times = dict(zip(runnable, interleaved_ms([bundles[name] for name in runnable]), strict=True))
    return [
        _told(variant, answered[variant.name], sources.of(variant.name), times.get(variant.name), data)
        if variant.name in answered
        else variant
        for variant in variants
    ]


def _told(variant: Variant, own: Answers, source: Answers | None, latency_ms: float | None, data: str) -> Variant:
    n = len(own.given)
    is_share = own.metric == "accuracy"
    return replace(
        variant,
        metric=own.metric,
        value=own.value,
        agreement=None if source is None else sum(own.same_as(source)) / n,
        latency_ms=latency_ms,
        changes=None if source is None else changes_between(source, own),
        n=n,
        interval=share_interval(own.value, n) if is_share else word_error_interval(own.truth, own.given),
        group=f"{n} examples of {shorten(Path(data).name)[1:-1]}",
    )


class _Sources:
    """The answers of the checkpoints that bundles were made from; each is asked once."""

    def __init__(
        self,
        bundles: Mapping[str, Bundle],
        answered: Mapping[str, Answers],
        data: str,
        limit: int | None,
        notes: list[str],
    ) -> None:
        self._bundles, self._answered = bundles, answered
        self._data, self._limit, self._notes = data, limit, notes
        self._known: dict[str, Answers | None] = {}

    def of(self, name: str) -> Answers | None:
        """What the source of a bundle answers, or None where nobody knows."""
        key = _source_key(self._bundles[name])
        if key not in self._known:
            self._known[key] = self._from_checkpoint(name) or self._from_fp32(key)
        return self._known[key]

    def _from_checkpoint(self, name: str) -> Answers | None:
        bundle = self._bundles[name]
        found: list[str] = []
        try:
            checkpoint = known_source(bundle.manifest, None, found)
            if checkpoint is None:
                self._notes += [f"{name}: {note}" for note in found]
                return None
            engine = TorchEngine(source_programs(bundle.manifest, checkpoint))
            answers = answers_of(bundle, self._data, self._limit, engine=engine)
        except (InputError, EngineError) as error:
            self._notes.append(f"{name}: no comparison with the source model: {error}")
            return None
        rate = f"{answers.metric} {answers.value:.2%} of {len(answers.given)} examples"
        self._notes.append(f"the checkpoint {checkpoint.source.id} itself, in torch at fp32: {rate}")
        return answers

    def _from_fp32(self, key: str) -> Answers | None:
        for name, answers in self._answered.items():
            bundle = self._bundles[name]
            if bundle.manifest.precision == "fp32" and not bundle.refused and _source_key(bundle) == key:
                self._notes.append(f"answers are compared with {name}, which is the checkpoint's at fp32")
                return answers
        return None


def _source_key(bundle: Bundle) -> str:
    """Equal for bundles whose inputs and source programs are the same."""
    manifest = bundle.manifest
    exact = manifest.attention not in APPROXIMATE_KERNELS
    programs = [(each.name, each.inputs) for each in manifest.programs]
    tokenizer = getattr(manifest.preprocessing, "tokenizer", None) or getattr(
        manifest.postprocessing, "tokenizer", None
    )
    file = None if tokenizer is None else manifest.files[tokenizer].sha256
    known = (manifest.source.weights_sha256, exact or manifest.attention, programs, file)
    return repr((*known, manifest.preprocessing, manifest.postprocessing))
