"""Verification names the first stage that diverges, and nothing that is no number passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from tiny_bundle import LABELS, SAMPLES, TinyEngine, manifest, seal, word_piece

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE, TENSORS_FILE
from edgeformer_runtime.bundle.vectors import read_vectors
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.results import softmax
from edgeformer_runtime.verify.verify import compare, verify


class Altered(TinyEngine):
    """The reference, changed by a function of the program and its output."""

    def __init__(self, change, embeds: bool = False) -> None:
        super().__init__(embeds)
        self.change = change

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"output": self.change(program, super().run(program, inputs)["output"])}


class Replayed(TinyEngine):
    """Gives the recorded outputs, changed by a function of the program and the output."""

    def __init__(self, bundle: Bundle, change) -> None:
        super().__init__()
        self.change = change
        self.known = {
            (case.program, case.inputs["input_ids"].tobytes()): case.outputs["output"]
            for case in read_vectors(bundle)[0]
        }

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"output": self.change(program, self.known[program, inputs["input_ids"].tobytes()])}


def strict(document: object) -> str:
    return json.dumps(document, allow_nan=False)


def test_a_true_bundle(tiny: Path) -> None:
    finished = []
    engine = TinyEngine()
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, engine, lambda done, total: finished.append((done, total)))
    assert outcome.ok
    assert outcome.first_diverging is None
    assert outcome.executed_by == "numpy reference"
    assert [stage.name for stage in outcome.stages] == ["preprocess", "seq_8", "seq_16", "answer"]
    assert all(stage.max_abs == 0 and stage.cosine > 0.999999 for stage in outcome.stages)
    assert finished == [(i + 1, len(SAMPLES)) for i in range(len(SAMPLES))]
    assert not engine.closed  # it is the caller's
    document = outcome.to_json()
    assert set(document) == {"ok", "executed_by", "stages", "first_diverging"}
    assert set(document["stages"][0]) == {"name", "max_abs", "cosine", "tolerance", "ok"}
    strict(document)


def test_an_embedder(tiny_embedder: Path) -> None:
    with Bundle.open(tiny_embedder) as bundle:
        assert verify(bundle, TinyEngine(embeds=True)).ok
        outcome = verify(bundle, Altered(lambda _, output: output + np.float32(2e-4), embeds=True))
    assert outcome.first_diverging == "seq_8"
    assert outcome.stages[-1].tolerance == 1e-4
    assert not outcome.stages[-1].ok


def test_note_of_an_engine_that_is_not_the_target(tiny: Path) -> None:
    engine = TinyEngine()
    engine.not_covered = "only numpy"
    with Bundle.open(tiny) as bundle:
        assert verify(bundle, engine).to_json()["note"] == "only numpy"


def test_only_the_longer_program_diverges(tiny: Path) -> None:
    engine = Altered(lambda program, output: output * np.float32(1.01 if program == "seq_16" else 1))
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, engine)
    assert [stage.ok for stage in outcome.stages] == [True, True, False, False]
    assert outcome.first_diverging == "seq_16"
    stage = outcome.stages[2]
    assert stage.max_abs == pytest.approx(100 * stage.tolerance, rel=1e-3)
    assert stage.cosine == pytest.approx(1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_diverges(tiny: Path, value: float) -> None:
    def corrupt(_: str, output: Tensor) -> Tensor:
        output[0, 1] = value
        return output

    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, Altered(corrupt))
    assert outcome.first_diverging == "seq_8"
    assert outcome.stages[1].max_abs is None
    assert not outcome.stages[-1].ok
    strict(outcome.to_json())


def small_first_case(folder: Path) -> None:
    """Make the first case's logits small, as an input without meaning has them."""
    cases = json.loads((folder / CASES_FILE).read_text())
    tensors = load((folder / TENSORS_FILE).read_bytes())
    tensors["0/output"] = np.array([[0.001, 0.0, -0.001]], np.float32)
    (folder / TENSORS_FILE).write_bytes(save(tensors))
    scores = softmax(tensors["0/output"][0].astype(np.float64))
    cases["cases"][0]["expected"] = {"labels": list(LABELS), "scores": [float(score) for score in scores]}
    cases["tolerances"] = {"output": 0.05, "score": 1.0}
    (folder / CASES_FILE).write_text(json.dumps(cases))
    seal(folder, manifest())


