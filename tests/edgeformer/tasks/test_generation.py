"""Generated text is transformers', however it is asked for; and what is hostile or too long gets one clear line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgeformer.convert.bundle_writer import requirements
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import converter_for
from edgeformer.evaluate.evaluate import evaluate
from edgeformer.tasks.generation import check_byte_level, token_ids
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.vectors import Tolerances, read_vectors
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines import Cancelled
from edgeformer_runtime.pipelines.generation import GenerationResult, TextGenerator
from edgeformer_runtime.verify.decoder_replay import GenerationReplay
from edgeformer_runtime.verify.verify import verify
from tests.checkpoint_factory import END, save_generator
from tests.edgeformer.tasks.drafted import Drafted

PROMPT = "please remind me to call"
LONG = 200


@pytest.fixture(scope="module")
def public(source: Path) -> Any:
    """transformers' model of the source, and its tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    return model, transformers.AutoTokenizer.from_pretrained(source)


@pytest.fixture
def generator(drafted: Drafted) -> Iterator[TextGenerator]:
    with drafted.generator() as opened:
        assert isinstance(opened, TextGenerator)
        yield opened


def greedy(public: Any, prompt: str, count: int, **more: Any) -> list[int]:
    """What transformers goes on with."""
    model, tokenizer = public
    ids = tokenizer(prompt, return_tensors="pt")
    found = model.generate(**ids, max_new_tokens=count, do_sample=False, pad_token_id=0, **more)
    tokens: list[int] = found[0, ids["input_ids"].shape[1] :].tolist()
    return tokens[:-1] if tokens[-1] == 0 else tokens


def test_greedy_tokens_are_those_of_transformers(generator: TextGenerator, public: Any) -> None:
    expected = greedy(public, PROMPT, 40)
    found = generator(PROMPT, max_tokens=40)
    assert list(found.tokens) == expected
    # A character that the last token only begins is left out.
    assert found.text.rstrip("\ufffd") == public[1].decode(expected).rstrip("\ufffd")
    assert found.finish_reason == "length"
    assert found.to_json() == {"text": found.text, "tokens": expected, "finish_reason": "length"}
    penalized = generator(PROMPT, max_tokens=20, repetition_penalty=1.3)
    assert list(penalized.tokens) == greedy(public, PROMPT, 20, repetition_penalty=1.3)


def test_only_what_is_new_is_computed(generator: TextGenerator) -> None:
    options = GenerateOptions(max_tokens=4)
    first = generator.run(PROMPT, options)
    cache = generator.cache_for(20)
    prompt = len(generator.prompt_tokens(PROMPT))
    assert cache.computed == prompt + 3  # the last token is not fed
    generator.run(PROMPT + first.text, GenerateOptions(max_tokens=1))
    again = len(generator.prompt_tokens(PROMPT + first.text))
    assert cache.computed <= prompt + 3 + again - prompt + 1
    before = cache.computed
    assert generator.run(PROMPT, options).tokens == first.tokens
    assert cache.computed - before <= 4
    generator.forget()
    generator.run(PROMPT, options)
    assert cache.computed - before >= prompt + 3


def test_pieces_join_to_the_text_and_calls_may_interleave(generator: TextGenerator) -> None:
    options = GenerateOptions(max_tokens=20, temperature=1.0, seed=5)
    whole = generator.run(PROMPT, options)
    stream = generator.stream(PROMPT, options)
    pieces = []
    for piece in stream:
        pieces.append(piece)
        generator.run("turn the lights off", GenerateOptions(max_tokens=2))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert tuple(piece.token for piece in pieces) == whole.tokens
    assert [piece.finish_reason for piece in pieces] == [None] * 19 + ["length"]
    told: list[str] = []
    assert generator.run(PROMPT, options, on_text=told.append).text == "".join(told)
    assert generator.run(PROMPT, GenerateOptions(max_tokens=20, temperature=1.0, seed=6)).tokens != whole.tokens


def test_a_text_ends_before_a_stop_string_and_at_the_models_end(drafted: Drafted) -> None:
    plain = drafted.generator()
    whole = plain.run(PROMPT, GenerateOptions(max_tokens=30))
    middle = whole.text[8:10]
    found = plain.run(PROMPT, GenerateOptions(max_tokens=30, stop=(middle, "never")))
    assert (found.text, found.finish_reason) == (whole.text[: whole.text.index(middle)], "stop")

    def end(program: str, outputs: dict[str, Tensor]) -> None:
        if program.startswith("decode"):
            outputs["logits"][0] = 99.0  # the end's

    ended = drafted.generator(end).run(PROMPT, GenerateOptions(max_tokens=30))
    assert (len(ended.tokens), ended.finish_reason) == (1, "stop")


