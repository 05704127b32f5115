"""Our Whisper against transformers', and against recorded outputs of tiny.en."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeformer.attention import KERNELS
from edgeformer.models.config import read_object
from edgeformer.models.whisper.family import FAMILY
from edgeformer.models.whisper.model import Whisper, WhisperConfig, with_alignment_heads
from edgeformer_runtime.errors import InputError

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "num_mel_bins": 80,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_source_positions": 50,
    "max_target_positions": 20,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "distilled": {"decoder_layers": 1, "encoder_layers": 3},
    "large_v3_turbo": {"num_mel_bins": 128, "vocab_size": 51_866, "encoder_layers": 3, "decoder_layers": 1},
    "other_heads_and_widths": {"encoder_attention_heads": 6, "decoder_attention_heads": 2, "decoder_ffn_dim": 72},
}


def reference(**overrides: Any) -> Any:
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**(SMALL | overrides)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def loaded(state: dict[str, Tensor], raw: dict[str, Any], kernel: str = "dense") -> Whisper:
    module: nn.Module = FAMILY.build(FAMILY.parse_config(raw), "speech-recognition", 0, KERNELS[kernel])
    module.load_state_dict(FAMILY.rename(state))
    assert isinstance(module, Whisper)
    return module


def mel_of(raw: dict[str, Any], batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, raw["num_mel_bins"], 2 * raw["max_source_positions"], generator=generator)


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_equals_transformers(name: str) -> None:
    model = reference(**VARIANTS[name])
    raw = model.config.to_dict()
    module = loaded(model.state_dict(), raw)
    mel = mel_of(raw)
    tokens = torch.randint(0, 60, (2, 20), generator=torch.Generator().manual_seed(4))
    states = model.model.encoder(mel).last_hidden_state
    torch.testing.assert_close(module.encoder(mel), states, rtol=0, atol=1e-4)
    expected = model(input_features=mel, decoder_input_ids=tokens).logits
    torch.testing.assert_close(module(mel, tokens), expected, rtol=0, atol=1e-4)
    past = None
    for step in range(6):  # as transformers decodes, one token after the other with its cache
        out = model(
            encoder_outputs=(states,),
            decoder_input_ids=tokens[:, step : step + 1],
            past_key_values=past,
            use_cache=True,
        )
        past = out.past_key_values
        ours = module.decoder(tokens[:, : step + 1], states)[:, -1:]
        torch.testing.assert_close(ours, out.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kernel", sorted(KERNELS.keys() - {"dense"}))
@torch.inference_mode()
def test_every_kernel_gives_the_same(kernel: str) -> None:
    model = reference()
    raw = model.config.to_dict()
    mel, tokens = mel_of(raw), torch.arange(10)[None].expand(2, -1)
    expected = loaded(model.state_dict(), raw)(mel, tokens)
    torch.testing.assert_close(loaded(model.state_dict(), raw, kernel)(mel, tokens), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_tiny_en_equals_its_recorded_outputs(assets: Path) -> None:
    folder = assets / "whisper-tiny.en"
    golden = load_file(folder / "golden_jfk.safetensors")
    state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    module = loaded(state, read_object(folder / "config.json"))
    states = module.encoder(golden["input_features"].float())
    # The stored features are rounded to float16, the recorded outputs come from unrounded ones.
    torch.testing.assert_close(states[:, ::10], golden["encoder_out_every_10th"], rtol=0, atol=5e-3)
    logits = module.decoder(golden["decoder_input_ids"], states)
    values, ids = logits.topk(20)
    torch.testing.assert_close(values, golden["logits_top20_values"], rtol=0, atol=1e-2)
    assert torch.equal(ids[..., 0], golden["logits_top20_ids"][..., 0])


@torch.inference_mode()
def test_prefixes_and_output_layers_of_public_checkpoints() -> None:
    model = reference()
    state, raw = model.state_dict(), model.config.to_dict()
    assert "proj_out.weight" in state
    tied = {name: tensor for name, tensor in state.items() if name != "proj_out.weight"}
    bare = {name.removeprefix("model."): tensor for name, tensor in tied.items()}
    mel, tokens = mel_of(raw), torch.arange(4)[None].expand(2, -1)
    expected = loaded(state, raw)(mel, tokens)
    for other in (tied, bare):
        assert torch.equal(loaded(other, raw)(mel, tokens), expected)
    with pytest.raises(InputError, match="differs from"):
        FAMILY.rename({**state, "proj_out.weight": state["proj_out.weight"] + 1})
    with pytest.raises(InputError, match="twice"):
        FAMILY.rename({**tied, **bare})


def test_parse_config_reads_sizes_and_defaults() -> None:
    raw = {"model_type": "whisper", **SMALL}
    config = FAMILY.parse_config(raw)
    assert {name: getattr(config, name) for name in SMALL if hasattr(config, name)} == {
        name: value for name, value in SMALL.items() if hasattr(config, name)
    }
    assert config.head_dim == 8
    assert FAMILY.parse_config({"model_type": "whisper"}) == WhisperConfig()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("activation_function", "relu", "one of gelu"),
        ("scale_embedding", True, "must be false"),
        ("d_model", 25, "multiple of num_attention_heads"),
        ("decoder_attention_heads", 5, "multiple of num_attention_heads"),
        ("encoder_layers", 0, "at least 1"),
        ("vocab_size", "60", "integer"),
        ("max_target_positions", True, "integer"),
        ("quantization_config", {"bits": 4}, "quantization_config"),
    ],
)
def test_refuses_unsupported_configs(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FAMILY.parse_config({**SMALL, field: value})
    assert "\n" not in str(caught.value)


def test_alignment_heads() -> None:
    config = WhisperConfig(decoder_layers=3, decoder_attention_heads=2)
    upper = ((1, 0), (1, 1), (2, 0), (2, 1))
    assert config.alignment_heads == upper
    stated, notes = with_alignment_heads(config, [(2, 1), (0, 1), (2, 1)])
    assert (stated.alignment_heads, notes) == (((0, 1), (2, 1)), ())
    partly, notes = with_alignment_heads(config, [(2, 1), (3, 0), (0, 2)])
    assert partly.alignment_heads == ((2, 1),)
    assert notes == ("2 of 3 alignment heads are beyond the decoder's 3 layers of 2 heads and were dropped",)
    none, notes = with_alignment_heads(config, [(5, 0)])
    assert none.alignment_heads == upper
    assert "1 of 1" in notes[0]
    assert "upper half" in notes[0]
    with pytest.raises(InputError, match="of the decoder"):
        WhisperConfig(alignment_heads=((9, 0),))


def test_has_one_task() -> None:
    with pytest.raises(InputError, match="expected one of speech-recognition"):
        FAMILY.build(WhisperConfig(), "text-embedding", 0, KERNELS["dense"])
