"""Question answering and token classification from a checkpoint to answers, evaluation and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from starlette.testclient import TestClient
from typer.testing import CliRunner

from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.doctor.diagnosis import diagnose
from edgeformer.doctor.examiner import DoctorOptions
from edgeformer.evaluate.evaluate import evaluate
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.app import app
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline
from edgeformer_runtime.pipelines.tokens import span_probabilities
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.tasks.tokens import EntityOptions
from edgeformer_runtime.verify.verify import verify
from tests.checkpoint_factory import tokenizer, vocabulary

LABELS = {0: "O", 1: "B-ROOM", 2: "I-ROOM", 3: "B-THING", 4: "I-THING"}
QUESTION = "what is on?"
CONTEXT = "The lights in the living room are on; turn them off, please. \U0001f600 caf\u00e9"
LONG = "turn the lights off in the living room, call the bank about music. " * 12


def checkpoint(folder: Path, family: str, head: str) -> Path:
    """A narrow model whose answers are spread."""
    torch.manual_seed(0)
    size = len(dict.fromkeys(vocabulary()))
    shared: dict[str, Any] = {"vocab_size": size, "max_position_embeddings": 96, "initializer_range": 0.3}
    if head == "TokenClassification":
        shared |= {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}
    sizes = {
        "Bert": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
        "MobileBert": {
            "hidden_size": 48,
            "embedding_size": 24,
            "intra_bottleneck_size": 24,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "num_feedforward_networks": 1,
        },
    }[family]
    config = getattr(transformers, f"{family}Config")(**(sizes | shared))
    getattr(transformers, f"{family}For{head}")(config).eval().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def converted(source: Path, out: Path, targets: tuple[str, ...], precisions: tuple[str, ...]) -> list[Path]:
    rows = convert(ConvertOptions(str(source), out, targets, precisions, (48, 96)))
    assert [row.problems for row in rows] == [()] * len(rows)
    assert all(row.agreement is not None and row.agreement.n > 40 for row in rows)
    return [row.path for row in rows]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("questions")
    source = checkpoint(folder / "source", "Bert", "QuestionAnswering")
    return source, converted(source, folder / "out", ("onnx",), ("fp32", "dynamic-int8"))


@pytest.fixture(scope="module")
def entities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("entities")
    source = checkpoint(folder / "source", "MobileBert", "TokenClassification")
    return source, converted(source, folder / "out", ("onnx",), ("fp32", "dynamic-int8"))


@pytest.mark.slow
def test_questions_are_answered_by_the_checkpoints_own_logits(questions: tuple[Path, list[Path]]) -> None:
    source, (exact, small) = questions
    model: Any = transformers.AutoModelForQuestionAnswering.from_pretrained(source)
    with load(exact) as pipeline:
        (window,) = pipeline.windows((QUESTION, CONTEXT))
        count = len(window.places.texts)
        tensors = {name: torch.from_numpy(value[:, :count]).long() for name, value in window.inputs.items()}
        with torch.no_grad():
            given = model(**tensors)
        starts, ends, _ = span_probabilities(
            torch.stack((given.start_logits[0], given.end_logits[0]), -1).double().numpy(), window.places
        )
        best = pipeline((QUESTION, CONTEXT)).answers[0]
        assert best.text == CONTEXT[best.start : best.end]
        scores = {(i, j): starts[i] * ends[j] for i in range(count) for j in range(i, min(i + 15, count))}
        first, last = max(scores, key=lambda span: scores[span])
        assert best.start <= window.places.offsets[first, 0] and best.end >= window.places.offsets[last, 1]
        assert best.score >= scores[first, last] - 1e-4
        assert len(pipeline.windows((QUESTION, LONG))) > 3
        assert pipeline((QUESTION, LONG)).answers[0].text in LONG
    for path in (exact, small):
        with Bundle.open(path) as bundle:
            found = verify(bundle)
            assert found.ok, found
        assert diagnose(path, DoctorOptions()).ok


@pytest.mark.slow
def test_entities_are_transformers_own(entities: tuple[Path, list[Path]]) -> None:
    source, (exact, small) = entities
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"), unk_token="[UNK]", model_max_length=96, pad_token="[PAD]"
    )
    model = transformers.AutoModelForTokenClassification.from_pretrained(source)
    reference: Any = transformers.pipeline("token-classification", model=model, tokenizer=tokens)
    with load(exact) as pipeline:
        for text in (CONTEXT, LONG):
            for aggregation in ("simple", "first", "average", "max"):
                expected = reference(text, aggregation_strategy=aggregation, stride=48)
                found = pipeline.run(text, EntityOptions(aggregation)).entities
                assert [(each.start, each.end, each.label) for each in found] == [
                    (each["start"], each["end"], each["entity_group"]) for each in expected
                ]
                assert [each.score for each in found] == pytest.approx([each["score"] for each in expected], abs=1e-4)
    for path in (exact, small):
        with Bundle.open(path) as bundle:
            assert verify(bundle).ok
        assert diagnose(path, DoctorOptions()).ok


@pytest.mark.slow
def test_what_run_prints(questions: tuple[Path, list[Path]], entities: tuple[Path, list[Path]], tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["run", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    bundle, finder = str(questions[1][0]), str(entities[1][0])
    (one,) = json.loads(run(bundle, QUESTION, "--pair", CONTEXT, "--json"))
    assert one["input"] == [QUESTION, CONTEXT] and [*one["answers"][0]] == ["text", "start", "end", "score"]
    (three,) = json.loads(run(bundle, QUESTION, "--pair", CONTEXT, "--json", "--top", "3", "--unanswerable"))
    scores = [answer["score"] for answer in three["answers"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert one["answers"][0]["text"] in run(bundle, QUESTION, "--pair", CONTEXT)
    table = tmp_path / "asked.csv"
    table.write_text(f'question,context\n{QUESTION},"{CONTEXT}"\n', encoding="utf-8")
    line = json.loads(run(bundle, "--input", str(table), "--column", "question", "--pair-column", "context"))
    assert line["answers"] == one["answers"]
    (found,) = json.loads(run(finder, CONTEXT, "--json", "--aggregation", "max"))
    assert found["input"] == CONTEXT and [*found["entities"][0]] == ["text", "label", "start", "end", "score"]
    for arguments, message in (
        ((bundle, QUESTION), "expected a question and its context"),
        ((bundle, QUESTION, "--pair", "x", "--aggregation", "max"), "question-answering, which has no --aggregation"),
        ((finder, "a", "--aggregation", "best"), "unknown aggregation 'best'"),
        ((finder, "a", "--unanswerable"), "token-classification, which has no --unanswerable"),
        ((finder, "a", "--pair", "b"), "expected one text"),
    ):
        result = CliRunner().invoke(app, ["run", *arguments])
        assert result.exit_code != 0
        assert message in str(result.exception or result.output)


@pytest.mark.slow
def test_a_service_and_a_process_of_its_own_answer_the_same(
    questions: tuple[Path, list[Path]], entities: tuple[Path, list[Path]]
) -> None:
    for path, raw, body, key in (
        (questions[1][0], (QUESTION, CONTEXT), {"text": QUESTION, "pair": CONTEXT}, "answers"),
        (entities[1][0], CONTEXT, {"text": CONTEXT}, "entities"),
    ):
        with load(path) as pipeline:
            expected = pipeline.run(raw).to_json()[key]
        with Bundle.open(path) as bundle, IsolatedPipeline(bundle) as isolated:
            assert isolated.run(raw).to_json()[key] == expected
        service = Service(lambda path=path: load(path), ServeOptions())
        with TestClient(make_app(service), base_url="http://localhost") as client:
            assert client.post("/v1/answer", json=body).json()[key] == expected
            several = client.post("/v1/answer", json={"inputs": [body, body]}).json()["answers"]
            assert [each[key] for each in several] == [expected, expected]
            assert client.post("/v1/answer", json={"token_ids": [1]}).status_code == 422
            assert client.post("/v1/answer?top=0&aggregation=best", json=body).status_code == 422


@pytest.mark.slow
def test_evaluation_beside_the_source(
    questions: tuple[Path, list[Path]], entities: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    source, (exact, _) = questions
    with load(exact) as pipeline:
        best = pipeline((QUESTION, CONTEXT)).answers[0].text
    data = tmp_path / "asked.jsonl"
    rows = [{"question": QUESTION, "context": CONTEXT, "answers": [best]}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Bundle.open(exact) as bundle:
        found = evaluate(bundle, data, source).to_json()
    expected = {"metric": "f1", "value": 1.0, "n": 1, "source_value": 1.0, "agreement": 1.0, "exact_match": 1.0}
    assert {key: found[key] for key in expected} == expected

    source, (exact, _) = entities
    tagged = tmp_path / "words.conll"
    tagged.write_text("turn O\nthe O\nlights B-THING\noff O\n\nliving B-ROOM\nroom I-ROOM\n")
    with Bundle.open(exact) as bundle:
        result = evaluate(bundle, tagged, source)
        found = result.to_json()
        assert (found["metric"], found["n"], found["entities"], found["agreement"]) == ("entity_f1", 2, 2, 1.0)
        assert found["value"] == found["source_value"]
        assert result.tables()
        tagged.write_text("turn B-VERB\n")
        with pytest.raises(InputError, match=r"labels that the bundle does not know: .*B-VERB"):
            evaluate(bundle, tagged, source)


@pytest.mark.slow
def test_every_target_gives_the_same_places(tmp_path: Path) -> None:
    for family, head, raw in (
        ("MobileBert", "QuestionAnswering", (QUESTION, LONG)),
        ("Bert", "TokenClassification", LONG),
    ):
        source = checkpoint(tmp_path / head, family, head)
        found = []
        for path in converted(source, tmp_path / f"out-{head}", ("onnx", "litert"), ("fp32",)):
            with load(path) as pipeline:
                found.append(pipeline.run(raw).to_json())
        (places,) = {json.dumps([{**each, "score": 0} for each in next(iter(one.values()))]) for one in found}
        assert len(json.loads(places)) > 0


def test_what_these_tasks_do_not_do_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "Bert", "QuestionAnswering")
    (source / "tokenizer.json").unlink()
    with pytest.raises(
        InputError, match="question-answering answers with tokens or places of a text, for which the checkpoint has"
    ):
        convert(ConvertOptions(str(source), tmp_path / "out", ("onnx",), ("fp32",), (48,)))
    with pytest.raises(InputError, match="--eval is for classifiers, and this does question-answering"):
        convert(ConvertOptions(str(source), tmp_path / "out", ("onnx",), ("fp32",), (48,), evaluation=str(source)))