def test_a_full_cache_and_a_prompt_that_is_too_long_are_told(generator: TextGenerator) -> None:
    full = generator.run("a" * 220, GenerateOptions(max_tokens=50))
    assert (len(full.tokens), full.finish_reason) == (5, "full")
    with pytest.raises(InputError, match="the prompt has 225 tokens, and the bundle's cache 224 slots: shorten it"):
        generator.run("a" * 225)
    with pytest.raises(InputError, match="slots: shorten it"):
        generator.run("hostile! " * 12_000)


def test_hostile_prompts_get_one_line(generator: TextGenerator, public: Any) -> None:
    for raw, message in (
        ("half \ud83d", "not valid Unicode: half of a surrogate pair at character 5"),
        ([5, 10_000], "expected token ids from 0 to"),
        ([-1], "expected token ids from 0 to"),
        (("a", "b"), "expected a text, a list of token ids or a chat, found tuple"),
    ):
        with pytest.raises(InputError, match=message):
            generator.run(raw)  # type: ignore[arg-type]
    typed = f"a{END}b"
    assert generator.prompt_tokens(typed, special_tokens=True) == public[1](typed).input_ids
    literal = generator.prompt_tokens(typed)
    assert 0 not in literal and b"".join(map(generator.text_tokens.bytes_of, literal)).decode() == typed
    assert generator.prompt_tokens("") == [0]  # the token that starts a text
    assert generator.run("", GenerateOptions(max_tokens=3)).tokens == generator.run([0], GenerateOptions(3)).tokens
    with pytest.raises(Cancelled):
        generator.run(PROMPT, is_cancelled=lambda: True)


def test_logits_that_are_no_numbers_are_an_error(drafted: Drafted) -> None:
    def spoil(_: str, outputs: dict[str, Tensor]) -> None:
        outputs["logits"][...] = np.nan

    with pytest.raises(EngineError, match="logits hold NaN"):
        drafted.generator(spoil).run(PROMPT)


def test_suggestions_are_the_likeliest_words(generator: TextGenerator, public: Any) -> None:
    model, _ = public
    found = generator.suggest("please remind me to c", 3)
    assert found and all(each.word.startswith("c") for each in found)
    assert [each.probability for each in found] == sorted((each.probability for each in found), reverse=True)
    assert sum(each.probability for each in found) <= 1
    # By hand: of all tokens that begin with " c" the likeliest, with what closes a word behind it.
    prompt = generator.prompt_tokens("please remind me to")
    tokens = generator._vocabulary

    def follows(ids: list[int]) -> Any:
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()

    def word(ids: list[int]) -> float:
        chances = [float(follows([*prompt, *ids[:at]])[token]) for at, token in enumerate(ids)]
        return math.prod(chances) * float(follows([*prompt, *ids])[tokens.closes].sum())

    likeliest = sorted((i for i, each in enumerate(tokens.bytes) if each.startswith(b" c")), key=lambda i: -word([i]))
    assert [tokens.bytes[i] for i in likeliest[:2]] == [b" " + each.word.encode() for each in found[:2]]
    # The probabilities are those, divided by what all words have together.
    first, second = (each.probability / word([i]) for each, i in zip(found, likeliest, strict=False))
    assert first == pytest.approx(second, rel=1e-4)
    assert all(" " not in each.word for each in generator.suggest("turn the lights ", 5))
    result = generator.run("turn the l", GenerateOptions(suggest=2))
    assert result.to_json() == {
        "suggestions": [{"word": each.word, "probability": each.probability} for each in result.suggestions or ()]
    }
    with pytest.raises(InputError, match="suggestions follow a text"):
        generator.run([1, 2], GenerateOptions(suggest=2))


def test_vectors_replay_and_say_what_differs(drafted: Drafted) -> None:
    cases, _ = read_vectors(drafted.bundle)
    assert [case.program for case in cases] == ["prefill_64"] * 4 + ["prefill_224"] * 4

    def stages(spoil: Callable[[str, dict[str, Tensor]], None] | None) -> dict[str, bool]:
        engine = drafted.generator(spoil).engine
        replay = GenerationReplay(drafted.bundle, engine, Tolerances(1e-4, 1e-3), cases)
        for case in cases:
            replay.play(case)
        return {name: all(each.ok for each in found) for name, found in replay.comparisons().items()}

    assert stages(None) == {"prompt": True, "steps": True, "tokens": True, "perplexity": True}

    def other_words(program: str, outputs: dict[str, Tensor]) -> None:
        if program.startswith("decode"):
            outputs["logits"][:] = -outputs["logits"]

    found = stages(other_words)
    (step,) = (name for name in found if name.startswith("step "))
    assert found == {"prompt": True, step: False, "tokens": False, "perplexity": False}


