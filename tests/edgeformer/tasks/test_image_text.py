"""Images beside texts: both towers and the labels of a call are transformers' own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.evaluate.classification import evaluate_classes
from edgeformer.evaluate.evaluate import Asker
from edgeformer.models.adapted_pairs import AdaptedPair, TextTower
from edgeformer.models.family import ProgramOptions
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import parse
from edgeformer_runtime.cli.app import app
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.tasks.image_text import ImageTextOptions
from tests.edgeformer.tasks.pair_checkpoint import IMAGE, POSITIONS, WIDTH, save_pair

LABELS = (
    "cat",
    "na\u00efve cafe\u0301",
    "\u4f60\u597d",
    "\u05e9\u05dc\u05d5\u05dd",
    "\U0001f44d\U0001f3fd",
    "a photo, of  2 Cats",
)
TEMPLATE = "{} on"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of them, in a folder for each of two labels."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(((64, 48), (40, 71), (90, 90))):
        path = folder / ("cat" if number % 2 else "on the moon") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, Path]]:
    """A CLIP, its folder, and its bundles by precision."""
    folder = tmp_path_factory.mktemp("pair")
    public = save_pair(folder / "source")
    rows = convert(
        ConvertOptions(str(folder / "source"), folder / "out", ("onnx",), ("fp32", "dynamic-int8"), (16, POSITIONS))
    )
    assert [row.problems for row in rows] == [(), ()]
    return public, folder / "source", {row.precision: row.path for row in rows}


def features(answer: Any) -> np.ndarray[Any, Any]:
    found = answer.pooler_output
    return (found / found.norm(dim=-1, keepdim=True)).detach().numpy()[0]


def scores_of(answer: Any) -> dict[str, float]:
    return dict(zip(answer.labels, answer.scores, strict=True))


@pytest.mark.slow
def test_labels_and_embeddings_are_transformers_own(made: Any, photos: list[Path]) -> None:
    public, source, bundles = made
    reference: Any = transformers.pipeline("zero-shot-image-classification", model=str(source))
    tokenizer, processor = reference.tokenizer, reference.image_processor
    with load(bundles["fp32"]) as model, load(bundles["dynamic-int8"]) as small:
        for photo in photos:
            for asked in ({"labels": LABELS}, {"labels": LABELS[:1]}, {"labels": LABELS, "template": TEMPLATE}):
                template = {"hypothesis_template": asked["template"]} if "template" in asked else {}
                given = reference(str(photo), candidate_labels=list(asked["labels"]), **template)
                found = model(photo, **asked)
                assert [each["label"] for each in given] == list(found.labels)
                assert found.scores == pytest.approx([each["score"] for each in given], abs=1e-4)
                less = scores_of(small(photo, **asked))
                assert found.scores == pytest.approx([less[label] for label in found.labels], abs=0.1)
            pixels = processor(Image.open(photo), return_tensors="pt")["pixel_values"]
            assert model(photo).vector == pytest.approx(features(public.get_image_features(pixels)), abs=1e-5)
        for text in LABELS:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            expected = features(public.get_text_features(ids))
            assert model({"text": text}).vector == pytest.approx(expected, abs=1e-5)
            cosine = expected @ model(photos[0]).vector
            assert model(photos[0], query=text).score == pytest.approx(cosine, abs=1e-5)
        assert model(photos[0], query="long " * 99).truncated and not model(photos[0]).truncated


@pytest.mark.slow
def test_a_text_is_embedded_once(made: Any, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with load(made[2]["fp32"]) as model:
        ran: list[str] = []
        run = model.engine.run
        monkeypatch.setattr(model.engine, "run", lambda program, inputs: (ran.append(program), run(program, inputs))[1])
        first, again = model(photos[0], labels=LABELS), model(photos[0], labels=LABELS[::-1])
        assert scores_of(first) == pytest.approx(scores_of(again), abs=1e-12)
        assert ran.count("image") == 2 and len(ran) == 2 + len(LABELS)
        vector = model({"text": "This is a photo of cat."}).vector
        vector[:] = 0  # an answer is the caller's, what was kept is not
        assert model(photos[0], labels=LABELS).scores == first.scores
        for asked, message in (
            ({"labels": ()}, "expected 1 to 1000"),
            ({"labels": ("a",), "template": "x"}, "template: expected a sentence with {}"),
            ({"labels": ("a",), "query": "b"}, "labels to choose from, or a query"),
        ):
            with pytest.raises(InputError, match=message):
                model(photos[0], **asked)
        with pytest.raises(InputError, match="for images, found a text"):
            model({"text": "a"}, labels=("b",))
        with pytest.raises(InputError, match="expected an image, or a text as"):
            model({"texts": "a"})


@pytest.mark.slow
def test_run_serve_eval_and_a_process_of_its_own(made: Any, photos: list[Path]) -> None:
    bundle = made[2]["fp32"]
    photo = str(photos[0])
    with load(bundle) as model, Bundle.open(bundle) as opened, IsolatedPipeline(opened) as isolated:
        labels = model(photo, labels=("cat", "dog")).to_json()
        score, vector = model(photo, query="cat").to_json(), model({"text": "cat"}).to_json()
        assert isolated(photo, labels=("cat", "dog")).to_json() == labels
        assert isolated(photo, query="cat").to_json() == score and isolated({"text": "cat"}).to_json() == vector
        with pytest.raises(InputError, match="expected an image, or a text as"):
            isolated({"text": 1})
        evaluated = evaluate_classes(Asker(opened, alone=True), str(photos[0].parent.parent), None)
        best = [model(path, labels=("cat", "on the moon")).label for path in (photos[1], photos[0], photos[2])]
        assert list(evaluated.answers.given) == best and evaluated.n == 3

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["run", str(bundle), *arguments])

    assert json.loads(run(photo, "--labels", "cat, dog", "--json").stdout) == [{"input": photo, **labels}]
    assert json.loads(run(photo, "--query", "cat", "--json").stdout) == [{"input": photo, **score}]
    assert json.loads(run("cat", "--texts", "--json").stdout) == [{"input": {"text": "cat"}, **vector}]
    assert f"{labels['labels'][0]} {labels['scores'][0]:.3f}" in run(photo, "--labels", "cat,dog").stdout
    for arguments, message in (
        (("--template", "x {}"), "--template belongs to --labels"),
        (("--texts", "--query", "a"), "leave --texts out"),
        (("--labels", "a", "--multi-label"), "does image-text, which has no --multi-label"),
    ):
        assert message in str(run(photo, *arguments).exception)
    service = Service(lambda: load(bundle), ServeOptions())
    with TestClient(make_app(service), base_url="http://localhost") as client:
        headers = {"Content-Type": "image/png"}
        sent = photos[0].read_bytes()

        def asked(query: str) -> Any:
            return client.post(f"/v1/answer{query}", content=sent, headers=headers)

        for query, expected in (("?labels=cat&labels=dog", labels), ("?query=cat", score)):
            answer = asked(query).json()
            assert {key: answer[key] for key in expected} == expected
        assert client.post("/v1/answer", json={"text": "cat"}).json()["embedding"] == vector["embedding"]
        several = client.post("/v1/answer", json={"inputs": [{"text": "cat"}, {"text": "dog"}]}).json()["answers"]
        assert len(several) == 2 and several[0]["embedding"] == vector["embedding"]
        assert len(asked("").json()["embedding"]) == WIDTH
        for query in ("?labels=a&query=b", "?labels=", "?labels=a&template=x"):
            assert asked(query).status_code == 422
        assert client.post("/v1/answer", json={"text": "a", "pair": "b"}).status_code == 422
        assert client.post("/v1/answer?query=a", json={"text": "a"}).status_code == 422


def test_the_first_end_is_found_as_transformers_finds_it(tmp_path: Path) -> None:
    public = save_pair(tmp_path)
    module = AdaptedPair(public, KERNELS["dense"], open_checkpoint(tmp_path).config)
    tower: TextTower = module.text
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 9, (64, POSITIONS), generator=generator, dtype=torch.int32)
    for end in (2, 5, 77):  # the largest id, one that may come several times, one that no text has
        tower.end = end
        found = tower._is_first_end(ids)
        expected = (ids if end == 2 else (ids == end).int()).argmax(dim=-1)
        assert torch.equal(found, torch.nn.functional.one_hot(expected, POSITIONS).float())


@pytest.mark.parametrize(("kind", "eos"), [("CLIP", 2), ("Siglip", None)])
def test_both_towers_give_the_embeddings_of_transformers(kind: str, eos: int | None, tmp_path: Path) -> None:
    public = save_pair(tmp_path, kind, eos)
    checkpoint = open_checkpoint(tmp_path)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    image, *texts = checkpoint.programs(module, ProgramOptions(seq_lens=(8, POSITIONS)))
    assert [each.name for each in texts] == ["seq_24"] if kind == "Siglip" else ["seq_8", "seq_24"]
    pixels = torch.randn(1, 3, IMAGE, IMAGE)
    end = public.config.text_config.vocab_size - 1  # the tokenizer's padding, too, which a SigLIP sees
    assert checkpoint.pad_token_id == (end if kind == "Siglip" else 1)
    ids = torch.tensor([[end - 1, *range(65, 65 + POSITIONS - 2), end]], dtype=torch.int32)
    with torch.no_grad():
        given = public(input_ids=ids.long(), pixel_values=pixels)
        embedded, text = image.module(pixels)[0], texts[-1].module(ids)[0]
    assert torch.allclose(embedded, given.image_embeds, atol=1e-5)
    assert torch.allclose(text, given.text_embeds, atol=1e-5)
    logit = (embedded @ text.T) * module.image.factor + module.image.addend
    assert torch.allclose(logit, given.logits_per_image, atol=1e-4)
    published = checkpoint.family.publish(module.state_dict(), checkpoint.config)
    assert set(published) == set(public.state_dict())


@pytest.mark.slow
def test_a_manifest_says_what_does_not_fit(made: Any) -> None:
    text = (made[2]["fp32"] / "manifest.json").read_text()
    manifest = parse(text)
    assert manifest.requires.android_api is not None
    assert [program.name for program in manifest.programs] == ["image", "seq_16", "seq_24"]
    with pytest.raises(BundleError, match="expected one float32 output of shape"):
        replace(manifest, postprocessing=replace(manifest.postprocessing, dim=WIDTH + 1)).to_json()  # type: ignore[type-var]
    with pytest.raises(BundleError, match="image-text needs a tokenizer, and programs for texts"):
        replace(manifest, programs=manifest.programs[:1]).to_json()
    with pytest.raises(BundleError, match="images have one program 'image'"):
        replace(manifest, programs=manifest.programs[1:]).to_json()
    with pytest.raises(InputError, match="unknown activation"):
        replace(manifest.postprocessing, activation="tanh")  # type: ignore[type-var]
    assert ImageTextOptions(query="a").texts == ("a",)