def test_an_output_near_zero_is_held_to_what_the_models_outputs_are_like(tiny: Path) -> None:
    """One of its own size would be off by some hundred times its largest value; its cosine says nothing."""
    small_first_case(tiny)
    with Bundle.open(tiny) as bundle:
        scale = max(float(np.abs(case.outputs["output"]).max()) for case in read_vectors(bundle)[0])
        moved = np.float32(0.04 * scale)
        outcome = verify(bundle, Replayed(bundle, lambda _, output: output + moved))
        assert outcome.stages[1].ok, outcome.stages
        assert outcome.stages[1].tolerance == pytest.approx(0.05 * scale)
        assert outcome.stages[1].cosine is not None and outcome.stages[1].cosine > 0.99
        beyond = verify(bundle, Replayed(bundle, lambda _, output: output + 2 * moved))
    assert beyond.first_diverging is not None
    failed = next(stage for stage in beyond.stages if not stage.ok)
    assert failed.sample is not None and failed.sample.startswith("{'text':")
    assert failed.to_json()["sample"] == failed.sample
    assert "sample" not in outcome.stages[1].to_json()


def test_an_engine_that_fails_diverges(tiny: Path) -> None:
    def fail(program: str, output: Tensor) -> Tensor:
        if program == "seq_16":
            raise EngineError("out of memory")
        return output

    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, Altered(fail))
    assert outcome.first_diverging == "seq_16"
    strict(outcome.to_json())


def test_another_tokenizer(tiny: Path) -> None:
    swapped = word_piece().replace('"turn":4', '"turn":5').replace('"the":5', '"the":4')
    assert swapped != word_piece()
    (tiny / "tokenizer.json").write_text(swapped, encoding="utf-8")
    seal(tiny, manifest())
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, TinyEngine())
    assert outcome.first_diverging == "preprocess"
    assert outcome.stages[0].max_abs == 1
    assert [stage.ok for stage in outcome.stages[1:3]] == [True, True]


def test_compare() -> None:
    a = np.array([3.0, 4.0], dtype=np.float32)
    found = compare(a, np.array([4.0, 3.0], dtype=np.float32), 1.0)
    assert (found.max_abs, found.ok) == (1.0, True)
    assert found.cosine == pytest.approx(24 / 25)
    assert not compare(a, a[:1], 1.0).ok
    assert compare(np.zeros(2), np.zeros(2), 0.0).cosine is None
    # float32 differences of large numbers are taken in float64
    assert compare(np.array([2.0**24], np.float32), np.array([2**24 + 1], np.int32), 0.5).max_abs == 1.0


def relabel(folder: Path, labels: tuple[str, ...], activation: str = "softmax") -> None:
    sealed = manifest()
    head = replace(sealed.postprocessing, labels=labels, activation=activation)
    seal(folder, replace(sealed, postprocessing=head))


@pytest.mark.parametrize("tolerance", ["0.0001", "0.05", "1"])
def test_exchanged_labels_are_named(tiny: Path, tolerance: str) -> None:
    """At any tolerance: the recorded logits say it, whatever the engine computes."""
    cases = tiny / CASES_FILE
    cases.write_text(cases.read_text().replace('"score": 0.0001', f'"score": {tolerance}'))
    relabel(tiny, ("greeting", "weather", "lights"))
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, TinyEngine())
    assert outcome.first_diverging == "answer"
    expected = "the scores are right, but the labels 'greeting' and 'lights' are exchanged"
    assert {outcome.stages[-1].reason} < {
        expected,
        expected.replace("'greeting' and 'lights'", "'lights' and 'greeting'"),
    }


def test_labels_in_another_order_and_another_activation(tiny: Path) -> None:
    relabel(tiny, ("weather", "greeting", "lights"))
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, TinyEngine())
    assert outcome.stages[-1].reason == "the scores are right, but 3 labels stand in another order"
    relabel(tiny, LABELS, "sigmoid")
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, TinyEngine())
    assert outcome.stages[-1].reason == "the recorded logits do not give the recorded scores: the activation is another"


def test_a_wrong_model_is_no_matter_of_labels(tiny: Path) -> None:
    with Bundle.open(tiny) as bundle:
        outcome = verify(bundle, Altered(lambda _, output: output[:, ::-1].copy()))
    assert outcome.first_diverging == "seq_8"
    assert outcome.stages[-1].reason is None
