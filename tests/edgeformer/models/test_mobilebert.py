"""Our MobileBERT against transformers' on random weights, and against stored reference tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from edgeformer.attention import KERNELS
from edgeformer.models.family import ProgramOptions
from edgeformer.models.mobilebert import FAMILY, MobileBertConfig
from edgeformer.models.text import ACTIVATIONS, compute_all_tokens
from edgeformer_runtime.errors import InputError

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "embedding_size": 16,
    "intra_bottleneck_size": 16,
    "num_feedforward_networks": 2,
    "max_position_embeddings": 40,
    "num_labels": 5,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "layer_norm": {"normalization_type": "layer_norm", "layer_norm_eps": 1e-3},
    "no_trigram": {"trigram_input": False},
    "no_trigram_equal_sizes": {"trigram_input": False, "embedding_size": 32},
    "no_bottleneck": {"use_bottleneck": False},
    "bottleneck_attention": {"use_bottleneck_attention": True},
    "bottleneck_attention_unshared": {"use_bottleneck_attention": True, "key_query_shared_bottleneck": False},
    "unshared_equal_sizes": {"key_query_shared_bottleneck": False, "intra_bottleneck_size": 32},
    "no_bottleneck_bottleneck_attention": {"use_bottleneck": False, "use_bottleneck_attention": True},
    "no_classifier_activation": {"classifier_activation": False},
    "one_feed_forward": {"num_feedforward_networks": 1},
    "four_feed_forwards": {"num_feedforward_networks": 4},
    "five_layers": {"num_hidden_layers": 5},
    "one_token_type": {"type_vocab_size": 1},
    "layer_norm_no_bottleneck": {"normalization_type": "layer_norm", "use_bottleneck": False, "layer_norm_eps": 1e-2},
}


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter random, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def padded_batch(vocab_size: int, type_vocab_size: int, seq_len: int, lengths: list[int]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seq_len)
    ids = torch.randint(0, vocab_size, (len(lengths), seq_len), generator=generator).int()
    types = torch.randint(0, type_vocab_size, (len(lengths), seq_len), generator=generator).int()
    mask = (torch.arange(seq_len) < torch.tensor(lengths)[:, None]).int()
    return ids, mask, types


def reference_model(overrides: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = transformers.MobileBertConfig(**(SMALL | overrides))
    model = transformers.MobileBertForSequenceClassification(config).eval()
    randomize(model)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_transformers(variant: str) -> None:
    reference = reference_model(VARIANTS[variant])
    config = FAMILY.parse_config(reference.config.to_dict())
    module = FAMILY.build(config, "text-classification", 5, KERNELS["dense"])
    module.load_state_dict(FAMILY.rename(reference.state_dict()))
    embedder = FAMILY.build(config, "text-embedding", 0, KERNELS["fused"])
    embedder.load_state_dict({k: v for k, v in reference.state_dict().items() if k in embedder.state_dict()})
    for seq_len, lengths in ((2, [2, 1]), (17, [17, 3, 9]), (40, [1, 40])):
        inputs = padded_batch(60, config.type_vocab_size, seq_len, lengths)
        ids, mask, types = inputs
        with torch.no_grad():
            out = reference(
                input_ids=ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True, return_dict=True
            )
            torch.testing.assert_close(module(*inputs)[0], out.logits, rtol=1e-5, atol=1e-5)
            hidden = out.hidden_states[-1]
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            expected = torch.nn.functional.normalize(mean, dim=1)
            torch.testing.assert_close(embedder(*inputs)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
def test_activations_equal_transformers(hidden_act: str) -> None:
    x = torch.linspace(-12, 12, 97)
    torch.testing.assert_close(ACTIVATIONS[hidden_act](x), transformers.activations.ACT2FN[hidden_act](x))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "name", ["mobilebert_small", "mobilebert_small_layer_norm", "mobilebert_small_no_pooler_dense"]
)
def test_equals_golden_tensors(assets: Path, name: str, kernel: str) -> None:
    golden = assets / "golden"
    raw = json.loads((golden / f"{name}.config.json").read_text())
    state = {key: value.float() for key, value in load_file(golden / f"{name}.safetensors").items()}
    io = load_file(golden / f"{name}.io.safetensors")
    module = FAMILY.build(FAMILY.parse_config(raw), "text-classification", 3, KERNELS[kernel])
    module.load_state_dict(FAMILY.rename(state))
    inputs = tuple(io[key].int() for key in ("input_ids", "attention_mask", "token_type_ids"))
    with torch.no_grad():
        (logits,) = module(*inputs)
        embeddings = module.encoder.embeddings(inputs[0], inputs[2])
        first = module.encoder(*inputs)
        compute_all_tokens(module)
        hidden = module.encoder(*inputs)
    torch.testing.assert_close(first, hidden[:, :1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, io["logits"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embeddings, io["embeddings_out"], rtol=1e-5, atol=1e-5)
    # Padding positions see other keys' weights as exact zeros too, so that all of them agree.
    torch.testing.assert_close(hidden, io["last_hidden_state"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "overrides"),
    [
        ("mobilebert_default.keys.json", {}),
        ("mobilebert_classifier_activation_false.keys.json", {"classifier_activation": False}),
    ],
)
def test_default_size_has_the_public_keys(assets: Path, file: str, overrides: dict[str, Any]) -> None:
    stored = json.loads((assets / "golden" / file).read_text())
    shapes = dict(stored["keys"])
    labels = shapes["classifier.weight"][0]
    with torch.device("meta"):
        module = FAMILY.build(replace(MobileBertConfig(), **overrides), "text-classification", labels, KERNELS["dense"])
    ours = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    assert ours == shapes
    assert sum(p.numel() for p in module.parameters()) == stored["num_parameters"]


@pytest.mark.slow
def test_programs_share_one_module_and_export() -> None:
    config = FAMILY.parse_config(SMALL)
    module = FAMILY.build(config, "text-classification", 5, KERNELS["dense"])
    randomize(module)
    programs = FAMILY.programs(module, config, ProgramOptions(seq_lens=(40, 8, 16, 8)))
    assert [program.name for program in programs] == ["seq_8", "seq_16", "seq_40"]
    assert all(program.module is module for program in programs)
    for program in programs:
        seq_len = int(program.name.removeprefix("seq_"))
        assert [(i.name, i.dtype, i.shape) for i in program.inputs] == [
            (name, "int32", (1, seq_len)) for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        assert [(o.name, o.dtype, o.shape) for o in program.outputs] == [("logits", "float32", (1, 5))]
        inputs = padded_batch(60, 2, seq_len, [seq_len - 3])
        exported = torch.export.export(module, inputs).module()
        torch.testing.assert_close(exported(*inputs)[0], module(*inputs)[0], rtol=0, atol=1e-6)
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in module.parameters())
    assert all(b.is_contiguous() for b in module.buffers())


def test_a_bucket_does_not_change_the_answer() -> None:
    """With the zero padding row that training keeps, a longer bucket gives the same logits."""
    reference = reference_model({})
    with torch.no_grad():
        reference.mobilebert.embeddings.word_embeddings.weight[0] = 0
    module = FAMILY.build(FAMILY.parse_config(reference.config.to_dict()), "text-classification", 5, KERNELS["dense"])
    module.load_state_dict(FAMILY.rename(reference.state_dict()))
    ids, mask, types = padded_batch(60, 2, 12, [12])
    wide = [torch.nn.functional.pad(x, (0, 20)) for x in (ids, mask, types)]
    with torch.no_grad():
        torch.testing.assert_close(module(*wide)[0], module(ids, mask, types)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("normalization_type", "rms_norm", "layer_norm, no_norm"),
        ("hidden_act", "xielu", "gelu"),
        ("num_hidden_layers", 0, "at least 1"),
        ("num_attention_heads", 3, "multiple of num_attention_heads"),
        ("hidden_size", "512", "integer"),
        ("hidden_size", True, "integer"),
        ("trigram_input", 1, "true or false"),
        ("layer_norm_eps", 0, "above 0"),
        ("key_query_shared_bottleneck", False, "intra_bottleneck_size must equal hidden_size"),
        ("position_embedding_type", "relative_key", "absolute"),
        ("is_decoder", True, "only encoders"),
        ("add_cross_attention", True, "only encoders"),
        ("pruned_heads", {"0": [1]}, "pruned_heads"),
        ("quantization_config", {"bits": 4}, "quantization_config"),
    ],
)
def test_refuses_unsupported_configs(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FAMILY.parse_config({**SMALL, field: value})
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seq_lens", [(), (1,), (0, 8), (41,), (-3,)])
def test_refuses_impossible_lengths(seq_lens: tuple[int, ...]) -> None:
    config = FAMILY.parse_config(SMALL)
    module = FAMILY.build(config, "text-embedding", 0, KERNELS["dense"])
    with pytest.raises(InputError, match="sequence length"):
        FAMILY.programs(module, config, ProgramOptions(seq_lens=seq_lens))


@pytest.mark.parametrize(
    ("task", "num_labels", "message"),
    [
        ("text-classification", 1, "at least 2 labels"),
        ("translation", 3, "text-classification, text-embedding"),
    ],
)
def test_refuses_impossible_tasks(task: str, num_labels: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FAMILY.build(FAMILY.parse_config(SMALL), task, num_labels, KERNELS["dense"])
