"""The mask that hides padding, chosen from a model's scores, against transformers' own, which is infinite."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoint_factory import save_mobilebert, save_whisper, tokenizer
from safetensors.torch import load_file, save_file

from edgeformer.attention import APPROXIMATE_KERNELS, KERNELS
from edgeformer.attention.kernels import EXACT_MASK, MASK_VALUE, ScoreRange
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import PRECISIONS, TARGETS, verification_engine
from edgeformer.models.family import ProgramOptions
from edgeformer.models.score_range import exact_masks, sample_inputs, score_range
from edgeformer.models.text import TextEncoder
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.errors import InputError

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "num_labels": 3,
}


def save_sharp(folder: Path, factor: float) -> Any:
    """A BERT whose queries, and with them its scores, are larger by a factor; and the public model itself."""
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES)).eval()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.query.weight *= factor
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("spread", "largest", "mask", "fits"),
    [
        (0, 0, -1000, True),
        (448, 448, -1000, True),
        (449, 449, -3000, True),
        (1448, 1448, -3000, True),
        (4948, 4948, -10000, True),
        (4949, 4949, -30000, True),
        (14948, 14948, -30000, True),
        (14948, 17753, -30000, False),
        (14949, 14949, -1e9, False),
        (4e8, 4e8, -1e9, False),
    ],
)
def test_the_smallest_mask_with_room(spread: float, largest: float, mask: float, fits: bool) -> None:
    found = ScoreRange(spread, largest)
    assert (found.mask, found.fits_float16, found.hides) == (mask, fits, True)


@pytest.mark.parametrize("factor", [1e10, 1e30])
def test_where_no_mask_hides_every_precision_is_refused(tmp_path: Path, factor: float) -> None:
    """With the larger factor scores are infinite, or no numbers."""
    save_sharp(tmp_path, factor)
    _, report = load_module(open_checkpoint(str(tmp_path)), KERNELS["dense"])
    assert not report.scores.hides
    for activations in ("float32", "float16"):
        assert "no mask hides padding from them at any precision" in report.problems(activations)[0]


@pytest.mark.parametrize(("factor", "mask"), [(1, MASK_VALUE), (60, -3000), (300, -30000), (3000, -1e9)])
def test_padding_does_not_leak(tmp_path: Path, factor: float, mask: float) -> None:
    public = save_sharp(tmp_path, factor)
    checkpoint = open_checkpoint(str(tmp_path))
    module, report = load_module(checkpoint, KERNELS["dense"])
    assert report.scores.mask == mask
    assert any("padding is hidden with" in note for note in report.notes) == (mask != MASK_VALUE)
    assert bool(report.problems("float16")) == (mask == -1e9)
    assert report.problems("float32") == ()
    tokens = torch.tensor([[2, 17, 33, 8, 3]], dtype=torch.int32)
    inputs = [torch.zeros(1, 32, dtype=torch.int32) for _ in range(3)]
    inputs[0][:, :5], inputs[1][:, :5] = tokens, 1
    with torch.no_grad():
        expected = public(input_ids=tokens.long()).logits
        given = module(*inputs)[0]
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["litert", "coreml", "onnx"])
@pytest.mark.parametrize(("factor", "least"), [(60, 900), (4000, 60_000)])
def test_padding_does_not_leak_at_fp16(tmp_path: Path, target: str, factor: float, least: float) -> None:
    """A text in a bucket of its own length and in a longer one has the same answer, in fp16's own arithmetic."""
    save_sharp(tmp_path / "sharp", factor)
    _, report = load_module(open_checkpoint(tmp_path / "sharp"), KERNELS["dense"])
    assert report.scores.spread > least
    # Answers may differ from fp32's, as float16 rounds such scores; whether padding shows is another question.
    asked = ConvertOptions(
        tmp_path / "sharp", tmp_path, (target,), ("fp16",), seq_lens=(5, 16), name="sharp", keep_refused=True
    )
    if TARGETS[target].recipe_of(PRECISIONS["fp16"]).activations == "float16" and not report.scores.fits_float16:
        with pytest.raises(InputError, match="no mask hides padding from them in float16, so expected fp32 or int8"):
            convert(asked)
        return
    (row,) = convert(asked)
    answers = []
    with Bundle.open(row.path, allow_refused=True) as bundle:
        engine = verification_engine(bundle) or open_engine(bundle)
        for length in asked.seq_lens:
            given = {spec.name: np.zeros((1, length), np.int32) for spec in bundle.manifest.programs[0].inputs}
            given["input_ids"][0, :5], given["attention_mask"][0, :5] = (2, 17, 33, 8, 3), 1
            answers.append(engine.run(f"seq_{length}", given)["logits"])
        engine.close()
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=2e-3 * float(np.abs(answers[0]).max()))


