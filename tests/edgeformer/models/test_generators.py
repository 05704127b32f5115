"""GPT-2, Llama and what shares its form say what transformers says, whole and step by step with a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.models.cached import Generator, generation_layout
from edgeformer.models.family import FAMILIES, ProgramOptions, family_for
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines.generation import PromptCache

VOCABULARY = 90
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 scaled by layer, untied": (
        "GPT2",
        {**GPT2, "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False, "n_inner": 48},
    ),
    "gpt2 unscaled": ("GPT2", {**GPT2, "scale_attn_weights": False, "activation_function": "relu"}),
    "llama grouped, tied": ("Llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama of one group each, wide heads": ("Llama", {**LLAMA, "num_key_value_heads": 6, "head_dim": 16}),
    "llama with biases": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama 3": (
        "Llama",
        {**LLAMA, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32, "rope_theta": 500.0}},
    ),
    "llama with linear rope": ("Llama", {**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "qwen2": ("Qwen2", LLAMA),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": None}),
}


def pair(kind: str, settings: dict[str, Any]) -> tuple[Any, Generator]:
    """transformers' model with random weights, norms and biases included, and ours with the same."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    public = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in public.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2 if "bias" in name else 0.1)
    raw = {**public.config.to_dict(), "architectures": [type(public).__name__]}
    family = family_for(raw)
    ours = family.build(family.parse_config(raw), "text-generation", 0, KERNELS["dense"])
    state = family.rename(public.state_dict())
    expected = ours.state_dict().keys()
    assert all(family.is_unused(name) for name in state.keys() - expected)
    ours.load_state_dict({name: state[name] for name in expected})
    assert isinstance(ours, Generator)
    published = family.publish(ours.state_dict(), ours.config)
    known = public.state_dict()
    assert all(torch.equal(known[name], tensor) for name, tensor in published.items())
    return public, ours


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers_whole_and_step_by_step(variant: str) -> None:
    public, ours = pair(*VARIANTS[variant])
    tokens = torch.randint(VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = public(tokens).logits[0].numpy()
        whole = ours(tokens.int())[0].numpy()
    scale = np.abs(expected).max()
    assert np.abs(whole - expected).max() <= 1e-5 * scale
    said = tokens[0].tolist()
    for state in ("host", "program"):
        options = ProgramOptions(cache_lens=(24, 40), prompt_tokens=4, decoder_state=state, token_matmul="elementwise")
        layout: Any = generation_layout(ours.config, options)
        engine = TorchEngine(FAMILIES["llama"].programs(ours, ours.config, options))
        for bucket in layout.buckets:
            cache = PromptCache(engine.open_decoder(bucket, layout))
            # In one go, on from there, one more, back and another way, and as far as the cache goes.
            for count in (7, 9, 10, 3, 24):
                found = cache.logits_after(said[:count])
                assert np.abs(found - expected[count - 1]).max() <= 1e-5 * scale
            assert cache.computed == 7 + 2 + 1 + 1 + 21
            with pytest.raises(InputError, match=f"expected at most {bucket.rows} tokens, found {bucket.rows + 1}"):
                cache.logits_after([*said, *said][: bucket.rows + 1])


def test_a_decoder_whose_state_was_taken_says_so() -> None:
    _, ours = pair("GPT2", GPT2)
    options = ProgramOptions(cache_lens=(24,), prompt_tokens=4, decoder_state="program")
    layout: Any = generation_layout(ours.config, options)
    engine = TorchEngine(FAMILIES["gpt2"].programs(ours, ours.config, options))
    first, second = (PromptCache(engine.open_decoder(layout.buckets[0], layout)) for _ in range(2))
    second.logits_after([1, 2])
    with pytest.raises(EngineError, match="another decoder of 24 slots has taken the programs' state: open it again"):
        first.logits_after([1, 2])
    with pytest.raises(EngineError, match="has nothing to encode"):
        engine.open_decoder(layout.buckets[0], layout).encode(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("family", "raw", "message"),
    [
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention must be false"),
        ("gpt2", {"n_embd": 30, "n_head": 4}, "n_embd must be a multiple of"),
        ("llama", {"num_attention_heads": 6, "num_key_value_heads": 4}, "a multiple of num_key_value_heads"),
        ("llama", {"head_dim": 15}, "head_dim must be even"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_type must be one of default",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary",
        ),
        ("llama", {"hidden_act": "tanhshrink"}, "hidden_act must be one of"),
        ("mistral", {"model_type": "mistral"}, "sliding_window must be null, found 4096"),
        (
            "qwen2",
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8},
            "sliding_window must be null",
        ),
    ],
)
def test_what_a_family_cannot_do_is_refused_by_name(family: str, raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FAMILIES[family].parse_config(raw)
    assert "\n" not in str(caught.value)


def test_other_classes_of_the_same_architecture_stay_adapted() -> None:
    raw = {**transformers.GPT2Config(**GPT2).to_dict(), "architectures": ["GPT2ForSequenceClassification"]}
    assert family_for(raw).name == "adapted-gpt2"
    generator = {**raw, "architectures": ["GPT2LMHeadModel"]}
    assert family_for(generator).name == "gpt2"
    assert family_for(generator, task="text-embedding").name == "adapted-gpt2"


def test_lengths_of_the_cache_fit_the_model() -> None:
    config = FAMILIES["gpt2"].parse_config(GPT2)
    assert [bucket.rows for bucket in generation_layout(config, ProgramOptions()).buckets] == [64]
    with pytest.raises(InputError, match="as many slots as the model has positions, 64, found 100"):
        generation_layout(config, ProgramOptions(cache_lens=(32, 100)))
    with pytest.raises(InputError, match="a cache has more than 16 slots"):
        generation_layout(config, ProgramOptions(cache_lens=(16,)))


@pytest.mark.parametrize("family", ["gpt2", "llama", "whisper"])
def test_what_wrappers_put_before_every_name_is_left_out(family: str) -> None:
    prefix = {"gpt2": "transformer."}.get(family, "model.")
    public = {f"{prefix}layers.0.norm.weight": torch.ones(2), f"{prefix}norm.bias": torch.zeros(2)}
    rename = FAMILIES[family].rename
    plain = rename(public)
    assert plain.keys() == {"layers.0.norm.weight", "norm.bias"}
    for wrapper in ("module.", "_orig_mod.module."):
        assert rename({wrapper + name: tensor for name, tensor in public.items()}).keys() == plain.keys()
    with pytest.raises(InputError, match=f"tensors twice, with the prefix {prefix} and without"):
        rename({**public, **plain})
