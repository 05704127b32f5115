"""`eval`: accuracy and agreement that can be counted by hand, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from edgeformer import cli
from edgeformer.attention import KERNELS
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.evaluate.embeddings import rank_interval
from edgeformer.evaluate.evaluate import evaluate
from edgeformer.models.tinyvit import FAMILY
from edgeformer.report.collect import collect
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.console import run_app
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import save_mobilebert, tokenizer

pytestmark = pytest.mark.slow
NUM_LABELS = 7  # more than five, so that the best five are not all
TEXTS = tuple(f"turn the {word} off in room {number}" for number in range(8) for word in ("lights", "weather", "bank"))
COLOURS = ("red", "green", "blue")


def convert_to(source: Path, out: Path, *targets: str, **options: object) -> list[Path]:
    asked = ConvertOptions(source=str(source), out=out, targets=targets, seq_lens=(32,), **options)  # type: ignore[arg-type]
    return [row.path for row in convert(asked)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's conversions are remembered, in place of the user's cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mobilebert(tmp_path_factory.mktemp("source") / "tiny", num_labels=NUM_LABELS, num_hidden_layers=1)


@pytest.fixture(scope="module")
def bundle_path(checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return convert_to(checkpoint, tmp_path_factory.mktemp("dist"), "onnx")[0]


@pytest.fixture(scope="module")
def ranked(checkpoint: Path) -> list[list[str]]:
    """What transformers says about each text, best label first."""
    model = transformers.MobileBertForSequenceClassification.from_pretrained(checkpoint).eval()
    words = tokenizer()
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([words.encode(text).ids])).logits[0] for text in TEXTS]
    return [[model.config.id2label[int(index)] for index in row.argsort(descending=True)] for row in logits]


def table(path: Path, labels: list[str]) -> str:
    path.write_text(json.dumps(list(zip(TEXTS, labels, strict=True))), encoding="utf-8")
    return str(path)


def test_accuracy_and_agreement_are_counted(bundle_path: Path, ranked: list[list[str]], tmp_path: Path) -> None:
    # 12 right at once, 6 among the best five, 6 not.
    labels = [best[(0, 0, 3, 6)[number % 4]] for number, best in enumerate(ranked)]
    seen: list[tuple[int, int]] = []
    with Bundle.open(bundle_path) as bundle:
        found = evaluate(bundle, table(tmp_path / "a.json", labels), progress=lambda *at: seen.append(at))
    assert found.n == 24
    assert (found.bundle.top1, found.bundle.top5) == (12 / 24, 18 / 24)
    assert found.source == found.bundle
    assert found.agreement == 1
    assert found.notes == ()
    assert seen == [(number, 24) for number in range(1, 25)]
    document = found.to_json()
    counts = np.array(document["confusion"]["counts"])
    assert (counts.sum(), counts.trace()) == (24, 12)
    names = document["confusion"]["labels"]
    assert names == [each["label"] for each in document["classes"]]
    assert [each["support"] for each in document["classes"]] == [labels.count(name) for name in names]
    for name in ("classes", "confusion", "macro_f1", "weighted_f1"):
        document.pop(name)
    assert document == {
        "metric": "top1",
        "value": 0.5,
        "n": 24,
        "source_value": 0.5,
        "agreement": 1.0,
        "top5": 0.75,
        "source_top5": 0.75,
        "truncated": 0,
        "executed_by": found.executed_by,
    }
    assert found.executed_by.startswith("onnxruntime")


class Stubborn:
    """An engine that always prefers the first label."""

    name = "stubborn"
    executed_by = "stubborn"
    not_covered = "everything"

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        return {"logits": np.arange(NUM_LABELS, 0, -1, dtype=np.float32)[None]}

    def close(self) -> None:
        pass


def test_disagreement(
    bundle_path: Path, ranked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeformer.evaluate.evaluate.verification_engine", lambda _: Stubborn())
    data = table(tmp_path / "a.json", [best[0] for best in ranked])
    with Bundle.open(bundle_path) as bundle:
        found = evaluate(bundle, data)
    same = sum(best[0] == "LABEL_0" for best in ranked) / len(ranked)
    assert found.source is not None
    assert (found.source.top1, found.bundle.top1, found.agreement) == (1, same, same)
    assert found.notes == ("everything",)


def test_long_inputs_are_counted(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([["turn " * 50, "LABEL_0"], ["off", "LABEL_1"]]))
    with Bundle.open(bundle_path) as bundle:
        found = evaluate(bundle, str(tmp_path / "a.json"))
    assert found.truncated == 1
    assert found.notes == ("1 of 2 inputs were too long for the bundle and lost their end",)


def test_without_its_source(
    bundle_path: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user's"))
    data = table(tmp_path / "a.json", ["LABEL_0"] * len(TEXTS))
    with Bundle.open(bundle_path) as bundle:
        found = evaluate(bundle, data)
        assert (found.source, found.agreement, found.to_json()["source_value"]) == (None, None, None)
        assert found.notes == (
            "no comparison with the source model: the checkpoint local:tiny of this bundle was not found on this "
            "machine: give its path with --source",
        )
        assert evaluate(bundle, data, source=str(checkpoint), limit=3).agreement == 1
        other = save_mobilebert(tmp_path / "other", num_labels=NUM_LABELS, initializer_range=0.2)
        with pytest.raises(InputError, match="does not hold the weights that tiny was made from"):
            evaluate(bundle, data, source=str(other))


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random TinyViT for images of 32 pixels."""
    folder = tmp_path_factory.mktemp("vision") / "vit"
    folder.mkdir()
    config = {
        "architecture": "tiny_vit_5m_224",
        "label_names": list(COLOURS),
        "model_args": {"embed_dims": [8, 16], "depths": [1, 1], "num_heads": [1, 2], "window_sizes": [2, 2]},
        "pretrained_cfg": {"input_size": [3, 32, 32]},
    }
    torch.manual_seed(0)
    module = FAMILY.build(FAMILY.parse_config(config), FAMILY.tasks[0], len(COLOURS), KERNELS["dense"])
    (folder / "config.json").write_text(json.dumps(config | {"num_classes": len(COLOURS)}))
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder


