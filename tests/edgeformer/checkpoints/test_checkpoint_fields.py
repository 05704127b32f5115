"""Every field of public config files is honoured, refused, noted or without effect: each is set and looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import transformers

from edgeformer.checkpoints.checkpoint import check_attention
from edgeformer.checkpoints.fields import (
    AUDIO,
    AUDIO_FIELDS,
    CONFIG_FIELDS,
    GENERATION_FIELDS,
    HONOURED,
    IMAGE,
    MODULE_FIELDS,
    MODULE_FILES,
    NOTED,
    PIXEL_FIELDS,
    POOLING_FIELDS,
    PRETRAINED_FIELDS,
    PROMPT,
    REFUSED,
    SENTENCE_FIELDS,
    SILENT,
    TEXT,
    TOKENIZER_FIELDS,
    TRANSFORMER_FIELDS,
    Field,
    check_fields,
)
from edgeformer.checkpoints.sentence import SentenceFiles
from edgeformer.checkpoints.task import activation_of, task_of
from edgeformer.models.family import family_for
from edgeformer_runtime.errors import InputError

ALL: dict[str, Mapping[str, Field]] = {
    **{f"config.json, {kind}": fields for kind, fields in CONFIG_FIELDS.items()},
    "tokenizer_config.json": TOKENIZER_FIELDS,
    "config_sentence_transformers.json": SENTENCE_FIELDS,
    "sentence_bert_config.json": TRANSFORMER_FIELDS,
    "1_Pooling/config.json": POOLING_FIELDS,
    "generation_config.json": GENERATION_FIELDS,
    "preprocessor_config.json": AUDIO_FIELDS,
    "preprocessor_config.json of images": PIXEL_FIELDS,
    "pretrained_cfg": PRETRAINED_FIELDS,
    "2_Dense/config.json": MODULE_FILES["Dense"],
    "3_Normalize/config.json": MODULE_FILES["Normalize"],
    "modules.json": MODULE_FIELDS,
}

SENTENCE_TRANSFORMERS = {
    "config_sentence_transformers.json": (
        "__version__ model_type prompts default_prompt_name similarity_fn_name truncate_dim requirements "
        "activation_fn keep_in_fp32_modules"
    ),
    "sentence_bert_config.json": (
        "transformer_task modality_config module_output_name processing_kwargs unpad_inputs query_length "
        "document_length query_expansion max_seq_length do_lower_case model_args tokenizer_args config_args "
        "model_kwargs processor_kwargs config_kwargs"
    ),
    "1_Pooling/config.json": (
        "word_embedding_dimension embedding_dimension pooling_mode include_prompt pooling_mode_cls_token "
        "pooling_mode_max_tokens pooling_mode_mean_tokens pooling_mode_mean_sqrt_len_tokens "
        "pooling_mode_weightedmean_tokens pooling_mode_lasttoken"
    ),
    "modules.json": "idx name path type kwargs",
}
"""What sentence-transformers 5.7.0 and 6.2.0 read from each file, found in their sources."""


def test_all_that_sentence_transformers_reads_is_known() -> None:
    for file, names in SENTENCE_TRANSFORMERS.items():
        assert set(names.split()) <= set(ALL[file]), file


def test_all_that_transformers_writes_is_known() -> None:
    texts, prompts = ("Bert", "DistilBert", "MobileBert"), ("GPT2", "Llama", "Mistral", "Qwen2")
    for name, kind in (*((each, TEXT) for each in texts), ("Whisper", AUDIO), *((each, PROMPT) for each in prompts)):
        written = getattr(transformers, f"{name}Config")().to_dict()
        assert set(written) <= set(CONFIG_FIELDS[kind]), name
        assert check_fields("config.json", written, CONFIG_FIELDS[kind]) == ()
    generation = transformers.GenerationConfig().to_dict()
    assert check_fields("generation_config.json", generation, GENERATION_FIELDS) == ()
    audio = transformers.WhisperFeatureExtractor().to_dict()
    assert check_fields("preprocessor_config.json", audio, AUDIO_FIELDS) == ()
    made = transformers.BertTokenizer(vocab=dict.fromkeys(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), 0))
    assert check_fields("tokenizer_config.json", made.init_kwargs, TOKENIZER_FIELDS) == ()


@pytest.mark.parametrize("file", ALL)
def test_a_value_that_is_not_plain_is_refused_noted_or_silent(file: str) -> None:
    for name, field in ALL[file].items():
        assert field.treatment in (HONOURED, REFUSED, NOTED, SILENT)
        for plain in (*field.plain, None):
            assert check_fields(file, {name: plain}, ALL[file]) == (), name
        if field.treatment == REFUSED:
            with pytest.raises(InputError, match=rf"{name} is 'strange'.*: \w"):
                check_fields(file, {name: "strange"}, ALL[file])
        else:
            notes = check_fields(file, {name: "strange"}, ALL[file])
            assert bool(notes) == (field.treatment == NOTED), name
            assert all(f"{file}: {name} is 'strange': " in note for note in notes)


def test_unknown_fields_are_noted() -> None:
    (note,) = check_fields("config.json", {f"new_{index}": 1 for index in range(12)}, CONFIG_FIELDS[TEXT])
    assert note.startswith("config.json has fields that are not known here and change nothing: new_0, new_1")
    assert note.endswith("and 4 more")


def test_false_and_zero_are_not_one_another() -> None:
    assert check_fields("preprocessor_config.json", {"dither": False}, AUDIO_FIELDS)
    assert not check_fields("preprocessor_config.json", {"dither": 0}, AUDIO_FIELDS)


ONE_LAYER = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
BASES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **ONE_LAYER},
    "distilbert": {"model_type": "distilbert", "dim": 24, "n_heads": 2, "n_layers": 1},
    "mobilebert": {"model_type": "mobilebert", "intra_bottleneck_size": 24, **ONE_LAYER},
    "whisper": {"model_type": "whisper", "d_model": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    "tinyvit": {"architecture": "tiny_vit_5m_224", "num_classes": 4},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 24, "n_head": 2},
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 24,
        "num_attention_heads": 2,
    },
}
CONFIG_SAMPLES: dict[str, dict[str, Any]] = {
    "bert": {
        "model_type": "distilbert",
        "architectures": ["BertForMaskedLM"],
        "problem_type": "regression",
        "id2label": {"0": "a", "1": "b", "2": "c"},
        "num_labels": 5,
        "quantization_config": {"bits": 8},
        "attention_kernel": "linear",
        "is_decoder": True,
        "add_cross_attention": True,
        "is_encoder_decoder": True,
        "vocab_size": 41,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 99,
        "hidden_act": "relu",
        "max_position_embeddings": 99,
        "type_vocab_size": 3,
        "layer_norm_eps": 1e-3,
        "position_embedding_type": "relative_key",
        "pruned_heads": {"0": [1]},
        "layer_widths": [{"heads": 1, "neurons": [7]}],
        "tie_word_embeddings": False,
    },
    "distilbert": {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 99, "activation": "relu"},
    "mobilebert": {
        "embedding_size": 99,
        "intra_bottleneck_size": 48,
        "num_feedforward_networks": 2,
        "trigram_input": False,
        "use_bottleneck": False,
        "use_bottleneck_attention": True,
        "key_query_shared_bottleneck": False,
        "classifier_activation": False,
        "normalization_type": "layer_norm",
    },
    "whisper": {
        "vocab_size": 99,
        "num_mel_bins": 128,
        "d_model": 48,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 99,
        "decoder_ffn_dim": 99,
        "max_source_positions": 99,
        "max_target_positions": 99,
        "activation_function": "relu",
        "scale_embedding": True,
        "quantization_config": {"bits": 8},
        "model_type": "bert",
    },
    "tinyvit": {
        "architecture": "tiny_vit_11m_224",
        "num_classes": 5,
        "global_pool": "max",
        "label_names": list("abcd"),
        "pretrained_cfg": {"crop_pct": 1.0},
        "model_args": {"mlp_ratio": 2.0},
        "problem_type": "multi_label_classification",
    },
    "gpt2": {
        "vocab_size": 99,
        "n_embd": 48,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 99,
        "n_inner": 77,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "tie_word_embeddings": False,
        "add_cross_attention": True,
        "quantization_config": {"bits": 8},
    },
    "llama": {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 10,
        "intermediate_size": 99,
        "hidden_act": "relu",
        "max_position_embeddings": 99,
        "rms_norm_eps": 1e-3,
        "rope_theta": 99.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 77.0},
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "quantization_config": {"bits": 8},
    },
}
ELSEWHERE = {
    TEXT: {"pad_token_id", "tokenizer_class"},
    IMAGE: {
        *("model_type", "architectures", "id2label", "num_labels", "attention_kernel", "is_decoder"),
        *("add_cross_attention", "tokenizer_class", "quantization_config", "label_descriptions", "layer_widths"),
    },
    AUDIO: {
        *("architectures", "problem_type", "id2label", "num_labels", "attention_kernel", "is_decoder"),
        *("add_cross_attention", "tokenizer_class", "encoder_layer_widths", "decoder_layer_widths"),
        *("alignment_heads", "suppress_tokens", "begin_suppress_tokens", "decoder_start_token_id", "eos_token_id"),
        *("forced_decoder_ids", "lang_ids", "suppress_ids", "suppress_ids_begin", "no_timestamps_token_id"),
        *("is_multilingual", "lang_to_id", "language", "task"),
    },
    PROMPT: {
        *("model_type", "architectures", "problem_type", "id2label", "num_labels", "attention_kernel", "is_decoder"),
        *("tokenizer_class", "bos_token_id", "eos_token_id", "sliding_window", "use_sliding_window"),
    },
}
"""Honoured fields that other tests set: those of generation are below, of other kinds they say nothing."""


PRETRAINED_SAMPLES: dict[str, Any] = {
    "input_size": [3, 256, 256],
    "crop_pct": 0.5,
    "interpolation": "bilinear",
    "crop_mode": "squash",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "label_names": list("abcd"),
    "num_classes": 9,
}


def test_honoured_fields_of_pretrained_cfg_change_the_pixels_or_labels() -> None:
    base = {"architecture": "tiny_vit_5m_224"}
    plain = meaning(base)
    assert set(PRETRAINED_SAMPLES) == {name for name, field in PRETRAINED_FIELDS.items() if field.treatment == HONOURED}
    for name, value in PRETRAINED_SAMPLES.items():
        stated = {name: value, **({"num_classes": 4} if name == "label_names" else {})}
        assert meaning({**base, "pretrained_cfg": stated}) != plain, name


def meaning(raw: Mapping[str, Any]) -> Any:
    """What a config.json is, without its files."""
    family = family_for(raw)
    config = family.parse_config(raw)
    task = task_of(family, {"architectures": ["BertForSequenceClassification"], **raw}, (), None, SentenceFiles())
    check_attention(raw, task)
    return family.name, config, task, family.parse_labels(raw), activation_of(task, raw), raw.get("attention_kernel")


@pytest.mark.parametrize("family", BASES)
def test_honoured_fields_of_config_json_change_the_model_or_are_refused(family: str) -> None:
    plain = meaning(BASES[family])
    for name, value in CONFIG_SAMPLES[family].items():
        try:
            changed = meaning({**BASES[family], name: value})
        except InputError as error:
            assert name in str(error) or str(value).strip("[]'") in str(error), (name, str(error))
        else:
            assert changed != plain, name


@pytest.mark.parametrize("kind", CONFIG_FIELDS)
def test_no_honoured_field_is_forgotten(kind: str) -> None:
    families = {
        TEXT: ("bert", "distilbert", "mobilebert"),
        IMAGE: ("tinyvit",),
        AUDIO: ("whisper",),
        PROMPT: ("gpt2", "llama"),
    }[kind]
    set_here = {name for family in families for name in CONFIG_SAMPLES[family]} | ELSEWHERE[kind]
    assert {name for name, field in CONFIG_FIELDS[kind].items() if field.treatment == HONOURED} <= set_here