def test_an_answer_of_another_process_is_checked(drafted: Drafted) -> None:
    result = GenerationResult("a", (1, 2), "stop")
    header, body = result.to_frame()
    assert GenerationResult.from_frame(header, body, drafted.spec.postprocessing) == result
    for wrong in ({"finish_reason": "tired"}, {"tokens": [1, 99_999]}):
        with pytest.raises(ValueError, match="its tokens are not the bundle's"):
            GenerationResult.from_frame({"result": {**header["result"], **wrong}}, body, drafted.spec.postprocessing)


def test_a_service_goes_on_with_prompts(drafted: Drafted) -> None:
    testing = pytest.importorskip("starlette.testclient")
    pytest.importorskip("prometheus_client")
    from edgeformer_runtime.serve.app import make_app
    from edgeformer_runtime.serve.options import ServeOptions
    from edgeformer_runtime.serve.service import Service

    expected = drafted.generator().run(PROMPT, GenerateOptions(max_tokens=5)).to_json()
    service = Service(drafted.generator, ServeOptions())
    with testing.TestClient(make_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.post("/v1/answer?max_tokens=5", json={"text": PROMPT})
        assert answer.status_code == 200, answer.text
        assert {key: answer.json()[key] for key in expected} == expected
        several = client.post("/v1/answer?max_tokens=5", json={"inputs": [{"text": PROMPT}, {"token_ids": [0]}]}).json()
        assert [each["finish_reason"] for each in several["answers"]] == ["length", "length"]
        chat = client.post("/v1/answer?max_tokens=5&chat=true", json={"text": PROMPT}).json()
        assert chat["tokens"] == list(drafted.generator()(PROMPT, max_tokens=5, chat=True).tokens) != expected["tokens"]
        words = client.post("/v1/answer?suggest=2", json={"text": "please remind me to c"}).json()["suggestions"]
        assert 1 <= len(words) <= 2 and "tokens" not in words[0]
        for query, document, message in (
            ("max_tokens=0", {"text": PROMPT}, "max_tokens"),
            ("", {"text": "a", "pair": "b"}, "expected a text, a list of token ids or a chat"),
            ("", {"text": "hostile " * 1000}, "slots: shorten it"),
        ):
            refused = client.post(f"/v1/answer?{query}", json=document)
            assert refused.status_code == 422 and message in refused.text


def test_what_surrounds_the_model_is_read_strictly(drafted: Drafted) -> None:
    found, note = requirements(converter_for("litert"), drafted.spec)
    assert (found.android_api, found.ios) == (None, None)
    assert note == "no app does text-generation yet: requires says null"
    assert token_ids({}, "eos_token_id", 9) == ()
    with pytest.raises(InputError, match="eos_token_id must be an id below vocab_size 9, found 12"):
        token_ids({"eos_token_id": 12}, "eos_token_id", 9)
    word_piece = json.dumps({"model": {"type": "WordPiece"}, "pre_tokenizer": {"type": "BertPreTokenizer"}})
    with pytest.raises(InputError, match="takes tokenizers of byte-level BPE, found WordPiece"):
        check_byte_level(word_piece)


def learn(source: Path, text: str, steps: int = 60) -> None:
    """Train a checkpoint until it knows a text by heart, so that it is sure of its tokens as trained models are."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    ids = transformers.AutoTokenizer.from_pretrained(source)(text, return_tensors="pt").input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(source)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "target", "precisions"), [("gpt2", "onnx", ("fp32",)), ("llama", "litert", ("fp32", "dynamic-int8"))]
)
def test_a_bundle_goes_on_as_transformers_does(
    kind: str, target: str, precisions: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "litert": "litert_torch"}[target])
    source = save_generator(tmp_path / kind, kind)
    text = tmp_path / "held.txt"
    text.write_text("please remind me to call the bank about my savings account\n" * 4)
    learn(source, text.read_text())
    rows = convert(ConvertOptions(str(source), tmp_path / "out", (target,), precisions, (224,))).bundles
    assert all(row.ok for row in rows)
    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    expected = greedy((model, transformers.AutoTokenizer.from_pretrained(source)), PROMPT, LONG)
    with load(rows[0].path) as pipeline:
        assert list(pipeline(PROMPT, max_tokens=LONG).tokens) == expected
    with load(rows[0].path, isolated=True) as pipeline:
        told: list[str] = []
        found = pipeline.run(PROMPT, GenerateOptions(max_tokens=8), on_text=told.append)  # type: ignore[call-arg]
        assert list(found.tokens) == expected[:8] and "".join(told) == found.text and len(told) > 1
    for row in rows:
        with Bundle.open(row.path) as bundle:
            assert verify(bundle).ok
            found = evaluate(bundle, text, source).to_json()
        # What int8 may cost a trained model. It says nothing of random weights, which are sure of no token: there int8
        # changes one in ten and more.
        same, agreement = (1e-4, 1.0) if row.precision == "fp32" else (0.01, 0.95)
        assert found["value"] == pytest.approx(found["source_value"], rel=same)
        assert found["agreement"] >= agreement