def test_images(vision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = convert_to(vision, tmp_path / "dist", "onnx")
    data = tmp_path / "photos"
    generator = np.random.default_rng(0)
    with load(path) as pipeline:
        for number in range(9):
            photo = generator.integers(0, 256, (40, 30 + number, 3), dtype=np.uint8)
            # Two of three photos lie in the folder of the model's own answer, and the others in that of its second.
            folder = data / pipeline(photo).labels[int(number % 3 == 2)]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(folder / f"{number}.png")
    with pytest.raises(SystemExit) as caught:
        run_app(cli.app, ["eval", str(path), "--data", str(data), "--json"])
    assert caught.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["n"], found["top5"], found["agreement"]) == ("top1", 9, 1, 1)
    assert found["value"] == found["source_value"] == pytest.approx(6 / 9)


@pytest.mark.coreml
def test_core_ml_is_interpreted_where_it_does_not_run(checkpoint: Path, tmp_path: Path) -> None:
    (path,) = convert_to(checkpoint, tmp_path / "dist", "coreml", precisions=("fp16",))
    with Bundle.open(path) as bundle:
        found = evaluate(bundle, table(tmp_path / "a.json", ["LABEL_0"] * len(TEXTS)), limit=4)
    assert found.agreement == 1
    assert "mil-reference" in found.executed_by
    assert len(found.notes) == 1 and "Neural Engine" in found.notes[0]


def test_an_embedder_is_measured_on_scored_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_mobilebert(tmp_path / "tiny", num_hidden_layers=1)
    (path,) = convert_to(source, tmp_path / "dist", "onnx", task="text-embedding")
    pairs = [(one, other) for number, one in enumerate(TEXTS[:5]) for other in TEXTS[number + 1 : 5]]
    with load(path) as pipeline:
        vectors = {text: pipeline(text).vector.astype(np.float64) for text in TEXTS[:5]}
    cosines = np.array([vectors[one] @ vectors[other] for one, other in pairs])
    # Scores on a scale of their own that rise with the cosines, but for two that change places.
    scores = np.exp(5 * cosines)
    order = np.argsort(cosines)
    scores[order[3]], scores[order[4]] = scores[order[4]], scores[order[3]]
    data = tmp_path / "pairs.csv"
    rows = [f"{one},{other},{float(score)!r}" for (one, other), score in zip(pairs, scores, strict=True)]
    data.write_text("\n".join(["sentence1,sentence2,score", *rows]))
    with Bundle.open(path) as bundle:
        found = evaluate(bundle, str(data))
    document = found.to_json()
    assert (document["metric"], document["n"], document["truncated"]) == ("spearman", 10, 0)
    # 1 - 6 * sum(d^2) / (n (n^2 - 1)) with two ranks off by one.
    assert document["value"] == pytest.approx(1 - 6 * 2 / (10 * 99), abs=1e-12)
    assert document["source_value"] == pytest.approx(document["value"])
    # The vectors' norms are 1 in float32 only.
    assert document["pearson"] == pytest.approx(np.corrcoef(cosines, scores)[0, 1], abs=1e-5)
    assert document["agreement"] == pytest.approx(1, abs=1e-6)
    with pytest.raises(SystemExit):
        run_app(cli.app, ["eval", str(path), "--data", str(data)])
    out = capsys.readouterr().out
    assert "Spearman" in out and "0.9879" in out
    reported = collect(tmp_path / "dist", data)
    (variant,) = reported.variants
    assert (variant.metric, variant.n, variant.changes) == ("spearman", 10, None)
    assert (variant.value, variant.agreement) == (pytest.approx(document["value"]), pytest.approx(1, abs=1e-6))
    assert variant.interval == rank_interval(document["value"], 10)
    assert any("itself, in torch at fp32: spearman 98.79% of 10 examples" in note for note in reported.notes)
    for content, problem in (("a,b,high\n", "line 1: expected a number as the score"), ("a,b,1\n", "at least 2 pairs")):
        data.write_text(content)
        with Bundle.open(path) as bundle, pytest.raises(InputError, match=problem):
            evaluate(bundle, str(data))


