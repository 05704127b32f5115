"""A config that states more than its weights can be is refused before anything of that size is built."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edgeformer.checkpoints.weights import check_sizes
from edgeformer.models.family import FAMILIES, family_for
from edgeformer_runtime.errors import InputError

BERT = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536,
    "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip
DISTILBERT = {"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6, "hidden_dim": 3072}
MOBILEBERT = {
    "model_type": "mobilebert", "vocab_size": 30522, "hidden_size": 512, "embedding_size": 128,
    "num_hidden_layers": 24, "intra_bottleneck_size": 128, "intermediate_size": 512, "num_feedforward_networks": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
WHISPER = {
    "model_type": "whisper", "vocab_size": 51864, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4,
    "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "num_mel_bins": 80, "max_source_positions": 1500,
    "max_target_positions": 448,
}  # fmt: skip
TINYVIT = {
    "architecture": "tiny_vit_5m_224",
    "model_args": {"embed_dims": [64, 128, 160, 320], "depths": [2, 2, 6, 2], "window_sizes": [7, 7, 14, 7]},
    "pretrained_cfg": {"input_size": [3, 224, 224], "num_classes": 1000},
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """252 KB, as in the report."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(252_000))
    return path


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (BERT, 22_713_216),
        (DISTILBERT, 66_000_000),
        (MOBILEBERT, 24_600_000),
        (WHISPER, 37_760_640),
        (TINYVIT, 5_400_000),
    ],
)
@pytest.mark.parametrize("bytes_per_value", [1, 2, 4])
def test_public_checkpoints_fit(config: dict[str, Any], size: int, bytes_per_value: int, weights: Path) -> None:
    os.truncate(weights, size * bytes_per_value)
    check_sizes(family_for(config), config, (weights,))


@pytest.mark.parametrize(
    ("config", "change"),
    [
        *[(BERT, {key: value}) for key in BERT if key != "model_type" for value in (1_000_000, 1 << 40)],
        *[(DISTILBERT, {key: 1 << 30}) for key in DISTILBERT if key != "model_type"],
        *[(MOBILEBERT, {key: 1 << 30}) for key in MOBILEBERT if key != "model_type"],
        *[(WHISPER, {key: 1 << 30}) for key in WHISPER if key != "model_type"],
        *[(BERT, {"layer_widths": [{}], "num_hidden_layers": 1_000_000}), (BERT, {"num_labels": 1 << 30})],
        *[({"model_type": "bert"}, {key: 1 << 40}) for key in ("vocab_size", "num_hidden_layers", "hidden_size")],
        *[(TINYVIT, {"model_args": {key: [1 << 20] * 4}}) for key in ("depths", "window_sizes")],
        (TINYVIT, {"model_args": {"depths": [2, 2], "embed_dims": [1 << 20, 1 << 20]}}),
        (TINYVIT, {"pretrained_cfg": {"input_size": [3, 1 << 20, 1 << 20]}}),
        (TINYVIT, {"pretrained_cfg": {"num_classes": 1 << 30}}),
        (TINYVIT, {"num_classes": 1 << 30}),
    ],
)
def test_what_the_weights_cannot_hold_is_refused_at_once(
    config: dict[str, Any], change: dict[str, Any], weights: Path
) -> None:
    os.truncate(weights, 200_000_000)
    begun = time.process_time()
    with pytest.raises(InputError, match=r"^config.json: ") as caught:
        check_sizes(family_for(config), config | change, (weights,))
    changed = [key for value in (change, *change.values()) if isinstance(value, dict) for key in value]
    assert any(key in str(caught.value) for key in changed)
    assert time.process_time() - begun < 1


def test_other_values_are_left_to_the_family(weights: Path) -> None:
    check_sizes(
        FAMILIES["bert"], {"model_type": "bert", "vocab_size": "many", "hidden_size": True, "model_args": 1}, (weights,)
    )
    check_sizes(FAMILIES["bert"], {"model_type": ["bert"]}, (weights,))