def test_references_are_computed_with_an_exact_mask(tmp_path: Path) -> None:
    """A program whose mask leaks differs from its own reference, so that the gate sees it."""
    save_sharp(tmp_path, 300)
    checkpoint = open_checkpoint(str(tmp_path))
    module, _ = load_module(checkpoint, KERNELS["dense"])
    encoder = next(part for part in module.modules() if isinstance(part, TextEncoder))
    encoder.mask_value = MASK_VALUE
    (program,) = checkpoint.family.programs(module, checkpoint.config, ProgramOptions(seq_lens=(32,)))
    inputs = {name: np.zeros((1, 32), np.int32) for name in checkpoint.config.input_names}
    inputs["input_ids"][0, :3], inputs["attention_mask"][0, :3] = (2, 40, 3), 1
    reference = TorchEngine((program,)).run("seq_32", inputs)["logits"]
    assert encoder.mask_value == MASK_VALUE
    with torch.no_grad():
        leaking = module(*(torch.from_numpy(value) for value in inputs.values()))[0].numpy()
        encoder.mask_value = -30000.0
        hiding = module(*(torch.from_numpy(value) for value in inputs.values()))[0].numpy()
    assert np.abs(leaking - reference).max() > 1e-2
    np.testing.assert_array_equal(hiding, reference)


def test_the_range_is_the_scores(tmp_path: Path) -> None:
    public = save_sharp(tmp_path, 1)
    checkpoint = open_checkpoint(str(tmp_path))
    module, _ = load_module(checkpoint, KERNELS["fused"])
    inputs = sample_inputs(checkpoint.config, None)
    found = score_range(module, inputs)
    with exact_masks(module):
        assert all(part.mask_value == EXACT_MASK for part in module.modules() if isinstance(part, TextEncoder))
    first = public.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        hidden = public.bert.embeddings(inputs["input_ids"].long(), inputs["token_type_ids"].long())
        q, k = (part(hidden).reshape(*hidden.shape[:2], 2, 16).transpose(1, 2) for part in (first.query, first.key))
        scores = (q @ k.transpose(2, 3)) / 4
    assert found.largest >= float(scores.abs().max()) - 1e-5
    assert found.spread >= float((scores.amax(-1) - scores.amin(-1)).max()) - 1e-5


def test_random_tokens_stand_beside_the_texts() -> None:
    """A vocabulary holds tokens that no few texts have."""
    made = tokenizer()
    config = SimpleNamespace(
        vocab_size=made.get_vocab_size() + 1000, max_position_embeddings=64, input_names=("input_ids", "attention_mask")
    )
    inputs = sample_inputs(config, made.to_str())
    assert inputs["input_ids"].max() >= made.get_vocab_size()
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert int(inputs["attention_mask"].sum(dim=1).min()) >= 1


@pytest.mark.parametrize(("factor", "is_safe"), [(1, True), (1e4, False)])
def test_whispers_decoder_has_the_mask_of_its_bundles(tmp_path: Path, factor: float, is_safe: bool) -> None:
    """The cache's mask is a number of the bundle format, so a decoder that needs another one is refused."""
    folder = save_whisper(tmp_path / "whisper")
    state = load_file(folder / "model.safetensors")
    for name in state:
        if ".decoder." in name and name.endswith("self_attn.q_proj.weight"):
            state[name] = state[name] * factor
    save_file(state, folder / "model.safetensors")
    if is_safe:
        _, report = load_module(open_checkpoint(folder), KERNELS["dense"])
        assert 0 < report.scores.spread < -MASK_VALUE / 2
    else:
        with pytest.raises(InputError, match=r"the decoder's attention scores are up to \d+ apart"):
            load_module(open_checkpoint(folder), KERNELS["dense"])


def test_padding_is_no_neighbour(tmp_path: Path) -> None:
    """MobileBERT's embeddings see three tokens at a time: behind the last one are zeros, whatever pads a bucket."""
    folder = save_mobilebert(tmp_path / "mobilebert")
    state = load_file(folder / "model.safetensors")
    state["mobilebert.embeddings.word_embeddings.weight"][0] = torch.linspace(
        -2, 2, state["mobilebert.embeddings.word_embeddings.weight"].shape[1]
    )
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    public = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    module, report = load_module(open_checkpoint(folder), KERNELS["dense"])
    assert any("the embedding of the padding token 0 is taken as 0" in note for note in report.notes)
    tokens = torch.tensor([[2, 17, 33, 8, 3]], dtype=torch.int32)
    inputs = [torch.zeros(1, 16, dtype=torch.int32) for _ in range(3)]
    inputs[0][:, :5], inputs[1][:, :5] = tokens, 1
    with torch.no_grad():
        expected = public(input_ids=tokens.long()).logits
        given = module(*inputs)[0]
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_approximate_kernels_have_the_usual_mask_only(tmp_path: Path) -> None:
    save_sharp(tmp_path, 300)
    with pytest.raises(InputError, match="choose an exact kernel"):
        load_module(open_checkpoint(str(tmp_path)), APPROXIMATE_KERNELS["linear"])