def test_the_interval_of_a_rank_correlation() -> None:
    # tanh(atanh(.5) -+ 1.96 sqrt((1 + .5 ** 2 / 2) / 27)), by hand.
    assert rank_interval(0.5, 30) == (pytest.approx(0.148126, abs=1e-5), pytest.approx(0.739507, abs=1e-5))
    assert rank_interval(0.5, 3) is None
    assert rank_interval(1.0, 30) is None


def test_sets_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_mobilebert(
        tmp_path / "tiny",
        num_labels=3,
        problem_type="multi_label_classification",
        initializer_range=0.2,
        num_hidden_layers=1,
    )
    (path,) = convert_to(source, tmp_path / "dist", "onnx")
    with load(path) as pipeline:
        given = []
        for text in TEXTS:
            result = pipeline(text)
            given.append([label for label, score in zip(result.labels, result.scores, strict=True) if score >= 0.5])
    assert 0 < sum(map(len, given)) < 3 * len(TEXTS)
    data = tmp_path / "sets.jsonl"
    data.write_text("".join(json.dumps({"text": t, "labels": g}) + "\n" for t, g in zip(TEXTS, given, strict=True)))
    with Bundle.open(path) as bundle:
        document = evaluate(bundle, str(data)).to_json()
    assert (document["metric"], document["value"], document["subset_accuracy"], document["agreement"]) == (
        "micro_f1", 1, 1, 1,
    )  # fmt: skip
    assert [each["support"] for each in document["classes"]] == [
        sum(label in each for each in given) for label in ("LABEL_0", "LABEL_1", "LABEL_2")
    ]
    table_of = tmp_path / "sets.csv"
    table_of.write_text("text,labels\n" + "".join(f"{t},{'|'.join(g)}\n" for t, g in zip(TEXTS, given, strict=True)))
    with pytest.raises(SystemExit):
        run_app(cli.app, ["eval", str(path), "--data", str(table_of)])
    assert "micro F1" in capsys.readouterr().out
    table_of.write_text("text,labels\nhello,LABEL_0|poem\n")
    with (
        Bundle.open(path) as bundle,
        pytest.raises(InputError, match=r"line 2: the bundle does not know .*'poem'"),
    ):
        evaluate(bundle, str(table_of))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--data", "nowhere.csv"], "no data at nowhere.csv"),
        (["--data", "EMPTY"], "holds no examples"),
        (["--data", "UNKNOWN"], "labels that the bundle does not know ('poem')"),
        (["--data", "EMPTY", "--limit", "0"], "--limit"),
        ([], "Missing option '--data'"),
    ],
)
def test_errors_are_one_line(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    files = {"EMPTY": "", "UNKNOWN": "roses are red,poem\n"}
    for name, content in files.items():
        (tmp_path / f"{name}.csv").write_text(content)
    given = [str(tmp_path / f"{argument}.csv") if argument in files else argument for argument in arguments]
    with pytest.raises(SystemExit) as caught:
        run_app(cli.app, ["eval", str(bundle_path), *given])
    captured = capsys.readouterr()
    assert (caught.value.code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1 and problem in captured.err


def test_table(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(tmp_path / "a.json", ["LABEL_0"] * len(TEXTS))
    with pytest.raises(SystemExit) as caught:
        run_app(cli.app, ["eval", str(bundle_path), "--data", data, "--limit", "5"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert "tiny.onnx.fp32" in out and "local:tiny" in out and "100.00%" in out
    assert "precision" in out and "macro F1" in out
